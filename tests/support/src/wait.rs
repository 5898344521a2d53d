//! The one place that sleeps: tests wait for conditions, not for time to pass.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The pause between two checks: a share of the time waited so far, and twice as long as the last check took, which may
/// have run a program. So waiting costs little, and hardly delays what is waited for.
fn poll_pause(waited: Duration, check: Duration) -> Duration {
    let millis = Duration::from_millis;
    (waited / 50).clamp(millis(5), millis(50)).max((check * 2).min(millis(300)))
}

/// Asks again and again until `probe` has something, and hands that over.
///
/// # Panics
/// When nothing came within `deadline`; the message names `what`.
#[track_caller]
pub fn wait_for<T>(what: &str, deadline: Duration, probe: impl FnMut() -> Option<T>) -> T {
    match within(deadline, probe) {
        Some(found) => found,
        None => panic!("waited {deadline:?} in vain for {what}"),
    }
}

/// The same for what may just as well not come: `None` then.
///
/// `probe` is asked once more after the deadline, so that a stalled machine cannot miss a condition that
/// holds.
pub fn within<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        let asked = started.elapsed();
        let found = probe();
        if found.is_some() || asked >= deadline {
            return found;
        }
        let waited = started.elapsed();
        thread::sleep(poll_pause(waited, waited - asked));
    }
}

/// Asks as often as it can, for what another process does within microseconds.
///
/// # Panics
/// When nothing came within `deadline`; the message names `what`.
#[track_caller]
pub fn spin_for<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(started.elapsed() < deadline, "waited {deadline:?} in vain for {what}");
    }
}

/// Lets time pass: for a pace, or where the test shows that nothing happens. There is no condition to wait for.
pub fn pause(time: Duration) {
    thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_probe_found_is_handed_over() {
        let mut calls = 0;
        let found = wait_for("the third call", Duration::from_secs(5), || {
            calls += 1;
            (calls == 3).then_some("third")
        });
        assert_eq!(found, "third");
    }

    #[test]
    fn pauses_grow_with_the_wait_and_with_what_a_check_costs() {
        let pause = |waited, check| {
            poll_pause(Duration::from_millis(waited), Duration::from_millis(check)).as_millis()
        };
        assert_eq!([0, 100, 1000, 100_000].map(|waited| pause(waited, 0)), [5, 5, 20, 50]);
        assert_eq!([1, 4, 150, 5000].map(|check| pause(0, check)), [5, 8, 300, 300]);
    }

    #[test]
    #[should_panic(expected = "in vain for the moon")]
    fn a_missed_deadline_names_what_was_missed() {
        wait_for("the moon", Duration::from_millis(10), || None::<()>);
    }
}
