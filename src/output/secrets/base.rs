//! Reading the base of a Secret output.

use std::sync::Arc;

use crate::{
    docker_config::Base,
    failure::Warning,
    fs::read::{TIME_LIMIT, within},
};

/// The base, read again, and what is wrong with it. On a thread of its own, since a volume may hang: an error then.
/// `is_everywhere`: each Secret has its entries as they are now, so that what it had before is nowhere any more.
pub(super) async fn refreshed(
    base: Arc<Base>,
    is_everywhere: bool,
) -> Result<(Arc<Base>, Option<Warning>), Warning> {
    let mut again = Base::clone(&base);
    let read = within(TIME_LIMIT, base.path(), move || {
        match is_everywhere {
            true => again.note_supplied(),
            false => again.note_supplied_too(),
        }
        let warning = again.refresh();
        Ok((Arc::new(again), warning))
    });
    read.await.map_err(|error| base.unusable(&error.to_string()))
}
