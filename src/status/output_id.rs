//! Which output an entry of the status, a metric or a log line is about.

use std::fmt;

/// Its type and what it keeps: `docker-config /var/run/ecr-sidecar/config.json`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputId {
    pub kind: String,
    pub target: String,
}

impl OutputId {
    pub fn new(kind: impl Into<String>, target: impl Into<String>) -> Self {
        Self { kind: kind.into(), target: target.into() }
    }
}

impl fmt::Display for OutputId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.target)
    }
}
