//! A check that does not finish is a failure: what was not checked is not known to work.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
};

use super::report::{Finding, Step};
use crate::failure::diagnosis::Diagnosis;

/// What a check gives; when it panics, that it did.
pub(super) async fn finished<T>(
    step: Step,
    subject: &str,
    check: impl Future<Output = T>,
) -> Result<T, Finding> {
    let mut check = Box::pin(check);
    let outcome = poll_fn(|context| {
        // After a panic it is dropped, and not polled again.
        match catch_unwind(AssertUnwindSafe(|| check.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(result)) => Poll::Ready(Some(result)),
            Err(_) => Poll::Ready(None), // the hook has printed it
        }
    })
    .await;
    outcome.ok_or_else(|| step.fail(subject, "this check did not finish: it panicked", Diagnosis::Fault))
}

pub(super) async fn findings(
    step: Step,
    subject: &str,
    check: impl Future<Output = Vec<Finding>>,
) -> Vec<Finding> {
    finished(step, subject, check).await.unwrap_or_else(|unfinished| vec![unfinished])
}

#[cfg(test)]
mod tests {
    use tokio::task::{JoinSet, yield_now};

    use super::*;
    use crate::doctor::report::{Outcome, Report};

    fn well() -> Finding {
        Step::Configuration.ok("environment", "1 registry")
    }

    #[tokio::test]
    async fn a_check_that_panics_at_once_later_or_in_a_task_of_its_own_is_a_failure() {
        let at_once = findings(Step::Output, "outputs", async { panic!("at once") }).await;
        let later = findings(Step::Files, "files", async {
            yield_now().await;
            panic!("later")
        })
        .await;
        let in_a_task = findings(Step::Kubernetes, "kubernetes", async {
            let mut tasks = JoinSet::new();
            tasks.spawn(async { panic!("in a task") });
            tasks.join_all().await
        })
        .await;
        for unfinished in [at_once, later, in_a_task] {
            assert_eq!(unfinished.len(), 1);
            assert_eq!(unfinished[0].outcome, Outcome::Fail);
            let report = Report::new([unfinished, vec![well()]].concat());
            assert!(!report.is_healthy());
            let text = report.to_string();
            assert!(text.contains("did not finish") && !text.contains("all is well"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_check_that_finishes_gives_what_it_found() {
        let check = async {
            yield_now().await;
            vec![well()]
        };
        assert_eq!(findings(Step::Files, "files", check).await, [well()]);
    }
}
