//! Places that cannot be written to, at first or from some time on: reported with the remedy, the old file and the other
//! outputs unharmed, and written to once they can be.

use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    time::{Duration, SystemTime},
};

use ecr_emulator::{Service, Settings};
use serde_json::Value;
use test_support::{
    Harness, Signal,
    files::{auth, names, wait_auth},
    harness::{DEADLINE, HOST, configured_by},
    install, root, wait_for,
};

use super::{wait_until, yaml};
use crate::BINARY;

#[test]
fn an_output_that_fails_delays_no_other_and_heals() {
    let harness = Harness::new(BINARY);
    let blocker = harness.put("blocker", "a file where a directory should be");
    let (good, bad) = (harness.file(), blocker.join("config.json"));
    let sidecar = harness
        .run_with_file(&yaml(&[&format!("path: {}", bad.display()), &format!("path: {}", good.display())]));
    let first = wait_auth(&good, HOST);
    sidecar.wait_status("two failures and a success", |status| {
        status["outputs"][0]["failed"].as_u64().unwrap() >= 2
            && status["outputs"][1]["in_place"][HOST].is_string()
    });
    let (code, body) = sidecar.get("/readyz");
    assert_eq!(code, 503);
    assert!(body.contains(&bad.display().to_string()) && body.contains("not a directory"), "{body}");
    assert!(!body.contains(&good.display().to_string()), "{body}");
    assert_eq!(sidecar.count_log("output not written"), 1, "edges, not noise");

    // It still follows what happens to its file and to the token.
    fs::remove_file(&good).unwrap();
    wait_until("the good file back", || auth(&good, HOST).as_ref() == Some(&first));
    sidecar.signal(Signal::HUP);
    wait_until("the next credential", || auth(&good, HOST).is_some_and(|auth| auth != first));

    fs::remove_file(&blocker).unwrap();
    sidecar.wait_ready();
    assert_eq!(auth(&bad, HOST), auth(&good, HOST));
    sidecar.wait_log("output in sync again", DEADLINE);
}

#[test]
fn a_directory_of_another_user_is_reported_with_its_owner_and_the_remedy() {
    if !root() {
        return;
    }
    let harness = Harness::new(BINARY);
    // Neither the folder nor the program's own place need be open to others.
    fs::set_permissions(harness.at("."), Permissions::from_mode(0o755)).unwrap();
    let own = harness.at("ecr-sidecar");
    install(BINARY, &own);
    for folder in ["out", "mine"] {
        fs::create_dir(harness.at(folder)).unwrap();
    }
    chown(harness.at("mine"), Some(65534), Some(65534)).unwrap();
    let file = harness.put(
        "ecr-sidecar.yaml",
        &yaml(&[
            &format!("path: {}", harness.file().display()),
            &format!("path: {}", harness.at("mine/config.json").display()),
        ]),
    );
    let sidecar = harness.spawn("setpriv", |command| {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&own).arg("run");
        configured_by(command, &file);
    });
    wait_auth(&harness.at("mine/config.json"), HOST);
    let line = sidecar.wait_log("output not written", DEADLINE);
    for part in ["uid 65534", "belongs to 0:0 with mode 0755", "runAsUser", "fsGroup"] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    chown(harness.at("out"), Some(65534), None).unwrap();
    sidecar.wait_ready();
}

#[test]
fn a_full_volume_keeps_the_old_file_and_readiness_until_its_expiry_and_recovers() {
    if !root() {
        return;
    }
    let harness =
        Harness::with(BINARY, Settings { token_lifetime: Duration::from_secs(15), ..Settings::default() });
    let sidecar = harness.run_with_mounts("mkdir out\nmount -t tmpfs -o size=64k none out", |_| {});
    sidecar.wait_ready();
    let file = sidecar.inside(&harness.file());
    let filler = sidecar.inside(&harness.at("out/filler"));
    fill(&filler);
    // A refresh in between would have been another file.
    let old = fs::read(&file).unwrap();
    let end = in_place_until(&sidecar.status());

    let line = sidecar.wait_log("output not written", DEADLINE); // at the next refresh
    for part in ["the volume is full", "free space", "emptyDir.sizeLimit"] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    let body = wait_for("the end of readiness", DEADLINE, || {
        assert_eq!(fs::read(&file).unwrap(), old);
        let (code, body) = sidecar.get("/readyz");
        assert!(code == 200 || now() >= end, "false before its time: {body}");
        (code == 503).then_some(body)
    });
    assert!(body.contains("expired at") && body.contains("the volume is full"), "{body}");
    assert_eq!(names(file.parent().unwrap()), ["config.json", "filler"], "no temporary file is left");

    fs::remove_file(filler).unwrap();
    sidecar.wait_ready();
    assert_ne!(fs::read(&file).unwrap(), old);
    sidecar.wait_log("output in sync again", DEADLINE);
}

