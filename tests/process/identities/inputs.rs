//! What people really put into variables, profiles and keys: it works, or is named with what is expected. Nothing that is
//! secret is shown, whatever it is, and nothing makes the program panic.

mod credential_process;
mod endpoints;
mod misplaced;
mod profile_files;
mod values;

use std::process::Command;

use test_support::{harness::DEADLINE, output};

/// Stands in for a secret where the content of a value doesn't matter otherwise.
const CANARY: &str = "CANARY";

/// Ends a closure that prepares a command.
fn done(_: &mut Command) {}

/// What a command says, and its exit status.
#[track_caller]
fn said(mut command: Command) -> (Option<i32>, String) {
    let output = output(&mut command, DEADLINE);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code(), said)
}
