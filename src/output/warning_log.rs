//! Which warnings about an output are logged: each once while it lasts, and at a limited rate, since whoever may write
//! the file or the Secret can cause new ones with each edit. Pure: time comes in.

use std::time::Duration;

use tokio::time::Instant;

use crate::{failure::Warning, kubernetes::ObjectRef, status::OutputId};

/// The most warnings that are logged within [`WINDOW`]: those of one document, and their count.
const LINES: usize = 21;
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct WarningLog {
    current: Vec<Warning>,
    since: Option<Instant>,
    logged: usize,
}

impl WarningLog {
    pub(super) fn current(&self) -> &[Warning] {
        &self.current
    }

    /// Takes the warnings of a reconciliation, and returns those to log.
    pub(super) fn replace(&mut self, warnings: Vec<Warning>, now: Instant) -> Vec<&Warning> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            (self.since, self.logged) = (Some(now), 0);
        }
        let known = std::mem::replace(&mut self.current, warnings);
        let new = self.current.iter().filter(|warning| !known.contains(warning));
        let logged: Vec<_> = new.take(LINES - self.logged).collect();
        self.logged += logged.len();
        logged
    }
}

/// Logs it with the fields of a failure, as far as there is something to do.
pub(super) fn log(warning: &Warning, output: &OutputId, secret: Option<&ObjectRef>) {
    let Warning { message, remedy } = warning;
    let diagnosis = remedy.as_ref().map(|remedy| remedy.diagnosis.id());
    let (secret, remedy) =
        (secret.map(tracing::field::display), remedy.as_ref().map(tracing::field::display));
    tracing::warn!(%output, secret, warning = message, diagnosis, remedy, "output has a warning");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(number: usize) -> Warning {
        Warning::without_remedy(number.to_string())
    }

    fn warnings(numbers: std::ops::Range<usize>) -> Vec<Warning> {
        numbers.map(warning).collect()
    }

    #[tokio::test]
    async fn a_warning_is_logged_once_while_it_lasts() {
        let (mut log, now) = (WarningLog::default(), Instant::now());
        assert_eq!(log.replace(warnings(0..2), now), [&warning(0), &warning(1)]);
        assert_eq!(log.replace(warnings(0..3), now), [&warning(2)]);
        assert!(log.replace(warnings(1..3), now).is_empty());
        assert_eq!(log.replace(warnings(0..3), now), [&warning(0)]);
        assert_eq!(log.current(), warnings(0..3));
    }

    #[tokio::test]
    async fn other_warnings_at_each_edit_are_logged_at_a_bounded_rate() {
        let (mut log, start) = (WarningLog::default(), Instant::now());
        let lines: usize = (0..6000)
            .map(|edit| {
                let now = start + Duration::from_millis(10) * u32::try_from(edit).unwrap();
                log.replace(warnings(edit * 21..(edit + 1) * 21), now).len()
            })
            .sum();
        assert_eq!(lines, LINES);
        assert_eq!(log.replace(warnings(0..1), start + WINDOW), [&warning(0)]);
    }
}
