//! What one Secret should contain, given what it contains: pure.
//!
//! Invariants:
//! * nothing is applied when nothing differs: `what_is_right_is_left_alone`
//! * a credential of ours that expires later is never replaced by one that expires sooner: `no_step_back`
//! * a Secret with unmanaged credentials is not taken over unasked: `what_others_filled_is_theirs`
//! * unmanaged entries stay: `unmanaged_entries_stay`
//! * of a template only `username` and `password` are ours, unless we created it: `a_template_is_shared`
//! * of a repository Secret never more than these two are: `of_a_repository_only_two_fields_are_set`
//! * a password is only where Argo CD sends it to its registry, over TLS that it verifies:
//!   `a_template_with_another_url_gets_no_password`, `a_password_leaves_when_the_url_changes`
//! * what another output of ours, or an earlier process, has applied stays: `no_output_removes_what_another_applied`

mod body;
mod docker_config;
mod password;

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use zeroize::Zeroizing;

use self::body::Body;
pub(super) use self::docker_config::KEY as DOCKER_CONFIG_KEY;
use super::{super::argocd_names::Flavour, ownership::Memory};
use crate::{
    credentials::CredentialSet,
    docker_config::Base,
    failure::{
        Problem, Warning,
        diagnosis::{Diagnosis, Remedy},
        foreign_text::clean,
    },
    kubernetes::{ObjectRef, SecretObject},
    registry::RegistryHost,
};

/// The API server takes no Secret whose values are larger together.
const LARGEST: usize = 1 << 20;

/// When the credential of each registry expires that a consumer finds.
pub(super) type InPlace = BTreeMap<RegistryHost, SystemTime>;

/// What a Secret is for: a docker config of all registries, Argo CD's template for one, or a repository of Argo CD, whose
/// own `url` names its registry.
#[derive(Debug, Clone)]
pub(super) enum Content {
    DockerConfig { adopt: bool, base: Option<Arc<Base>> },
    Template { host: RegistryHost, flavour: Flavour },
    Repository,
}

/// Of which registries a Secret is to hold the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Coverage {
    /// Of every one; also where it is not known yet, so that nothing is reported as well that may not be.
    All,
    One(RegistryHost),
    /// Of none: its registry is not configured.
    None,
}

impl Coverage {
    pub(super) fn is_for(&self, host: &RegistryHost) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == host,
            Self::None => false,
        }
    }
}

/// The body of an apply, and what consumers find after it.
pub(super) type Apply = (Zeroizing<Vec<u8>>, InPlace);

pub(super) struct Decision {
    pub(super) coverage: Coverage,
    pub(super) in_place: InPlace,
    /// What is to be applied, if anything, and what they find then.
    pub(super) apply: Option<Apply>,
    /// What is to be applied removes something that some client would have used in place of ours.
    pub(super) removes: bool,
    pub(super) warnings: Vec<Warning>,
    /// Why it gets no credential, also after what is to be applied.
    pub(super) problem: Option<Problem>,
}

impl Decision {
    fn unchanged(coverage: Coverage, in_place: InPlace, warnings: Vec<Warning>) -> Self {
        Self { coverage, in_place, apply: None, removes: false, warnings, problem: None }
    }

    /// Whether the Secret holds all that consumers need, and differs only in what none of them notices. Removing a
    /// password is not harmless.
    pub(super) fn is_harmless(&self) -> bool {
        let changes_nothing = |(_, after): &Apply| *after == self.in_place && !after.is_empty();
        self.problem.is_none() && !self.removes && self.apply.as_ref().is_some_and(changes_nothing)
    }
}

pub(super) struct Basis<'a> {
    pub(super) desired: &'a CredentialSet,
    pub(super) memory: &'a Memory,
    pub(super) now: SystemTime,
}

impl Content {
    pub(super) fn keys(&self) -> &'static [&'static str] {
        match self {
            Self::DockerConfig { .. } => &[docker_config::KEY],
            Self::Template { .. } | Self::Repository => &["password", "username"],
        }
    }

    /// What is to be left of it where it is no longer wanted: of its base nothing.
    pub(super) fn retired(&self) -> Self {
        match self {
            Self::DockerConfig { adopt, base } => {
                let base = base.as_ref().map(|base| Arc::new(base.retired()));
                Self::DockerConfig { adopt: *adopt, base }
            }
            other => other.clone(),
        }
    }

    /// What such a Secret is to hold, as far as that is known before it is read.
    pub(super) fn coverage(&self) -> Coverage {
        match self {
            Self::DockerConfig { .. } | Self::Repository => Coverage::All,
            Self::Template { host, .. } => Coverage::One(host.clone()),
        }
    }
}

pub(super) fn decide(
    at: &ObjectRef,
    content: &Content,
    found: Option<&SecretObject>,
    basis: &Basis<'_>,
) -> Result<Decision, Problem> {
    match content {
        Content::DockerConfig { adopt, base } => {
            docker_config::decide(at, *adopt, base.as_deref(), found, basis)
        }
        Content::Template { host, flavour } => password::of_template(at, host, *flavour, found, basis),
        Content::Repository => password::of_repository(at, found, basis),
    }
}

fn reject_type(at: &ObjectRef, found: Option<&SecretObject>, wanted: &str) -> Result<(), Problem> {
    let Some(found) = found.filter(|found| found.kind != wanted) else { return Ok(()) };
    let message = format!("the Secret {at} is of type {}: consumers read {wanted}", clean(&found.kind));
    let command = format!("kubectl -n {} delete secret {}", at.namespace, at.name);
    Err(Problem::denied(message, Remedy::with(Diagnosis::SecretType, command)))
}

fn reject_size(at: &ObjectRef, size: usize) -> Result<(), Problem> {
    if size <= LARGEST {
        return Ok(());
    }
    let message = format!("the Secret {at} would hold {size} bytes: no more than 1 MiB is possible");
    Err(Problem::denied(message, Diagnosis::SecretTooLarge))
}

#[cfg(test)]
mod tests;
