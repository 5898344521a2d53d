//! Tasks and blocking work that are waited for: a panic in one goes on where it is waited for, and nowhere else.

use std::{
    future::pending,
    panic::resume_unwind,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task::JoinError, time::timeout};

/// Starts `work` on a thread that may block, such as on a volume that hangs. The result never comes once the runtime
/// ends.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> + Send {
    let task = tokio::task::spawn_blocking(work);
    async {
        match joined(task.await) {
            Some(done) => done,
            None => pending().await,
        }
    }
}

/// The same for at most `limit`; after that, the thread is left to the work.
pub(crate) async fn blocking_within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    timeout(limit, blocking(work)).await.ok()
}

/// Locks it, also when a task has panicked that held it.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a task returned; `None` if it was aborted or the runtime ends.
pub(crate) fn joined<T>(result: Result<T, JoinError>) -> Option<T> {
    match result.map_err(JoinError::try_into_panic) {
        Ok(done) => Some(done),
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_has_a_time_limit_and_its_panic_goes_on() {
        assert_eq!(blocking_within(Duration::from_secs(60), || 7).await, Some(7));
        let (release, hangs) = mpsc::channel::<()>();
        let hung = blocking_within(Duration::from_millis(10), move || hangs.recv().is_ok());
        assert_eq!(hung.await, None);
        drop(release);
        let panicked = tokio::spawn(blocking(|| panic!("in the work"))).await.unwrap_err();
        assert_eq!(panicked.into_panic().downcast_ref(), Some(&"in the work"));
        let aborted = tokio::spawn(pending::<()>());
        aborted.abort();
        assert_eq!(joined(aborted.await), None);
    }
}
