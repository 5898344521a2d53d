//! Which target is reconciled next, and when: pure.
//!
//! One that has just changed comes before those that are merely due, so that an edit is undone soon while thousands are
//! checked. Yet whoever may write to a Secret can make it urgent all the time. So the one whose last reconciliation
//! began longest ago comes first, and every [`REGARDLESS`]th pick is regardless of urgency:
//! `noisy_secrets_hold_up_no_other`.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::target::Target;
use crate::kubernetes::ObjectRef;

pub(super) const CONCURRENCY: usize = 16;
/// The loop runs at least this often, whatever happens.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(30);
/// One pick of so many is regardless of urgency.
const REGARDLESS: u64 = 4;

pub(super) type Targets = BTreeMap<ObjectRef, Target>;

/// The target to reconcile now, after so many picks and while so many are reconciled.
pub(super) fn next(targets: &Targets, running: usize, picks: u64, now: Instant) -> Option<ObjectRef> {
    if running >= CONCURRENCY {
        return None;
    }
    let is_regardless = picks.is_multiple_of(REGARDLESS);
    let rank = |target: &Target| {
        let (is_less_urgent, last_pick) = target.rank();
        (is_less_urgent && !is_regardless, last_pick)
    };
    let due = targets.iter().filter(|(_, target)| target.due(now).is_some_and(|due| due <= now));
    due.min_by_key(|(_, target)| rank(target)).map(|(at, _)| at.clone())
}

/// When something is to be done without an event.
pub(super) fn wake_at(targets: &Targets, running: usize, now: Instant) -> Instant {
    let heartbeat = now + HEARTBEAT;
    if running >= CONCURRENCY {
        return heartbeat;
    }
    targets.values().filter_map(|target| target.due(now)).fold(heartbeat, Instant::min)
}

#[cfg(test)]
mod tests;
