//! Keeps one file as desired: when it is reconciled, and what the status and the log say of it.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::oneshot, time::Instant};

use super::{DockerConfigError, DockerConfigFile, Report, Written};
use crate::{
    credentials::CredentialSet,
    failure::{Class, Diagnose, Problem, diagnosis::Diagnosis, log_problem, reminder::Reminder},
    output::{
        ReconcilerContext, Remaining,
        conflict::{CONFLICT_BACKOFF, Conflict, Edge},
        warning_log::WarningLog,
    },
    registry::RegistryHost,
    tasks,
};

/// Without events an output is reconciled at least this often.
const RESYNC_INTERVAL: Duration = Duration::from_secs(60);
/// The longest pause between a reconciliation and one that an event calls for; else it is as long as the first took.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// A write that takes longer is said to hang.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first and the longest pause after a failed reconciliation.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

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
pub(in crate::output) struct FileReconciler {
    with: ReconcilerContext,
    conflict: Conflict,
    warnings: WarningLog,
    /// Events are left until then.
    rests_until: Instant,
}

impl FileReconciler {
    pub(in crate::output) fn new(with: ReconcilerContext) -> Self {
        Self {
            with,
            conflict: Conflict::default(),
            warnings: WarningLog::default(),
            rests_until: Instant::now(),
        }
    }

    pub(in crate::output) async fn run(
        mut self,
        mut file: Box<DockerConfigFile>,
        mut stop: oneshot::Receiver<Remaining>,
    ) {
        let mut reminder = Reminder::default();
        let mut failures: u32 = 0;
        // Who stays looks what is there before the first credential comes: a process before it may have left some.
        if !self.with.stays && self.rest(0, &mut stop).await.is_none() {
            return;
        }
        loop {
            let desired = Arc::clone(&self.with.credentials.borrow_and_update());
            let reconciled;
            (file, reconciled) = self.reconcile(file, desired).await;
            failures = reconciled.failures_after(failures);
            self.note(reconciled, failures, &mut reminder);
            if self.rest(failures, &mut stop).await.is_none() {
                return;
            }
        }
    }

    /// Reconciles on a thread of its own, since a volume may hang.
    async fn reconcile(
        &mut self,
        mut file: Box<DockerConfigFile>,
        desired: Arc<CredentialSet>,
    ) -> (Box<DockerConfigFile>, Reconciled) {
        let started = Instant::now();
        let now = self.with.clock.now();
        let mut work = pin!(tasks::blocking(move || {
            let reconciled = Reconciled::from(file.reconcile(&desired, now));
            (file, reconciled)
        }));
        loop {
            match tokio::time::timeout(PATIENCE, &mut work).await {
                Ok(done) => {
                    self.rests_until = Instant::now() + started.elapsed().min(LONGEST_REST);
                    return done;
                }
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
