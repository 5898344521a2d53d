//! Registries and outputs that are added, changed, moved and taken out, however the file is replaced.

use std::{fs, os::unix::fs::symlink};

use ecr_emulator::{Role, Service, Settings, Trust};
use test_support::{
    Harness,
    files::{auth, config, mode, overwrite, replace, wait_auth},
    harness::{DEADLINE, HOST, SIBLING, configured_by},
    wait_for,
};

use super::{file, running, wait_reloads};
use crate::BINARY;

#[test]
fn a_registry_that_is_added_has_the_token_of_its_key_at_once() {
    let harness = Harness::new(BINARY);
    let running = running(&harness);
    harness.put("ecr-sidecar.yaml", &file(&harness, &[HOST, SIBLING], ""));
    let added = wait_auth(&harness.file(), SIBLING);
    assert_eq!(Some(added), auth(&harness.file(), HOST));
    running.wait_ready();
    assert_eq!(harness.emulator.count(Service::Ecr), 1, "one call serves both");
}

#[test]
fn a_registry_that_is_taken_out_leaves_the_file_and_unmanaged_entries_stay() {
    let harness = Harness::new(BINARY);
    harness.put("out/config.json", r#"{"auths":{"ghcr.io":{"auth":"dTpw"}},"detachKeys":"ctrl-x"}"#);
    let running = harness.run_with_file(&file(&harness, &[HOST, SIBLING], ""));
    running.wait_ready();
    harness.put("ecr-sidecar.yaml", &file(&harness, &[HOST], ""));
    let left = wait_for("the entry to go", DEADLINE, || {
        config(&harness.file()).filter(|config| config["auths"][SIBLING].is_null())
    });
    assert_eq!(left["auths"]["ghcr.io"]["auth"], "dTpw");
    assert_eq!(left["detachKeys"], "ctrl-x");
    assert!(left["auths"][HOST]["auth"].is_string());
}

#[test]
fn however_the_file_is_replaced_it_is_noticed() {
    let harness = Harness::new(BINARY);
    // As a ConfigMap is projected: ecr-sidecar.yaml -> ..data/ecr-sidecar.yaml, ..data -> ..1
    let folder = harness.at("mounted");
    let version = |name: &str, text: &str| {
        fs::create_dir_all(folder.join(name)).unwrap();
        replace(&folder.join(name).join("ecr-sidecar.yaml"), text);
    };
    version("..1", &file(&harness, &[HOST], ""));
    symlink("..1", folder.join("..data")).unwrap();
    symlink("..data/ecr-sidecar.yaml", folder.join("ecr-sidecar.yaml")).unwrap();
    let path = folder.join("ecr-sidecar.yaml");
    let running = harness.run(|command| configured_by(command, &path));
    running.wait_ready();

    version("..2", &file(&harness, &[HOST, SIBLING], ""));
    symlink("..2", folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    wait_reloads(&running, 1);
    overwrite(&folder.join("..2/ecr-sidecar.yaml"), &file(&harness, &[HOST], "log: {filter: warn}"));
    wait_reloads(&running, 2);
    replace(&path, &file(&harness, &[SIBLING], "")); // the symlink becomes a file
    wait_reloads(&running, 3);
    wait_for("the new registry alone", DEADLINE, || {
        let config = config(&harness.file())?;
        (config["auths"][HOST].is_null() && config["auths"][SIBLING]["auth"].is_string()).then_some(())
    });
}

#[test]
fn an_output_that_is_moved_is_written_at_its_new_place_and_stays_at_the_old() {
    let harness = Harness::new(BINARY);
    let running = running(&harness);
    let before = fs::read(harness.file()).unwrap();
    let elsewhere = harness.at("elsewhere/config.json");
    harness.put(
        "ecr-sidecar.yaml",
        &file(&harness, &[HOST], "")
            .replace(&harness.file().display().to_string(), &elsewhere.display().to_string()),
    );
    wait_auth(&elsewhere, HOST);
    running.wait_ready();
    assert_eq!(fs::read(harness.file()).unwrap(), before);
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
}

#[test]
fn a_registry_with_a_key_of_its_own_costs_one_call() {
    let harness = Harness::new(BINARY);
    let other = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    let running = running(&harness);
    let before = auth(&harness.file(), HOST);
    harness.put("ecr-sidecar.yaml", &file(&harness, &[HOST, other], ""));
    wait_auth(&harness.file(), other);
    running.wait_ready();
    assert_eq!(auth(&harness.file(), HOST), before);
    let regions: Vec<_> = harness.emulator.calls().into_iter().filter_map(|call| call.region).collect();
    assert_eq!(regions, ["eu-west-1", "us-east-1"]);
}

/// Without registries, those of whoever asks.
#[test]
fn the_callers_own_registry_follows_the_identity_into_another_account() {
    const ROLE: &str = "arn:aws:iam::999999999999:role/ecr-pull";
    const THEIRS: &str = "999999999999.dkr.ecr.eu-west-1.amazonaws.com";
    let role = Role::new(ROLE, [Trust::Principal("arn:aws:iam::123456789012:user/emulated".into())]);
    let harness = Harness::with(BINARY, Settings { roles: vec![role], ..Settings::default() });
    let text = |roles: &str, registries: &str| {
        format!(
            "identities: {{default: {{source: environment, assumeRoles: [{roles}]}}}}\n\
             registries: [{registries}]\noutputs: [{{type: docker-config, path: {}}}]\n",
            harness.file().display()
        )
    };
    let running = harness.run_with_file(&text("", ""));
    running.wait_ready();
    let alone = |host: &str| {
        wait_for(&format!("{host} alone"), DEADLINE, || {
            let config = config(&harness.file())?;
            config["auths"].as_object()?.keys().eq([host]).then_some(())
        });
        running.wait_ready();
        harness.pull(host)
    };
    alone(HOST);
    harness.put("ecr-sidecar.yaml", &text(&format!("{{roleArn: '{ROLE}'}}"), ""));
    assert!(alone(THEIRS).principal.contains("999999999999"));
    // Registries that are listed, and no longer.
    harness.put("ecr-sidecar.yaml", &text("", &format!("{{host: {SIBLING}}}")));
    alone(SIBLING);
    harness.put("ecr-sidecar.yaml", &text("", ""));
    alone(HOST);
}

#[test]
fn another_mode_and_another_output_are_written_from_the_token_that_is_there() {
    let harness = Harness::new(BINARY);
    let running = running(&harness);
    let credential = wait_auth(&harness.file(), HOST);
    let second = harness.at("second/config.json");
    let text = file(&harness, &[HOST], "").replace(
        "}]\n\n",
        &format!(", mode: '0600'}}, {{type: docker-config, path: {}}}]\n", second.display()),
    );
    harness.put("ecr-sidecar.yaml", &text);
    assert_eq!(wait_auth(&second, HOST), credential);
    wait_for("the mode", DEADLINE, || (mode(&harness.file()) == 0o600).then_some(()));
    running.wait_status("two outputs", |status| status["outputs"].as_array().unwrap().len() == 2);
    running.wait_ready();
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
}
