//! `/metrics`, and what `patches/monitoring/` makes of it: read by Prometheus's own parser and engine.
//!
//! | module | question |
//! |---|---|
//! | [`endpoint`] | is what it says true, and does saying it cost nothing? |
//! | [`monitoring`] | do alerts fire when they should, and do queries find something? |
//! | [`scrapes`] | what does Prometheus make of it? |
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]

mod endpoint;
mod monitoring;
mod scrapes;

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ecr-sidecar");
