//! Where credentials are published: one reconciler per output, each with its own retry state.
//!
//! A reconciler compares desired with actual and writes only a difference. A second event during a write is
//! coalesced, never queued up. Here is the one of files; that of Kubernetes Secrets is in [`secrets`].

pub(crate) mod argocd_names;
mod config;
mod conflict;
pub(crate) mod file;
pub(crate) mod label_selector;
pub(crate) mod secret_settings;
pub(crate) mod secrets;
mod warning_log;

pub(crate) use config::OutputConfig;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

use self::{
    conflict::{CONFLICT_BACKOFF, Conflict, Edge},
    file::{DockerConfigError, DockerConfigFile, Report, Written},
    secret_settings::{DockerConfigSecretSettings, ObjectName},
    secrets::{Kind, SecretsReconciler},
    warning_log::WarningLog,
};
use crate::{
    clock::Clock,
    credentials::CredentialSet,
    failure::{Class, Diagnose, Problem, diagnosis::Diagnosis, log_problem, reminder::Reminder},
    fs::watch::{FileWatcher, Watched},
    kubernetes::Connection,
    registry::RegistryHost,
    status::{OutputStatus, StatusBoard},
};

/// Without events an output is reconciled at least this often.
const RESYNC_INTERVAL: Duration = Duration::from_secs(60);
/// The longest pause between a reconciliation and one that an event calls for; else it is as long as the first took.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// A write that takes longer is said to hang.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first and the longest pause after a failed reconciliation.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A place where credentials are published.
pub(crate) enum Output {
    DockerConfig(Box<DockerConfigFile>),
    /// Kubernetes Secrets.
    Secrets(Kind),
}

/// What a reconciler works with.
pub(crate) struct ReconcilerContext {
    /// Its place in the status.
    pub id: String,
    pub credentials: watch::Receiver<Arc<CredentialSet>>,
    /// Where it is told what happened.
    pub status: StatusBoard,
    pub clock: Clock,
    /// "Reconcile now".
    pub wake: Arc<Notify>,
    /// Whether there is time for what others do: `once` has none.
    pub stays: bool,
}

/// What runs on when an output ends because another configuration is applied: the outputs of the configuration that
/// runs by then, for a cleanup may take longer than that configuration lasts.
#[derive(Debug, Clone)]
pub(crate) struct Remaining(watch::Receiver<Arc<[OutputConfig]>>);

impl Remaining {
    /// The outputs of the running configuration.
    pub(crate) fn new(outputs: watch::Receiver<Arc<[OutputConfig]>>) -> Self {
        Self(outputs)
    }

    /// Those that keep docker configs in Secrets of this name.
    fn secrets_named(&self, name: &ObjectName) -> Vec<DockerConfigSecretSettings> {
        let of_name = |output: &OutputConfig| match output {
            OutputConfig::DockerConfigSecret(settings) => {
                Some(settings).filter(|it| it.name == *name).cloned()
            }
            _ => None,
        };
        self.0.borrow().iter().filter_map(of_name).collect()
    }

    /// Waits for another configuration.
    async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await // the process ends
        }
    }
}

impl Output {
    /// The output that `config` describes.
    pub(crate) fn new(config: &OutputConfig) -> Self {
        match config {
            OutputConfig::DockerConfig(settings) => {
                Self::DockerConfig(Box::new(DockerConfigFile::new(settings.clone())))
            }
            OutputConfig::DockerConfigSecret(settings) => Self::Secrets(Kind::DockerConfig(settings.clone())),
            OutputConfig::ArgocdRepoCreds(settings) => Self::Secrets(Kind::RepoCreds(settings.clone())),
            OutputConfig::ArgocdRepositories(settings) => Self::Secrets(Kind::Repositories(settings.clone())),
        }
    }

    /// Refuses what can never work. Blocks on the file system.
    pub(crate) fn preflight(&self) -> Result<(), Problem> {
        match self {
            Self::DockerConfig(file) => {
                file.check_path().map_err(|error| Problem { class: Class::Denied, ..error.problem() })
            }
            // Rights and Secrets may come later: a sidecar that ends for them would keep its neighbour from starting.
            Self::Secrets(_) => Ok(()),
        }
    }

