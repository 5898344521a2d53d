//! What `patches/` has, on the stock manifests, and the chart: what is built, whether it is admitted, whether it does its
//! work.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod admission;
mod build;
mod chart;
mod containers;
mod docs;
mod iam;
mod image_updater;
mod kustomize;
mod network;
mod node;
mod openshift;
mod rights;
mod scc;
mod shell;
mod values;
