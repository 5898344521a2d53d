//! One Secret: its state and its retry schedule. Pure: events, time and randomness come in, effects go out.
//!
//! Invariants, each held by a test of `tests`:
//! * nothing happens to a Secret in sync until an event calls for it: `in_sync_there_is_nothing_to_do`
//! * whatever happens while it is reconciled is not lost, in any order: `whatever_happens_it_ends_in_sync`
//! * what we wrote ourselves calls for nothing: `a_version_observed_during_a_run_counts_unless_we_wrote_it`

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    conflict::{Conflict, Report, WINDOW},
    coverage::{Held, Standing},
    desired::Content,
    incident::Incident,
    reconcile::{Drift, Job, Outcome},
};
use crate::{
    backoff::Backoff,
    credentials::CredentialSet,
    failure::{Class, Problem, Warning},
    output::warning_log::WarningLog,
};

/// The first and the longest pause of a target after a failure; with each other that fails each waits longer.
pub(super) const RETRY: Backoff =
    Backoff { min: Duration::from_secs(1), max: Duration::from_secs(10), jitter: 0.25 };
/// The longest while only a person can fix it: unlike an edit of the Secret, a new right or policy is not observed.
const RETRY_DENIED: Backoff = Backoff { max: Duration::from_secs(60), ..RETRY };
const RETRY_PER_FAILING: Duration = Duration::from_millis(10);
/// `once` waits no longer for a target that has failed so often.
const GIVEN_UP: u32 = 3;
/// Failing targets, and warnings, that are logged and shown one by one.
pub(super) const SHOWN: usize = 20;

pub(super) struct Target {
    content: Content,
    pending: Pending,
    running: bool,
    /// Which of all reconciliations its last one was, from one; zero for none.
    last_pick: u64,
    /// No longer wanted: our entries are removed, then it is forgotten.
    removing: bool,
    pause: Option<Pause>,
    /// When a difference that no consumer notices is corrected.
    deferred_until: Option<Instant>,
    failures: u32,
    problem: Option<Problem>,
    held: Held,
    /// The version that we found or wrote last; empty for none.
    version: String,
    /// The version that was observed last since the last reconciliation began.
    observed_version: String,
    /// A difference that comes without other credentials than these was made by another field manager.
    in_sync_with: Option<Arc<CredentialSet>>,
    /// This process has had it in sync: it stays managed, whoever replaces it.
    kept: bool,
    conflict: Conflict,
    warnings: WarningLog,
}

/// It is not reconciled before this is over.
struct Pause {
    end: Instant,
    /// The end from when on another version is observed: not later.
    end_if_edited: Instant,
}

/// Whether it is to be reconciled; urgent is what has just changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pending {
    No,
    Yes,
    Urgent,
}

pub(super) enum Event {
    Wanted(Content),
    Unwanted,
    /// A watch or a list has it in this version.
    Observed(String),
    /// A list does not have it.
    NotListed,
    Deleted,
    /// There may be a difference.
    Resync,
    /// The same, and pauses after failures are over.
    RetryNow,
    /// What differs from now on differs because the base changed.
    BaseChanged,
    /// It is reconciled now, as that one of all.
    Picked(u64),
    Finished {
        outcome: Outcome,
        /// How many targets fail.
        failing: usize,
        /// From 0 to 1, for what is not to happen to all at once.
        random: f64,
    },
}

pub(super) enum Effect {
    Reconcile(Job),
    Log(Incident),
    Forget,
}

impl Target {
    pub(super) fn new(content: Content, is_urgent: bool) -> Self {
        Self {
            held: Held::new(content.coverage()),
            content,
            pending: if is_urgent { Pending::Urgent } else { Pending::Yes },
            running: false,
            last_pick: 0,
            removing: false,
            pause: None,
            deferred_until: None,
            failures: 0,
            problem: None,
            version: String::new(),
            observed_version: String::new(),
            in_sync_with: None,
            kept: false,
            conflict: Conflict::default(),
            warnings: WarningLog::default(),
        }
    }

