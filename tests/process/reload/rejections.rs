//! Changes that are rejected: the running configuration stays, and so does health.

use std::{fs, net::TcpListener};

use ecr_emulator::Service;
use test_support::{
    Harness, clean_command,
    files::{replace, wait_auth},
    free_port,
    harness::{DEADLINE, HOST, SIBLING, configured_by},
    output,
};

use super::{file, running, wait_reloads};
use crate::BINARY;

#[test]
fn a_health_address_that_is_taken_is_rejected_and_the_one_before_answers() {
    let harness = Harness::new(BINARY);
    let address = format!("127.0.0.1:{}", free_port());
    let text = |listen: &str| file(&harness, &[HOST], &format!("health: {{listen: '{listen}'}}"));
    let path = harness.put("ecr-sidecar.yaml", &text(&address));
    let running = harness.run(|command| {
        configured_by(command, &path);
        command.env_remove("ECR_SIDECAR_HEALTH_LISTEN");
    });
    running.wait_ready();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    harness.put("ecr-sidecar.yaml", &text(&taken.local_addr().unwrap().to_string()));
    let status = running.wait_status("the rejection", |status| status["configuration"]["rejected"] == 1);
    let error = status["configuration"]["last_error"].as_str().unwrap();
    assert!(error.contains("in use") && error.contains("health.listen"), "{error}");
    assert_eq!(running.get("/readyz").0, 200);
}

#[test]
fn a_file_that_goes_is_a_rejection_and_going_back_fixes_it() {
    let harness = Harness::new(BINARY);
    let running = running(&harness);
    let path = harness.at("ecr-sidecar.yaml");
    fs::remove_file(&path).unwrap();
    let status = running.wait_status("the rejection", |status| status["configuration"]["rejected"] == 1);
    assert!(status["configuration"]["last_error"].as_str().unwrap().contains("ecr-sidecar.yaml"), "{status}");

    // The running configuration does its work as before.
    let before = wait_auth(&harness.file(), HOST);
    fs::remove_file(harness.file()).unwrap();
    assert_eq!(wait_auth(&harness.file(), HOST), before);

    replace(&path, &file(&harness, &[HOST], ""));
    wait_reloads(&running, 1);
    assert!(running.status()["configuration"]["last_error"].is_null());
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
}

#[test]
fn a_bad_file_is_reported_and_counted_and_changes_nothing() {
    let harness = Harness::new(BINARY);
    let running = running(&harness);
    let before = fs::read(harness.file()).unwrap();
    let bad = [
        ("registries: [", "YAML"),
        ("registries: [{hots: x}]", "registries[0].hots"),
        ("registries: [{host: 'https://x'}]", "registries[0].host"),
    ];
    for (rejected, (text, named)) in (1..).zip(bad) {
        harness.put("ecr-sidecar.yaml", text);
        let status =
            running.wait_status("the rejection", |status| status["configuration"]["rejected"] == rejected);
        assert!(status["configuration"]["last_error"].as_str().unwrap().contains(named), "{status}");
        assert_eq!(running.get("/readyz").0, 200);
    }
    assert_eq!(fs::read(harness.file()).unwrap(), before);
    assert!(running.wait_log("keeping the current configuration", DEADLINE).contains("ecr-sidecar.yaml"));

    // A probe that failed now would have a working sidecar killed.
    let mut probe = clean_command(BINARY, &harness.at("."));
    probe.args(["health", "live"]).env("ECR_SIDECAR_CONFIG", harness.at("ecr-sidecar.yaml"));
    probe.env("ECR_SIDECAR_HEALTH_LISTEN", running.health().to_string());
    assert!(output(&mut probe, DEADLINE).status.success());

    harness.put("ecr-sidecar.yaml", &file(&harness, &[HOST, SIBLING], ""));
    wait_auth(&harness.file(), SIBLING);
    let status = running.wait_status("the fixed file", |status| status["configuration"]["reloads"] == 1);
    assert!(status["configuration"]["last_error"].is_null(), "{status}");
}

#[test]
fn an_output_that_can_never_work_is_rejected_and_the_running_one_stays() {
    let harness = Harness::new(BINARY);
    let running = running(&harness);
    fs::create_dir_all(harness.at("a-directory/full")).unwrap(); // an empty one would be replaced
    let text = file(&harness, &[HOST], "")
        .replace(&harness.file().display().to_string(), &harness.at("a-directory").display().to_string());
    harness.put("ecr-sidecar.yaml", &text);
    let status = running.wait_status("the rejection", |status| status["configuration"]["rejected"] == 1);
    assert!(status["configuration"]["last_error"].as_str().unwrap().contains("directory"), "{status}");
    assert_eq!(status["outputs"][0]["target"], harness.file().display().to_string());
    running.wait_ready();
}

/// Its reconciler reports that and retries; the rest of the configuration is not held up by it.
#[test]
fn an_output_that_stays_as_it_is_has_no_reload_rejected() {
    let harness = Harness::new(BINARY);
    let running = running(&harness);
    fs::remove_file(harness.file()).unwrap();
    while fs::create_dir_all(harness.file().join("x")).is_err() {
        let _ = fs::remove_file(harness.file()); // the sidecar has been faster
    }
    running.wait_status("the directory", |status| {
        status["outputs"][0]["last_error"]["diagnosis"] == "not-a-file"
    });
    let second = harness.at("second/config.json");
    let text = file(&harness, &[HOST], "")
        .replace("}]\n\n", &format!("}}, {{type: docker-config, path: {}}}]\n", second.display()));
    harness.put("ecr-sidecar.yaml", &text);
    wait_auth(&second, HOST);
    wait_reloads(&running, 1);
    assert_eq!(running.status()["configuration"]["rejected"], 0);
    fs::remove_dir(harness.file().join("x")).unwrap(); // what is empty is replaced
    running.wait_ready();
}

/// A liveness probe that failed with the file would have a working sidecar killed.
#[test]
fn the_probes_of_a_sidecar_whose_file_is_rejected_go_on() {
    let harness = Harness::new(BINARY);
    let port = free_port();
    let health = format!("health: {{listen: '127.0.0.1:{port}'}}\n");
    let good = file(&harness, &[HOST], &health);
    let path = harness.put("ecr-sidecar.yaml", &good);
    let sidecar = harness.run(|command| {
        configured_by(command, &path);
        command.env_remove("ECR_SIDECAR_HEALTH_LISTEN");
    });
    sidecar.wait_ready();
    for broken in [good.replace("registries", "registrys"), format!("{good}a: [")] {
        replace(&path, &broken);
        sidecar.wait_status("the rejection", |status| !status["configuration"]["last_error"].is_null());
        for question in ["live", "startup", "ready"] {
            let mut probe = clean_command(BINARY, &harness.at("."));
            let answer = output(probe.args(["health", question]).env("ECR_SIDECAR_CONFIG", &path), DEADLINE);
            assert!(answer.status.success(), "{question}: {answer:?}");
        }
    }
}
