//! What an output does when another configuration takes its place.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    super::{super::Remaining, Kind, target::Target},
    Controller,
};
use crate::credentials::CredentialSet;

impl Controller {
    /// Takes what is ours out of the Secrets that no remaining output keeps, if one of them is this output with fewer
    /// namespaces. What an output that is gone has kept stays, as a file does.
    pub(super) async fn cleanup(&mut self, mut remaining: Remaining) {
        self.targets.values_mut().for_each(Target::leave);
        loop {
            self.forget_wanted(&remaining);
            if self.targets.is_empty() {
                return;
            }
            self.start_work();
            let due = self.next_due();
            tokio::select! {
                Some(done) = self.working.join_next() => self.note(done),
                () = remaining.changed() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// Leaves the Secrets alone that a remaining output keeps, what is under way included.
    fn forget_wanted(&mut self, remaining: &Remaining) {
        let successors = match &self.it.kind {
            Kind::DockerConfig(before) => remaining.secrets_named(&before.name),
            Kind::RepoCreds(_) | Kind::Repositories(_) => Vec::new(),
        };
        let own = self.cluster.namespace();
        self.targets.retain(|at, target| {
            let is_wanted = successors.is_empty()
                || successors.iter().any(|settings| settings.namespaces.may_hold(&at.namespace, own));
            if is_wanted && let Some(task) = target.task.take() {
                task.abort();
            }
            !is_wanted
        });
    }
}

/// Credentials by which everything of ours leaves a Secret.
pub(super) fn retire_all(credentials: &CredentialSet) -> watch::Receiver<Arc<CredentialSet>> {
    let CredentialSet { current, awaited, retired } = credentials;
    let retired = current.keys().chain(awaited).chain(retired).cloned().collect();
    let nothing = CredentialSet { retired, ..CredentialSet::default() };
    watch::channel(Arc::new(nothing)).1
}
