//! Which Secrets are kept, and where: parsed, never half-valid.
//!
//! Names and namespaces go into the paths of requests as they are, so nothing gets through that Kubernetes does not
//! take for one.

use std::{collections::BTreeSet, fmt, path::PathBuf, str::FromStr};

use super::label_selector::LabelSelector;

/// The name of a Secret or service account: a DNS subdomain of at most 253 characters (RFC 1123).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

/// The name of a namespace: a DNS label of at most 63 characters (RFC 1123).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceName(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "a Secret's name: at most 253 lower-case letters, digits, `-` and `.`, with a letter or digit at each end of each part"
    )]
    Secret,
    #[error(
        "a namespace's name: at most 63 lower-case letters, digits and `-`, with a letter or digit at both ends"
    )]
    Namespace,
}

impl FromStr for ObjectName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_good = text.len() <= 253 && text.split('.').all(is_label);
        is_good.then(|| Self(text.to_owned())).ok_or(NameError::Secret)
    }
}

impl FromStr for NamespaceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_good = text.len() <= 63 && is_label(text);
        is_good.then(|| Self(text.to_owned())).ok_or(NameError::Namespace)
    }
}

fn is_label(text: &str) -> bool {
    let is_inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.bytes().all(|c| is_inner(c) || c == b'-')
        && text.bytes().next().is_some_and(is_inner)
        && text.bytes().next_back().is_some_and(is_inner)
}

impl ObjectName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NamespaceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    Own,
    /// These; never empty.
    Names(BTreeSet<NamespaceName>),
    /// Every one but these, also those to come.
    All {
        exclude: BTreeSet<NamespaceName>,
    },
    /// Those with such labels, also those to come.
    Selector(LabelSelector),
}

impl Namespaces {
    /// Whether they have to be found out, by watching namespaces.
    pub fn are_found_out(&self) -> bool {
        matches!(self, Self::All { .. } | Self::Selector(_))
    }

    /// Whether `namespace` is or may be one of them; `own` is the pod's. Labels are known to the API server only.
    pub fn may_hold(&self, namespace: &str, own: &str) -> bool {
        let among = |names: &BTreeSet<NamespaceName>| names.iter().any(|name| name.as_str() == namespace);
        match self {
            Self::Own => namespace == own,
            Self::Names(names) => among(names),
            Self::All { exclude } => !among(exclude),
            Self::Selector(_) => true,
        }
    }
}

impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &BTreeSet<NamespaceName>| {
            names.iter().map(NamespaceName::as_str).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Own => f.write_str("its own namespace"),
            Self::Names(names) => f.write_str(&list(names)),
            Self::All { exclude } if exclude.is_empty() => f.write_str("all namespaces"),
            Self::All { exclude } => write!(f, "all namespaces but {}", list(exclude)),
            Self::Selector(selector) => write!(f, "namespaces with {}", selector.as_str()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerConfigSecretSettings {
    pub name: ObjectName,
    pub namespaces: Namespaces,
    /// A docker config whose entries are carried along.
    pub base: Option<PathBuf>,
    /// Take over a Secret with unmanaged credentials.
    pub adopt: bool,
    /// Remove the Secrets that are ours alone from namespaces that are no longer to have one.
    pub prune: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoCredsSettings {
    pub namespace: NamespaceName,
}

/// Existing repositories of Argo CD: their user name and password are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoriesSettings {
    pub namespace: NamespaceName,
    pub which: Which,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// These; never empty.
    Names(BTreeSet<ObjectName>),
    /// Those with such labels, also those to come.
    Selector(LabelSelector),
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(names) => {
                f.write_str(&names.iter().map(ObjectName::as_str).collect::<Vec<_>>().join(", "))
            }
            Self::Selector(selector) => write!(f, "Secrets with {}", selector.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_kubernetes_takes_for_a_name_is_one() {
        for good in ["a", "ecr-credentials", "a.b-c.9", "1"] {
            assert!(good.parse::<ObjectName>().is_ok(), "{good}");
        }
        let long = "a".repeat(254);
        for bad in
            ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a/b", "a b", "a?x=1", "ä", "../x", long.as_str()]
        {
            assert!(bad.parse::<ObjectName>().is_err(), "{bad}");
        }
        for bad in ["", "a.b", "Flux", "a/b", &"a".repeat(64)] {
            assert!(bad.parse::<NamespaceName>().is_err(), "{bad}");
        }
        assert!("flux-system".parse::<NamespaceName>().is_ok());
    }
}
