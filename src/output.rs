//! Where credentials are published: one reconciler per output, each with its own retry state.
//!
//! A reconciler compares desired with actual and writes only a difference. A second event during a write is
//! coalesced, never queued up. Here is the one of files; that of Kubernetes Secrets is in [`secrets`].

pub mod argocd_names;
pub mod atomic_file;
pub mod docker_config;
pub mod label_selector;
pub mod secret_settings;
pub mod secrets;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

use self::{
    docker_config::{DockerConfigFile, Written},
    secret_settings::{DockerConfigSecretSettings, ObjectName},
    secrets::{Kind, SecretsReconciler},
};
use crate::{
    clock::Clock,
    config::OutputConfig,
    credentials::CredentialSet,
    diagnosis::Diagnosis,
    failure::{Class, Problem},
    kubernetes::Connection,
    refresh::Reminder,
    registry::RegistryHost,
    status::{OutputStatus, StatusBoard},
};

/// Without events it is looked at least this often whether all is as desired.
const TURN: Duration = Duration::from_secs(60);
/// A write that takes longer is said to hang.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first and the longest pause after a failed reconciliation.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A place where credentials are published.
pub enum Output {
    /// A docker config.json.
    DockerConfig(DockerConfigFile),
    /// Kubernetes Secrets.
    Secrets(Kind),
}

/// What a reconciler works with.
pub struct Surroundings {
    /// Its place in the status.
    pub id: String,
    /// What is desired.
    pub credentials: watch::Receiver<Arc<CredentialSet>>,
    /// Where it is told what happened.
    pub status: StatusBoard,
    /// The time of day.
    pub clock: Clock,
    /// "Reconcile now".
    pub wake: Arc<Notify>,
    /// Whether there is time for what others do: `once` has none.
    pub stays: bool,
}

/// What runs on when an output ends because another configuration is applied.
#[derive(Debug, Clone)]
pub struct Remaining(Arc<[OutputConfig]>);

impl Remaining {
    /// The outputs of the new configuration.
    pub fn new(outputs: &[OutputConfig]) -> Self {
        Self(outputs.into())
    }

    /// Those that keep docker configs in Secrets of this name.
    fn secrets_named(&self, name: &ObjectName) -> impl Iterator<Item = &DockerConfigSecretSettings> {
        self.0.iter().filter_map(move |output| match output {
            OutputConfig::DockerConfigSecret(settings) => Some(settings).filter(|it| it.name == *name),
            _ => None,
        })
    }
}

impl Output {
    /// The output that `config` describes.
    pub fn new(config: &OutputConfig) -> Self {
        match config {
            OutputConfig::DockerConfig(settings) => {
                Self::DockerConfig(DockerConfigFile::new(settings.clone()))
            }
            OutputConfig::DockerConfigSecret(settings) => Self::Secrets(Kind::DockerConfig(settings.clone())),
            OutputConfig::ArgocdRepoCreds(settings) => Self::Secrets(Kind::RepoCreds(settings.clone())),
            OutputConfig::ArgocdRepositories(settings) => Self::Secrets(Kind::Repositories(settings.clone())),
        }
    }

    /// Refuses what can never work. Blocks on the file system.
    pub fn preflight(&self) -> Result<(), Problem> {
        match self {
            Self::DockerConfig(file) => file.preflight().map_err(|error| Problem {
                message: error.to_string(),
                remedy: error.remedy(),
                class: Class::Denied,
            }),
            // Rights and Secrets may come later: a sidecar that ends for them would keep its neighbour from starting.
            Self::Secrets(_) => Ok(()),
        }
    }

    /// The files whose change calls for a reconciliation.
    pub fn watched(&self) -> Vec<PathBuf> {
        match self {
            Self::DockerConfig(file) => file.watched(),
            Self::Secrets(kind) => kind.watched(),
        }
    }

    /// Its place in the status.
    pub fn status(config: &OutputConfig) -> OutputStatus {
        let id = config.id();
        let (kind, target) = id.split_once(' ').unwrap_or((&id, ""));
        OutputStatus::new(kind, target)
    }

    /// Keeps it as desired until `stop` is dropped, since the process ends, or another configuration is applied; a
    /// write under way is finished first.
    pub async fn keep(self, with: Surroundings, connection: Connection, stop: oneshot::Receiver<Remaining>) {
        match self {
            Self::DockerConfig(file) => FileReconciler { with, file: Some(file) }.run(stop).await,
            Self::Secrets(kind) => SecretsReconciler { with, kind, connection }.run(stop).await,
        }
    }
}

/// What a reconciliation found and did.
struct Reconciled {
    /// What consumers would read now, also after a failure: each registry's credential and when it ends.
    in_place: BTreeMap<RegistryHost, SystemTime>,
    /// What consumers may stumble over.
    warnings: Vec<String>,
    /// Whether something was written, or why that failed.
    result: Result<bool, Problem>,
}

