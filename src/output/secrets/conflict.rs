//! How often a Secret is restored that another field manager keeps changing. Pure: time comes in.
//!
//! Invariants:
//! * a consumer whose credential was taken waits for it no longer than [`INTERVAL`], however often that happens:
//!   `a_credential_is_restored_at_once_and_then_at_a_steady_pace`
//! * what takes no credential is restored rarely, once it has happened often:
//!   `in_a_conflict_checks_are_paced_and_harmless_differences_deferred`
//! * lines of log come at a steady pace: `a_conflict_is_logged_once_a_window`

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Restores of one Secret within this time that are an ownership conflict; also how long differences that no consumer
/// notices are left then, and how long a conflict is quiet in the log.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
const RESTORES: usize = 4;
/// In a conflict credentials are restored at once a few times, then once in this time: an Argo CD application that heals
/// itself takes them every five seconds (its `--self-heal-timeout-seconds`).
pub(super) const INTERVAL: Duration = Duration::from_secs(2);
const AT_ONCE: u32 = 5;
/// In a conflict each change does not call for a request of its own.
const BETWEEN_CHECKS: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub(super) struct Conflict {
    restores: VecDeque<Instant>,
    /// When so many restores as there were would have been due at the steady pace.
    paced: Option<Instant>,
    is_active: bool,
    logged: Option<Instant>,
    unlogged: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report {
    Restored,
    Conflict { restores: u64 },
    Silent,
}

impl Conflict {
    /// Notes that a change by another field manager was undone.
    pub(super) fn note(&mut self, now: Instant) -> Report {
        self.forget_old(now);
        self.restores.push_back(now);
        self.paced = Some(self.paced.map_or(now, |paced| paced.max(now)) + INTERVAL);
        self.unlogged += 1;
        self.is_active |= self.restores.len() >= RESTORES;
        if !self.is_active {
            self.unlogged = 0;
            return Report::Restored;
        }
        if self.logged.is_some_and(|logged| now.duration_since(logged) < WINDOW) {
            return Report::Silent;
        }
        self.logged = Some(now);
        Report::Conflict { restores: std::mem::take(&mut self.unlogged).max(self.restores.len() as u64) }
    }

    pub(super) fn is_active(&mut self, now: Instant) -> bool {
        self.forget_old(now);
        self.is_active
    }

    /// When the Secret may be checked again; `None` for at once.
    pub(super) fn next_check(&mut self, now: Instant) -> Option<Instant> {
        if !self.is_active(now) {
            return None;
        }
        let restore = self.paced.and_then(|paced| paced.checked_sub(INTERVAL * AT_ONCE));
        Some((now + BETWEEN_CHECKS).max(restore.unwrap_or(now)))
    }

    fn forget_old(&mut self, now: Instant) {
        self.restores.retain(|restore| now.duration_since(*restore) < WINDOW);
        if self.restores.is_empty() {
            self.is_active = false;
            self.logged = None;
            self.unlogged = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What another field manager does every `every`, for `length`: when it is undone, the longest wait, the reports.
    fn play(every: Duration, length: Duration) -> (usize, Duration, Vec<Report>) {
        let start = Instant::now();
        let mut conflict = Conflict::default();
        let (mut restores, mut longest, mut reports) = (0, Duration::ZERO, Vec::new());
        let mut next_edit = start;
        let mut free_at = start;
        while next_edit < start + length {
            let taken_at = next_edit;
            let restored_at = taken_at.max(free_at);
            longest = longest.max(restored_at - taken_at);
            restores += 1;
            reports.push(conflict.note(restored_at));
            free_at = conflict.next_check(restored_at).unwrap_or(restored_at);
            next_edit = taken_at + every;
            while next_edit <= restored_at {
                next_edit += every;
            }
        }
        (restores, longest, reports)
    }

    #[test]
    fn a_credential_is_restored_at_once_and_then_at_a_steady_pace() {
        // Argo CD's self-heal, for an hour: each is undone at once.
        let (restores, longest, _) = play(5 * SECOND, 3600 * SECOND);
        assert_eq!((restores, longest), (720, Duration::ZERO));
        // A loop of 100 a second, for ten minutes: never longer than the interval, at the pace of the interval.
        let (restores, longest, _) = play(Duration::from_millis(10), 600 * SECOND);
        assert!(longest <= INTERVAL, "{longest:?}");
        assert!((290..=310).contains(&restores), "{restores}");
        // Each second: the first ones at once, then every second one.
        let (restores, longest, _) = play(SECOND, 600 * SECOND);
        assert!(longest <= INTERVAL && (290..=320).contains(&restores), "{longest:?} {restores}");
    }

    #[test]
    fn a_conflict_is_logged_once_a_window() {
        let (_, _, reports) = play(Duration::from_millis(10), 600 * SECOND);
        let loud = reports.iter().filter(|report| **report != Report::Silent).count();
        assert!(loud <= RESTORES + 11, "{loud} lines in ten minutes");
        assert_eq!(reports[..RESTORES - 1], [Report::Restored, Report::Restored, Report::Restored]);
        assert_eq!(reports[RESTORES - 1], Report::Conflict { restores: 4 });
        let later = reports.iter().rev().find(|report| **report != Report::Silent).unwrap();
        assert!(matches!(later, Report::Conflict { restores } if (28..=32).contains(restores)), "{later:?}");
    }

    #[test]
    fn a_conflict_is_over_when_nothing_happens_for_a_window() {
        let start = Instant::now();
        let mut conflict = Conflict::default();
        for number in 0..RESTORES as u32 {
            assert_eq!(conflict.next_check(start), None);
            conflict.note(start + SECOND * number);
        }
        assert!(conflict.is_active(start + 4 * SECOND));
        assert!(conflict.next_check(start + 4 * SECOND).is_some());
        let later = start + 4 * SECOND + WINDOW;
        assert!(!conflict.is_active(later) && conflict.next_check(later).is_none());
        assert_eq!(conflict.note(later), Report::Restored);
    }
}
