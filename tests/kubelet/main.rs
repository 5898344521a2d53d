//! Node mode on a real node: kubelet and containerd pull by `kubelet-credential-provider`, as `patches/kubelet` has it.
//!
//! The protocol alone is in `tests/process/kubelet.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod daemonset;
mod files;
mod pulls;
mod scene;
