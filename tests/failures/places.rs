//! What goes wrong with the docker config.json: volumes, users, mounts.

use std::{net::TcpListener, process::Command};

use ecr_sidecar::failure::diagnosis::Diagnosis as D;
use serde_json::Value;
use test_support::{
    Harness,
    files::wait_auth,
    harness::{DEADLINE, HOST, configured_by},
    install, output, root,
};

use crate::{
    BINARY,
    rows::{first, report_of},
};

/// As a user who has no rights of root's, with a program that this user can reach.
const AS_NOBODY: &str = "chmod 755 .\nexec setpriv --reuid=65534 --regid=65534 --clear-groups ./ecr-sidecar";

/// The doctor in a mount namespace of its own, after the shell commands of `mounts`, which may end in the program itself.
fn doctor(harness: &Harness, mounts: &str, prepare: impl FnOnce(&mut Command)) -> Value {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-e", "-c"]);
    let folder = harness.folder().display();
    let last = if mounts.contains("exec ") { String::new() } else { format!("\nexec {BINARY}") };
    command.arg(format!("cd '{folder}'\n{mounts}{last} doctor --output json"));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(harness.environment());
    command.env("HTTPS_PROXY", harness.emulator.proxy()).env("AWS_CA_BUNDLE", harness.emulator.ca_file());
    prepare(&mut command);
    report_of(&mut command)
}

/// Told in the log, in `/status`, and by the doctor.
fn is_reported(diagnosis: D, mounts: &str, prepare: impl Fn(&mut Command)) {
    let harness = Harness::new(BINARY);
    install(BINARY, &harness.at("ecr-sidecar"));
    let id = diagnosis.id();
    let started = if mounts.contains("exec ") { format!("{mounts} run") } else { mounts.to_owned() };
    let sidecar = harness.run_with_mounts(&started, &prepare);
    let line = sidecar.wait_log(&format!("\"diagnosis\":\"{id}\""), DEADLINE);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert!(line["remedy"].as_str().unwrap().starts_with(diagnosis.remedy()), "{line}");
    sidecar.wait_status(id, |status| {
        let problem = &status["outputs"][0]["last_error"];
        problem["diagnosis"] == id && problem["remedy"] == line["remedy"]
    });
    drop(sidecar);
    let report = doctor(&harness, mounts, prepare);
    assert_eq!(first(&report)["diagnosis"], id, "{report:#}");
}

/// What can never work is refused at the start, with the same words.
fn is_rejected(diagnosis: D, mounts: &str) {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run_with_mounts(mounts, |_| {});
    assert_eq!(sidecar.wait_exit(DEADLINE).code(), Some(64));
    assert!(sidecar.stderr().contains(diagnosis.remedy()), "{}", sidecar.stderr());
    let report = doctor(&harness, mounts, |_| {});
    assert_eq!(first(&report)["diagnosis"], diagnosis.id(), "{report:#}");
}

#[test]
fn a_file_mounted_by_sub_path() {
    if root() {
        is_rejected(
            D::MountedBySubPath,
            "mkdir -p out\necho {} > source\ntouch out/config.json\nmount --bind source out/config.json",
        );
    }
}

#[test]
fn a_path_that_is_no_file() {
    if root() {
        is_rejected(D::NotAFile, "mkdir -p out/config.json/x");
    }
}

#[test]
fn a_read_only_volume() {
    if root() {
        is_reported(D::ReadOnlyVolume, "mkdir -p out\nmount -t tmpfs -o ro none out", |_| {});
    }
}

#[test]
fn a_full_volume() {
    if root() {
        let mounts = "mkdir -p out\nmount -t tmpfs -o size=64k none out\n\
                      head -c 100000 /dev/zero > out/filler 2> filling || true";
        is_reported(D::VolumeFull, mounts, |_| {});
    }
}

#[test]
fn a_directory_of_another_user() {
    if root() {
        is_reported(D::NotPermitted, &format!("mkdir -p out\n{AS_NOBODY}"), |_| {});
    }
}

#[test]
fn a_mode_that_the_consumer_cannot_read_by() {
    if !root() {
        return;
    }
    let harness = Harness::new(BINARY);
    let private = |command: &mut Command| {
        command.env("ECR_SIDECAR_FILE_MODE", "0600");
    };
    let report = doctor(&harness, "true", private);
    assert_eq!(first(&report)["diagnosis"], D::ConsumerCannotRead.id(), "{report:#}");

    let of_user = |consumer: &str, mode: &str| {
        let mut command = Command::new(BINARY);
        command.args(["doctor", "--output", "json", "--consumer", consumer]).env_clear();
        command.envs(harness.environment()).env("ECR_SIDECAR_FILE_MODE", mode);
        command.env("HTTPS_PROXY", harness.emulator.proxy()).env("AWS_CA_BUNDLE", harness.emulator.ca_file());
        report_of(&mut command)
    };
    let closed = of_user("999:999", "0640");
    assert_eq!(first(&closed)["diagnosis"], D::ConsumerCannotRead.id(), "{closed:#}");
    assert_eq!(closed["healthy"], false);
    assert_eq!(of_user("0", "0600")["healthy"], true);
}

