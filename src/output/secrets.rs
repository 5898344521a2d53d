//! Kubernetes Secrets, kept current for those who read them.
//!
//! One loop an output (`controller`). Which Secrets there should be, `targets` decides, and `watches` reports what happens
//! to them. Each is a `target` with a retry state of its own: whatever happens to it (a new token, an edit, a deletion, a
//! retry that is due) calls for a reconciliation (`reconcile`): it is compared and, if it differs, applied; some at a
//! time, in the order of `schedule`, at the API server's pace. What a Secret should hold is decided in `desired`, without
//! I/O.
//!
//! Invariants, each held by a test of `tests/secrets`:
//! * between refreshes nothing is written: `nothing_is_written_between_refreshes`
//! * a failing target never delays another, nor AWS: `a_failing_target_holds_up_no_other`
//! * of Secrets that change all the time, none holds up another: `noisy_secrets_hold_up_no_other`
//! * what another field manager does to a Secret of ours is undone within a second, and in an ownership conflict not at
//!   full speed, yet so that no consumer waits for its credential: `an_edit_is_undone_and_reported`,
//!   `an_ownership_conflict_is_reported_and_leaves_no_consumer_without_a_credential`
//! * who manages a Secret, `managedFields` decide, and what this process wrote: `ownership`
//! * no output removes what another of ours applied: `outputs_that_run_after_each_other_keep_what_the_other_applied`
//! * three replicas never replace a credential by one that expires sooner: `replicas_never_step_back_and_tear_no_pair`
//! * an API server that is away changes nothing that consumers find: `an_outage_of_the_api_server_goes_unnoticed`

mod base;
mod conflict;
mod controller;
mod coverage;
mod desired;
mod expiry_annotation;
mod incident;
mod inspect;
mod ownership;
mod published;
mod reconcile;
mod schedule;
mod target;
mod targets;
mod watches;

use std::{path::PathBuf, pin::pin};

use tokio::{
    sync::oneshot,
    time::{Instant, interval},
};

use self::{controller::Controller, schedule::HEARTBEAT, target::RETRY};
pub(crate) use self::{
    inspect::{Inspection, base_of, inspect},
    published::{are_discovered, published},
};
use super::{
    ReconcilerContext, Remaining,
    secret_settings::{
        DockerConfigSecretSettings, Namespaces, RepoCredsSettings, RepositoriesSettings, Which,
    },
};
use crate::{
    docker_config::Base,
    failure::{Diagnose, log_problem, reminder::Reminder},
    kubernetes::{Cluster, ConnectError, Connection},
};

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    DockerConfig(DockerConfigSecretSettings),
    RepoCreds(RepoCredsSettings),
    /// Argo CD's repositories that another field manager made.
    Repositories(RepositoriesSettings),
}

pub(super) struct SecretsReconciler {
    pub(super) with: ReconcilerContext,
    pub(super) kind: Kind,
    pub(super) connection: Connection,
}

impl Kind {
    pub(crate) fn watched(&self) -> Vec<PathBuf> {
        match self {
            Self::DockerConfig(settings) => settings.base.iter().cloned().collect(),
            Self::RepoCreds(_) | Self::Repositories(_) => Vec::new(),
        }
    }

    fn base(&self) -> Option<Base> {
        self.watched().into_iter().next().map(Base::new)
    }

    /// Whether only the API server knows which Secrets there should be.
    fn is_discovered(&self) -> bool {
        match self {
            Self::DockerConfig(settings) => settings.namespaces.are_found_out(),
            Self::Repositories(settings) => matches!(settings.which, Which::Selector(_)),
            Self::RepoCreds(_) => false,
        }
    }

    fn excludes(&self, namespace: &str) -> bool {
        let Self::DockerConfig(settings) = self else { return false };
        let Namespaces::All { exclude } = &settings.namespaces else { return false };
        exclude.iter().any(|name| name.as_str() == namespace)
    }

    fn prunes(&self) -> bool {
        matches!(self, Self::DockerConfig(settings) if settings.prune)
    }
}

impl SecretsReconciler {
    /// Reconciles until `stop` is dropped or sent to; writes under way are finished first.
    pub(super) async fn run(self, mut stop: oneshot::Receiver<Remaining>) {
        let mut reminder = Reminder::default();
        let mut failures = 0;
        let cluster = loop {
            let connected = tokio::select! {
                _ = &mut stop => return,
                connected = self.connect() => connected,
            };
            let problem = match connected {
                Ok(cluster) => break cluster,
                Err(error) => error.problem(),
            };
            if reminder.is_due(&problem) {
                log_problem!(error, problem, { output = %self.with.id }, "output not written");
            }
            self.with.status.update_output(&self.with.id, |output| {
                output.last_heartbeat = Instant::now();
                output.failed += 1;
                output.last_error = Some(problem);
            });
            failures += 1;
            tokio::select! {
                _ = &mut stop => return,
                () = tokio::time::sleep(RETRY.pause(failures, fastrand::f64())) => {}
            }
        };
        Controller::new(self, cluster).run(stop).await;
    }

    /// Outputs share the connection: one waits for the attempts of all others, and a plugin may take its time.
    async fn connect(&self) -> Result<Cluster, ConnectError> {
        let mut heartbeat = interval(HEARTBEAT);
        let mut connected = pin!(self.connection.cluster());
        loop {
            tokio::select! {
                connected = &mut connected => return connected.cloned(),
                now = heartbeat.tick() => {
                    self.with.status.update_output(&self.with.id, |output| output.last_heartbeat = now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
