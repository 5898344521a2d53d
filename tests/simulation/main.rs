//! Simulated days under random faults: the real engine and a real file, with AWS played at the level of HTTP
//! and time that flies.
//!
//! Whatever happens: the last good file stays, whole; readiness is true exactly while what is in the file
//! would be let in; calls are bounded; and when a fault ends, recovery comes within the plan's time.
//!
//! `SIMULATION_SEED=n` runs one sequence of faults again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod aws;
mod clock;
mod faults;
mod probes;
mod world;

use std::time::Duration;

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// 2026-01-01
const START: Duration = Duration::from_secs(1_767_225_600);