    /// Notifies `wake` when files change that call for a reconciliation.
    pub(crate) async fn watch(&self, watcher: &FileWatcher, wake: Arc<Notify>) -> Watched {
        match self {
            Self::DockerConfig(file) => {
                let (kept, inputs) = file.watched();
                watcher.watch_kept(kept, inputs, wake).await
            }
            Self::Secrets(kind) => watcher.watch(kind.watched(), wake).await,
        }
    }

    /// Its place in the status.
    pub(crate) fn status(config: &OutputConfig) -> OutputStatus {
        let id = config.id();
        let (kind, target) = id.split_once(' ').unwrap_or((&id, ""));
        OutputStatus::new(kind, target)
    }

    /// Keeps it as desired until `stop` is dropped, since the process ends, or another configuration is applied; a
    /// write under way is finished first.
    pub(crate) async fn keep(
        self,
        with: ReconcilerContext,
        connection: Connection,
        stop: oneshot::Receiver<Remaining>,
    ) {
        match self {
            Self::DockerConfig(file) => FileReconciler::new(with, file).run(stop).await,
            Self::Secrets(kind) => SecretsReconciler { with, kind, connection }.run(stop).await,
        }
    }
}

/// What a reconciliation found and did.
struct Reconciled {
    /// What consumers would read before, and would read now, also after a failure: each registry's credential and when
    /// it expires.
    found: BTreeMap<RegistryHost, SystemTime>,
    in_place: BTreeMap<RegistryHost, SystemTime>,
    /// What consumers may stumble over.
    warnings: Vec<String>,
    /// Whether another process had changed the file, so that it had to be restored, or would have had to be.
    restored: bool,
    /// Whether something was written, or why that failed.
    result: Result<bool, Problem>,
}

impl Reconciled {
    /// How many failures in a row there are now. A file that another process was faster to change is no reason to wait
    /// longer: it is tried again at the pace of a conflict.
    fn failures_after(&self, failures: u32) -> u32 {
        match &self.result {
            Ok(_) => 0,
            Err(_) if self.restored => 1,
            Err(_) => failures.saturating_add(1),
        }
    }
}

impl From<Report> for Reconciled {
    fn from(report: Report) -> Self {
        let restored = match &report.result {
            Ok(written) => *written == Written::Changed && report.drifted,
            Err(error) => matches!(error, DockerConfigError::Contended { .. }),
        };
        Self {
            found: report.found,
            in_place: report.in_place,
            warnings: report.warnings.iter().map(ToString::to_string).collect(),
            restored,
            result: report.result.map(|written| written == Written::Changed).map_err(|error| error.problem()),
        }
    }
}

/// Keeps one file as desired.
struct FileReconciler {
    with: ReconcilerContext,
    /// The file; away while a thread works on it.
    file: Option<Box<DockerConfigFile>>,
    conflict: Conflict,
    warnings: WarningLog,
    /// Events are left until then.
    rests_until: Instant,
}

