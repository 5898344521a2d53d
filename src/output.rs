//! Outputs: where credentials are published.
