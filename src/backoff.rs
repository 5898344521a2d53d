//! The pause before a retry: exponential, with jitter.

use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
    /// The share of a pause that is random, from 0 to 1.
    pub(crate) jitter: f64,
}

impl Backoff {
    /// After so many failures in a row; `random` is from 0 to 1.
    pub(crate) fn pause(&self, failures: u32, random: f64) -> Duration {
        self.jittered(self.longest(failures), random)
    }

    pub(crate) fn longest(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        self.min.saturating_mul(1 << doublings).min(self.max)
    }

    pub(crate) fn jittered(&self, longest: Duration, random: f64) -> Duration {
        longest.mul_f64(1.0 - self.jitter * (1.0 - random.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_between_two_limits_and_are_jittered() {
        let backoff = Backoff { min: Duration::from_millis(500), max: Duration::from_secs(30), jitter: 0.5 };
        let seconds = |failures, random| backoff.pause(failures, random).as_secs_f64();
        assert_eq!(
            [0, 1, 2, 3, 6, 7, u32::MAX].map(|count| seconds(count, 1.0)),
            [0.5, 0.5, 1.0, 2.0, 16.0, 30.0, 30.0]
        );
        assert_eq!([-1.0, 0.0, 0.5, 2.0].map(|random| seconds(1, random)), [0.25, 0.25, 0.375, 0.5]);
    }
}
