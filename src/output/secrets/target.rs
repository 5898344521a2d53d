//! One Secret: what is known of it, when it is to be looked at, and what is told of it.

use std::{sync::Arc, time::Duration};

use tokio::{task::AbortHandle, time::Instant};

use super::{
    conflict::{Conflict, INTERVAL, Report, WINDOW},
    coverage::Standing,
    desired::{Concern, Content, InPlace},
    reconcile::{Drift, Outcome},
};
use crate::{
    credentials::CredentialSet,
    failure::{Class, Problem, diagnosis::Diagnosis},
    kubernetes::ObjectRef,
    output::warning_log::WarningLog,
};

/// The first and the longest pause of a target after a failure. In a crowd of targets in trouble each waits longer.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
const RETRY_IN_A_CROWD: Duration = Duration::from_millis(10);
/// Targets in trouble that are told one by one.
pub(super) const TOLD: usize = 20;

pub(super) struct Target {
    pub(super) content: Content,
    /// To be looked at.
    pub(super) marked: bool,
    /// Before those that are merely due: something has just happened to it.
    pub(super) urgent: bool,
    /// Being worked on.
    pub(super) busy: bool,
    /// Which of all looks its last one was, from one; zero for none.
    pub(super) began: u64,
    /// What works on it.
    pub(super) task: Option<AbortHandle>,
    /// No longer wanted: what is ours goes, then it is forgotten.
    pub(super) removing: bool,
    /// Not to be looked at earlier.
    pub(super) not_before: Option<Instant>,
    /// Then what differs without any consumer noticing is put right.
    pub(super) deferred_until: Option<Instant>,
    pub(super) failures: u32,
    pub(super) problem: Option<Problem>,
    pub(super) standing: Standing,
    /// The version that we found or made last.
    pub(super) version: String,
    /// The version that was told of last since the last look began.
    pub(super) told: String,
    /// Of which registries it is to hold the credential.
    pub(super) coverage: Concern,
    /// Shared by the targets that hold the same.
    pub(super) in_place: Arc<InPlace>,
    /// The credentials that it held when all was well: a difference that comes without new ones is somebody else's.
    pub(super) in_sync_with: Option<Arc<CredentialSet>>,
    /// This process has had it in sync: it stays managed, whoever replaces it.
    pub(super) kept: bool,
    pub(super) conflict: Conflict,
    pub(super) warnings: WarningLog,
}

impl Target {
    /// One that has not been looked at.
    pub(super) fn new(content: Content, urgent: bool) -> Self {
        Self {
            coverage: content.coverage(),
            content,
            marked: true,
            urgent,
            busy: false,
            began: 0,
            task: None,
            removing: false,
            not_before: None,
            deferred_until: None,
            failures: 0,
            problem: None,
            standing: Standing::default(),
            version: String::new(),
            told: String::new(),
            in_place: Arc::default(),
            in_sync_with: None,
            kept: false,
            conflict: Conflict::default(),
            warnings: WarningLog::default(),
        }
    }

    /// It is not wanted any more.
    pub(super) fn leave(&mut self) {
        if !std::mem::replace(&mut self.removing, true) {
            self.marked = true;
            self.not_before = None;
            self.deferred_until = None;
            self.failures = 0;
        }
    }

    /// It is wanted, with this content.
    pub(super) fn stay(&mut self, content: Content) {
        self.content = content;
        self.marked |= std::mem::take(&mut self.removing);
    }

    /// It was seen in this version: to be looked at, unless it is the one that we made or saw.
    pub(super) fn see(&mut self, version: String) {
        if !self.busy && self.version != version {
            self.marked = true;
            self.urgent = true;
        }
        self.told = version;
    }

    /// Whether there was one when it was looked at last.
    pub(super) fn was_there(&self) -> bool {
        !self.version.is_empty()
    }

    /// It is not there, although it should be.
    pub(super) fn miss(&mut self) {
        self.told.clear();
        self.marked = true;
        self.urgent = true;
    }

