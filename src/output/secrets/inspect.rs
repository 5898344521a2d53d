//! What the Secrets of an output are now, found out without writing.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    base,
    desired::{Basis, Content, decide},
    ownership::Memory,
    targets::targets,
};
use crate::{
    clock::Clock,
    credentials::CredentialSet,
    docker_config::Base,
    failure::{Problem, Warning},
    kubernetes::{Cluster, ObjectRef},
    output::{Output, OutputConfig},
};

pub(crate) struct Inspection {
    pub at: ObjectRef,
    /// What consumers may stumble over, or why it could not be kept. `None` when there is none, and it is ours to make.
    pub state: Option<Result<Vec<Warning>, Problem>>,
}

/// The base of an output, and what is wrong with it.
pub(crate) async fn base_of(config: &OutputConfig) -> (Option<Arc<Base>>, Option<Warning>) {
    let Output::Secrets(kind) = Output::new(config) else { return (None, None) };
    let Some(base) = kind.base() else { return (None, None) };
    match base::refreshed(Arc::new(base), true).await {
        Ok((base, warning)) => (Some(base), warning),
        Err(warning) => (None, Some(warning)),
    }
}

/// The Secrets of an output whose names are known, for those registries; none of one whose Secrets are discovered
/// while it runs, and of one that keeps files.
pub(crate) async fn inspect(
    config: &OutputConfig,
    cluster: &Cluster,
    desired: &CredentialSet,
    base: Option<&Arc<Base>>,
    clock: &Clock,
) -> Vec<Inspection> {
    let Output::Secrets(kind) = Output::new(config) else { return Vec::new() };
    if kind.is_discovered() {
        return Vec::new();
    }
    let mut inspected = Vec::new();
    for (at, content) in targets(&kind, cluster.namespace(), &BTreeSet::new(), desired, base) {
        let state = match cluster.secret(&at).await {
            // Of a repository only its owner makes the Secret.
            Ok(None) if !matches!(content, Content::Repository) => None,
            Ok(found) => {
                let basis = Basis { desired, memory: &Memory::default(), now: clock.now() };
                let decision = decide(&at, &content, found.as_ref(), &basis);
                Some(decision.and_then(|it| it.problem.map_or(Ok(it.warnings), Err)))
            }
            Err(error) => Some(Err(error.problem(&at.wanted("get")))),
        };
        inspected.push(Inspection { at, state });
    }
    inspected
}
