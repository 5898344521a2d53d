//! Whether another process keeps undoing what an output writes.
//!
//! Each restores its own version at once, so that both would write as fast as they can. Beyond a rate that no person
//! and no installer reaches, this one restores only every [`CONFLICT_BACKOFF`]: the work is bounded, and a consumer is
//! without our credential for no longer than that.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// So many restores ...
const CONFLICT_EDITS: usize = 20;
/// ... within this time are an ownership conflict.
const CONFLICT_WINDOW: Duration = Duration::from_secs(30);
/// A conflict without a restore for this long is over.
const CONFLICT_END: Duration = Duration::from_secs(10);
/// The pause between two restores in a conflict.
pub(super) const CONFLICT_BACKOFF: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Conflict {
    restores: VecDeque<Instant>,
    active: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    Began,
    Ended,
}

impl Conflict {
    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    /// Notes a reconciliation, and whether it had to restore what another process had changed.
    pub(super) fn note(&mut self, restored: bool, now: Instant) -> Option<Edge> {
        if restored {
            self.restores.push_back(now);
        }
        while self.restores.len() > CONFLICT_EDITS {
            self.restores.pop_front();
        }
        let age = |restore: Option<&Instant>| restore.map(|at| now.saturating_duration_since(*at));
        let latest = age(self.restores.back());
        let many = self.restores.len() == CONFLICT_EDITS
            && age(self.restores.front()).is_some_and(|age| age <= CONFLICT_WINDOW);
        if self.active && latest.is_none_or(|age| age >= CONFLICT_END) {
            self.active = false;
            self.restores.clear();
            return Some(Edge::Ended);
        }
        if !self.active && many {
            self.active = true;
            return Some(Edge::Began);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn many_restores_in_a_short_time_are_a_conflict_until_they_stop() {
        let (mut conflict, start) = (Conflict::default(), Instant::now());
        for second in 0..19 {
            assert_eq!(conflict.note(true, after(start, second)), None);
            assert_eq!(conflict.note(false, after(start, second)), None, "only restores count");
        }
        assert_eq!(conflict.note(true, after(start, 19)), Some(Edge::Began));
        // at one a second, as it is restored now, it goes on
        for second in 20..90 {
            assert_eq!(conflict.note(true, after(start, second)), None);
            assert!(conflict.is_active());
        }
        assert_eq!(conflict.note(false, after(start, 98)), None);
        assert_eq!(conflict.note(false, after(start, 99)), Some(Edge::Ended));
        assert!(!conflict.is_active());
        assert_eq!(conflict.note(true, after(start, 99)), None, "it starts from nothing");
    }

    #[tokio::test]
    async fn edits_by_hand_are_none() {
        let (mut conflict, start) = (Conflict::default(), Instant::now());
        for edit in 0..1000 {
            assert_eq!(conflict.note(true, after(start, edit * 2)), None);
        }
        assert!(conflict.restores.len() <= CONFLICT_EDITS);
    }
}
