//! The local health endpoint.

mod host;
pub mod metrics;
pub mod process;
pub mod readiness;
pub mod server;
