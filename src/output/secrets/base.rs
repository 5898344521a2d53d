//! Reading the base of a Secret output.

use std::sync::Arc;

use crate::{
    docker_config::Base,
    failure::Warning,
    fs::read::{TIME_LIMIT, within},
};

/// The base, read again, and what is wrong with it. On a thread of its own, since a volume may hang: an error then.
pub(super) async fn refreshed(base: Arc<Base>) -> Result<(Arc<Base>, Option<Warning>), Warning> {
    let mut again = Base::clone(&base);
    let read = within(TIME_LIMIT, base.path(), move || {
        again.note_supplied();
        let warning = again.refresh();
        Ok((Arc::new(again), warning))
    });
    read.await.map_err(|error| base.unusable(&error.to_string()))
}
