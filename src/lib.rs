//! Keeps Amazon ECR credentials fresh in the place the main container reads them.
//!
//! One way, level-triggered:
//!
//! ```text
//!  config ──► token keys ──► one refresher per key ──► CredentialSet ──► one reconciler per output ──► consumers
//!                                │  (plan: pure)        (watch channel)        │  (desired vs. actual)
//!                                └──────────────► Status ◄─────────────────────┘
//!                                                   │
//!                                      verdict(Status, now): pure ──► /livez /readyz /startupz /status /metrics
//! ```
//!
//! | question | module |
//! |---|---|
//! | What is it to do? | [`config`], [`registry`], [`cli`] |
//! | What does it need in a cluster? | [`manifests`] |
//! | Who asks AWS, and what is the answer? | [`aws`], [`identity`], [`token`], [`http`] |
//! | What has gone wrong, and what mends it? | [`failure`], [`diagnosis`] |
//! | What is there for one registry, now? | [`lookup`], [`helper`] |
//! | Why would it not work here? | [`doctor`] |
//! | When? | [`refresh`], [`refresh::plan`], [`clock`] |
//! | What is published, and where? | [`credentials`], [`output`], [`kubernetes`] |
//! | What is true now? | [`status`], [`health`] |
//! | Who waits for the reader of the log? | [`log_queue`] |
//! | How is a file read that others may write, a program run that may hang? | [`fs`], [`process_group`] |
//! | What holds it together? | [`app`], [`engine`], [`watch`], [`shutdown`], [`telemetry`], [`secret`], [`hardening`] |
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