/// The kernel's limits, lowered for one process alone: those of a user namespace.
#[test]
fn a_node_that_is_out_of_inotify() {
    if !root() {
        return;
    }
    for limit in ["max_inotify_instances", "max_inotify_watches"] {
        let harness = Harness::new(BINARY);
        let base = harness.put("base.json", r#"{"auths": {"ghcr.io": {"auth": "YTpi"}}}"#);
        let configure = |more: &str| {
            let output = format!("{{type: docker-config, path: {}{more}}}", harness.file().display());
            harness.put("ecr-sidecar.yaml", &format!("registries: [{{host: {HOST}}}]\noutputs: [{output}]\n"))
        };
        let file = configure("");
        let sidecar = harness.spawn("unshare", |command| {
            command.args(["--user", "--map-root-user", "sh", "-e", "-c"]);
            command.arg(format!("echo 0 > /proc/sys/user/{limit}\nexec {BINARY} run"));
            configured_by(command, &file);
        });
        let line = sidecar.wait_log(&format!("\"diagnosis\":\"{}\"", D::InotifyExhausted.id()), DEADLINE);
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["remedy"], D::InotifyExhausted.remedy());
        sidecar.wait_ready();
        configure(&format!(", base: {}", base.display()));
        wait_auth(&harness.file(), "ghcr.io");
    }
}

/// At the start it is the end; a reload stays with the address that works.
#[test]
fn a_health_address_that_another_process_has() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let remedy = D::HealthAddress.remedy();
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|command| {
        command.env("ECR_SIDECAR_HEALTH_LISTEN", &address);
    });
    assert_eq!(sidecar.wait_exit(DEADLINE).code(), Some(64));
    let said = sidecar.stderr();
    assert!(said.contains(&address) && said.contains(remedy), "{said}");

    let text = format!(
        "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config, path: {}}}]\n",
        harness.file().display()
    );
    let file = harness.put("ecr-sidecar.yaml", &format!("{text}health: {{listen: '127.0.0.1:0'}}\n"));
    let sidecar = harness.run(|command| {
        configured_by(command, &file);
        command.env_remove("ECR_SIDECAR_HEALTH_LISTEN");
    });
    sidecar.wait_ready();
    harness.put("ecr-sidecar.yaml", &format!("{text}health: {{listen: '{address}'}}\n"));
    let status =
        sidecar.wait_status("the rejection", |status| !status["configuration"]["last_error"].is_null());
    let error = status["configuration"]["last_error"].as_str().unwrap();
    assert!(error.contains(&address) && error.contains(remedy), "{error}");
}

#[test]
fn a_consumer_that_reads_elsewhere() {
    let harness = Harness::new(BINARY);
    let report = {
        let mut command = Command::new(BINARY);
        command.args(["doctor", "--output", "json"]).env_clear().envs(harness.environment());
        command.env("DOCKER_CONFIG", "/somewhere/else");
        command.env("HTTPS_PROXY", harness.emulator.proxy()).env("AWS_CA_BUNDLE", harness.emulator.ca_file());
        report_of(&mut command)
    };
    assert_eq!(first(&report)["diagnosis"], D::ConsumerReadsElsewhere.id(), "{report:#}");
    assert_eq!(report["healthy"], true, "it may be right where the consumer runs");
}

#[test]
fn a_configuration_that_cannot_be_used() {
    let harness = Harness::new(BINARY);
    let mut command = Command::new(BINARY);
    command.args(["doctor", "--output", "json"]).env_clear().envs(harness.environment());
    command.env("ECR_SIDECAR_REGISTRIES", "https://public.ecr.aws").env("ECR_SIDECAR_FILE_MODE", "rw-r-----");
    let report = report_of(&mut command);
    let found = first(&report);
    assert_eq!(found["diagnosis"], D::Configuration.id(), "{report:#}");
    for part in ["2 problems", "ECR_SIDECAR_REGISTRIES", "ECR_SIDECAR_FILE_MODE"] {
        assert!(found["saw"].as_str().unwrap().contains(part), "{found}");
    }
    let text = output(Command::new(BINARY).arg("doctor").env_clear().env("AWS_REGION", "nowhere"), DEADLINE);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("fail  configuration") && text.contains("AWS_REGION"), "{text}");
}
