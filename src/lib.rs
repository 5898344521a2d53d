//! Keeps Amazon ECR credentials fresh where the main container reads them.
//!
//! Data flows one way, level-triggered:
//!
//! ```text
//!  config ──► token keys ──► one refresher per key ──► CredentialSet ──► one reconciler per output ──► consumers
//!                                │  (plan: pure)        (watch channel)        │  (desired vs. actual)
//!                                └──────────────► Status ◄─────────────────────┘
//!                                                   │
//!                                   readiness(Status, now): pure ──► /livez /readyz /startupz /status /metrics
//! ```
//!
//! A module uses only modules of the layers below it. CONTRIBUTING.md has the layers, which a test holds
//! (`a_module_uses_only_what_stands_below_it`), and where a new metric, identity source or diagnosis goes.
#![allow(rustdoc::private_intra_doc_links, reason = "whoever reads this reads the private items too")]

#[doc(hidden)]
pub mod admin;
mod app;
#[doc(hidden)]
pub mod aws;
mod backoff;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod config;
mod credentials;
mod docker_config;
mod doctor;
#[doc(hidden)]
pub mod engine;
#[doc(hidden)]
pub mod env;
#[doc(hidden)]
pub mod failure;
#[doc(hidden)]
pub mod fs;
mod hardening;
mod kubernetes;
mod log_queue;
mod manifests;
mod output;
mod process_group;
mod pull;
mod pull_probe;
mod refresh;
mod registry;
mod secret;
#[doc(hidden)]
pub mod shutdown;
#[doc(hidden)]
pub mod status;
mod tasks;
mod telemetry;
#[doc(hidden)]
pub mod units;
