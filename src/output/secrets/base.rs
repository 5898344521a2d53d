//! Reading the base of a Secret output.

use std::sync::Arc;

use crate::{docker_config::Base, failure::Warning, fs::read::TIME_LIMIT, tasks};

/// The base, read again, and what is wrong with it; an error when its volume hangs. `is_everywhere`: each Secret has its
/// entries as they are now, so that what it had before is nowhere any more.
pub(super) async fn refreshed(
    base: Arc<Base>,
    is_everywhere: bool,
) -> Result<(Arc<Base>, Option<Warning>), Warning> {
    let content = base.read(TIME_LIMIT).await;
    if let Err(error) = &content {
        return Err(base.unusable(&error.to_string()));
    }
    let mut again = Base::clone(&base);
    // A large one takes its time.
    let taken = tasks::blocking(move || {
        match is_everywhere {
            true => again.note_supplied(),
            false => again.note_supplied_too(),
        }
        let warning = again.take(content);
        (Arc::new(again), warning)
    });
    Ok(taken.await)
}
