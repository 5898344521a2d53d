//! The configuration file changes while the sidecar runs: a valid change is applied, a bad one rejected, and
//! either way what is published stays whole.

use std::{fs, net::TcpListener, os::unix::fs::symlink};

use ecr_emulator::{Fault, Service};
use test_support::{
    Harness, Running, clean_command,
    files::{auth, config, mode, overwrite, replace, wait_auth},
    free_port,
    harness::{DEADLINE, HOST, SIBLING, configured_by},
    http, output, wait_for,
};

use crate::BINARY;

/// A configuration with these registries and this output, and any other line.
fn file(harness: &Harness, hosts: &[&str], more: &str) -> String {
    let hosts: Vec<_> = hosts.iter().map(|host| format!("{{host: {host}}}")).collect();
    let path = harness.file();
    format!(
        "registries: [{}]\noutputs: [{{type: docker-config, path: {}}}]\n{more}\n",
        hosts.join(", "),
        path.display()
    )
}

fn running(harness: &Harness) -> Running {
    let running = harness.run_with_file(&file(harness, &[HOST], ""));
    running.wait_ready();
    running
}

fn wait_reloads(running: &Running, times: u64) {
    running.wait_status(&format!("reload {times}"), |status| status["configuration"]["reloads"] == times);
}

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
fn another_grace_at_the_same_address_is_applied() {
    let harness = Harness::new(BINARY);
    harness.emulator.set_fault(Service::Ecr, Fault::Status(500));
    let address = format!("127.0.0.1:{}", free_port());
    let text = |grace: &str| {
        file(&harness, &[HOST], &format!("health: {{listen: '{address}', startupGrace: {grace}}}"))
    };
    let path = harness.put("ecr-sidecar.yaml", &text("1h"));
    let running = harness.run(|command| {
        configured_by(command, &path);
        command.env_remove("ECR_SIDECAR_HEALTH_LISTEN");
    });
    assert_eq!(running.get("/startupz").0, 503);
    harness.put("ecr-sidecar.yaml", &text("0s"));
    wait_reloads(&running, 1);
    running.wait_get("/startupz", 200);
    assert_eq!(running.get("/readyz").0, 503);
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
fn the_health_endpoint_and_the_log_filter_follow_the_file() {
    let harness = Harness::new(BINARY);
    let address = |port| format!("127.0.0.1:{port}");
    let (first, second) = (free_port(), free_port());
    let text = |port, filter| {
        file(
            &harness,
            &[HOST],
            &format!("health: {{listen: '{}'}}\nlog: {{filter: {filter}}}", address(port)),
        )
    };
    let path = harness.put("ecr-sidecar.yaml", &text(first, "info"));
    let sidecar = harness.run(|command| {
        command.env_remove("ECR_SIDECAR_HEALTH_LISTEN");
        configured_by(command, &path);
    });
    let ready = |port: u16| {
        http::try_request(([127, 0, 0, 1], port).into(), "GET", "/readyz")
            .is_ok_and(|answer| answer.code == 200)
    };
    wait_for("readiness at the first address", DEADLINE, || ready(first).then_some(()));
    harness.put("ecr-sidecar.yaml", &text(second, "error"));
    wait_for("readiness at the second address", DEADLINE, || ready(second).then_some(()));
    wait_for("the first address to close", DEADLINE, || (!ready(first)).then_some(()));
    // The probes find it by the same file.
    let mut probe = clean_command(BINARY, &harness.at("."));
    let answer = output(probe.args(["health", "ready"]).env("ECR_SIDECAR_CONFIG", &path), DEADLINE);
    assert!(answer.status.success(), "{answer:?}");
    let lines = sidecar.log_lines().len();
    harness.put("ecr-sidecar.yaml", &text(second, "error").replace(HOST, SIBLING));
    wait_auth(&harness.file(), SIBLING);
    assert_eq!(sidecar.log_lines().len(), lines, "nothing below ERROR is logged any more");
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

#[test]
fn a_reload_that_changes_only_settings_asks_aws_for_nothing() {
    let harness = Harness::new(BINARY);
    let other = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    let text = |more: &str| file(&harness, &[HOST, other], more);
    harness.put("ecr-sidecar.yaml", &text(""));
    let running = harness.run_with_file(&text("refresh: {at: 50%, jitter: 0%}"));
    running.wait_ready();
    let settings = [
        "refresh: {at: 40%, jitter: 0%}",
        "refresh: {at: 41%, jitter: 1%}",
        "refresh: {at: 40%, jitter: 0%}\nlog: {filter: debug}",
        "refresh: {at: 40%, jitter: 0%}\nhealth: {startupGrace: 1h}",
        "identities: {unused: {source: environment}}",
        "identities: {default: {source: auto}}\nrefresh: {at: 60%}",
    ];
    for (reload, more) in (1..).zip(settings.iter().cycle().take(24)) {
        replace(&harness.at("ecr-sidecar.yaml"), &text(more));
        wait_reloads(&running, reload);
    }
    running.wait_ready();
    assert_eq!(harness.emulator.count(Service::Ecr), 2, "one call a token");
}

#[test]
fn another_refresh_policy_is_followed_by_the_token_in_hand() {
    let harness = Harness::new(BINARY);
    let text = |at: &str| file(&harness, &[HOST], &format!("refresh: {{at: {at}, jitter: 0%}}"));
    let running = harness.run_with_file(&text("50%"));
    running.wait_ready();
    let hours_to_next = |status: &serde_json::Value| {
        let time = |name: &str| status["tokens"][0][name].as_str()?.parse::<jiff::Timestamp>().ok();
        Some(
            (time("next_attempt")?.duration_since(time("obtained_at")?).as_secs_f64() / 360.0).round() / 10.0,
        )
    };
    for (at, hours) in [("25%", 3.0), ("75%", 9.0), ("50%", 6.0)] {
        replace(&harness.at("ecr-sidecar.yaml"), &text(at));
        running.wait_status(at, |status| hours_to_next(status) == Some(hours));
    }
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
    // What was due under the new policy is due at once.
    harness.emulator.set_token_lifetime(std::time::Duration::from_secs(60));
    running.signal(test_support::Signal::HUP);
    running.wait_status("a token of a minute", |status| status["tokens"][0]["refreshed"] == 2);
    replace(&harness.at("ecr-sidecar.yaml"), &text("20%"));
    running.wait_status("the next one after 12 s", |status| status["tokens"][0]["refreshed"] == 3);
}

#[test]
fn a_reload_keeps_the_back_off_of_a_failing_token() {
    let harness = Harness::new(BINARY);
    harness.emulator.set_fault(Service::Ecr, Fault::AccessDenied); // polled slowly
    let text = |at: usize| file(&harness, &[HOST], &format!("refresh: {{at: {at}%, jitter: 0%}}"));
    let running = harness.run_with_file(&text(50));
    let failed = running.wait_status("a failure", |status| status["tokens"][0]["failed"] == 1);
    for reload in 1..=10 {
        replace(&harness.at("ecr-sidecar.yaml"), &text(20 + reload));
        wait_reloads(&running, reload as u64);
    }
    let status = running.status();
    for field in ["failed", "next_attempt", "failures_in_a_row"] {
        assert_eq!(status["tokens"][0][field], failed["tokens"][0][field], "{field}");
    }
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
}

#[test]
fn another_setting_of_an_identity_replaces_its_own_tokens_only() {
    let harness = Harness::new(BINARY);
    let other = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    let text = |region: &str| {
        format!(
            "identities:\n  a: {{source: environment}}\n  b: {{source: environment, stsRegion: {region}}}\n\
             registries: [{{host: {HOST}, identity: a}}, {{host: {other}, identity: b}}]\n\
             outputs: [{{type: docker-config, path: {}}}]\n",
            harness.file().display()
        )
    };
    let running = harness.run_with_file(&text("eu-west-1"));
    running.wait_ready();
    let before = auth(&harness.file(), other);
    replace(&harness.at("ecr-sidecar.yaml"), &text("eu-central-1"));
    wait_for("another token", DEADLINE, || (auth(&harness.file(), other) != before).then_some(()));
    let regions: Vec<_> = harness.emulator.calls().into_iter().filter_map(|call| call.region).collect();
    let of = |region: &str| regions.iter().filter(|it| *it == region).count();
    assert_eq!((of("eu-west-1"), of("us-east-1")), (1, 2));
}
