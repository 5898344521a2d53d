//! The status of the Secrets of an output.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{
    super::{
        coverage::{Standing, everywhere, where_it_works},
        desired::InPlace,
        target::SHOWN,
    },
    Arc, Controller, ObjectRef, Target,
};
use crate::{
    credentials::CredentialSet,
    registry::RegistryHost,
    status::{TargetStatus, Targets},
};

impl Controller {
    pub(super) fn count_failure(&self) {
        self.it.with.status.update_output(&self.it.with.id, |output| output.failed += 1);
    }

    pub(super) fn count_write(&self) {
        let now = self.it.with.clock.now();
        self.it.with.status.update_output(&self.it.with.id, |output| {
            output.writes += 1;
            output.written_at = Some(now);
        });
    }

    pub(super) fn publish_status(&mut self) {
        let is_complete = self.watches.discovered().is_some();
        let desired = self.it.with.credentials.borrow();
        let kept = || self.targets.iter().filter(|(_, target)| target.is_wanted());
        let held = || kept().map(|(_, target)| target.held());
        self.has_been_tried |= is_complete && held().all(|it| it.standing != Standing::New);
        let discovered = self.it.kind.is_discovered();
        let in_place = match (is_complete, discovered) {
            (false, _) => InPlace::new(),
            (true, false) => everywhere(held(), &desired),
            (true, true) => where_it_works(held(), &desired, self.has_been_tried),
        };
        let known = if discovered { examples(kept(), desired.current.len()) } else { BTreeMap::new() };
        let targets = Targets { discovered, known, ..summary(kept(), &desired) };
        let is_reconciled = |target: &Target| target.problem().is_some() || target.in_sync_with().is_some();
        let reconciled = is_complete && kept().all(|(_, target)| is_reconciled(target));
        let failing = targets.failing.first().map(|target| &target.last_error);
        let problem = failing.or(self.watches.problem()).cloned();
        let of_targets = kept().flat_map(|(_, target)| target.warnings());
        let warnings: Vec<_> =
            self.base_warnings.current().iter().chain(of_targets).take(SHOWN).cloned().collect();
        self.it.with.status.update_output(&self.it.with.id, |output| {
            output.last_heartbeat = Instant::now();
            output.in_place = in_place;
            output.warnings = warnings;
            output.reconciled = reconciled;
            output.last_error = problem;
            output.targets = Some(targets);
        });
    }
}

/// Of each registry a Secret that holds its credential; `count` of them are all.
fn examples<'a>(
    targets: impl Iterator<Item = (&'a ObjectRef, &'a Target)>,
    count: usize,
) -> BTreeMap<RegistryHost, ObjectRef> {
    let mut known = BTreeMap::new();
    for (at, target) in targets {
        if known.len() >= count {
            break;
        }
        for host in target.held().in_place.keys() {
            known.entry(host.clone()).or_insert_with(|| at.clone());
        }
    }
    known
}

fn summary<'a>(
    targets: impl Iterator<Item = (&'a ObjectRef, &'a Target)>,
    desired: &Arc<CredentialSet>,
) -> Targets {
    let expiries = desired.current.iter().map(|(host, token)| (host.clone(), token.expires_at));
    let mut summary = Targets { aimed_at: expiries.collect(), ..Targets::default() };
    for (at, target) in targets {
        summary.total += 1;
        summary.given_up += usize::from(target.is_given_up());
        match target.problem() {
            Some(problem) => {
                *summary.failures.entry(problem.remedy.diagnosis).or_default() += 1;
                if summary.failing.len() < SHOWN {
                    let status = TargetStatus { name: at.to_string(), last_error: problem.clone() };
                    summary.failing.push(status);
                } else {
                    summary.more_failing += 1;
                }
            }
            None => {
                let is_in_sync = target.in_sync_with().is_some_and(|it| Arc::ptr_eq(it, desired));
                summary.in_sync += usize::from(is_in_sync);
            }
        }
    }
    summary
}
