//! Outputs: where credentials are published.

pub mod atomic_file;
pub mod docker_config;
