//! Where credentials are published: one reconciler per output, each with its own retry state.
//!
//! A reconciler compares desired with actual and writes only a difference. A second event during a write is
//! coalesced, never queued up. Another kind of output is another variant of [`Output`] and one more file
//! under `output/`; this loop stays as it is.

pub mod atomic_file;
pub mod docker_config;

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

use self::docker_config::{DockerConfigFile, Written};
use crate::{
    clock::Clock,
    config::OutputConfig,
    credentials::CredentialSet,
    failure::{Class, Problem},
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
}

/// What a reconciliation found and did.
pub struct Reconciled {
    /// What consumers would read now, also after a failure: each registry's credential and when it ends.
    pub in_place: BTreeMap<RegistryHost, SystemTime>,
    /// What consumers may stumble over.
    pub warnings: Vec<String>,
    /// Whether something was written, or why that failed.
    pub result: Result<bool, Problem>,
}

impl Output {
    /// The output that `config` describes.
    pub fn new(config: &OutputConfig) -> Self {
        match config {
            OutputConfig::DockerConfig(settings) => {
                Self::DockerConfig(DockerConfigFile::new(settings.clone()))
            }
        }
    }

    /// Refuses what can never work. Blocks on the file system.
    pub fn preflight(&self) -> Result<(), Problem> {
        match self {
            Self::DockerConfig(file) => file.preflight().map_err(|error| Problem {
                message: error.to_string(),
                remedy: error.remedy().into_owned(),
                class: Class::Denied,
            }),
        }
    }

    /// Makes actual what is desired. Blocks on the file system.
    fn reconcile(&mut self, desired: &CredentialSet) -> Reconciled {
        match self {
            Self::DockerConfig(file) => {
                let report = file.reconcile(desired);
                Reconciled {
                    in_place: report.in_place,
                    warnings: report.warnings.iter().map(ToString::to_string).collect(),
                    result: report.result.map(|written| written == Written::Changed).map_err(|error| {
                        Problem {
                            message: error.to_string(),
                            remedy: error.remedy().into_owned(),
                            class: Class::Transient,
                        }
                    }),
                }
            }
        }
    }

    /// The files whose change calls for a reconciliation.
    pub fn watched(&self) -> Vec<PathBuf> {
        match self {
            Self::DockerConfig(file) => file.watched(),
        }
    }

    /// Its place in the status.
    pub fn status(config: &OutputConfig) -> OutputStatus {
        match config {
            OutputConfig::DockerConfig(settings) => {
                OutputStatus::new("docker-config", settings.path.display().to_string())
            }
        }
    }
}

/// Keeps one output as desired.
pub struct Reconciler {
    /// Its place in the status.
    pub id: String,
    /// The output; away while a thread works on it.
    pub output: Option<Output>,
    /// What is desired.
    pub credentials: watch::Receiver<CredentialSet>,
    /// Where it is told what happened.
    pub status: StatusBoard,
    /// The time of day.
    pub clock: Clock,
    /// "Reconcile now".
    pub wake: Arc<Notify>,
    /// Look what is there before the first credential comes: a process before this one may have left some.
    pub looks_first: bool,
}

impl Reconciler {
    /// Reconciles until `stop` is dropped or sent to; a write under way is finished first.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut reminder = Reminder::default();
        let mut failures: u32 = 0;
        if !self.looks_first && self.rest(0, &mut stop).await.is_none() {
            return;
        }
        loop {
            let desired = self.credentials.borrow_and_update().clone();
            let Some(reconciled) = self.reconcile(desired).await else { return };
            failures = if reconciled.result.is_ok() { 0 } else { failures.saturating_add(1) };
            self.note(reconciled, failures, &mut reminder);
            if self.rest(failures, &mut stop).await.is_none() {
                return;
            }
        }
    }

    /// Reconciles on a thread of its own, since a volume may hang. `None` when the runtime ends.
    async fn reconcile(&mut self, desired: CredentialSet) -> Option<Reconciled> {
        let mut output = self.output.take()?;
        let mut task: JoinHandle<_> = tokio::task::spawn_blocking(move || {
            let reconciled = output.reconcile(&desired);
            (output, reconciled)
        });
        loop {
            match tokio::time::timeout(PATIENCE, &mut task).await {
                Ok(Ok((output, reconciled))) => {
                    self.output = Some(output);
                    return Some(reconciled);
                }
                Ok(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Ok(Err(_)) => return None,
                Err(_) => self.note_hanging(),
            }
        }
    }

    /// Waits for a reason to reconcile. `None` when told to stop.
    async fn rest(&mut self, failures: u32, stop: &mut oneshot::Receiver<()>) -> Option<()> {
        let pause = retry_pause(failures);
        self.status.update_output(&self.id, |output| output.turned = Instant::now());
        tokio::select! {
            biased;
            _ = stop => None,
            () = tokio::time::sleep(pause.unwrap_or(TURN)) => Some(()),
            changed = self.credentials.changed() => changed.ok(),
            () = self.wake.notified() => Some(()),
        }
    }

    fn note(&self, reconciled: Reconciled, failures: u32, reminder: &mut Reminder) {
        let Reconciled { in_place, warnings, result } = reconciled;
        let now = self.clock.now();
        let mut known_warnings = Vec::new();
        self.status.read(|status| {
            known_warnings =
                status.outputs.get(&self.id).map(|output| output.warnings.clone()).unwrap_or_default()
        });
        for warning in warnings.iter().filter(|warning| !known_warnings.contains(warning)) {
            tracing::warn!(output = %self.id, warning, "output has a flaw");
        }
        match &result {
            Ok(true) => tracing::info!(output = %self.id, registries = in_place.len(), "output written"),
            Ok(false) => {}
            Err(problem) if reminder.is_due(problem) => {
                tracing::warn!(output = %self.id, error = problem.message, remedy = problem.remedy, failures, "output not written");
            }
            Err(_) => {}
        }
        if result.is_ok() && std::mem::take(reminder).was_used() {
            tracing::info!(output = %self.id, "output in sync again");
        }
        self.status.update_output(&self.id, |output| {
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
        self.status.update_output(&self.id, |output| {
            output.turned = Instant::now();
            output.last_error = Some(Problem {
                message: format!(
                    "{}: the volume gives no answer for more than {} s",
                    self.id,
                    PATIENCE.as_secs()
                ),
                remedy: "check the volume; a memory-backed emptyDir cannot hang".into(),
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
