//! What another process of the same user gets out of this one: nothing. And what it still knows of itself.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use ecr_emulator::{Fault, Service};
use test_support::{
    Harness, Process,
    harness::{DEADLINE, HOST, KEYS},
    output, root, wait_for,
};

use crate::BINARY;

/// Who runs it in the image and next to Flux.
const NOBODY: u32 = 65534;

/// A harness whose files are that user's; `None` where this test may not become another user.
fn harness_of_nobody() -> Option<Harness> {
    if !root() {
        return None;
    }
    let harness = Harness::new(BINARY).without_keys();
    for folder in [".", "out"] {
        let path = harness.at(folder);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    Some(harness)
}

/// Whether a process of that user may read a file.
fn may_read(path: &str) -> bool {
    let mut cat = Command::new("cat");
    cat.arg(path).uid(NOBODY).gid(NOBODY);
    output(&mut cat, DEADLINE).status.success()
}

#[track_caller]
fn is_hardened(pid: u32, what: &str) {
    let proc = |name: &str| format!("/proc/{pid}/{name}");
    // Before its first line of code a process is as any other.
    wait_for(what, DEADLINE, || {
        let limits = fs::read_to_string(proc("limits")).ok()?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size"))?;
        (core.split_whitespace().skip(4).take(2).collect::<Vec<_>>() == ["0", "0"]).then_some(())
    });
    for file in ["environ", "maps", "auxv"] {
        assert!(!may_read(&proc(file)), "{what}: {file}");
    }
}

#[test]
fn no_process_of_the_same_user_reads_the_memory_of_any_command() {
    let Some(harness) = harness_of_nobody() else { return };
    let helper = harness.at("docker-credential-ecr-sidecar");
    symlink(BINARY, &helper).unwrap();
    // As long as the agent hangs, so does each of them.
    harness.emulator.set_fault(Service::Ecr, Fault::Hang);
    let commands = [harness.command("run"), harness.command("once"), harness.command("doctor"), {
        let mut print = harness.command("print");
        print.arg(HOST);
        print
    }];
    for mut command in commands {
        let what = format!("{command:?}");
        command.envs(KEYS).uid(NOBODY).gid(NOBODY);
        let process = Process::spawn(&mut command);
        is_hardened(process.pid(), &what);
    }
    // The helper waits for its question.
    let usual = harness.command("get");
    let mut get = Command::new(&helper);
    get.env_clear().envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    get.arg("get").uid(NOBODY).gid(NOBODY).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut get = get.spawn().unwrap();
    is_hardened(get.id(), "the helper");
    drop(get.stdin.take());
    get.wait().unwrap();
    // Without it, they are.
    let mut sleep = Command::new("sleep");
    let sleep = Process::spawn(sleep.arg("60").uid(NOBODY).gid(NOBODY));
    wait_for("the control", DEADLINE, || may_read(&format!("/proc/{}/environ", sleep.pid())).then_some(()));
}

#[test]
fn it_is_not_dumpable_and_knows_what_it_costs_as_any_user() {
    let Some(harness) = harness_of_nobody() else { return };
    let running = harness.run_ready(|command| {
        command.uid(NOBODY).gid(NOBODY);
    });
    is_hardened(running.pid(), "run");
    let (code, metrics) = running.get("/metrics");
    assert_eq!(code, 200);
    for figure in [
        "process_open_fds",
        "process_max_fds",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
    ] {
        let value = metrics.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {figure} in {metrics}"));
        assert!(
            value.parse::<f64>().unwrap() > 0.0 || figure == "process_cpu_seconds_total",
            "{figure} {value}"
        );
    }
    // It reads its own mounts before it writes, and doctor reads files and groups.
    let mut doctor = harness.command("doctor");
    doctor.envs(KEYS).uid(NOBODY).gid(NOBODY);
    doctor.env("AWS_CA_BUNDLE", harness.emulator.ca_file());
    let report = output(&mut doctor, Duration::from_secs(60));
    let said = String::from_utf8_lossy(&report.stdout);
    assert!(report.status.success() && said.contains("docker-config"), "{said}");
    assert!(Path::new(&harness.file()).exists());
}

/// Half a page of the ELF specification.
#[test]
fn the_program_is_static_and_its_addresses_are_random() {
    const ET_DYN: u16 = 3;
    const PT_DYNAMIC: u32 = 2;
    const PT_INTERP: u32 = 3;
    let program = fs::read(BINARY).unwrap();
    let number = |at: usize, size: usize| {
        program[at..at + size].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    assert_eq!(program[..6], *b"\x7fELF\x02\x01", "64 bits, little-endian");
    assert_eq!(number(16, 2), u64::from(ET_DYN), "position-independent");
    let (table, size, count) = (number(32, 8) as usize, number(54, 2) as usize, number(56, 2) as usize);
    let segments: Vec<_> = (0..count).map(|at| number(table + at * size, 4) as u32).collect();
    assert!(!segments.contains(&PT_INTERP), "it needs no loader");
    assert!(segments.contains(&PT_DYNAMIC), "it relocates itself");
    if !root() {
        return; // no other user may read the maps of a process that is not dumpable
    }
    // What counts: two processes have their code at different places.
    let harness = Harness::new(BINARY).without_keys();
    let starts: Vec<_> = [harness.run_ready(|_| {}), harness.run_ready(|_| {})]
        .iter()
        .map(|running| {
            let maps = fs::read_to_string(format!("/proc/{}/maps", running.pid())).unwrap();
            let first = maps.lines().find(|line| line.contains(" r-xp ") && line.contains("ecr-sidecar"));
            first.unwrap().split('-').next().unwrap().to_owned()
        })
        .collect();
    assert_ne!(starts[0], starts[1]);
}
