//! When to ask AWS next: a pure function of (now, state, policy, random number).
//!
//! Invariants, each held by the property test of that name below:
//! * `never_in_the_past`
//! * `never_later_than_the_life_that_is_left_allows`
//! * `no_hot_loop_whatever_the_expiry_and_the_clock_do`
//!
//! It does not sleep, and knows nothing of AWS but how long its tokens live.

use std::time::{Duration, SystemTime};

use crate::{aws::token::ClockFault, backoff::Backoff, failure::Class, units::Percent};

/// The shortest pause after a success, however short-lived the token is.
pub(crate) const SHORTEST_RENEWAL: Duration = Duration::from_secs(10);
/// The pace for a token that is already expired when it arrives: a clock or an emulator is off.
pub(crate) const CLOCK_FAULT_PACE: Duration = Duration::from_secs(60);
/// The shortest pause after a failure.
pub(crate) const SHORTEST_BACKOFF: Duration = Duration::from_secs(1);
/// ECR's tokens live 12 hours. One of more than twice that is an emulator's or a clock's fault …
pub(crate) const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// … and is taken for one of this length.
pub(crate) const USUAL_LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// The bounds of what one attempt may take.
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(3);
const LONGEST_ATTEMPT: Duration = Duration::from_secs(45);
/// How far the wall clock may step back before an outstanding plan is dropped and the token renewed.
const TOLERATED_STEP_BACK: Duration = Duration::from_secs(60);

/// When in a token's life it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The part of the lifetime after which to refresh.
    pub at: Percent,
    /// The part of the lifetime by which that moment is moved at random, either way.
    pub jitter: Percent,
}

/// The life of the token in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// When we asked for it.
    pub obtained_at: SystemTime,
    /// When AWS says that it expires.
    pub expires_at: SystemTime,
}

/// The failures since the last success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failures {
    pub class: Class,
    /// How many in a row, from 1.
    pub count: u32,
    /// When the last one happened.
    pub at: SystemTime,
}

/// The input of a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct State {
    /// The token in hand, if there ever was one. "Never had one" and "expired" are planned alike.
    pub token: Option<Lifetime>,
    pub failures: Option<Failures>,
    /// A random number of [0, 1), drawn once per outcome, so that asking again gives the same plan.
    pub roll: f64,
}

/// When to ask AWS next. Never before `now`.
pub(crate) fn plan(now: SystemTime, state: &State, policy: &Policy) -> SystemTime {
    let at = match (&state.failures, &state.token) {
        (None, None) => now,
        (None, Some(token)) if stepped_back(now, token.obtained_at) => now,
        (None, Some(token)) => later(token.obtained_at, renewal(token, policy, state.roll)),
        (Some(failures), _) if stepped_back(now, failures.at) => now,
        (Some(failures), token) => {
            let left = token.map_or(Duration::ZERO, |token| between(failures.at, token.expires_at));
            later(failures.at, backoff(failures, left, state.roll))
        }
    };
    at.max(now)
}

/// What one attempt may take in all (identity, roles, token): less when little life is left, so that one that
/// hangs leaves time for another.
pub(crate) fn attempt_limit(now: SystemTime, state: &State) -> Duration {
    let left = state.token.map_or(Duration::ZERO, |token| between(now, token.expires_at));
    if left.is_zero() { LONGEST_ATTEMPT } else { (left / 4).clamp(SHORTEST_ATTEMPT, LONGEST_ATTEMPT) }
}

impl Lifetime {
    /// What is wrong with these dates, if anything.
    pub(crate) fn fault(&self) -> Option<ClockFault> {
        match between(self.obtained_at, self.expires_at) {
            Duration::ZERO => Some(ClockFault::ExpiredOnArrival),
            life if life < SHORTEST_RENEWAL * 2 => Some(ClockFault::TooShort),
            life if life > LONGEST_LIFETIME => Some(ClockFault::TooLong),
            _ => None,
        }
    }
}