fn fill(path: &Path) {
    let mut filler = File::create(path).unwrap();
    while filler.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
}

/// When the credential in the first output ends.
fn in_place_until(status: &Value) -> SystemTime {
    let end = status["outputs"][0]["in_place"][HOST].as_str().unwrap();
    end.parse::<jiff::Timestamp>().unwrap().into()
}

#[expect(clippy::disallowed_methods, reason = "an expiry is a time of day")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[test]
fn a_volume_that_turns_read_only_keeps_the_old_file_and_recovers() {
    if !root() {
        return;
    }
    let harness = Harness::new(BINARY);
    let sidecar = harness.run_with_mounts("mkdir out\nmount -t tmpfs none out", |_| {});
    sidecar.wait_ready();
    let file = sidecar.inside(&harness.file());
    let old = auth(&file, HOST);
    let out = harness.at("out");
    sidecar.in_its_mounts(&format!("mount -o remount,ro {}", out.display()));
    sidecar.signal(Signal::HUP);
    let line = sidecar.wait_log("output not written", DEADLINE);
    assert!(line.contains("mounted read-only") && line.contains("readOnly: true"), "{line}");
    assert_eq!(auth(&file, HOST), old);
    assert_eq!(sidecar.get("/readyz").0, 200, "the old credential is as good as before");

    sidecar.in_its_mounts(&format!("mount -o remount,rw {}", out.display()));
    wait_until("the new credential", || auth(&file, HOST).is_some_and(|auth| Some(auth) != old));
}

#[test]
fn a_read_only_volume_delays_no_other_output() {
    if !root() {
        return;
    }
    let harness = Harness::new(BINARY);
    let good = harness.at("good/config.json");
    let file = harness.put(
        "ecr-sidecar.yaml",
        &yaml(&[&format!("path: {}", harness.file().display()), &format!("path: {}", good.display())]),
    );
    let mounts = "mkdir out\nmount -t tmpfs -o ro none out";
    let sidecar = harness.run_with_mounts(mounts, |command| configured_by(command, &file));
    wait_auth(&good, HOST);
    let line = sidecar.wait_log("output not written", DEADLINE);
    assert!(line.contains("mounted read-only"), "{line}");
    sidecar.in_its_mounts(&format!("mount -o remount,rw {}", harness.at("out").display()));
    sidecar.wait_ready();
}

#[test]
fn a_single_file_mount_is_rejected_with_the_sentence_that_explains_it() {
    if !root() {
        return;
    }
    let harness = Harness::new(BINARY);
    let mounts = "mkdir out\necho {} > source\ntouch out/config.json\nmount --bind source out/config.json";
    let sidecar = harness.run_with_mounts(mounts, |_| {});
    assert_eq!(sidecar.wait_exit(DEADLINE).code(), Some(64));
    let said = sidecar.stderr();
    for part in [
        harness.file().to_str().unwrap(),
        "is itself a mount point",
        "readers would keep the old file",
        "subPath",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert_eq!(harness.emulator.count(Service::Ecr), 0);
    assert_eq!(fs::read_to_string(harness.at("source")).unwrap(), "{}\n");
}

#[test]
fn a_path_that_can_never_be_a_file_is_rejected() {
    let harness = Harness::new(BINARY);
    fs::create_dir_all(harness.file().join("x")).unwrap();
    for command_name in ["run", "once"] {
        let sidecar = harness.spawn(BINARY, |command| {
            command.arg(command_name);
        });
        assert_eq!(sidecar.wait_exit(DEADLINE).code(), Some(64), "{command_name}");
        let said = sidecar.stderr();
        assert!(said.contains("is a directory, not a file"), "{said}");
        assert!(said.contains(harness.file().join("config.json").to_str().unwrap()), "the remedy: {said}");
    }
    assert_eq!(names(&harness.file()), ["x"]);
}
