//! Uses a change of the files that an identity rests on at once.

use std::sync::Arc;

use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
};

use crate::{
    aws::identity::Identity,
    fs::watch::{FileWatcher, Watched},
};

pub(super) struct InputWatch {
    identity: Arc<Identity>,
    wakes: Vec<Arc<Notify>>,
    task: AbortHandle,
    _watched: Watched,
}

impl InputWatch {
    /// `None` for an identity without files.
    pub(super) async fn start(
        name: &str,
        identity: &Arc<Identity>,
        wakes: Vec<Arc<Notify>>,
        watcher: &FileWatcher,
        tasks: &mut JoinSet<()>,
    ) -> Option<Self> {
        let files = Some(identity.files()).filter(|files| !files.is_empty())?;
        let changed = Arc::new(Notify::new());
        let watched = watcher.watch(files, Arc::clone(&changed)).await;
        let task = {
            let (name, identity, wakes) = (name.to_owned(), Arc::clone(identity), wakes.clone());
            tasks.spawn(async move {
                loop {
                    changed.notified().await;
                    tracing::info!(identity = name, "credential file changed; refreshing");
                    identity.forget();
                    wakes.iter().for_each(|wake| wake.notify_one());
                }
            })
        };
        Some(Self { identity: Arc::clone(identity), wakes, task, _watched: watched })
    }

    pub(super) fn is_for(&self, identity: &Arc<Identity>, wakes: &[Arc<Notify>]) -> bool {
        Arc::ptr_eq(&self.identity, identity)
            && self.wakes.len() == wakes.len()
            && self.wakes.iter().zip(wakes).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl Drop for InputWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
