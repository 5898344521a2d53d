//! The only place that reads the wall clock.
//!
//! Wall-clock time decides expiry; monotonic time only sleeps. Tests replace the clock by one that moves
//! with tokio's pausable time, so that days pass in milliseconds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

#[derive(Debug, Clone, Default)]
pub enum Clock {
    #[default]
    System,
    Simulated(SimulatedClock),
}

impl Clock {
    pub fn now(&self) -> SystemTime {
        match self {
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
            Self::System => SystemTime::now(),
            Self::Simulated(clock) => clock.now(),
        }
    }
}

/// Without the fraction, as texts have it: of two expiries in the same second neither is later.
pub fn whole_seconds(time: SystemTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(unix_seconds(time))
}

/// Seconds since 1970, as files have them.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub fn from_unix_seconds(seconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[derive(Debug, Clone)]
pub struct SimulatedClock {
    start: SystemTime,
    origin: Instant,
    stepped_seconds: Arc<AtomicI64>,
}

impl SimulatedClock {
    /// A clock that shows `start` now. To be called inside a tokio runtime.
    pub fn starting_at(start: SystemTime) -> Self {
        Self { start, origin: Instant::now(), stepped_seconds: Arc::default() }
    }

    /// Steps the wall clock, as an administrator or NTP would; monotonic time doesn't notice.
    pub fn step(&self, seconds: i64) {
        self.stepped_seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    fn now(&self) -> SystemTime {
        let steady = self.start + self.origin.elapsed();
        let stepped = self.stepped_seconds.load(Ordering::Relaxed);
        let size = Duration::from_secs(stepped.unsigned_abs());
        if stepped < 0 { steady - size } else { steady + size }
    }
}

/// RFC 3339 text in UTC with whole seconds, as it appears in logs and in `/status`.
pub fn rfc3339(time: SystemTime) -> String {
    let whole_seconds =
        jiff::Timestamp::try_from(time).and_then(|time| jiff::Timestamp::from_second(time.as_second()));
    match whole_seconds {
        Ok(time) => time.to_string(),
        Err(_) => format!("{time:?}"), // before the year -9999 or after 9999: no RFC 3339 form
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_zero_has_a_text() {
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
    }
}
