//! One Secret: what is known of it, and one look at it.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::Instant};

use super::desired::{Content, InPlace, decide};
use crate::{
    clock::Clock,
    credentials::CredentialSet,
    failure::{Class, Problem},
    kubernetes::{Cluster, ObjectRef, Wanted},
};

/// The first and the longest pause of a target after a failure. In a crowd of targets in trouble each waits longer.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
const RETRY_IN_A_CROWD: Duration = Duration::from_millis(100);
/// Targets in trouble that are told one by one.
pub(super) const TOLD: usize = 20;
/// How often somebody else may write between our looking and our writing.
const TRIES: usize = 5;
/// Edits of one Secret by others within this time that are a fight, and how long it is then left alone.
const FIGHT: (usize, Duration) = (4, Duration::from_secs(60));
const TRUCE: Duration = Duration::from_secs(20);

pub(super) struct Target {
    pub(super) content: Content,
    /// To be looked at.
    pub(super) marked: bool,
    /// Being worked on.
    pub(super) busy: bool,
    /// No longer wanted; goes when nobody works on it.
    pub(super) leaving: bool,
    /// Not to be looked at earlier.
    pub(super) not_before: Option<Instant>,
    pub(super) failures: u32,
    pub(super) problem: Option<Problem>,
    /// The version that we found or made last.
    pub(super) version: String,
    /// The version that was told of last.
    pub(super) told: String,
    pub(super) in_place: InPlace,
    /// The credentials that it held when all was well: a difference that comes without new ones is somebody else's.
    pub(super) settled: Option<CredentialSet>,
    pub(super) edits: VecDeque<Instant>,
    pub(super) fighting: bool,
    pub(super) warnings: Vec<String>,
    pub(super) written_at: Option<SystemTime>,
    pub(super) writes: u64,
}

impl Target {
    pub(super) fn new(content: Content) -> Self {
        Self {
            content,
            marked: true,
            busy: false,
            leaving: false,
            not_before: None,
            failures: 0,
            problem: None,
            version: String::new(),
            told: String::new(),
            in_place: InPlace::new(),
            settled: None,
            edits: VecDeque::new(),
            fighting: false,
            warnings: Vec::new(),
            written_at: None,
            writes: 0,
        }
    }

    /// Notes what became of a look. Says what happened, unless `troubled` others are in trouble and say enough.
    pub(super) fn note(
        &mut self,
        id: &str,
        at: &ObjectRef,
        outcome: Outcome,
        troubled: usize,
        now: SystemTime,
    ) {
        self.busy = false;
        if let Some((in_place, version)) = outcome.found {
            self.in_place = in_place;
            self.version = version;
            self.marked |= !self.told.is_empty() && self.told != self.version;
        }
        for warning in outcome.warnings.iter().filter(|warning| !self.warnings.contains(warning)) {
            tracing::warn!(output = %id, warning, "output has a flaw");
        }
        self.warnings = outcome.warnings;
        let was_settled = self.settled.take().is_some_and(|settled| settled == outcome.desired);
        match outcome.result {
            Ok(written) => {
                if written {
                    self.writes += 1;
                    self.written_at = Some(now);
                    match outcome.drift.filter(|_| was_settled) {
                        Some(drift) => self.note_drift(id, at, &drift),
                        None => {
                            tracing::info!(output = %id, secret = %at, registries = self.in_place.len(), "output written");
                        }
                    }
                }
                if self.problem.take().is_some() {
                    tracing::info!(output = %id, secret = %at, "output in sync again");
                }
                self.failures = 0;
                self.not_before = self.truce();
                self.settled = Some(outcome.desired);
            }
            Err(problem) => {
                self.failures = self.failures.saturating_add(1);
                self.not_before = Some(Instant::now() + retry_pause(self.failures, troubled + 1));
                self.marked = true;
                let is_new = self.problem.as_ref().is_none_or(|known| known.message != problem.message);
                if is_new && troubled < TOLD {
                    tracing::warn!(output = %id, secret = %at, error = problem.message, remedy = problem.remedy, "output not written");
                }
                self.problem = Some(problem);
            }
        }
    }

    fn note_drift(&mut self, id: &str, at: &ObjectRef, drift: &Drift) {
        let now = Instant::now();
        self.edits.push_back(now);
        self.edits.retain(|edit| now.duration_since(*edit) < FIGHT.1);
        match drift {
            Drift::Gone => {
                tracing::warn!(output = %id, secret = %at, "somebody deleted the Secret: it is back")
            }
            Drift::Edited(manager) => {
                tracing::warn!(output = %id, secret = %at, manager, "somebody changed what is ours: it is back");
            }
        }
        if self.edits.len() >= FIGHT.0 && !std::mem::replace(&mut self.fighting, true) {
            let manager = match drift {
                Drift::Gone => "somebody",
                Drift::Edited(manager) => manager,
            };
            tracing::error!(
                output = %id, secret = %at, manager, edits = self.edits.len(),
                remedy = "let the other one leave this Secret's data alone (kustomize.toolkit.fluxcd.io/ssa: IfNotPresent, \
                          Argo CD ignoreDifferences), or give this output another name",
                "a fight over a Secret: it is put back only every {} s from now on", TRUCE.as_secs()
            );
        }
    }

