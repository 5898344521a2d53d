//! What the kernel reports of files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, PoisonError},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::{Folders, Shared, folders_of};
use crate::diagnosis::Diagnosis;

/// The kernel's hints. Without them the caller polls.
pub(super) struct Inotify {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    complete: bool,
}

impl Inotify {
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            match event {
                Ok(event) if event.kind.is_access() => return, // reading a file changes nothing
                Ok(event) => {
                    shared.named.lock().unwrap_or_else(PoisonError::into_inner).extend(event.paths);
                }
                Err(_) => {}
            }
            shared.look.notify_one();
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(%error, diagnosis = Diagnosis::InotifyExhausted.id(), remedy = Diagnosis::InotifyExhausted.mend(), "inotify is not available: files are looked at every second");
            })
            .ok();
        Self { watcher, folders: BTreeSet::new(), complete: true }
    }

    pub(super) fn works(&self) -> bool {
        self.watcher.is_some() && self.complete
    }

    /// Watches the folders in which a change of `files` would show, and says which ones these are.
    pub(super) fn follow(&mut self, files: BTreeSet<PathBuf>) -> BTreeMap<PathBuf, Folders> {
        let files: BTreeMap<_, _> = files.into_iter().map(|file| (file.clone(), folders_of(&file))).collect();
        let Some(watcher) = &mut self.watcher else { return files };
        let folders: BTreeSet<_> = files.values().flat_map(BTreeMap::keys).cloned().collect();
        for folder in self.folders.difference(&folders) {
            let _ = watcher.unwatch(folder); // it may be gone already
        }
        let was_complete = self.complete;
        self.complete = true;
        let mut followed = BTreeSet::new();
        for folder in folders {
            // Watched anew each time: a folder of the same name may be another one.
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    followed.insert(folder);
                }
                Err(error) => {
                    self.complete = false;
                    if was_complete {
                        tracing::warn!(folder = %folder.display(), %error, diagnosis = Diagnosis::InotifyExhausted.id(), remedy = Diagnosis::InotifyExhausted.mend(), "cannot be watched: files are looked at every second");
                    }
                }
            }
        }
        self.folders = followed;
        files
    }
}
