//! The program on a node: its cache when it has no home, and its installation.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use ecr_emulator::Service;
use test_support::{
    harness::{DEADLINE, HOST},
    output, program, root,
};

use super::{failed, node, provider, request};
use crate::BINARY;

/// A kubelet is a service of root's, without `HOME`.
#[test]
fn a_service_without_a_home_keeps_its_tokens_in_memory() {
    if !root() || program("unshare").is_none() {
        return;
    }
    let harness = node();
    let file = harness.put("request.json", &request(&format!("{HOST}/app")).to_string());
    let script = "mount -t tmpfs none /run; \"$0\" kubelet-credential-provider <\"$1\"; \
                  \"$0\" kubelet-credential-provider <\"$1\"; stat -c '%a %n' /run/ecr-sidecar /run/ecr-sidecar/*";
    let mut command = Command::new("unshare");
    command.env_clear().envs(provider(&harness).get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env_remove("HOME").env("PATH", std::env::var("PATH").unwrap());
    command.args(["--mount", "--propagation=private", "sh", "-euc", script, BINARY]).arg(file);
    let done = output(&mut command, DEADLINE);
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(harness.emulator.count(Service::Ecr), 1, "{said}");
    let modes: Vec<_> = said.lines().filter(|line| line.contains("/run/")).collect();
    assert!(
        modes[0] == "700 /run/ecr-sidecar" && modes[1..].iter().all(|it| it.starts_with("600 ")),
        "{modes:?}"
    );
}

#[test]
fn a_node_s_program_is_replaced_while_it_runs_and_only_by_another_one() {
    let harness = node();
    let path = harness.at("bin/ecr-sidecar");
    let install = |folder: &Path| {
        let mut command = harness.command("kubelet-credential-provider");
        output(command.arg("--install").arg(folder), DEADLINE)
    };
    failed(&install(&harness.at("bin")), &["bin"]); // no such folder
    fs::create_dir(harness.at("bin")).unwrap();
    test_support::process::install(program("sleep").unwrap(), &path);
    let mut old = Command::new(&path).arg("1000").spawn().unwrap();
    let done = install(&harness.at("bin"));
    assert!(String::from_utf8_lossy(&done.stdout).ends_with("bin/ecr-sidecar is installed\n"), "{done:?}");
    assert_eq!(old.try_wait().unwrap(), None, "the old one runs on");
    old.kill().unwrap();
    old.wait().unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o755);
    let version = output(Command::new(&path).arg("--version"), DEADLINE);
    assert!(version.status.success() && fs::read(&path).unwrap() == fs::read(BINARY).unwrap());

    let again = install(&harness.at("bin"));
    assert!(String::from_utf8_lossy(&again.stdout).contains("is up to date"), "{again:?}");
    assert_eq!(fs::metadata(&path).unwrap().ino(), metadata.ino());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    install(&harness.at("bin"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_dir(harness.at("bin")).unwrap().count(), 1, "nothing is left over");
}
