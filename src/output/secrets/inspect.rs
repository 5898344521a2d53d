//! What the Secrets of an output are now, found out without writing.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    desired::{Basis, decide},
    ownership::Memory,
    targets::targets,
};
use crate::{
    clock::Clock,
    credentials::CredentialSet,
    failure::{Problem, Warning},
    kubernetes::{Cluster, ObjectRef},
    output::{Output, OutputConfig},
};

pub(crate) struct Inspection {
    pub at: ObjectRef,
    /// What consumers may stumble over, or why it could not be kept. `None` when there is no such Secret.
    pub state: Option<Result<Vec<Warning>, Problem>>,
}

/// The Secrets of an output whose names are known, for those registries; none of one whose Secrets are discovered
/// while it runs, and of one that keeps files.
pub(crate) async fn inspect(
    config: &OutputConfig,
    cluster: &Cluster,
    desired: &CredentialSet,
    clock: &Clock,
) -> Vec<Inspection> {
    let Output::Secrets(kind) = Output::new(config) else { return Vec::new() };
    if kind.is_discovered() {
        return Vec::new();
    }
    let base = kind.base().map(Arc::new);
    let mut inspected = Vec::new();
    for (at, content) in targets(&kind, cluster.namespace(), &BTreeSet::new(), desired, base.as_ref()) {
        let state = match cluster.secret(&at).await {
            Ok(None) => None,
            Ok(Some(found)) => {
                let basis = Basis { desired, memory: &Memory::default(), now: clock.now() };
                let decision = decide(&at, &content, Some(&found), &basis);
                Some(decision.and_then(|it| it.problem.map_or(Ok(it.warnings), Err)))
            }
            Err(error) => Some(Err(error.problem(&at.wanted("get")))),
        };
        inspected.push(Inspection { at, state });
    }
    inspected
}
