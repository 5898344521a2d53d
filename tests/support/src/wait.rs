//! The one place that sleeps: tests wait for conditions, not for time to pass.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a condition is checked.
const POLL: Duration = Duration::from_millis(5);

/// Asks every few milliseconds until `probe` has something, and hands that over.
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
        let late = started.elapsed() >= deadline;
        let found = probe();
        if found.is_some() || late {
            return found;
        }
        thread::sleep(POLL);
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
    #[should_panic(expected = "in vain for the moon")]
    fn a_missed_deadline_names_what_was_missed() {
        wait_for("the moon", Duration::from_millis(10), || None::<()>);
    }
}
