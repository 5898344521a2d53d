//! A process that may open few files does its work, also in a flood of connections, and reports when it cannot.
//!
//! A test program of its own, since a test raises the limit of its whole process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]

use std::{io::Write, net::TcpStream, process::Command, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use test_support::{
    Harness,
    harness::{DEADLINE, KEYS},
    http, http_get, output, skip, wait_for,
};

const BINARY: &str = env!("CARGO_BIN_EXE_ecr-sidecar");

/// The same program with this environment, that may open so many files.
fn limited(command: &Command, files: u64) -> Command {
    let mut limited = Command::new("sh");
    limited.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.current_dir(command.get_current_dir().unwrap());
    limited
}

#[test]
fn a_flood_leaves_descriptors_for_the_work() {
    let harness = Harness::new(BINARY).without_keys();
    let usual = harness.command("run");
    let sidecar = harness.spawn("sh", |command| {
        command.args(limited(&usual, 64).get_args()).envs(KEYS);
    });
    let health = sidecar.health();
    let status = || {
        let (_, body) = http_get(health, "/status").ok()?;
        serde_json::from_str::<serde_json::Value>(&body).ok()
    };
    wait_for("readiness", DEADLINE, || (http_get(health, "/readyz").ok()?.0 == 200).then_some(()));

    let mut flood: Vec<TcpStream> = Vec::new();
    for round in 1..=3 {
        for number in 0..200 {
            let mut client = TcpStream::connect_timeout(&health, Duration::from_secs(5)).unwrap();
            if number % 4 == 0 {
                let _ = client.write_all(b"GET /metrics HTTP/1.1\r\n"); // it may have had to go already
            }
            flood.push(client);
        }
        assert_eq!(http_get(health, "/livez").unwrap().0, 200);
        sidecar.refresh();
        wait_for("another token in the file", DEADLINE, || {
            let status = status()?;
            let (token, output) = (&status["tokens"][0], &status["outputs"][0]);
            let is_there =
                token["refreshed"].as_u64() > Some(round) && output["writes"].as_u64() > Some(round);
            is_there.then_some(())
        });
    }
    assert!(!sidecar.stderr().contains("open files"), "{}", sidecar.stderr());
    drop(flood);
}

#[test]
fn five_thousand_idle_connections_hold_up_no_probe() {
    const CROWD: usize = 5000;
    const ROUNDS: usize = 3;
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {}); // before the limit of this process is raised, which it would inherit
    sidecar.wait_ready();
    let limit = getrlimit(Resource::Nofile);
    let wanted = CROWD as u64 + 1000;
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        return skip("5,000 connections take `ulimit -Hn 6000`");
    }
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).unwrap();
    }
    sidecar.answers_during(|address| {
        for _ in 0..ROUNDS {
            // One thread, so that on two processors the probe has one left; all of them open at the same time.
            let crowd: Vec<_> = (0..CROWD).map(|_| TcpStream::connect(address).unwrap()).collect();
            for _ in 0..20 {
                assert_eq!(http::get(address, "/readyz").0, 200);
            }
            drop(crowd);
        }
    });
    let files = std::fs::read_dir(format!("/proc/{}/fd", sidecar.pid())).unwrap().count();
    assert!(files < 600, "{files} open files");
}

#[test]
fn whatever_the_limit_is_it_is_named() {
    let harness = Harness::new(BINARY).without_keys();
    let mut diagnosed = 0;
    // With fewer the runtime itself, which panics, cannot start.
    for files in 10..24 {
        let mut usual = harness.command("once");
        usual.args(["--timeout", "2s"]).envs(KEYS);
        let output = output(&mut limited(&usual, files), DEADLINE);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("panicked") && !said.contains("please report"), "{files}: {said}");
        diagnosed += usize::from(said.contains("\"diagnosis\":\"too-many-open-files\""));
        if !output.status.success() {
            assert!(said.contains("open files"), "{files} of {BINARY}: {said}");
        }
    }
    assert!(diagnosed > 0);
}
