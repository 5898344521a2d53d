//! The configuration file is edited while the sidecar runs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]

mod rig;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use ecr_emulator::{Fault, Service};
use rig::{DEADLINE, HOST, Rig, Running, SIBLING, auth, config, http, mode, overwrite, replace, wait_auth};
use serde_json::json;
use test_support::{Signal, clean_command, free_port, output, wait_for};

/// A configuration of these registries and of one output at `path`.
fn yaml(hosts: &[&str], path: &Path) -> String {
    let hosts: String = hosts.iter().map(|host| format!("- host: {host}\n")).collect();
    format!("registries:\n{hosts}outputs:\n- type: docker-config\n  path: {}\n", path.display())
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, DEADLINE, || holds().then_some(()));
}

fn reloads(sidecar: &Running) -> u64 {
    sidecar.status()["configuration"]["reloads"].as_u64().unwrap()
}

#[test]
fn an_edit_in_place_by_rename_and_by_a_data_swap_is_applied_without_asking_aws_again() {
    let rig = Rig::new();
    let host = |number: usize| format!("{number:012}.dkr.ecr.eu-west-1.amazonaws.com");
    let text = |registries: usize| {
        let hosts: Vec<_> = (0..registries).map(host).collect();
        yaml(&hosts.iter().map(String::as_str).collect::<Vec<_>>(), &rig.file())
    };
    // As kubelet lays out a ConfigMap.
    let volume = rig.at("volume");
    let swap_in = |version: &str, text: &str| {
        replace(&volume.join(version).join("ecr-sidecar.yaml"), text);
        let next = volume.join("..data_tmp");
        symlink(version, &next).unwrap();
        fs::rename(next, volume.join("..data")).unwrap();
    };
    swap_in("..1", &text(1));
    symlink("..data/ecr-sidecar.yaml", volume.join("ecr-sidecar.yaml")).unwrap();
    let in_volume = volume.join("ecr-sidecar.yaml");
    let plain = rig.put("plain/ecr-sidecar.yaml", &text(1));

    type Edit<'a> = (&'a str, &'a PathBuf, &'a dyn Fn(usize));
    let edits: [Edit<'_>; 3] = [
        ("in place", &plain, &|registries| overwrite(&plain, &text(registries))),
        ("by rename", &plain, &|registries| replace(&plain, &text(registries))),
        ("by a ..data swap", &in_volume, &|registries| {
            swap_in(&format!("..{registries}"), &text(registries));
            fs::remove_dir_all(volume.join(format!("..{}", registries - 1))).unwrap();
        }),
    ];
    for (how, path, edit) in edits {
        overwrite(&plain, &text(1));
        let sidecar = rig.run(|command| rig::configured_by(command, path));
        let credential = wait_auth(&rig.file(), &host(0));
        let calls = rig.emulator.count(Service::Ecr);
        for registries in 2..=4 {
            edit(registries);
            wait_until(&format!("registry {registries}, added {how}"), || {
                auth(&rig.file(), &host(registries - 1)).as_ref() == Some(&credential)
            });
        }
        sidecar.wait_status("three reloads", |status| status["configuration"]["reloads"] == 3);
        assert_eq!(rig.emulator.count(Service::Ecr), calls, "the token was there already");
        assert_eq!(sidecar.get("/readyz").0, 200);
        fs::remove_file(rig.file()).unwrap();
    }
}

#[test]
fn a_registry_with_a_key_of_its_own_costs_one_call() {
    let rig = Rig::new();
    let other = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    let sidecar = rig.run_with_file(&yaml(&[HOST], &rig.file()));
    let credential = wait_auth(&rig.file(), HOST);
    rig.put("ecr-sidecar.yaml", &yaml(&[HOST, other], &rig.file()));
    wait_auth(&rig.file(), other);
    sidecar.wait_ready();
    assert_eq!(auth(&rig.file(), HOST), Some(credential));
    let regions: Vec<_> = rig.emulator.calls().into_iter().filter_map(|call| call.region).collect();
    assert_eq!(regions, ["eu-west-1", "us-east-1"]);
}

