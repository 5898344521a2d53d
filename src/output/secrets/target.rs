//! One Secret: what is known of it, when it is to be looked at, and what is told of it.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    coverage::Standing,
    desired::{Concern, Content, InPlace},
    look::{Drift, Outcome},
};
use crate::{
    credentials::CredentialSet,
    diagnosis::Diagnosis,
    failure::{Class, Problem},
    kubernetes::ObjectRef,
};

/// The first and the longest pause of a target after a failure. In a crowd of targets in trouble each waits longer.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
const RETRY_IN_A_CROWD: Duration = Duration::from_millis(10);
/// Targets in trouble that are told one by one.
pub(super) const TOLD: usize = 20;
/// Edits of one Secret by others within this time that are a fight, and how long it is then left alone.
const FIGHT: (usize, Duration) = (4, Duration::from_secs(60));
const TRUCE: Duration = Duration::from_secs(20);

pub(super) struct Target {
    pub(super) content: Content,
    /// To be looked at.
    pub(super) marked: bool,
    /// Before those that are merely due: something has just happened to it.
    pub(super) urgent: bool,
    /// Being worked on.
    pub(super) busy: bool,
    /// No longer wanted: what is ours goes, then it is forgotten.
    pub(super) leaving: bool,
    /// Not to be looked at earlier.
    pub(super) not_before: Option<Instant>,
    pub(super) failures: u32,
    pub(super) problem: Option<Problem>,
    pub(super) standing: Standing,
    /// The version that we found or made last.
    pub(super) version: String,
    /// The version that was told of last.
    pub(super) told: String,
    /// Of which registries it is to hold the credential.
    pub(super) concern: Concern,
    /// Shared by the targets that hold the same.
    pub(super) in_place: Arc<InPlace>,
    /// The credentials that it held when all was well: a difference that comes without new ones is somebody else's.
    pub(super) settled: Option<Arc<CredentialSet>>,
    pub(super) edits: VecDeque<Instant>,
    pub(super) fighting: bool,
    pub(super) warnings: Vec<String>,
}

impl Target {
    /// One that has not been looked at.
    pub(super) fn new(content: Content, urgent: bool) -> Self {
        Self {
            concern: content.concern(),
            content,
            marked: true,
            urgent,
            busy: false,
            leaving: false,
            not_before: None,
            failures: 0,
            problem: None,
            standing: Standing::default(),
            version: String::new(),
            told: String::new(),
            in_place: Arc::default(),
            settled: None,
            edits: VecDeque::new(),
            fighting: false,
            warnings: Vec::new(),
        }
    }

