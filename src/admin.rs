//! The local health endpoint: what is true now, told over HTTP.

mod host;
pub mod metrics;
pub mod process;
pub mod readiness;
pub mod server;
