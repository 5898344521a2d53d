//! The file is whole at any moment: for a reader in a tight loop, and after a kill amid a write.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use test_support::{
    Harness, Signal,
    files::{auth, config, mode, names, replace},
    harness::{DEADLINE, HOST},
    http,
};

use super::{FOREIGN, wait_until, yaml};
use crate::BINARY;

/// A base of some size, so that a write takes its time, and whose number shows in the output.
fn numbered_base(number: usize) -> String {
    let long = STANDARD.encode(format!("somebody:{}", "x".repeat(600)));
    let mut auths: serde_json::Map<_, _> =
        (0..100).map(|n| (format!("r{n}.example.com"), json!({"auth": long}))).collect();
    auths.insert("number.example.com".into(), json!({"number": number, "auth": FOREIGN}));
    json!({ "auths": auths }).to_string()
}

/// Asks the registry whether the credential is one that AWS gave.
fn is_admitted(registry: &str, auth: &str) -> bool {
    let headers = [("Authorization", &*format!("Basic {auth}"))];
    http::get_with(http::address(registry), "/v2/", &headers).code == 200
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_file_with_a_good_credential() {
    const KILLS: usize = 200;
    let harness = Harness::new(BINARY);
    let registry = harness.emulator.add_registry("eu-west-1");
    let base = harness.put("base.json", &numbered_base(0));
    let file = harness.file();
    let yaml = yaml(&[&format!("path: {}, base: {}", file.display(), base.display())]);
    let is_temp = |name: &String| name.starts_with(".config.json.ecr-sidecar-");
    let temps = || names(&harness.at("out")).into_iter().filter(is_temp).count();

    harness.run_with_file(&yaml).wait_ready();
    let number = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let mut left_over = 0;
    thread::scope(|scope| {
        // Something to write at any time.
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let next = number.fetch_add(1, Ordering::AcqRel) + 1;
                let seen =
                    || config(&file).map(|config| config["auths"]["number.example.com"]["number"].clone());
                let before = seen();
                replace(&base, &numbered_base(next));
                // The file of a dead sidecar stays as it is.
                wait_until("a change or the end", || seen() != before || over.load(Ordering::Acquire));
            }
        });
        for kill in 0..KILLS {
            let sidecar = harness.run_with_file(&yaml);
            // At its first write, amid a write, or just after one.
            let moment = fastrand::usize(0..3);
            if moment > 0 {
                sidecar.wait_log("output written", DEADLINE);
                let inode = || fs::metadata(&file).unwrap().ino();
                let before = inode();
                spin_until(|| if moment == 1 { temps() > 0 } else { inode() != before });
            } else {
                spin_until(|| temps() > 0);
            }
            (0..fastrand::u32(0..20_000)).for_each(|_| std::hint::spin_loop());
            sidecar.signal(Signal::KILL);
            sidecar.wait_exit(DEADLINE);
            left_over += usize::from(temps() > 0);
            let auth = auth(&file, HOST).unwrap_or_else(|| panic!("kill {kill}: no whole file"));
            assert!(is_admitted(&registry, &auth), "kill {kill}: a credential that AWS did not give");
            assert_eq!(mode(&file), 0o640, "kill {kill}");
        }
        over.store(true, Ordering::Release);
    });
    assert!(left_over > 0, "none of the kills came amid a write: this shows nothing");

    let sidecar = harness.run_with_file(&yaml);
    sidecar.wait_ready();
    // Its own file of expiries may still be on its way.
    let what = format!("what {left_over} kills left to be gone");
    wait_until(&what, || names(&harness.at("out")) == ["config.json"]);
}

/// Looks as often as it can; a missed moment is not waited for for long.
fn spin_until(mut holds: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if holds() {
            return;
        }
    }
}

#[test]
fn a_reader_in_a_tight_loop_never_sees_a_torn_missing_empty_or_wrongly_moded_file() {
    const READS: usize = 10_000;
    const REWRITES: usize = 300;
    let harness = Harness::new(BINARY);
    let base = harness.put("base.json", &numbered_base(0));
    let file = harness.file();
    let sidecar =
        harness.run_with_file(&yaml(&[&format!("path: {}, base: {}", file.display(), base.display())]));
    sidecar.wait_ready();
    let credential = auth(&file, HOST).unwrap();
    let over = AtomicBool::new(false);
    let (reads, seen) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, mut seen) = (0, BTreeSet::new());
            while reads < READS || !over.load(Ordering::Acquire) {
                let mut opened = File::open(&file).expect("a file at any time");
                let metadata = opened.metadata().unwrap();
                let mut text = String::new();
                opened.read_to_string(&mut text).unwrap();
                assert_eq!(metadata.mode() & 0o7777, 0o640);
                assert_eq!(metadata.len(), text.len() as u64);
                let config: Value = serde_json::from_str(&text).expect("a whole file");
                assert_eq!(config["auths"][HOST]["auth"], credential);
                let auths = &config["auths"];
                assert_eq!(auths.as_object().unwrap().len(), 102);
                seen.insert(auths["number.example.com"]["number"].as_u64().unwrap());
                reads += 1;
            }
            (reads, seen.len())
        });
        for number in 1..=REWRITES {
            replace(&base, &numbered_base(number));
            wait_until("the next file", || {
                assert!(!reader.is_finished(), "the reader has seen something wrong");
                config(&file).unwrap()["auths"]["number.example.com"]["number"] == number
            });
        }
        over.store(true, Ordering::Release);
        reader.join().unwrap()
    });
    assert!(reads >= READS);
    assert!(seen > REWRITES / 2, "the reader saw {seen} of {REWRITES} files");
    wait_until("nothing but the file to be there", || names(&harness.at("out")) == ["config.json"]);
}