/// Makes actual what is desired. Blocks on the file system.
fn reconcile(file: &mut DockerConfigFile, desired: &CredentialSet) -> Reconciled {
    let report = file.reconcile(desired);
    Reconciled {
        in_place: report.in_place,
        warnings: report.warnings.iter().map(ToString::to_string).collect(),
        result: report.result.map(|written| written == Written::Changed).map_err(|error| Problem {
            message: error.to_string(),
            remedy: error.remedy(),
            class: Class::Transient,
        }),
    }
}

/// Keeps one file as desired.
struct FileReconciler {
    with: Surroundings,
    /// The file; away while a thread works on it.
    file: Option<DockerConfigFile>,
}

impl FileReconciler {
    async fn run(mut self, mut stop: oneshot::Receiver<Remaining>) {
        let mut reminder = Reminder::default();
        let mut failures: u32 = 0;
        // Who stays looks what is there before the first credential comes: a process before it may have left some.
        if !self.with.stays && self.rest(0, &mut stop).await.is_none() {
            return;
        }
        loop {
            let desired = Arc::clone(&self.with.credentials.borrow_and_update());
            let Some(reconciled) = self.reconcile(desired).await else { return };
            failures = if reconciled.result.is_ok() { 0 } else { failures.saturating_add(1) };
            self.note(reconciled, failures, &mut reminder);
            if self.rest(failures, &mut stop).await.is_none() {
                return;
            }
        }
    }

    /// Reconciles on a thread of its own, since a volume may hang. `None` when the runtime ends.
    async fn reconcile(&mut self, desired: Arc<CredentialSet>) -> Option<Reconciled> {
        let mut file = self.file.take()?;
        let mut task: JoinHandle<_> = tokio::task::spawn_blocking(move || {
            let reconciled = reconcile(&mut file, &desired);
            (file, reconciled)
        });
        loop {
            match tokio::time::timeout(PATIENCE, &mut task).await {
                Ok(Ok((file, reconciled))) => {
                    self.file = Some(file);
                    return Some(reconciled);
                }
                Ok(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Ok(Err(_)) => return None,
                Err(_) => self.note_hanging(),
            }
        }
    }

    /// Waits for a reason to reconcile. `None` when told to stop.
    async fn rest(&mut self, failures: u32, stop: &mut oneshot::Receiver<Remaining>) -> Option<()> {
        let pause = retry_pause(failures);
        self.with.status.update_output(&self.with.id, |output| output.turned = Instant::now());
        tokio::select! {
            biased;
            _ = stop => None,
            () = tokio::time::sleep(pause.unwrap_or(TURN)) => Some(()),
            changed = self.with.credentials.changed() => changed.ok(),
            () = self.with.wake.notified() => Some(()),
        }
    }

    fn note(&self, reconciled: Reconciled, failures: u32, reminder: &mut Reminder) {
        let Reconciled { in_place, warnings, result } = reconciled;
        let now = self.with.clock.now();
        let mut known_warnings = Vec::new();
        self.with.status.read(|status| {
            known_warnings =
                status.outputs.get(&self.with.id).map(|output| output.warnings.clone()).unwrap_or_default()
        });
        for warning in warnings.iter().filter(|warning| !known_warnings.contains(warning)) {
            tracing::warn!(output = %self.with.id, warning, "output has a flaw");
        }
        match &result {
            Ok(true) => tracing::info!(output = %self.with.id, registries = in_place.len(), "output written"),
            Ok(false) => {}
            Err(problem) if reminder.is_due(problem) => {
                tracing::warn!(output = %self.with.id, error = problem.message, diagnosis = problem.remedy.diagnosis.id(), remedy = %problem.remedy, failures, "output not written");
            }
            Err(_) => {}
        }
        if result.is_ok() && std::mem::take(reminder).was_used() {
            tracing::info!(output = %self.with.id, "output in sync again");
        }
        self.with.status.update_output(&self.with.id, |output| {
            output.in_place = in_place;
            output.warnings = warnings;
            output.reconciled = true;
            match result {
                Ok(written) => {
                    output.last_error = None;
                    output.writes += u64::from(written);
                    output.written_at = if written { Some(now) } else { output.written_at };
                }
                Err(problem) => {
                    output.failed += 1;
                    output.last_error = Some(problem);
                }
            }
        });
    }

    fn note_hanging(&self) {
        self.with.status.update_output(&self.with.id, |output| {
            output.turned = Instant::now();
            output.last_error = Some(Problem {
                message: format!(
                    "{}: the volume gives no answer for more than {} s",
                    self.with.id,
                    PATIENCE.as_secs()
                ),
                remedy: Diagnosis::VolumeHangs.into(),
                class: Class::Transient,
            });
        });
    }
}

/// Exponential, without jitter: a local file system is nobody's shared limit.
fn retry_pause(failures: u32) -> Option<Duration> {
    let doublings = failures.checked_sub(1)?;
    Some(RETRY.0.saturating_mul(1 << doublings.min(10)).min(RETRY.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let pauses: Vec<_> =
            [0, 1, 2, 3, 7, 99].map(retry_pause).into_iter().map(|p| p.map(|p| p.as_secs())).collect();
        assert_eq!(pauses, [None, Some(1), Some(2), Some(4), Some(60), Some(60)]);
    }
}