#[test]
fn a_registry_that_is_removed_leaves_the_file_and_foreign_entries_stay() {
    let rig = Rig::new();
    let foreign = json!({"auth": "Zm9yZWlnbjpzZWNyZXQ="});
    replace(&rig.file(), &json!({"auths": {"ghcr.io": foreign}, "psFormat": "x"}).to_string());
    let sidecar = rig.run_with_file(&yaml(&[HOST, SIBLING], &rig.file()));
    sidecar.wait_ready();
    let credential = wait_auth(&rig.file(), HOST);
    rig.put("ecr-sidecar.yaml", &yaml(&[HOST], &rig.file()));
    wait_until("the entry to go", || auth(&rig.file(), SIBLING).is_none());
    let expected = json!({"auths": {"ghcr.io": foreign, HOST: {"auth": credential}}, "psFormat": "x"});
    assert_eq!(config(&rig.file()), Some(expected));
    assert_eq!(rig.emulator.count(Service::Ecr), 1);
    assert!(!sidecar.get("/readyz?verbose").1.contains(SIBLING));
}

#[test]
fn changed_outputs_are_written_from_the_token_that_is_there() {
    let rig = Rig::new();
    let sidecar = rig.run_with_file(&yaml(&[HOST], &rig.file()));
    let credential = wait_auth(&rig.file(), HOST);

    let with_mode = yaml(&[HOST], &rig.file()) + "  mode: \"0600\"\n";
    rig.put("ecr-sidecar.yaml", &with_mode);
    wait_until("the mode", || mode(&rig.file()) == 0o600);

    let second = rig.at("second/config.json");
    let with_second = format!("{with_mode}- type: docker-config\n  path: {}\n", second.display());
    rig.put("ecr-sidecar.yaml", &with_second);
    assert_eq!(wait_auth(&second, HOST), credential);

    let third = rig.at("third/config.json");
    rig.put("ecr-sidecar.yaml", &yaml(&[HOST], &third));
    assert_eq!(wait_auth(&third, HOST), credential);
    let status = sidecar.wait_status("one output", |status| status["outputs"].as_array().unwrap().len() == 1);
    assert_eq!(status["outputs"][0]["target"], third.display().to_string());
    assert_eq!(auth(&second, HOST), Some(credential), "who reads the old one still finds the last good one");
    assert_eq!(rig.emulator.count(Service::Ecr), 1);
    sidecar.wait_ready();
}

/// Takes the health endpoint from the file too.
fn run_with_health(rig: &Rig, text: &str) -> Running {
    let path = rig.put("ecr-sidecar.yaml", text);
    rig.run(|command| {
        rig::configured_by(command, &path);
        command.env_remove("ECR_SIDECAR_HEALTH_LISTEN");
    })
}

#[test]
fn the_health_endpoint_moves_and_stays_where_it_is_when_it_cannot() {
    let rig = Rig::new();
    let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
    let text = |listen: SocketAddr| yaml(&[HOST], &rig.file()) + &format!("health: {{listen: '{listen}'}}\n");
    let (first, second) = (address(), address());
    let _sidecar = run_with_health(&rig, &text(first));
    let ready = |address| http::try_request(address, "GET", "/readyz").is_ok_and(|answer| answer.code == 200);
    wait_until("readiness at the first address", || ready(first));

    rig.put("ecr-sidecar.yaml", &text(second));
    wait_until("readiness at the second address", || ready(second));
    wait_until("silence at the first address", || http::try_request(first, "GET", "/readyz").is_err());

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    rig.put("ecr-sidecar.yaml", &text(taken.local_addr().unwrap()));
    wait_until("the refusal", || {
        let status: serde_json::Value = serde_json::from_str(&http::get(second, "/status").1).unwrap();
        status["configuration"]["last_error"].as_str().is_some_and(|error| error.contains("health.listen"))
    });
    assert!(ready(second));
    drop(taken);
}

#[test]
fn another_grace_at_the_same_address_is_applied() {
    let rig = Rig::new();
    rig.emulator.set_fault(Service::Ecr, Fault::Status(500));
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let text = |grace: &str| {
        yaml(&[HOST], &rig.file()) + &format!("health: {{listen: '{listen}', startupGrace: {grace}}}\n")
    };
    let sidecar = run_with_health(&rig, &text("1h"));
    assert_eq!(sidecar.get("/startupz").0, 503);
    rig.put("ecr-sidecar.yaml", &text("0s"));
    wait_until("the new grace", || {
        http::try_request(listen, "GET", "/startupz").is_ok_and(|answer| answer.code == 200)
    });
    let status = sidecar.wait_status("the reload", |status| status["configuration"]["reloads"] == 1);
    assert_eq!(status["configuration"]["last_error"], json!(null));
    assert_eq!(sidecar.get("/readyz").0, 503);
}

