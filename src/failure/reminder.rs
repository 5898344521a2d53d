//! Which failures of a row are logged.

use std::time::Duration;

use tokio::time::Instant;

use super::Problem;

/// A failure that lasts is logged again after this time.
const INTERVAL: Duration = Duration::from_secs(600);

/// Decides which failures of a row are logged: the first, a change of message, and one every ten minutes.
#[derive(Default)]
pub(crate) struct Reminder {
    last: Option<(String, Instant)>,
}

impl Reminder {
    /// Whether anything was logged: then the recovery is worth a line too.
    pub(crate) fn was_used(&self) -> bool {
        self.last.is_some()
    }

    pub(crate) fn is_due(&mut self, problem: &Problem) -> bool {
        let is_known = self
            .last
            .as_ref()
            .is_some_and(|(message, at)| *message == problem.message && at.elapsed() < INTERVAL);
        if !is_known {
            self.last = Some((problem.message.clone(), Instant::now()));
        }
        !is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Class, diagnosis::Diagnosis};

    #[tokio::test(start_paused = true)]
    async fn a_lasting_failure_is_logged_once_and_then_every_ten_minutes() {
        let problem = |message: &str| Problem {
            message: message.into(),
            remedy: Diagnosis::Unreachable.into(),
            class: Class::Transient,
        };
        let mut reminder = Reminder::default();
        assert!(reminder.is_due(&problem("a")));
        assert!(!reminder.is_due(&problem("a")));
        assert!(reminder.is_due(&problem("b")));
        tokio::time::advance(INTERVAL).await;
        assert!(reminder.is_due(&problem("b")));
    }
}
