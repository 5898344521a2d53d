//! Who asks AWS: every source, `auto`, rotation, and the variables that say how AWS is reached. The real
//! binary as a process, against the emulated AWS, which verifies each signature.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]

#[path = "../world/mod.rs"]
mod world;

mod auto;
mod inputs;
mod network;
mod rotation;
mod sources;
