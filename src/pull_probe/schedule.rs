//! When to probe: pure.

use std::time::Duration;

/// A failing probe is tried again after at most so many intervals, so that its recovery is seen within them.
const MOST_INTERVALS: u32 = 4;
/// A pause is longer by up to this share of it, so that sidecars that start together do not stay together.
const JITTER: f64 = 0.1;
/// The sidecars that start together ask for the first time within this time.
const SPREAD: Duration = Duration::from_secs(5);

/// From the start of one probe to that of the next, after so many failures in a row; `random` is from 0 to 1. It is never
/// less than `every`.
pub(super) fn pause(every: Duration, failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(MOST_INTERVALS.ilog2());
    let pause = every.saturating_mul(1 << doublings);
    pause + pause.mul_f64(JITTER * random.clamp(0.0, 1.0))
}

/// Before the first probe.
pub(super) fn spread(random: f64) -> Duration {
    SPREAD.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_probe_backs_off_to_four_intervals_and_none_comes_early() {
        const EVERY: Duration = Duration::from_secs(900);
        let minutes = |failures, random| pause(EVERY, failures, random).as_secs_f64() / 60.0;
        let pauses = [0, 1, 2, 3, 4, u32::MAX].map(|failures| minutes(failures, 0.0));
        assert_eq!(pauses, [15.0, 15.0, 30.0, 60.0, 60.0, 60.0]);
        assert_eq!([-1.0, 0.5, 1.0, 9.0].map(|random| minutes(0, random)), [15.0, 15.75, 16.5, 16.5]);
        assert_eq!([0.0, 1.0, 9.0].map(|random| spread(random).as_secs()), [0, 5, 5]);
    }
}