/// The pause after a success.
fn renewal(token: &Lifetime, policy: &Policy, roll: f64) -> Duration {
    let life = match token.fault() {
        Some(ClockFault::ExpiredOnArrival) => return CLOCK_FAULT_PACE.mul_f64(1.0 + roll / 2.0),
        Some(ClockFault::TooShort) => return SHORTEST_RENEWAL,
        Some(ClockFault::TooLong) => USUAL_LIFETIME,
        None => between(token.obtained_at, token.expires_at),
    };
    let jitter = policy.jitter.as_fraction() * (2.0 * roll - 1.0);
    life.mul_f64((policy.at.as_fraction() + jitter).clamp(0.05, 0.95)).max(SHORTEST_RENEWAL)
}

/// The pause after a failure: exponential, with full jitter, under a ceiling that falls with the life that
/// is `left`, so that an urgent token is retried soon and one with hours to live spares AWS.
fn backoff(failures: &Failures, left: Duration, roll: f64) -> Duration {
    let seconds = Duration::from_secs;
    let alive = !left.is_zero();
    let (first, ceiling) = match failures.class {
        Class::Throttled if alive => (seconds(4), (left / 4).clamp(seconds(4), seconds(3600))),
        Class::Throttled => (seconds(4), seconds(300)),
        class if class.needs_intervention() && alive => {
            (seconds(30), (left / 2).clamp(seconds(60), seconds(300)))
        }
        class if class.needs_intervention() => (seconds(30), seconds(300)),
        _ if alive => (seconds(1), (left / 8).clamp(seconds(4), seconds(900))),
        _ => (seconds(1), seconds(60)),
    };
    let longest = Backoff { min: first, max: ceiling, jitter: 1.0 }.longest(failures.count);
    // Someone has to fix it first: half the pause is certain, so that it stays a slow poll.
    let least = if failures.class.needs_intervention() { longest / 2 } else { SHORTEST_BACKOFF };
    least.max(least + longest.saturating_sub(least).mul_f64(roll))
}

fn stepped_back(now: SystemTime, reference: SystemTime) -> bool {
    between(now, reference) > TOLERATED_STEP_BACK
}

