//! What the integration tests share: programs to run, processes that never outlive a test, conditions to
//! wait for.
//!
//! | module | question |
//! |---|---|
//! | [`requirement`] | is here what this test needs, and what if not? |
//! | [`process`] | what did that process print, cost, and end with? |
//! | [`harness`] | an emulated AWS, a folder, and the program under test between the two |
//! | [`iam`] | what the policies that we ship allow |
//! | [`sidecar`] | the program under test, cut off from this machine's credentials |
//! | [`registry`] | a real OCI registry with something in it |
//! | [`dockerd`] | a Docker daemon of the test's own |
//! | [`rust_image`] | the base image of a Rust build, made of this machine |
//! | [`kubernetes`] | a Kubernetes API server of the test's own, and a whole node |
//! | [`markdown`] | which commands does that page show, and what do they print? |
//! | [`files`] | files as users, editors and the kubelet write them, the docker config as consumers read it |
//! | [`http`] | plain HTTP, in one piece or in several |
//! | [`tap`] | everything that AWS answered |
//! | [`net`] | free ports |
//! | [`wait`] | the one place that sleeps |
//!
//! Everything here panics when it cannot do its job: the test has failed then, and the message says at what.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail by panicking")]

pub mod dockerd;
pub mod files;
pub mod harness;
pub mod http;
pub mod iam;
pub mod kubernetes;
pub mod markdown;
pub mod net;
pub mod process;
pub mod registry;
pub mod requirement;
pub mod rust_image;
pub mod sidecar;
pub mod tap;
pub mod wait;

pub use dockerd::Dockerd;
pub use harness::{Harness, Running};
pub use http::http_get;
pub use kubernetes::{ApiServer, ImageConfig, Node, ServiceAccount};
pub use net::{free_port, steady_port};
pub use process::{Process, Signal, clean_command, install, output, printed_by};
pub use registry::DockerRegistry;
pub use requirement::{libraries, program, root, skip};
pub use rust_image::import_rust_image;
pub use sidecar::{Sidecar, emulator_program, release_program};
pub use wait::{pause, wait_for};
