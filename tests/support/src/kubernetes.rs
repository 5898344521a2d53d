//! What does Kubernetes itself say to what the sidecar does?
//!
//! | module | question |
//! |---|---|
//! | [`api_server`] | a real API server, its life and its outages |
//! | [`access`] | who asks it: `kubectl` as its admin, service accounts with tokens that rotate |
//! | [`audit`] | what was it asked, by whom, how often? |
//! | [`node`] | what becomes of a pod? |
//!
//! An [`ApiServer`] alone has no node and no controller manager: pods don't run, a namespace gets no
//! `default` service account, and one that is deleted stays in `Terminating` unless
//! [`ApiServer::delete_namespace`] deletes it. A [`Node`] has both.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod access;
pub mod api_server;
pub mod audit;
pub mod node;

pub use access::ServiceAccount;
pub use api_server::ApiServer;
pub use audit::{AuditMark, Request, tally};
pub use node::{ImageConfig, Node};

/// Whether a holder has panicked or not: a stopped process is as good then.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