/// Zero when `end` is not after `start`.
fn between(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

fn later(start: SystemTime, pause: Duration) -> SystemTime {
    start.checked_add(pause).unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn policy() -> Policy {
        Policy { at: "50%".parse().unwrap(), jitter: "10%".parse().unwrap() }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn token(obtained: u64, expires: u64) -> Option<Lifetime> {
        Some(Lifetime { obtained_at: at(obtained), expires_at: at(expires) })
    }

    fn failed(class: Class, count: u32, when: u64) -> Option<Failures> {
        Some(Failures { class, count, at: at(when) })
    }

    /// The seconds from `now` to the plan, with the roll in the middle.
    fn pause(now: u64, token: Option<Lifetime>, failures: Option<Failures>) -> f64 {
        let state = State { token, failures, roll: 0.5 };
        between(at(now), plan(at(now), &state, &policy())).as_secs_f64()
    }

    #[test]
    fn table() {
        let day = 24 * 3600;
        let h = 3600;
        // success: half of the lifetime, from when it was obtained
        assert_eq!(pause(day, token(day, day + 12 * h), None), 6.0 * 3600.0);
        assert_eq!(pause(day + 5 * h, token(day, day + 12 * h), None), 3600.0);
        assert_eq!(pause(day, token(day, day + 30), None), 15.0);
        // never had one: now
        assert_eq!(pause(day, None, None), 0.0);
        // dates that cannot be: a slow pace
        assert_eq!(pause(day, token(day, day - 100), None), 75.0);
        assert_eq!(pause(day, token(day, day + 3), None), 10.0);
        assert_eq!(pause(day, token(day, day + 1000 * h), None), 6.0 * 3600.0);
        // suspended for a day: at once
        assert_eq!(pause(2 * day, token(day, day + 12 * h), None), 0.0);
        // the clock stepped back by a day: at once
        assert_eq!(pause(day, token(2 * day, 2 * day + 12 * h), None), 0.0);
        // failures grow from a second to a ceiling that falls with the life left
        assert_eq!(pause(day, None, failed(Class::Transient, 1, day)), 1.0);
        assert_eq!(pause(day, None, failed(Class::Transient, 4, day)), 4.5);
        assert_eq!(pause(day, None, failed(Class::Transient, 99, day)), 30.5);
        assert_eq!(pause(day, token(0, day + 6 * h), failed(Class::Transient, 99, day)), 450.5);
        assert_eq!(pause(day, token(0, day + 15), failed(Class::Transient, 99, day)), 2.5);
        // throttling backs off furthest
        assert_eq!(pause(day, token(0, day + 6 * h), failed(Class::Throttled, 99, day)), 1800.5);
        // denied: slowly
        assert_eq!(pause(day, None, failed(Class::Denied, 1, day)), 22.5);
        assert_eq!(pause(day, None, failed(Class::Denied, 99, day)), 225.0);
    }

    #[test]
    fn an_attempt_takes_no_more_than_a_quarter_of_the_life_that_is_left() {
        let limit =
            |left| attempt_limit(at(0), &State { token: token(0, left), ..State::default() }).as_secs();
        assert_eq!([limit(0), limit(4), limit(40), limit(12 * 3600)], [45, 3, 10, 45]);
    }

    #[test]
    fn jitter_spreads_a_fleet_over_a_fifth_of_the_lifetime() {
        let state = |roll| State { token: token(0, 12 * 3600), failures: None, roll };
        let first = plan(at(0), &state(0.0), &policy());
        let last = plan(at(0), &state(0.999_999), &policy());
        assert_eq!(between(at(0), first), (HOUR * 12).mul_f64(0.4));
        assert!(between(first, last) > (HOUR * 12).mul_f64(0.199));
    }

    fn any_class() -> impl Strategy<Value = Class> {
        prop::sample::select(&Class::ALL)
    }

    fn any_time() -> impl Strategy<Value = SystemTime> {
        prop_oneof![0..4_000_000_000u64, 1_000_000..1_100_000u64].prop_map(at)
    }

    fn any_state() -> impl Strategy<Value = State> {
        let life = (any_time(), any_time())
            .prop_map(|(obtained_at, expires_at)| Lifetime { obtained_at, expires_at });
        let failures =
            (any_class(), 1..200u32, any_time()).prop_map(|(class, count, at)| Failures { class, count, at });
        (prop::option::of(life), prop::option::of(failures), 0.0..1.0f64)
            .prop_map(|(token, failures, roll)| State { token, failures, roll })
    }

    proptest! {
        #[test]
        fn never_in_the_past(now in any_time(), state in any_state()) {
            prop_assert!(plan(now, &state, &policy()) >= now);
        }

        /// A live token is renewed, or its renewal tried again, before it expires; whatever has expired is tried
        /// again within minutes.
        #[test]
        fn never_later_than_the_life_that_is_left_allows(obtained in any_time(), life in 20..86_400u64, into in 0.0..1.0f64, class in any_class(), count in 1..200u32, roll in 0.0..1.0f64) {
            let expires_at = obtained + Duration::from_secs(life);
            let token = Some(Lifetime { obtained_at: obtained, expires_at });
            let renewed = plan(obtained, &State { token, failures: None, roll }, &policy());
            prop_assert!(renewed < expires_at);

            let failed_at = obtained + Duration::from_secs(life).mul_f64(into);
            let failures = Some(Failures { class, count, at: failed_at });
            let retried = plan(failed_at, &State { token, failures, roll }, &policy());
            let left = between(failed_at, expires_at);
            let allowed = match class {
                Class::Throttled => (left / 4).max(Duration::from_secs(4)),
                class if class.needs_intervention() => (left / 2).max(Duration::from_secs(60)),
                _ => (left / 8).max(Duration::from_secs(4)),
            };
            prop_assert!(between(failed_at, retried) <= allowed);

            let never = plan(failed_at, &State { token: None, failures, roll }, &policy());
            prop_assert!(between(failed_at, never) <= Duration::from_secs(300));
        }

        /// An attempt stamps its end into the state; from there the next one is at least a second away, and
        /// after a success ten.
        #[test]
        fn no_hot_loop_whatever_the_expiry_and_the_clock_do(now in any_time(), expires_at in any_time(), had in any_state(), class in any_class(), count in 1..200u32, roll in 0.0..1.0f64) {
            let success = State { token: Some(Lifetime { obtained_at: now, expires_at }), failures: None, roll };
            prop_assert!(between(now, plan(now, &success, &policy())) >= SHORTEST_RENEWAL);
            let failure = State { token: had.token, failures: Some(Failures { class, count, at: now }), roll };
            prop_assert!(between(now, plan(now, &failure, &policy())) >= SHORTEST_BACKOFF);
        }
    }
}
