//! The local health endpoint: what is true now, told over HTTP.

pub mod client;
pub mod server;
pub mod verdict;
