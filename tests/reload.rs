//! The configuration file changes while the sidecar runs: a valid change is applied, a bad one refused, and
//! either way what is published stays whole.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]

mod rig;

use std::{fs, os::unix::fs::symlink};

use ecr_emulator::Service;
use rig::{DEADLINE, HOST, Rig, Running, SIBLING, auth, config, http, overwrite, replace, wait_auth};
use test_support::{Sidecar, clean_command, free_port, output, wait_for};

/// A configuration with these registries and this output, and any other line.
fn file(rig: &Rig, hosts: &[&str], more: &str) -> String {
    let hosts: Vec<_> = hosts.iter().map(|host| format!("{{host: {host}}}")).collect();
    let path = rig.file();
    format!(
        "registries: [{}]\noutputs: [{{type: docker-config, path: {}}}]\n{more}\n",
        hosts.join(", "),
        path.display()
    )
}

fn running(rig: &Rig) -> Running {
    let running = rig.run_with_file(&file(rig, &[HOST], ""));
    running.wait_ready();
    running
}

fn wait_reloads(running: &Running, times: u64) {
    running.wait_status(&format!("reload {times}"), |status| status["configuration"]["reloads"] == times);
}

#[test]
fn a_registry_that_is_added_has_the_token_of_its_key_at_once() {
    let rig = Rig::new();
    let running = running(&rig);
    rig.put("ecr-sidecar.yaml", &file(&rig, &[HOST, SIBLING], ""));
    let added = wait_auth(&rig.file(), SIBLING);
    assert_eq!(Some(added), auth(&rig.file(), HOST));
    running.wait_ready();
    assert_eq!(rig.emulator.count(Service::Ecr), 1, "one call serves both");
}

