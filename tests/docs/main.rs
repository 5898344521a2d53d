//! `docs/` and every other page: what they show runs, what they name exists, where they point to is there.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod commands;
mod configuration;
mod examples;
mod layers;
mod links;
mod names;
mod pages;
mod pins;
mod security;
mod walks;

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ecr-sidecar");
