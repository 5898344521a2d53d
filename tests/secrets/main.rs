//! The Kubernetes outputs against a real API server, under the rights that `ecr-sidecar manifests` prints.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod admission;
mod appliers;
mod argocd;
mod cluster;
mod doctor;
mod flux;
mod kubelet;
mod namespaces;
mod others;
mod outages;
mod ownership;
mod policy;
mod pull_probe;
mod pull_secrets;
mod reach;
mod rights;
mod tenants;
mod tls;

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ecr-sidecar");
