//! What one Secret should say, given what it says: pure.
//!
//! Invariants:
//! * nothing is applied when nothing differs: `what_is_right_is_left_alone`
//! * a credential of ours that ends later is never replaced by one that ends sooner: `no_step_back`
//! * a Secret that holds what others put there is not taken over unasked: `what_others_filled_is_theirs`
//! * what others put beside ours stays: `foreign_entries_stay`
//! * of a template only `username` and `password` are ours, unless it is we who made it: `a_template_is_shared`
//! * of a repository Secret never more than these two are: `of_a_repository_only_two_fields_are_set`

mod docker_config;
mod password;

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::super::{argocd_names::Flavour, docker_config::read::Base};
use crate::{
    credentials::CredentialSet,
    diagnosis::{Diagnosis, Remedy},
    failure::{Class, Problem, foreign_text::clean},
    kubernetes::{ObjectRef, SecretObject},
    registry::RegistryHost,
};

/// The label by which a Secret tells who keeps it.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The API server takes no Secret whose values are larger together.
const LARGEST: usize = 1 << 20;

/// When the credential of each registry ends that a consumer finds.
pub(super) type InPlace = BTreeMap<RegistryHost, SystemTime>;

/// What a Secret is for.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A docker config of all registries.
    DockerConfig {
        /// Take over what others filled.
        adopt: bool,
        /// Entries to carry along.
        base: Option<Arc<Base>>,
    },
    /// Argo CD's template for one registry.
    Template {
        /// The registry.
        host: RegistryHost,
        /// For which kind of source.
        flavour: Flavour,
    },
    /// A repository of Argo CD, which says itself in which registry it is.
    Repository,
}

/// Of which registries a Secret is to hold the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Concern {
    /// Of every one; also where it is not known yet, so that nothing is said to be well that may not be.
    All,
    /// Of this one.
    One(RegistryHost),
    /// Of none: it is somebody else's registry.
    None,
}

impl Concern {
    /// Whether the registry is one of them.
    pub(super) fn is_for(&self, host: &RegistryHost) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == host,
            Self::None => false,
        }
    }
}

/// What is to be done with a Secret.
pub(super) struct Decision {
    /// What it is to hold.
    pub(super) concern: Concern,
    /// What consumers find there now.
    pub(super) in_place: InPlace,
    /// What is to be applied, if anything, and what they find then.
    pub(super) apply: Option<(Zeroizing<Vec<u8>>, InPlace)>,
    /// What consumers may stumble over.
    pub(super) warnings: Vec<String>,
}

impl Content {
    /// The keys that we keep.
    pub(super) fn keys(&self) -> &'static [&'static str] {
        match self {
            Self::DockerConfig { .. } => &[docker_config::KEY],
            Self::Template { .. } | Self::Repository => &["password", "username"],
        }
    }

    /// What such a Secret is to hold, as far as that is known before it was looked at.
    pub(super) fn concern(&self) -> Concern {
        match self {
            Self::DockerConfig { .. } | Self::Repository => Concern::All,
            Self::Template { host, .. } => Concern::One(host.clone()),
        }
    }
}

/// Decides for the Secret `at`, which was found as `found`.
pub(super) fn decide(
    at: &ObjectRef,
    content: &Content,
    found: Option<&SecretObject>,
    desired: &CredentialSet,
    now: SystemTime,
) -> Result<Decision, Problem> {
    match content {
        Content::DockerConfig { adopt, base } => {
            docker_config::decide(at, *adopt, base.as_deref(), found, desired, now)
        }
        Content::Template { host, flavour } => password::of_template(at, host, *flavour, found, desired, now),
        Content::Repository => password::of_repository(at, found, desired, now),
    }
}

fn refuse_type(at: &ObjectRef, found: Option<&SecretObject>, wanted: &str) -> Result<(), Problem> {
    let Some(found) = found.filter(|found| found.kind != wanted) else { return Ok(()) };
    Err(Problem {
        message: format!("the Secret {at} is of type {}: consumers read {wanted}", clean(&found.kind)),
        remedy: Remedy::with(
            Diagnosis::SecretType,
            format!("kubectl -n {} delete secret {}", at.namespace, at.name),
        ),
        class: Class::Denied,
    })
}

fn refuse_size(at: &ObjectRef, size: usize) -> Result<(), Problem> {
    if size <= LARGEST {
        return Ok(());
    }
    Err(Problem {
        message: format!("the Secret {at} would hold {size} bytes: no more than 1 MiB is possible"),
        remedy: Diagnosis::SecretTooLarge.into(),
        class: Class::Denied,
    })
}

/// Applied only if the Secret still is as it was found.
fn with_version(mut metadata: serde_json::Value, found: Option<&SecretObject>) -> serde_json::Value {
    if let Some(found) = found {
        metadata["resourceVersion"] = json!(found.metadata.resource_version);
    }
    metadata
}

/// The body of an apply.
struct Body<'a> {
    metadata: serde_json::Value,
    kind: Option<&'static str>,
    /// Base64.
    data: BTreeMap<&'a str, &'a str>,
}

impl Body<'_> {
    /// Nothing but the name.
    fn bare(at: &ObjectRef, found: &SecretObject) -> Self {
        let metadata = json!({"name": at.name, "namespace": at.namespace});
        Self { metadata: with_version(metadata, Some(found)), kind: None, data: BTreeMap::new() }
    }

    /// The JSON, in a buffer that never moves, so that no copy of it is left behind.
    fn write(&self) -> Result<Zeroizing<Vec<u8>>, Problem> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Json<'a> {
            api_version: &'static str,
            kind: &'static str,
            #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
            type_: Option<&'static str>,
            metadata: &'a serde_json::Value,
            data: &'a BTreeMap<&'a str, &'a str>,
        }
        let metadata = self.metadata.to_string();
        let size: usize = self.data.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
        let mut body = Zeroizing::new(Vec::with_capacity(metadata.len() + size + 256));
        let json = Json {
            api_version: "v1",
            kind: "Secret",
            type_: self.kind,
            metadata: &self.metadata,
            data: &self.data,
        };
        let written = serde_json::to_writer(&mut *body, &json);
        written.map_err(|error| Problem {
            message: format!("cannot write the body of a request: {error}"),
            remedy: Diagnosis::Fault.into(),
            class: Class::Transient,
        })?;
        Ok(body)
    }
}

#[cfg(test)]
mod tests;
