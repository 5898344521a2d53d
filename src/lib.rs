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

pub mod admin;
pub mod app;
pub mod aws;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod doctor;
pub mod engine;
pub mod env;
pub mod failure;
pub mod fs;
mod hardening;
pub mod kubernetes;
pub mod log_queue;
pub mod manifests;
pub mod output;
mod process_group;
pub mod refresh;
pub mod registry;
pub mod secret;
pub mod shutdown;
pub mod status;
pub mod telemetry;
pub mod units;