impl FileReconciler {
    fn new(with: ReconcilerContext, file: Box<DockerConfigFile>) -> Self {
        Self {
            with,
            file: Some(file),
            conflict: Conflict::default(),
            warnings: WarningLog::default(),
            rests_until: Instant::now(),
        }
    }

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
            failures = reconciled.failures_after(failures);
            self.note(reconciled, failures, &mut reminder);
            if self.rest(failures, &mut stop).await.is_none() {
                return;
            }
        }
    }

    /// Reconciles on a thread of its own, since a volume may hang. `None` when the runtime ends.
    async fn reconcile(&mut self, desired: Arc<CredentialSet>) -> Option<Reconciled> {
        let started = Instant::now();
        let mut file = self.file.take()?;
        let now = self.with.clock.now();
        let mut task: JoinHandle<_> = tokio::task::spawn_blocking(move || {
            let reconciled = Reconciled::from(file.reconcile(&desired, now));
            (file, reconciled)
        });
        loop {
            match tokio::time::timeout(PATIENCE, &mut task).await {
                Ok(Ok((file, reconciled))) => {
                    self.file = Some(file);
                    self.rests_until = Instant::now() + started.elapsed().min(LONGEST_REST);
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
        // In a conflict it is not woken by each edit.
        let conflict = self.conflict.is_active();
        let pause = if conflict { Some(CONFLICT_BACKOFF) } else { retry_pause(failures) };
        self.with.status.update_output(&self.with.id, |output| output.last_heartbeat = Instant::now());
        tokio::select! {
            biased;
            _ = stop => None,
            () = tokio::time::sleep(pause.unwrap_or(RESYNC_INTERVAL)) => Some(()),
            changed = self.with.credentials.changed() => changed.ok(),
            // Whoever touches a large file all the time has half a processor at most.
            () = async {
                self.with.wake.notified().await;
                tokio::time::sleep_until(self.rests_until).await;
            }, if !conflict => Some(()),
        }
    }

    fn note(&mut self, reconciled: Reconciled, failures: u32, reminder: &mut Reminder) {
        let Reconciled { found, mut in_place, warnings, restored, result } = reconciled;
        let edge = self.conflict.note(restored, Instant::now());
        let conflict = self.conflict.is_active();
        for warning in self.warnings.replace(warnings, Instant::now()) {
            tracing::warn!(output = %self.with.id, warning, "output has a warning");
        }
        self.log(&result, in_place.len(), failures, reminder);
        self.log_conflict(edge);
        if conflict {
            // What is restored now is gone again in a moment: consumers find what was found.
            in_place.retain(|host, _| found.contains_key(host));
        }
        let now = self.with.clock.now();
        let contended = conflict.then(|| self.contended());
        self.with.status.update_output(&self.with.id, |output| {
            output.in_place = in_place;
            output.warnings = self.warnings.current().to_vec();
            output.reconciled = true;
            match result {
                Ok(written) => {
                    output.last_error = contended;
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

    fn log(&self, result: &Result<bool, Problem>, registries: usize, failures: u32, reminder: &mut Reminder) {
        if self.conflict.is_active() {
            return; // it is written, or not, all the time
        }
        match result {
            Ok(true) => tracing::info!(output = %self.with.id, registries, "output written"),
            Ok(false) => {}
            Err(problem) if reminder.is_due(problem) => {
                log_problem!(warn, problem, { output = %self.with.id, failures }, "output not written");
            }
            Err(_) => {}
        }
        if result.is_ok() && std::mem::take(reminder).was_used() {
            tracing::info!(output = %self.with.id, "output in sync again");
        }
    }

    fn log_conflict(&self, edge: Option<Edge>) {
        match edge {
            Some(Edge::Began) => {
                let problem = self.contended();
                log_problem!(warn, problem, { output = %self.with.id }, "ownership conflict over an output");
            }
            Some(Edge::Ended) => {
                tracing::info!(output = %self.with.id, "ownership conflict is over");
            }
            None => {}
        }
    }

    fn contended(&self) -> Problem {
        let message = format!(
            "{}: another process keeps changing the file; restoring it at most every {} s",
            self.with.id,
            CONFLICT_BACKOFF.as_secs()
        );
        Problem { message, remedy: Diagnosis::Contended.into(), class: Class::Transient }
    }

    fn note_hanging(&self) {
        self.with.status.update_output(&self.with.id, |output| {
            output.last_heartbeat = Instant::now();
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

    #[test]
    fn a_round_that_is_lost_to_another_process_is_retried_at_the_pace_of_a_conflict() {
        let after = |error| {
            let report = Report {
                found: BTreeMap::new(),
                in_place: BTreeMap::new(),
                drifted: true,
                warnings: Vec::new(),
                result: Err(error),
            };
            let reconciled = Reconciled::from(report);
            let pause = retry_pause(reconciled.failures_after(99));
            (pause, reconciled.result.unwrap_err().remedy.diagnosis)
        };
        let path = std::path::PathBuf::from("/config.json");
        let lost = DockerConfigError::Contended { path: path.clone(), tries: 5 };
        assert_eq!(after(lost), (Some(CONFLICT_BACKOFF), Diagnosis::Contended));
        assert_eq!(after(DockerConfigError::NotAFile { path }), (Some(RETRY.1), Diagnosis::NotAFile));
    }
}
