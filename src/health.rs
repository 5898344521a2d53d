//! The local health endpoint: what is true now, told over HTTP.

pub mod client;
mod host;
pub mod metrics;
pub mod process;
pub mod server;
pub mod verdict;