#[test]
fn another_log_filter_is_applied() {
    let rig = Rig::new();
    let text = |filter: &str| yaml(&[HOST], &rig.file()) + &format!("log: {{filter: {filter}}}\n");
    let sidecar = rig.run_with_file(&text("info"));
    sidecar.wait_ready();

    rig.put("ecr-sidecar.yaml", &text("error"));
    sidecar.wait_status("the reload", |status| status["configuration"]["reloads"] == 1);
    let before = wait_auth(&rig.file(), HOST);
    sidecar.signal(Signal::HUP);
    wait_until("a refresh", || auth(&rig.file(), HOST).is_some_and(|auth| auth != before));
    sidecar.wait_status("the refresh", |status| status["tokens"][0]["refreshed"] == 2);

    rig.put("ecr-sidecar.yaml", &text("info"));
    sidecar.wait_log("configuration reloaded", DEADLINE);
    assert_eq!(sidecar.count_log("SIGHUP"), 0);
    assert_eq!(sidecar.count_log("token refreshed"), 1, "the one before the filter said error");
}

#[test]
fn an_invalid_file_is_told_and_counted_and_changes_nothing_until_it_is_mended() {
    let rig = Rig::new();
    let good = yaml(&[HOST], &rig.file());
    let sidecar = rig.run_with_file(&good);
    sidecar.wait_ready();
    let file = rig.at("ecr-sidecar.yaml");
    let a_directory = rig.at("out");
    let broken: [(&str, String); 6] = [
        ("registrys", good.replace("registries", "registrys")),
        ("registries[1].host", good.replace("outputs", &format!("- host: https://{HOST}\noutputs"))),
        ("refresh", format!("{good}refresh: {{at: 99%}}\n")),
        ("ecr-sidecar.yaml", "a: [".to_owned()),
        ("is a directory", yaml(&[HOST], &a_directory)),
        ("identities", format!("{good}identities: 7\n")),
    ];
    for (refused, (told, text)) in broken.iter().enumerate() {
        replace(&file, text);
        let status = sidecar.wait_status(told, |status| status["configuration"]["refused"] == refused + 1);
        let error = status["configuration"]["last_error"].as_str().unwrap();
        assert!(error.contains(told), "no {told:?} in {error}");
        let line = sidecar.log_lines().into_iter().rfind(|line| line.contains("refused")).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((line["level"].as_str(), line["error"].as_str()), (Some("ERROR"), Some(error)));
        assert_eq!(sidecar.get("/readyz").0, 200);
    }
    fs::remove_file(&file).unwrap();
    sidecar.wait_status("the refusal of no file", |status| {
        status["configuration"]["refused"] == broken.len() + 1
    });

    // The running configuration does its work as before.
    let before = wait_auth(&rig.file(), HOST);
    fs::remove_file(rig.file()).unwrap();
    assert_eq!(wait_auth(&rig.file(), HOST), before);
    assert_eq!(reloads(&sidecar), 0);

    // Going back mends it, and so does going on.
    replace(&file, &good);
    sidecar.wait_status("the mended file", |status| {
        status["configuration"]["last_error"].is_null() && status["configuration"]["reloads"] == 1
    });
    replace(&file, "a: [");
    sidecar.wait_status("one more refusal", |status| !status["configuration"]["last_error"].is_null());
    replace(&file, &yaml(&[HOST, SIBLING], &rig.file()));
    assert_eq!(wait_auth(&rig.file(), SIBLING), before);
    sidecar.wait_status("the next file", |status| status["configuration"]["last_error"].is_null());
    assert_eq!(rig.emulator.count(Service::Ecr), 1);
}

/// A liveness probe that failed with the file would have a working sidecar killed.
#[test]
fn the_probes_of_a_sidecar_whose_file_is_refused_go_on() {
    let rig = Rig::new();
    let port = free_port();
    let health = format!("health: {{listen: '127.0.0.1:{port}'}}\n");
    let good = format!("{health}{}", yaml(&[HOST], &rig.file()));
    let file = rig.put("ecr-sidecar.yaml", &good);
    let sidecar = rig.run(|command| {
        rig::configured_by(command, &file);
        command.env_remove("ECR_SIDECAR_HEALTH_LISTEN");
    });
    sidecar.wait_ready();
    for broken in [good.replace("registries", "registrys"), format!("{good}a: [")] {
        replace(&file, &broken);
        sidecar.wait_status("the refusal", |status| !status["configuration"]["last_error"].is_null());
        for question in ["live", "startup", "ready"] {
            let mut probe = clean_command(rig::BINARY, &rig.at("."));
            let answer = output(probe.args(["health", question]).env("ECR_SIDECAR_CONFIG", &file), DEADLINE);
            assert!(answer.status.success(), "{question}: {answer:?}");
        }
    }
}
