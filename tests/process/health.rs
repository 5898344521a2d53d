//! What the health endpoint answers, to whom, and that no client can keep it from answering.

mod clients;
mod commands;
mod paths;
mod readiness;

use std::process::Output;

use test_support::{
    clean_command,
    harness::{DEADLINE, HOST},
    output,
};

use crate::BINARY;

/// `ecr-sidecar` with these arguments and no environment.
fn ask(arguments: &[&str]) -> Output {
    let mut command = clean_command(BINARY, std::path::Path::new("/nonexistent"));
    output(command.args(arguments).env("ECR_SIDECAR_REGISTRIES", HOST), DEADLINE)
}
