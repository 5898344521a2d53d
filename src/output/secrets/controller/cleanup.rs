//! What an output does when another configuration takes its place.

use std::sync::Arc;

use tokio::{sync::watch, time::Instant};

use super::{
    super::{super::Remaining, Kind, schedule, target::Event},
    Controller,
};
use crate::credentials::CredentialSet;

impl Controller {
    /// Removes our entries from the Secrets that no remaining output keeps, if one of them is this output with fewer
    /// namespaces. What an output that is gone has kept stays, as a file does.
    pub(super) async fn cleanup(&mut self, mut remaining: Remaining) {
        self.send_to_all(|| Event::Unwanted);
        loop {
            self.forget_wanted(&remaining);
            if self.targets.is_empty() {
                return;
            }
            self.start_due();
            let wake_at = schedule::wake_at(&self.targets, self.running.len(), Instant::now());
            tokio::select! {
                Some(finished) = self.running.join_next() => self.finish(finished),
                () = remaining.changed() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    pub(super) fn log_given_up(&self) {
        let Some((first, _)) = self.targets.first_key_value() else { return };
        let error = self.targets.values().find_map(|it| Some(&it.problem()?.message));
        tracing::warn!(
            output = %self.it.with.id, secrets = self.targets.len(), %first, error,
            "Secrets no longer managed; our entries stay in them: remove these, or the Secrets, by hand"
        );
    }

    /// Leaves the Secrets alone that a remaining output keeps, what is under way included.
    fn forget_wanted(&mut self, remaining: &Remaining) {
        let successors = match &self.it.kind {
            Kind::DockerConfig(before) => remaining.secrets_named(&before.name),
            Kind::RepoCreds(_) | Kind::Repositories(_) => Vec::new(),
        };
        let own = self.cluster.namespace();
        self.targets.retain(|at, _| {
            let is_wanted = successors.is_empty()
                || successors.iter().any(|settings| settings.namespaces.may_hold(&at.namespace, own));
            if is_wanted && let Some(task) = self.tasks.remove(at) {
                task.abort();
            }
            !is_wanted
        });
    }
}

/// Credentials by which our entries leave a Secret.
pub(super) fn retire_all(credentials: &CredentialSet) -> watch::Receiver<Arc<CredentialSet>> {
    let CredentialSet { current, awaited, retired } = credentials;
    let retired = current.keys().chain(awaited).chain(retired).cloned().collect();
    let nothing = CredentialSet { retired, ..CredentialSet::default() };
    watch::channel(Arc::new(nothing)).1
}
