//! What time is it for the emulator?
//!
//! The machine's wall clock plus an offset that tests move. Expiries, SigV4's time check, web-identity tokens and
//! the `Date` header all follow it; nothing else in the crate reads the clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A wall clock with an offset.
#[derive(Default)]
pub(crate) struct Clock {
    offset_seconds: AtomicI64,
}

impl Clock {
    pub(crate) fn set_offset(&self, seconds: i64) {
        self.offset_seconds.store(seconds, Ordering::SeqCst);
    }

    pub(crate) fn offset(&self) -> i64 {
        self.offset_seconds.load(Ordering::SeqCst)
    }

    pub(crate) fn now(&self) -> SystemTime {
        let machine = machine_time();
        let offset = self.offset();
        let shift = std::time::Duration::from_secs(offset.unsigned_abs());
        if offset < 0 { machine - shift } else { machine + shift }
    }

    /// Now, in whole seconds since 1970.
    pub(crate) fn unix(&self) -> i64 {
        unix(self.now())
    }
}

#[allow(clippy::disallowed_methods, reason = "the one place in this crate that reads the clock")]
fn machine_time() -> SystemTime {
    SystemTime::now()
}

/// Whole seconds since 1970; times before it are 0.
pub(crate) fn unix(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

/// `2026-01-02T03:04:05Z`, as STS and the metadata services write it.
pub(crate) fn iso(seconds: i64) -> String {
    format(seconds, "%Y-%m-%dT%H:%M:%SZ")
}

/// `20260102T030405Z`, as SigV4 writes it.
pub(crate) fn basic(seconds: i64) -> String {
    format(seconds, "%Y%m%dT%H%M%SZ")
}

/// `Fri, 02 Jan 2026 03:04:05 GMT`, as HTTP writes it.
pub(crate) fn http_date(seconds: i64) -> String {
    format(seconds, "%a, %d %b %Y %H:%M:%S GMT")
}

/// Reads what [`basic`] writes.
pub(crate) fn parse_basic(text: &str) -> Option<i64> {
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

fn format(seconds: i64, pattern: &str) -> String {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).strftime(pattern).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_written_as_each_protocol_wants_them() {
        assert_eq!(iso(1_767_323_045), "2026-01-02T03:04:05Z");
        assert_eq!(basic(1_767_323_045), "20260102T030405Z");
        assert_eq!(http_date(1_767_323_045), "Fri, 02 Jan 2026 03:04:05 GMT");
        assert_eq!(parse_basic("20260102T030405Z"), Some(1_767_323_045));
        assert_eq!(parse_basic("yesterday"), None);
    }

    #[test]
    fn the_clock_moves_by_its_offset() {
        let clock = Clock::default();
        let before = clock.unix();
        clock.set_offset(-3600);
        assert!((before - clock.unix() - 3600).abs() <= 1);
        clock.set_offset(7200);
        assert!((clock.unix() - before - 7200).abs() <= 1);
    }
}
