//! Keeps one file as desired: when it is reconciled, and what the status and the log show of it.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{DockerConfigError, DockerConfigFile, Report, Written};
use crate::{
    backoff::Backoff,
    credentials::CredentialSet,
    failure::{Class, Diagnose, Problem, diagnosis::Diagnosis, log_problem, reminder::Reminder},
    fs::read::TIME_LIMIT,
    output::{
        ReconcilerContext, Remaining,
        conflict::{CONFLICT_BACKOFF, Conflict, Edge},
        warning_log::{self, WarningLog},
    },
    tasks,
};

/// Without events an output is reconciled at least this often.
const RESYNC_INTERVAL: Duration = Duration::from_secs(60);
/// The longest pause between a reconciliation and one that an event calls for; else it is as long as the first took.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// A write that takes longer is reported as hanging.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a base is waited for whose volume hung the last time: no longer than a change of the file may be left.
const BASE_HANGS: Duration = Duration::from_millis(100);
/// The first and the longest pause after a failed reconciliation.
// Without jitter: a local file system is not shared by many clients.
const RETRY: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60), jitter: 0.0 };

impl Report {
    /// Whether another process had changed the file, so that it had to be restored, or would have had to be.
    fn restored(&self) -> bool {
        match &self.result {
            Ok(written) => *written == Written::Changed && self.drifted,
            Err(error) => matches!(error, DockerConfigError::Contended { .. }),
        }
    }

    /// How many failures in a row there are now. A file that another process was faster to change is no reason to wait
    /// longer: it is tried again at the pace of a conflict.
    fn failures_after(&self, failures: u32) -> u32 {
        match &self.result {
            Ok(_) => 0,
            Err(_) if self.restored() => 1,
            Err(_) => failures.saturating_add(1),
        }
    }
}

pub(in crate::output) struct FileReconciler {
    with: ReconcilerContext,
    failures: u32,
    reminder: Reminder,
    conflict: Conflict,
    warnings: WarningLog,
    /// How long the base is waited for.
    base_limit: Duration,
    /// Events are left until then.
    rests_until: Instant,
}

impl FileReconciler {
    pub(in crate::output) fn new(with: ReconcilerContext) -> Self {
        Self {
            with,
            failures: 0,
            reminder: Reminder::default(),
            conflict: Conflict::default(),
            warnings: WarningLog::default(),
            base_limit: TIME_LIMIT,
            rests_until: Instant::now(),
        }
    }

    pub(in crate::output) async fn run(
        mut self,
        mut file: Box<DockerConfigFile>,
        mut stop: oneshot::Receiver<Remaining>,
    ) {
        // `run` checks the file before the first credential comes: an earlier process may have left some.
        if !self.with.stays && self.rest(&mut stop).await.is_none() {
            return;
        }
        loop {
            let desired = Arc::clone(&self.with.credentials.borrow_and_update());
            let report;
            (file, report) = self.reconcile(file, desired).await;
            self.note(report);
            if self.rest(&mut stop).await.is_none() {
                return;
            }
        }
    }

    /// Reconciles on a thread of its own, since a volume may hang.
    async fn reconcile(
        &mut self,
        mut file: Box<DockerConfigFile>,
        desired: Arc<CredentialSet>,
    ) -> (Box<DockerConfigFile>, Report) {
        let base = file.read_base(self.base_limit).await;
        self.base_limit = if matches!(base, Some(Err(_))) { BASE_HANGS } else { TIME_LIMIT };
        let started = Instant::now();
        let now = self.with.clock.now();
        let mut work = pin!(tasks::blocking(move || {
            let report = file.reconcile(base, &desired, now);
            (file, report)
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

    /// Waits for a reason to reconcile; `None` when it is to stop.
    async fn rest(&mut self, stop: &mut oneshot::Receiver<Remaining>) -> Option<()> {
        // In a conflict it is not woken by each edit.
        let conflict = self.conflict.is_active();
        let pause = if conflict { Some(CONFLICT_BACKOFF) } else { retry_pause(self.failures) };
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

    fn note(&mut self, report: Report) {
        self.failures = report.failures_after(self.failures);
        let edge = self.conflict.note(report.restored(), Instant::now());
        let conflict = self.conflict.is_active();
        let Report { found, mut in_place, warnings, result, .. } = report;
        for warning in self.warnings.replace(warnings, Instant::now()) {
            warning_log::log(warning, &self.with.id, None);
        }
        let result = result.map_err(|error| error.problem());
        self.log(&result, in_place.len());
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
                    if written == Written::Changed {
                        output.writes += 1;
                        output.written_at = Some(now);
                    }
                }
                Err(problem) => {
                    output.failed += 1;
                    output.last_error = Some(problem);
                }
            }
        });
    }

    fn log(&mut self, result: &Result<Written, Problem>, registries: usize) {
        if self.conflict.is_active() {
            return; // it is written, or not, all the time
        }
        match result {
            Ok(Written::Changed) => tracing::info!(output = %self.with.id, registries, "output written"),
            Err(problem) if self.reminder.is_due(problem) => {
                log_problem!(warn, problem, { output = %self.with.id, failures = self.failures }, "output not written");
            }
            Ok(Written::Unchanged) | Err(_) => {}
        }
        if result.is_ok() && std::mem::take(&mut self.reminder).was_used() {
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
        let seconds = CONFLICT_BACKOFF.as_secs();
        let what = format!("another process keeps changing the file; restoring it at most every {seconds} s");
        self.problem(&what, Diagnosis::Contended)
    }

    fn note_hanging(&self) {
        let what = format!("the volume has not responded for more than {} s", PATIENCE.as_secs());
        self.with.status.update_output(&self.with.id, |output| {
            output.last_heartbeat = Instant::now();
            output.last_error = Some(self.problem(&what, Diagnosis::VolumeHangs));
        });
    }

    fn problem(&self, what: &str, diagnosis: Diagnosis) -> Problem {
        let message = format!("{}: {what}", self.with.id);
        Problem { message, remedy: diagnosis.into(), class: Class::Transient }
    }
}

fn retry_pause(failures: u32) -> Option<Duration> {
    (failures > 0).then(|| RETRY.longest(failures))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
            let pause = retry_pause(report.failures_after(99));
            (pause, report.result.unwrap_err().remedy().diagnosis)
        };
        let path = std::path::PathBuf::from("/config.json");
        let lost = DockerConfigError::Contended { path: path.clone(), tries: 5 };
        assert_eq!(after(lost), (Some(CONFLICT_BACKOFF), Diagnosis::Contended));
        assert_eq!(after(DockerConfigError::NotAFile { path }), (Some(RETRY.max), Diagnosis::NotAFile));
    }
}
