//! A `credential_process` that hangs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use test_support::{
    Harness, Process,
    harness::{DEADLINE, HOST},
    wait_for,
};

use super::done;
use crate::BINARY;

/// The process ids that a script has written, one a line, that still run.
fn running(pids: &Path) -> Vec<String> {
    let text = fs::read_to_string(pids).unwrap_or_default();
    let runs =
        |pid: &&str| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    text.lines().filter(runs).map(str::to_owned).collect()
}

fn hung_process(harness: &Harness) -> PathBuf {
    let pids = harness.at("pids");
    let script = format!("#!/bin/sh\nsleep 1000 &\necho $! >> '{}'\nwait\n", pids.display());
    let script = harness.script("hangs", &script);
    harness.write(".aws/config", &format!("[profile p]\ncredential_process = {}\n", script.display()));
    pids
}

#[test]
fn a_hung_credential_process_is_ended_and_runs_once() {
    let harness = Harness::new(BINARY).without_keys();
    let pids = hung_process(&harness);
    let sidecar = harness.run(|command| done(command.env("AWS_PROFILE", "p")));
    wait_for("the process", DEADLINE, || (running(&pids).len() == 1).then_some(()));
    for _ in 0..3 {
        sidecar.refresh();
    }
    assert_eq!(running(&pids).len(), 1, "one at a time");
    assert_eq!(sidecar.get("/livez").0, 200);
    sidecar.stop(DEADLINE);
    wait_for("its end", DEADLINE, || running(&pids).is_empty().then_some(()));
}

#[test]
fn no_credential_process_outlives_the_command() {
    for command in ["once", "print", "doctor"] {
        let harness = Harness::new(BINARY).without_keys();
        let pids = hung_process(&harness);
        let mut process = harness.command(command);
        process.env("AWS_PROFILE", "p");
        match command {
            "once" => done(process.args(["--timeout", "1s"])),
            "print" => done(process.arg(HOST)),
            _ => {}
        }
        Process::spawn(&mut process).wait_exit(DEADLINE);
        assert!(pids.exists(), "{command} has started it");
        wait_for("its end", DEADLINE, || running(&pids).is_empty().then_some(()));
    }
}
