//! One reconciliation of one Secret: what is there, and, if it differs, an apply.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::{
    desired::{Basis, Content, Coverage, Decision, InPlace, decide},
    ownership::Memory,
};
use crate::{
    clock::Clock,
    credentials::CredentialSet,
    failure::{Problem, Warning, diagnosis::Diagnosis, foreign_text::clean},
    kubernetes::{ApiError, Cluster, ObjectRef, SecretObject},
    tasks,
};

/// How often another field manager may write between our reading and our writing.
const TRIES: usize = 5;
/// A decision on a Secret of more bytes leaves the runtime thread, one at a time: each takes some times as much memory,
/// and whoever may write Secrets can cause many at once.
const LARGE: usize = 32 << 10;
static LARGE_DECISIONS: Semaphore = Semaphore::const_new(1);

pub(super) struct Job {
    pub(super) content: Content,
    /// It is no longer wanted: our entries are removed.
    pub(super) cleanup: bool,
    /// There was a Secret when it was reconciled last.
    pub(super) existed: bool,
    /// This process has had it in sync.
    pub(super) kept: bool,
    /// Differences that no consumer notices are left for now.
    pub(super) defers: bool,
}

pub(super) struct Outcome {
    /// The Secret was no longer wanted when it began.
    pub(super) cleanup: bool,
    /// What is there; `None` when that could not be found out.
    pub(super) found: Option<Found>,
    pub(super) desired: Arc<CredentialSet>,
    pub(super) drift: Option<Drift>,
    pub(super) warnings: Vec<Warning>,
    /// It differs in nothing that a consumer finds, and was left so for now.
    pub(super) deferred: bool,
    /// Whether something was written, or why that failed.
    pub(super) result: Result<bool, Problem>,
}

pub(super) struct Found {
    pub(super) coverage: Coverage,
    pub(super) in_place: Arc<InPlace>,
    pub(super) version: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Drift {
    Gone,
    /// By this field manager.
    Edited(String),
}

pub(super) struct Reconciliation {
    pub(super) cluster: Cluster,
    pub(super) at: ObjectRef,
    pub(super) job: Job,
    pub(super) credentials: watch::Receiver<Arc<CredentialSet>>,
    pub(super) clock: Clock,
    /// It is known that there is none: to ask would only take time.
    pub(super) is_absent: bool,
    /// A Secret that is no longer wanted is deleted, if it is ours alone.
    pub(super) prunes: bool,
    pub(super) memory: Memory,
}

impl Reconciliation {
    pub(super) async fn run(self) -> Outcome {
        let mut outcome = Outcome {
            cleanup: self.job.cleanup,
            found: None,
            desired: Arc::default(),
            drift: None,
            warnings: Vec::new(),
            deferred: false,
            result: Ok(false),
        };
        for attempt in 0..TRIES {
            let result = self.try_once(&mut outcome, attempt == 0 && self.is_absent).await;
            // Another field manager wrote in between: it may hold something else now.
            let is_conflict = |problem: &Problem| problem.remedy.diagnosis == Diagnosis::SecretConflict;
            let is_final = !result.as_ref().is_err_and(is_conflict);
            outcome.result = result;
            if is_final {
                break;
            }
        }
        outcome
    }

    async fn try_once(&self, outcome: &mut Outcome, is_absent: bool) -> Result<bool, Problem> {
        outcome.desired = Arc::clone(&self.credentials.borrow());
        let found = match is_absent {
            true => None,
            false => self.cluster.secret(&self.at).await.map_err(|error| self.problem(&error, "get"))?,
        };
        let version = found.as_ref().map(|found| found.metadata.resource_version.clone()).unwrap_or_default();
        if self.job.cleanup && found.is_none() {
            return Ok(false);
        }
        if self.job.cleanup && self.prunes && found.as_ref().is_some_and(|it| it.metadata.we_own_alone()) {
            self.cluster.delete(&self.at, &version).await.map_err(|error| self.problem(&error, "delete"))?;
            return Ok(true);
        }
        let drift = found.as_ref().map_or(Drift::Gone, |found| {
            let manager = found.metadata.other_manager(self.job.content.keys());
            Drift::Edited(clean(manager.unwrap_or("unknown")))
        });
        let is_there = found.is_some();
        let coverage = self.job.content.coverage();
        let found_then = outcome.found.insert(Found { coverage, in_place: Arc::default(), version });
        let decision = self.decide(found, &outcome.desired).await?;
        outcome.deferred = self.job.defers && decision.is_harmless();
        outcome.warnings = decision.warnings;
        found_then.coverage = decision.coverage;
        found_then.in_place = Arc::new(decision.in_place);
        let apply = decision.apply.filter(|_| !outcome.deferred);
        let is_written = apply.is_some();
        if let Some((body, in_place)) = apply {
            outcome.drift = Some(drift);
            // What was found is pinned by its version. Where nothing was, whoever was quicker keeps what is theirs; only
            // of two sidecars that make the same Secret at once the slower wins, and the watch corrects that if it is
            // the older.
            let applied = self.cluster.apply(&self.at, body, is_there).await;
            found_then.version = applied.map_err(|error| self.problem(&error, "patch"))?.resource_version;
            found_then.in_place = Arc::new(in_place);
        }
        decision.problem.map_or(Ok(is_written), Err)
    }

    async fn decide(
        &self,
        found: Option<SecretObject>,
        desired: &Arc<CredentialSet>,
    ) -> Result<Decision, Problem> {
        let now = self.clock.now();
        if found.as_ref().is_none_or(|found| found.size() <= LARGE) {
            let basis = Basis { desired, memory: &self.memory, now };
            return decide(&self.at, &self.job.content, found.as_ref(), &basis);
        }
        // Never closed.
        let _permit = LARGE_DECISIONS.acquire().await;
        let (at, content, memory) = (self.at.clone(), self.job.content.clone(), self.memory.clone());
        let desired = Arc::clone(desired);
        tasks::blocking(move || {
            decide(&at, &content, found.as_ref(), &Basis { desired: &desired, memory: &memory, now })
        })
        .await
    }

    fn problem(&self, error: &ApiError, verb: &'static str) -> Problem {
        error.problem(&self.at.wanted(verb))
    }
}
