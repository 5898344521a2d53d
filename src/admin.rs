//! The local health endpoint.

mod answers;
mod host;
pub mod metrics;
pub mod process;
pub mod readiness;
pub mod server;
