//! Reading the base of a Secret output.

use std::{sync::Arc, time::Duration};

use crate::{docker_config::Base, failure::Warning, tasks};

/// How long its volume may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The base, read again, and what is wrong with it. On a thread of its own, since a volume may hang: an error then.
pub(super) async fn refreshed(base: Arc<Base>) -> Result<(Arc<Base>, Option<Warning>), Warning> {
    let mut again = Base::clone(&base);
    let read = tasks::blocking_within(LIMIT, move || {
        again.note_supplied();
        let warning = again.refresh();
        (Arc::new(again), warning)
    });
    read.await.ok_or_else(|| base.unusable(&format!("it could not be read within {} s", LIMIT.as_secs())))
}