    /// Until when a Secret that is fought over is left alone.
    fn truce(&mut self) -> Option<Instant> {
        let now = Instant::now();
        self.edits.retain(|edit| now.duration_since(*edit) < FIGHT.1);
        self.fighting &= !self.edits.is_empty();
        self.fighting.then(|| now + TRUCE)
    }
}

/// What became of one look at a target.
pub(super) struct Outcome {
    /// What is there, and its version; `None` when that could not be found out.
    pub(super) found: Option<(InPlace, String)>,
    pub(super) desired: CredentialSet,
    /// How it differed, if it did, and who did it.
    pub(super) drift: Option<Drift>,
    pub(super) warnings: Vec<String>,
    /// Whether something was written, or why that failed.
    pub(super) result: Result<bool, Problem>,
}

pub(super) enum Drift {
    Gone,
    Edited(String),
}

/// Looks at a Secret and applies what differs.
pub(super) async fn look(
    cluster: &Cluster,
    at: &ObjectRef,
    content: &Content,
    credentials: &watch::Receiver<CredentialSet>,
    clock: &Clock,
) -> Outcome {
    let mut outcome = Outcome {
        found: None,
        desired: CredentialSet::default(),
        drift: None,
        warnings: Vec::new(),
        result: Ok(false),
    };
    let wanted = |verb| Wanted { verb, resource: "secrets", namespace: &at.namespace, name: &at.name };
    for _ in 0..TRIES {
        outcome.desired = credentials.borrow().clone();
        let found = match cluster.secret(at).await {
            Ok(found) => found,
            Err(error) => {
                outcome.result = Err(error.problem(&wanted("get")));
                return outcome;
            }
        };
        let version = found.as_ref().map(|found| found.metadata.resource_version.clone()).unwrap_or_default();
        let decision = match decide(at, content, found.as_ref(), &outcome.desired, clock.now()) {
            Ok(decision) => decision,
            Err(problem) => {
                outcome.found = Some((InPlace::new(), version));
                outcome.result = Err(problem);
                return outcome;
            }
        };
        outcome.found = Some((decision.in_place, version));
        outcome.warnings = decision.warnings;
        let Some((body, after)) = decision.apply else {
            outcome.result = Ok(false);
            return outcome;
        };
        outcome.drift = Some(match &found {
            None => Drift::Gone,
            Some(found) => {
                Drift::Edited(found.metadata.foreign_manager(content.keys()).unwrap_or("unknown").to_owned())
            }
        });
        match cluster.apply(at, body).await {
            Ok(meta) => {
                outcome.found = Some((after, meta.resource_version));
                outcome.result = Ok(true);
                return outcome;
            }
            Err(error) if error.is_conflict() => {
                outcome.result = Err(Problem { class: Class::Transient, ..error.problem(&wanted("patch")) });
            }
            Err(error) => {
                outcome.result = Err(error.problem(&wanted("patch")));
                return outcome;
            }
        }
    }
    outcome
}

/// What a consumer finds whichever of the Secrets it reads: the earliest end of each credential that is in all of them.
pub(super) fn everywhere<'a>(targets: impl Iterator<Item = &'a InPlace>, desired: &CredentialSet) -> InPlace {
    let found = targets.fold(None, |all: Option<InPlace>, one| {
        Some(match all {
            None => one.clone(),
            Some(mut all) => {
                all.retain(|host, expiry| {
                    let here = one.get(host);
                    *expiry = here.map_or(*expiry, |here| (*expiry).min(*here));
                    here.is_some()
                });
                all
            }
        })
    });
    // No Secret to keep, nobody to be refused.
    found.unwrap_or_else(|| {
        desired.current.iter().map(|(host, token)| (host.clone(), token.expires_at)).collect()
    })
}

/// Exponential, with jitter; longer for each when many are in trouble, so that they don't fill the request limit.
pub(super) fn retry_pause(failures: u32, troubled: usize) -> Duration {
    let crowd = RETRY_IN_A_CROWD.saturating_mul(u32::try_from(troubled).unwrap_or(u32::MAX));
    let cap = RETRY.0.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(RETRY.1) + crowd;
    cap.mul_f64(0.75 + fastrand::f64() / 4.0)
}
