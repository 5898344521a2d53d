//! The real binary as a process, against the emulated AWS.
//!
//! `cargo test --test process volume` runs the tests of one module.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]

mod answers;
mod canary;
mod cli;
mod docker_config;
mod faults;
mod hardening;
mod health;
mod helper;
mod hostile;
mod identities;
mod inputs;
mod kubelet;
mod lifecycle;
mod log;
mod once;
mod print;
mod pull_probe;
mod registries;
mod reload;
mod status;
mod volume;

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ecr-sidecar");
