//! Which warnings about an output are logged: each once while it lasts, and at a limited rate, since whoever may write
//! the file or the Secret can cause new ones with each edit. Pure: time comes in.

use std::time::Duration;

use tokio::time::Instant;

/// The most warnings that are logged within [`WINDOW`]: those of one document, and their count.
const LINES: usize = 21;
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct WarningLog {
    current: Vec<String>,
    since: Option<Instant>,
    logged: usize,
}

impl WarningLog {
    pub(super) fn current(&self) -> &[String] {
        &self.current
    }

    /// Takes the warnings of a reconciliation, and returns those to log.
    pub(super) fn replace(&mut self, warnings: Vec<String>, now: Instant) -> Vec<&str> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            (self.since, self.logged) = (Some(now), 0);
        }
        let known = std::mem::replace(&mut self.current, warnings);
        let new = self.current.iter().filter(|warning| !known.contains(warning));
        let logged: Vec<_> = new.take(LINES - self.logged).map(String::as_str).collect();
        self.logged += logged.len();
        logged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(numbers: std::ops::Range<usize>) -> Vec<String> {
        numbers.map(|number| number.to_string()).collect()
    }

    #[tokio::test]
    async fn a_warning_is_logged_once_while_it_lasts() {
        let (mut log, now) = (WarningLog::default(), Instant::now());
        assert_eq!(log.replace(texts(0..2), now), ["0", "1"]);
        assert_eq!(log.replace(texts(0..3), now), ["2"]);
        assert!(log.replace(texts(1..3), now).is_empty());
        assert_eq!(log.replace(texts(0..3), now), ["0"]);
        assert_eq!(log.current(), texts(0..3));
    }

    #[tokio::test]
    async fn other_warnings_at_each_edit_are_logged_at_a_bounded_rate() {
        let (mut log, start) = (WarningLog::default(), Instant::now());
        let lines: usize = (0..6000)
            .map(|edit| {
                let now = start + Duration::from_millis(10) * u32::try_from(edit).unwrap();
                log.replace(texts(edit * 21..(edit + 1) * 21), now).len()
            })
            .sum();
        assert_eq!(lines, LINES);
        assert_eq!(log.replace(texts(0..1), start + WINDOW), ["0"]);
    }
}
