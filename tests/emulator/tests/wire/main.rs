//! The emulator, held to the wire and to the programs that speak to the real thing.
#![allow(clippy::unwrap_used, reason = "what a helper unwraps fails the test that called it")]

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod control;
mod faults;
mod metadata;
mod policies;
mod proxy;
mod registry;
mod roles;
mod signatures;
mod sts;
mod upstream;
