//! What another writer of the volume can put into the file costs bounded memory, work and log lines.
//!
//! The figures of the release program: `cargo bench --bench load`.

use test_support::{
    Harness, Running,
    harness::{DEADLINE, HOST},
    wait_for,
};

use crate::BINARY;

/// What the memory of a hostile document of a megabyte may add to the process's peak, in KiB.
const MEMORY: u64 = 20 << 10;
/// The memory limit in `patches/`, in KiB.
const SHIPPED_LIMIT: u64 = 64 << 10;

/// A document of a hundred thousand entries, none of which a client takes.
fn broken(round: usize) -> String {
    let entries: Vec<_> = (0..100_000).map(|number| format!("\"{number:x}\":{}", round % 10)).collect();
    format!("{{\"auths\":{{{}}}}}", entries.join(","))
}

/// The largest documents that are accepted, and some that are not; each with its reason.
fn hostile() -> Vec<(&'static str, String)> {
    let all =
        |count: usize, entry: &dyn Fn(usize) -> String| (0..count).map(entry).collect::<Vec<_>>().join(",");
    let deep = 1 << 17;
    let (open, close) = ("{\"a\":".repeat(deep), "}".repeat(deep));
    let fill = "v".repeat(44);
    vec![
        // Looked up for each of our hosts.
        ("helpers", format!("{{\"credHelpers\":{{{}}}}}", all(100_000, &|n| format!("\"{n}\":\"x\"")))),
        ("too many entries", format!("{{\"auths\":{{{}}}}}", all(200_000, &|n| format!("\"{n}\":0")))),
        // It is shown in a warning.
        ("a key of seven megabytes", format!("{{\"auths\":{{\"{}\":0}}}}", "k".repeat(7 << 20))),
        // A parser that recurs has no stack for it.
        ("deep objects", format!("{{\"auths\":{{\"x\":{{\"y\":{open}1{close}}}}}}}")),
        // A key with an escape is no slice of the text.
        ("escapes", format!("{{\"auths\":{{{}}}}}", all(60_000, &|n| format!("\"\\u0041{n}\":0")))),
        ("the largest", format!("{{\"auths\":{{{}}}}}", all(130_000, &|n| format!("\"{n}\":\"{fill}\"")))),
    ]
}

/// Puts `text` in the file's place, and waits until our entry is in it again.
fn put(harness: &Harness, running: &Running, text: &str) {
    let before = writes(running);
    let temporary = harness.write("hostile.json", text);
    std::fs::rename(temporary, harness.file()).unwrap();
    wait_for("the entry in the hostile document", DEADLINE, || {
        (writes(running) > before && running.is_ready()).then_some(())
    });
}

fn writes(running: &Running) -> u64 {
    running.status()["outputs"][0]["writes"].as_u64().unwrap()
}

fn warnings(running: &Running) -> usize {
    running.logged("output has a warning").len()
}

#[test]
fn a_hundred_thousand_broken_entries_cost_bounded_memory_and_lines() {
    let harness = Harness::new(BINARY).without_keys();
    let running = harness.run_ready(|_| {});
    let (before, lines) = (running.peak_kib(), warnings(&running));
    put(&harness, &running, &broken(0));
    wait_for("the warnings", DEADLINE, || (warnings(&running) == lines + 21).then_some(()));
    assert_eq!(running.status()["outputs"][0]["warnings"].as_array().unwrap().len(), 21);
    // Another touch with the same keys is worth no further line.
    for round in 1..3 {
        put(&harness, &running, &broken(round));
    }
    assert_eq!(warnings(&running), lines + 21);
    let memory = running.peak_kib() - before;
    assert!(memory < MEMORY, "{memory} KiB");
    let text = String::from_utf8(harness.bytes()).unwrap();
    assert!(text.contains(&format!("\"{HOST}\":{{\"auth\":\"")));
}

#[test]
fn no_document_takes_more_memory_than_we_ship() {
    for (what, text) in hostile() {
        let harness = Harness::new(BINARY).without_keys();
        let running = harness.run_ready(|_| {});
        put(&harness, &running, &text);
        assert_eq!(running.get("/livez").0, 200, "{what}");
        let peak = running.peak_kib();
        println!("{what}: {} bytes, peak {peak} KiB, {} lines", text.len(), running.log_lines().len());
        assert!(peak < SHIPPED_LIMIT, "{what}: {peak} KiB");
        assert!(running.log_lines().len() < 100, "{what}");
    }
}
