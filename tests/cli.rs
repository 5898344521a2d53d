//! What the program says of itself.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{path::Path, process::Command, time::Duration};

use test_support::output;

const DEADLINE: Duration = Duration::from_secs(60);

fn said_by(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = output(&mut command, DEADLINE);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_version_tells_the_commit_and_its_date() {
    let said = said_by(env!("CARGO_BIN_EXE_ecr-sidecar"), &["--version"]);
    let version = env!("CARGO_PKG_VERSION");
    if !Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists() {
        assert!(said.starts_with(&format!("ecr-sidecar {version}")), "{said}");
        return;
    }
    let commit = said_by("git", &["log", "-1", "--format=%H %cs"]);
    let (hash, date) = commit.trim().split_once(' ').unwrap();
    assert_eq!(said, format!("ecr-sidecar {version} ({} {date})\n", &hash[..7]));
}
