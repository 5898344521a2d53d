//! Registry hosts: account, region, partition, FIPS, dual-stack; the partition table.

/// A registry host as it appears in image references.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryHost(std::sync::Arc<str>);