    /// When it is to be looked at, unless something happens; `None` for not at all.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        if self.busy {
            return None;
        }
        let marked = self.marked.then(|| self.not_before.unwrap_or(now));
        // A failure's pause counts for it too.
        let deferred = self.deferred_until.map(|until| self.not_before.map_or(until, |at| until.max(at)));
        marked.into_iter().chain(deferred).min()
    }

    /// Whether it is to be looked at now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due(now).is_some_and(|due| due <= now)
    }

    /// Whether differences that no consumer notices are to be left for now.
    pub(super) fn defers(&mut self, now: Instant) -> bool {
        self.deferred_until.is_none_or(|until| now < until) && self.conflict.is_active(now)
    }

    /// A look at it begins, the `pick`th of all.
    pub(super) fn begin(&mut self, pick: u64) {
        self.began = pick;
        self.marked = false;
        self.urgent = false;
        self.busy = true;
        self.told.clear(); // what was told before is what is looked at now
    }

    /// Notes a look at one that is not, or was not, to stay. Whether nothing more is to be done.
    pub(super) fn has_left(&mut self, id: &str, at: &ObjectRef, outcome: &Outcome, moment: Moment) -> bool {
        self.busy = false;
        if self.removing != outcome.cleanup {
            self.marked = true; // it was decided otherwise meanwhile
            return false;
        }
        match &outcome.result {
            Ok(true) => {
                tracing::info!(output = %id, secret = %at, "Secret no longer managed; removed our entries");
                true
            }
            Ok(false) => true,
            Err(problem) if problem.class == Class::Denied => {
                tracing::warn!(output = %id, secret = %at, error = problem.message, "Secret no longer managed; left as it is");
                true
            }
            Err(_) => {
                self.failures = self.failures.saturating_add(1);
                self.not_before = Some(moment.now + retry_pause(self.failures, 1, moment.random));
                self.marked = true;
                false
            }
        }
    }

    /// Notes what became of a look. Says what happened, unless `failing` others are in trouble and say enough.
    pub(super) fn note(
        &mut self,
        id: &str,
        at: &ObjectRef,
        mut outcome: Outcome,
        failing: usize,
        moment: Moment,
    ) {
        self.busy = false;
        if let Some(found) = outcome.found {
            self.coverage = found.coverage;
            if *self.in_place != found.in_place {
                self.in_place = Arc::new(found.in_place);
            }
            self.version = found.version;
            self.marked |= !self.told.is_empty() && self.told != self.version;
        }
        // As many as somebody puts there: each is compared with all that are known.
        outcome.warnings.truncate(TOLD + 1);
        for warning in self.warnings.replace(outcome.warnings, moment.now) {
            tracing::warn!(output = %id, warning, "output has a warning");
        }
        let was_settled =
            self.in_sync_with.take().is_some_and(|in_sync_with| Arc::ptr_eq(&in_sync_with, &outcome.desired));
        match outcome.result {
            Ok(written) => {
                self.kept |= written || !self.in_place.is_empty();
                if written {
                    match outcome.drift.filter(|_| was_settled) {
                        Some(drift) => self.note_drift(id, at, &drift, moment.now),
                        None => {
                            tracing::info!(output = %id, secret = %at, registries = self.in_place.len(), "output written");
                        }
                    }
                }
                if self.problem.take().is_some() {
                    tracing::info!(output = %id, secret = %at, "output in sync again");
                }
                self.failures = 0;
                self.standing = Standing::Proven;
                self.not_before = self.conflict.next_check(moment.now);
                self.deferred_until =
                    outcome.deferred.then(|| self.deferred_until.unwrap_or(moment.now + WINDOW));
                self.in_sync_with = Some(outcome.desired);
            }
            Err(problem) => {
                self.failures = self.failures.saturating_add(1);
                self.not_before = Some(moment.now + retry_pause(self.failures, failing + 1, moment.random));
                self.marked = true;
                let is_new = self.problem.as_ref().is_none_or(|known| known.message != problem.message);
                if is_new && failing < TOLD {
                    tracing::warn!(output = %id, secret = %at, error = problem.message, diagnosis = problem.remedy.diagnosis.id(), remedy = %problem.remedy, "output not written");
                }
                self.standing = self.standing.after(&problem);
                self.problem = Some(problem);
            }
        }
    }

    fn note_drift(&mut self, id: &str, at: &ObjectRef, drift: &Drift, now: Instant) {
        let manager = match drift {
            Drift::Gone => "unknown",
            Drift::Edited(manager) => manager,
        };
        match (self.conflict.note(now), drift) {
            (Report::Restored, Drift::Gone) => {
                tracing::warn!(output = %id, secret = %at, "Secret was deleted; recreated");
            }
            (Report::Restored, Drift::Edited(_)) => {
                tracing::warn!(output = %id, secret = %at, manager, "Secret was modified by another field manager; restored");
            }
            (Report::Conflict { restores }, _) => {
                tracing::error!(
                    output = %id, secret = %at, manager, restores,
                    diagnosis = Diagnosis::SecretFight.id(), remedy = Diagnosis::SecretFight.remedy(),
                    "ownership conflict over a Secret; credentials are restored every {} s, anything else every {} s",
                    INTERVAL.as_secs(), WINDOW.as_secs()
                );
            }
            (Report::Silent, _) => {}
        }
    }
}

/// When something is noted, and a random number from 0 to 1 for what is not to happen to all at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) random: f64,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { now: Instant::now(), random: fastrand::f64() }
    }
}

/// Exponential, with jitter; longer for each when many are in trouble, so that they don't fill the request limit.
pub(super) fn retry_pause(failures: u32, failing: usize, random: f64) -> Duration {
    let crowd = RETRY_IN_A_CROWD.saturating_mul(u32::try_from(failing).unwrap_or(u32::MAX));
    let cap = RETRY.0.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(RETRY.1) + crowd;
    cap.mul_f64(0.75 + random.clamp(0.0, 1.0) / 4.0)
}