#[test]
fn a_registry_that_is_taken_out_leaves_the_file_and_foreign_entries_stay() {
    let rig = Rig::new();
    rig.put("out/config.json", r#"{"auths":{"ghcr.io":{"auth":"dTpw"}},"detachKeys":"ctrl-x"}"#);
    let running = rig.run_with_file(&file(&rig, &[HOST, SIBLING], ""));
    running.wait_ready();
    rig.put("ecr-sidecar.yaml", &file(&rig, &[HOST], ""));
    let left = wait_for("the entry to go", DEADLINE, || {
        config(&rig.file()).filter(|config| config["auths"][SIBLING].is_null())
    });
    assert_eq!(left["auths"]["ghcr.io"]["auth"], "dTpw");
    assert_eq!(left["detachKeys"], "ctrl-x");
    assert!(left["auths"][HOST]["auth"].is_string());
}

#[test]
fn however_the_file_is_replaced_it_is_noticed() {
    let rig = Rig::new();
    // As a ConfigMap is projected: ecr-sidecar.yaml -> ..data/ecr-sidecar.yaml, ..data -> ..1
    let folder = rig.at("mounted");
    let version = |name: &str, text: &str| {
        fs::create_dir_all(folder.join(name)).unwrap();
        replace(&folder.join(name).join("ecr-sidecar.yaml"), text);
    };
    version("..1", &file(&rig, &[HOST], ""));
    symlink("..1", folder.join("..data")).unwrap();
    symlink("..data/ecr-sidecar.yaml", folder.join("ecr-sidecar.yaml")).unwrap();
    let path = folder.join("ecr-sidecar.yaml");
    let running = rig.run(|command| rig::configured_by(command, &path));
    running.wait_ready();

    version("..2", &file(&rig, &[HOST, SIBLING], ""));
    symlink("..2", folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    wait_reloads(&running, 1);
    overwrite(&folder.join("..2/ecr-sidecar.yaml"), &file(&rig, &[HOST], "log: {filter: warn}"));
    wait_reloads(&running, 2);
    replace(&path, &file(&rig, &[SIBLING], "")); // the symlink becomes a file
    wait_reloads(&running, 3);
    wait_for("the new registry alone", DEADLINE, || {
        let config = config(&rig.file())?;
        (config["auths"][HOST].is_null() && config["auths"][SIBLING]["auth"].is_string()).then_some(())
    });
}

#[test]
fn an_output_that_is_moved_is_written_at_its_new_place_and_stays_at_the_old() {
    let rig = Rig::new();
    let running = running(&rig);
    let before = fs::read(rig.file()).unwrap();
    let elsewhere = rig.at("elsewhere/config.json");
    rig.put(
        "ecr-sidecar.yaml",
        &file(&rig, &[HOST], "").replace(&rig.file().display().to_string(), &elsewhere.display().to_string()),
    );
    wait_auth(&elsewhere, HOST);
    running.wait_ready();
    assert_eq!(fs::read(rig.file()).unwrap(), before);
    assert_eq!(rig.emulator.count(Service::Ecr), 1);
}

#[test]
fn the_health_endpoint_and_the_log_filter_follow_the_file() {
    let rig = Rig::new();
    let address = |port| format!("127.0.0.1:{port}");
    let (first, second) = (free_port(), free_port());
    let text = |port, filter| {
        file(&rig, &[HOST], &format!("health: {{listen: '{}'}}\nlog: {{filter: {filter}}}", address(port)))
    };
    let path = rig.put("ecr-sidecar.yaml", &text(first, "info"));
    let sidecar = Sidecar::spawn(rig::BINARY, |command| {
        command.arg("run").envs(rig.environment()).env_remove("ECR_SIDECAR_HEALTH_LISTEN");
        rig::configured_by(command, &path);
    });
    let ready = |port: u16| {
        http::try_request(([127, 0, 0, 1], port).into(), "GET", "/readyz")
            .is_ok_and(|answer| answer.code == 200)
    };
    wait_for("readiness at the first address", DEADLINE, || ready(first).then_some(()));
    rig.put("ecr-sidecar.yaml", &text(second, "error"));
    wait_for("readiness at the second address", DEADLINE, || ready(second).then_some(()));
    wait_for("the first address to close", DEADLINE, || (!ready(first)).then_some(()));
    // The probes find it by the same file.
    let mut probe = clean_command(rig::BINARY, &rig.at("."));
    let answer = output(probe.args(["health", "ready"]).env("ECR_SIDECAR_CONFIG", &path), DEADLINE);
    assert!(answer.status.success(), "{answer:?}");
    let lines = sidecar.log_lines().len();
    rig.put("ecr-sidecar.yaml", &text(second, "error").replace(HOST, SIBLING));
    wait_auth(&rig.file(), SIBLING);
    assert_eq!(sidecar.log_lines().len(), lines, "nothing below ERROR is logged any more");
}

#[test]
fn a_bad_file_is_told_and_counted_and_changes_nothing() {
    let rig = Rig::new();
    let running = running(&rig);
    let before = fs::read(rig.file()).unwrap();
    let bad = [
        ("registries: [", "YAML"),
        ("registries: [{hots: x}]", "registries[0].hots"),
        ("registries: [{host: 'https://x'}]", "registries[0].host"),
    ];
    for (refused, (text, named)) in (1..).zip(bad) {
        rig.put("ecr-sidecar.yaml", text);
        let status =
            running.wait_status("the refusal", |status| status["configuration"]["refused"] == refused);
        assert!(status["configuration"]["last_error"].as_str().unwrap().contains(named), "{status}");
        assert_eq!(running.get("/readyz").0, 200);
    }
    assert_eq!(fs::read(rig.file()).unwrap(), before);
    assert!(running.wait_log("the running one stays", DEADLINE).contains("ecr-sidecar.yaml"));

    // A probe that failed now would have a working sidecar killed.
    let mut probe = clean_command(rig::BINARY, &rig.at("."));
    probe.args(["health", "live"]).env("ECR_SIDECAR_CONFIG", rig.at("ecr-sidecar.yaml"));
    probe.env("ECR_SIDECAR_HEALTH_LISTEN", running.health().to_string());
    assert!(output(&mut probe, DEADLINE).status.success());

    rig.put("ecr-sidecar.yaml", &file(&rig, &[HOST, SIBLING], ""));
    wait_auth(&rig.file(), SIBLING);
    let status = running.wait_status("the mended file", |status| status["configuration"]["reloads"] == 1);
    assert!(status["configuration"]["last_error"].is_null(), "{status}");
}

#[test]
fn an_output_that_can_never_work_is_refused_and_the_running_one_stays() {
    let rig = Rig::new();
    let running = running(&rig);
    fs::create_dir_all(rig.at("a-directory")).unwrap();
    let text = file(&rig, &[HOST], "")
        .replace(&rig.file().display().to_string(), &rig.at("a-directory").display().to_string());
    rig.put("ecr-sidecar.yaml", &text);
    let status = running.wait_status("the refusal", |status| status["configuration"]["refused"] == 1);
    assert!(status["configuration"]["last_error"].as_str().unwrap().contains("directory"), "{status}");
    assert_eq!(status["outputs"][0]["target"], rig.file().display().to_string());
    running.wait_ready();
}
