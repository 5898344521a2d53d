//! Rights of the sidecar's service account.

/// What is done with a Secret whose name is known.
pub(crate) const VERBS: [&str; 4] = ["get", "list", "watch", "patch"];

/// A right that the configuration needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Right {
    /// In which namespace; empty for all of them.
    pub namespace: String,
    pub resource: &'static str,
    /// Which one; empty for all of them.
    pub name: String,
    /// What is to be done, such as `patch`.
    pub verb: &'static str,
}