    pub(super) fn on_event(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            Event::Wanted(content) => {
                self.content = content;
                if std::mem::take(&mut self.removing) {
                    self.request(Pending::Yes);
                }
            }
            Event::Unwanted if self.removing => {}
            Event::Unwanted => {
                self.removing = true;
                self.in_sync_with = None; // what is missing after the cleanup was removed by us
                self.pause = None;
                self.deferred_until = None;
                self.failures = 0;
                self.request(Pending::Yes);
            }
            Event::Observed(version) => {
                if !self.running && self.version != version {
                    self.note_edit();
                }
                self.observed_version = version;
            }
            // While one that did not exist is being written, the list may be older than that, or newer.
            Event::NotListed if !self.existed() && !self.running => {}
            Event::NotListed | Event::Deleted => {
                self.observed_version.clear();
                self.note_edit();
            }
            Event::Resync => self.request(Pending::Yes),
            Event::RetryNow => {
                self.pause = None;
                self.request(Pending::Yes);
            }
            Event::BaseChanged => self.in_sync_with = None,
            Event::Picked(pick) => return vec![Effect::Reconcile(self.start(pick, now))],
            Event::Finished { outcome, failing, random } => {
                return self.finish(outcome, failing, now, random);
            }
        }
        Vec::new()
    }

    /// When it is to be reconciled, unless something happens; `None` for not at all.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        if self.running {
            return None;
        }
        let pause_end = self.pause.as_ref().map(|pause| pause.end);
        let pending = (self.pending != Pending::No).then(|| pause_end.unwrap_or(now));
        // A failure's pause counts for it too.
        let deferred = self.deferred_until.map(|until| pause_end.map_or(until, |end| until.max(end)));
        pending.into_iter().chain(deferred).min()
    }

    /// Which of those that are due comes first: the least, by urgency and by its last reconciliation.
    pub(super) fn rank(&self) -> (bool, u64) {
        (self.pending != Pending::Urgent, self.last_pick)
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.removing
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Whether it is as desired, with nothing left to do.
    pub(super) fn is_settled(&self) -> bool {
        let is_idle = self.pending == Pending::No && !self.running && self.deferred_until.is_none();
        is_idle && self.in_sync_with.is_some()
    }

    pub(super) fn in_sync_with(&self) -> Option<&Arc<CredentialSet>> {
        self.in_sync_with.as_ref()
    }

    pub(super) fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.problem.is_some() && self.failures >= GIVEN_UP
    }

    pub(super) fn warnings(&self) -> &[Warning] {
        self.warnings.current()
    }

    fn existed(&self) -> bool {
        !self.version.is_empty()
    }

    fn request(&mut self, pending: Pending) {
        self.pending = self.pending.max(pending);
    }

    fn note_edit(&mut self) {
        self.request(Pending::Urgent);
        self.shorten_pause();
    }

    fn shorten_pause(&mut self) {
        if let Some(pause) = &mut self.pause {
            pause.end = pause.end_if_edited;
        }
    }

    fn start(&mut self, pick: u64, now: Instant) -> Job {
        self.last_pick = pick;
        self.pending = Pending::No;
        self.running = true;
        self.observed_version.clear(); // it is what is read now
        Job {
            content: if self.removing { self.content.retired() } else { self.content.clone() },
            cleanup: self.removing,
            existed: self.existed(),
            kept: self.kept,
            defers: !self.removing
                && self.deferred_until.is_none_or(|until| now < until)
                && self.conflict.is_active(now),
        }
    }

    fn finish(&mut self, outcome: Outcome, failing: usize, now: Instant, random: f64) -> Vec<Effect> {
        self.running = false;
        match (self.removing, outcome.cleanup) {
            (true, true) => self.finish_cleanup(outcome.result, now, random),
            (false, false) => self.note(outcome, failing, now, random).into_iter().map(Effect::Log).collect(),
            _ => Vec::new(), // it was decided otherwise meanwhile, and is due
        }
    }

    fn finish_cleanup(&mut self, result: Result<bool, Problem>, now: Instant, random: f64) -> Vec<Effect> {
        match result {
            Ok(true) => vec![Effect::Log(Incident::Removed), Effect::Forget],
            Ok(false) => vec![Effect::Forget],
            Err(problem) if problem.class == Class::Denied => {
                vec![Effect::Log(Incident::NotRemoved(problem)), Effect::Forget]
            }
            Err(problem) => {
                self.retry(problem.class, 1, now, random);
                Vec::new()
            }
        }
    }

    fn note(&mut self, mut outcome: Outcome, failing: usize, now: Instant, random: f64) -> Vec<Incident> {
        if let Some(found) = outcome.found {
            self.held.coverage = found.coverage;
            self.held.in_place = found.in_place;
            self.version = found.version;
        }
        let edited_meanwhile = !self.observed_version.is_empty() && self.observed_version != self.version;
        if edited_meanwhile {
            self.request(Pending::Yes);
        }
        // Whoever may write to the Secret decides how many there are, and each is compared with all that are known.
        outcome.warnings.truncate(SHOWN + 1);
        let new = self.warnings.replace(outcome.warnings, now).into_iter();
        let mut incidents: Vec<_> = new.map(|warning| Incident::Warning(warning.clone())).collect();
        let was_in_sync = self.in_sync_with.take().is_some_and(|it| Arc::ptr_eq(&it, &outcome.desired));
        match outcome.result {
            Ok(written) => {
                self.kept |= written || !self.held.in_place.is_empty();
                if written {
                    incidents.extend(match outcome.drift.filter(|_| was_in_sync) {
                        Some(drift) => self.restored(drift, now),
                        None => Some(Incident::Written { registries: self.held.in_place.len() }),
                    });
                }
                if self.problem.take().is_some() {
                    incidents.push(Incident::Recovered);
                }
                self.failures = 0;
                self.held.standing = Standing::Proven;
                self.pause = self.conflict.next_check(now).map(|end| Pause { end, end_if_edited: end });
                self.deferred_until = outcome.deferred.then(|| self.deferred_until.unwrap_or(now + WINDOW));
                self.in_sync_with = Some(outcome.desired);
            }
            Err(problem) => {
                let edited_meanwhile = edited_meanwhile || self.pending == Pending::Urgent;
                self.retry(problem.class, failing + 1, now, random);
                if edited_meanwhile {
                    self.shorten_pause();
                }
                let is_new = self.problem.as_ref().is_none_or(|known| known.message != problem.message);
                if is_new && failing < SHOWN {
                    incidents.push(Incident::Failed(problem.clone()));
                }
                self.held.standing = self.held.standing.after(&problem);
                self.problem = Some(problem);
            }
        }
        incidents
    }

    fn retry(&mut self, class: Class, failing: usize, now: Instant, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let after = |backoff| now + retry_pause(backoff, self.failures, failing, random);
        let end_if_edited = after(RETRY);
        let end = if class.needs_intervention() { after(RETRY_DENIED) } else { end_if_edited };
        self.pause = Some(Pause { end, end_if_edited });
        self.request(Pending::Yes);
    }

    fn restored(&mut self, drift: Drift, now: Instant) -> Option<Incident> {
        match self.conflict.note(now) {
            Report::Restored => Some(Incident::Restored(drift)),
            Report::Conflict { restores } => Some(Incident::Conflict { drift, restores }),
            Report::Silent => None,
        }
    }
}

/// Longer for each when many fail, so that they don't fill the request limit.
fn retry_pause(backoff: Backoff, failures: u32, failing: usize, random: f64) -> Duration {
    let others = RETRY_PER_FAILING.saturating_mul(u32::try_from(failing).unwrap_or(u32::MAX));
    backoff.jittered(backoff.longest(failures) + others, random)
}

#[cfg(test)]
pub(super) mod tests;