    /// It is not wanted any more.
    pub(super) fn leave(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            self.marked = true;
            self.not_before = None;
            self.failures = 0;
        }
    }

    /// It is wanted, with this content.
    pub(super) fn stay(&mut self, content: Content) {
        self.content = content;
        self.marked |= std::mem::take(&mut self.leaving);
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

    /// Whether it is to be looked at now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.marked && !self.busy && self.not_before.is_none_or(|time| time <= now)
    }

    /// A look at it begins.
    pub(super) fn begin(&mut self) {
        self.marked = false;
        self.urgent = false;
        self.busy = true;
    }

    /// Notes a look at one that is not, or was not, to stay. Whether nothing more is to be done.
    pub(super) fn has_left(&mut self, id: &str, at: &ObjectRef, outcome: &Outcome) -> bool {
        self.busy = false;
        if self.leaving != outcome.farewell {
            self.marked = true; // it was decided otherwise meanwhile
            return false;
        }
        match &outcome.result {
            Ok(true) => {
                tracing::info!(output = %id, secret = %at, "no longer kept: what was ours is out of the Secret");
                true
            }
            Ok(false) => true,
            Err(problem) if problem.class == Class::Denied => {
                tracing::warn!(output = %id, secret = %at, error = problem.message, "no longer kept, and left as it is");
                true
            }
            Err(_) => {
                self.failures = self.failures.saturating_add(1);
                self.not_before = Some(Instant::now() + retry_pause(self.failures, 1));
                self.marked = true;
                false
            }
        }
    }

    /// Notes what became of a look. Says what happened, unless `troubled` others are in trouble and say enough.
    pub(super) fn note(&mut self, id: &str, at: &ObjectRef, outcome: Outcome, troubled: usize) {
        self.busy = false;
        if let Some(found) = outcome.found {
            self.concern = found.concern;
            if *self.in_place != found.in_place {
                self.in_place = Arc::new(found.in_place);
            }
            self.version = found.version;
            self.marked |= !self.told.is_empty() && self.told != self.version;
        }
        for warning in outcome.warnings.iter().filter(|warning| !self.warnings.contains(warning)) {
            tracing::warn!(output = %id, warning, "output has a flaw");
        }
        self.warnings = outcome.warnings;
        let was_settled = self.settled.take().is_some_and(|settled| Arc::ptr_eq(&settled, &outcome.desired));
        match outcome.result {
            Ok(written) => {
                if written {
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
                self.standing = Standing::Proven;
                self.not_before = self.truce();
                self.settled = Some(outcome.desired);
            }
            Err(problem) => {
                self.failures = self.failures.saturating_add(1);
                self.not_before = Some(Instant::now() + retry_pause(self.failures, troubled + 1));
                self.marked = true;
                let is_new = self.problem.as_ref().is_none_or(|known| known.message != problem.message);
                if is_new && troubled < TOLD {
                    tracing::warn!(output = %id, secret = %at, error = problem.message, diagnosis = problem.remedy.diagnosis.id(), remedy = %problem.remedy, "output not written");
                }
                self.standing = self.standing.after(&problem);
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
                diagnosis = Diagnosis::SecretFight.id(), remedy = Diagnosis::SecretFight.mend(),
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

/// What a consumer finds whichever of the Secrets it reads: of each registry the earliest end of its credential, if
/// each Secret that is to hold one does.
pub(super) fn everywhere<'a>(targets: impl Iterator<Item = &'a Target>, desired: &CredentialSet) -> InPlace {
    // Most hold the same: one of these is enough.
    let mut distinct: Vec<(&Concern, &Arc<InPlace>)> = Vec::new();
    for target in targets {
        let is_known = |(concern, in_place): &(&Concern, &Arc<InPlace>)| {
            Arc::ptr_eq(in_place, &target.in_place) && **concern == target.concern
        };
        if !distinct.last().is_some_and(is_known) {
            distinct.push((&target.concern, &target.in_place));
        }
    }
    let found = distinct.iter().flat_map(|(_, in_place)| in_place.keys());
    let hosts: BTreeSet<_> = desired.current.keys().chain(found).collect();
    let of_host = |host| {
        let mut holders = distinct.iter().filter(|(concern, _)| concern.is_for(host)).peekable();
        if holders.peek().is_none() {
            // No Secret to keep, nobody to be refused.
            return desired.current.get(host).map(|token| token.expires_at);
        }
        holders.map(|(_, in_place)| in_place.get(host).copied()).try_fold(None, |earliest, expiry| {
            let expiry = expiry?;
            Some(Some(earliest.map_or(expiry, |earliest: SystemTime| earliest.min(expiry))))
        })?
    };
    hosts.into_iter().filter_map(|host| Some((host.clone(), of_host(host)?))).collect()
}

/// Exponential, with jitter; longer for each when many are in trouble, so that they don't fill the request limit.
pub(super) fn retry_pause(failures: u32, troubled: usize) -> Duration {
    let crowd = RETRY_IN_A_CROWD.saturating_mul(u32::try_from(troubled).unwrap_or(u32::MAX));
    let cap = RETRY.0.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(RETRY.1) + crowd;
    cap.mul_f64(0.75 + fastrand::f64() / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistryHost;

    fn target(concern: Concern, in_place: &[(&str, u64)]) -> Target {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let in_place = in_place.iter().map(|(host, end)| (host.parse().unwrap(), at(*end))).collect();
        Target {
            concern,
            in_place: Arc::new(in_place),
            ..Target::new(Content::DockerConfig { adopt: false, base: None }, false)
        }
    }

    fn ends(targets: &[Target]) -> Vec<(String, u64)> {
        let found = everywhere(targets.iter(), &CredentialSet::default());
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        found.into_iter().map(|(host, end)| (host.to_string(), seconds(end))).collect()
    }

    #[test]
    fn a_registry_is_in_place_when_each_secret_that_is_to_hold_it_does() {
        let of = |host: &str| Concern::One(host.parse::<RegistryHost>().unwrap());
        let all = |in_place| target(Concern::All, in_place);
        assert_eq!(
            ends(&[all(&[("a.example", 5)]), all(&[("a.example", 3), ("b.example", 9)])]),
            [("a.example".to_owned(), 3)]
        );
        // Templates are for one registry each.
        let templates = [
            target(of("a.example"), &[("a.example", 5)]),
            target(of("a.example"), &[("a.example", 4)]),
            target(of("b.example"), &[("b.example", 9)]),
            target(Concern::None, &[]),
        ];
        assert_eq!(ends(&templates), [("a.example".to_owned(), 4), ("b.example".to_owned(), 9)]);
        let one_is_empty = [target(of("a.example"), &[("a.example", 5)]), target(of("a.example"), &[])];
        assert_eq!(ends(&one_is_empty), []);
    }
}
