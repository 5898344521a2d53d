//! Another process that changes the file, or its mode, without end.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde_json::json;
use test_support::{
    Harness,
    files::{auth, config, mode, replace},
    harness::{DEADLINE, HOST},
    pause,
};

use super::wait_until;
use crate::BINARY;

/// Edits the file once in this time until `over`; each edit takes our entry away.
fn edit_without_end(file: &Path, every: Duration, over: &AtomicBool, edits: &AtomicUsize) {
    while !over.load(Ordering::Acquire) {
        let edit = edits.fetch_add(1, Ordering::Relaxed);
        replace(file, &json!({"auths": {"ghcr.io": {"auth": "bWU6eA=="}}, "edit": edit}).to_string());
        pause(every);
    }
}

/// Ends the threads of a test, also when it fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn edits_without_end_are_answered_at_a_bounded_rate_and_reported() {
    for every in [Duration::from_millis(10), Duration::from_micros(200), Duration::ZERO] {
        let harness = Harness::new(BINARY);
        let sidecar = harness.run(|_| {});
        sidecar.wait_ready();
        let (over, torn, edits) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        let file = harness.file();
        // Who changes it fast enough is faster each time: that is tried again, too.
        let rounds = || {
            let output = &sidecar.status()["outputs"][0];
            output["writes"].as_u64().unwrap() + output["failed"].as_u64().unwrap()
        };
        thread::scope(|scope| {
            let ends = Ends(&over);
            scope.spawn(|| edit_without_end(&file, every, &over, &edits));
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    torn.fetch_add(usize::from(config(&file).is_none()), Ordering::Relaxed);
                }
            });
            let line = sidecar.wait_log("ownership conflict over an output", DEADLINE);
            assert!(line.contains("\"diagnosis\":\"contended\""), "{line}");
            sidecar.wait_status("contended", |status| {
                status["outputs"][0]["last_error"]["diagnosis"] == "contended"
            });
            let body = sidecar.wait_get("/readyz", 503);
            assert!(body.contains("set that file as `base`"), "{body}");
            let (before, lines) = (rounds(), sidecar.log_lines().len());
            // Consumers find our entry again and again, if not for long; the edits count the time.
            let start = edits.load(Ordering::Relaxed);
            wait_until("some rounds", || rounds() >= before + 3);
            let (more, lines) = (edits.load(Ordering::Relaxed) - start, sidecar.log_lines().len() - lines);
            assert!(more >= 50 && lines <= 2, "{more} edits and {lines} lines between three rounds");
            drop(ends);
        });
        assert_eq!(torn.load(Ordering::Relaxed), 0);
        sidecar.wait_log("ownership conflict is over", DEADLINE);
        sidecar.wait_ready();
        assert!(auth(&file, HOST).is_some() && auth(&file, "ghcr.io").is_some());
        sidecar.wait_status("in order", |status| status["outputs"][0]["last_error"].is_null());
    }
}

/// The content stays: a mode that lets everyone read the token, or replace it, is harm enough.
#[test]
fn a_mode_that_is_opened_without_end_is_put_right_every_time() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    let (over, file) = (AtomicBool::new(false), harness.file());
    let writes = || sidecar.status()["outputs"][0]["writes"].as_u64().unwrap();
    thread::scope(|scope| {
        let ends = Ends(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let _ = fs::set_permissions(&file, Permissions::from_mode(0o666));
                pause(Duration::from_millis(5));
            }
        });
        sidecar.wait_log("ownership conflict over an output", DEADLINE);
        let before = writes();
        wait_until("some restores", || writes() >= before + 3);
        drop(ends);
    });
    wait_until("the mode back", || mode(&file) == 0o640);
    sidecar.wait_log("ownership conflict is over", DEADLINE);
    assert_eq!(sidecar.count_log("does not keep the mode"), 0);
}
