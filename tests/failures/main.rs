//! Every failure of `src/failure/diagnosis.rs`: caused by the emulated AWS or by the file system, and then reported by its
//! name and remedy in the log, in `/status` and by `ecr-sidecar doctor` alike.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod aws;
mod doctor;
mod network;
mod page;
mod places;
mod pull;
mod registries;
mod rows;
mod warnings;

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ecr-sidecar");
