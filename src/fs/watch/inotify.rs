//! What the kernel reports of files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::Shared;
use crate::{failure::diagnosis::Diagnosis, tasks::locked};

/// The kernel's hints. Without them the caller polls.
pub(super) struct Inotify {
    watcher: Option<Mutex<RecommendedWatcher>>,
    followed: Mutex<Followed>,
    relevant: Arc<Mutex<Relevant>>,
}

struct Followed {
    folders: BTreeSet<PathBuf>,
    /// Those of the check under way.
    next: BTreeSet<PathBuf>,
    complete: bool,
    was_complete: bool,
}

/// Which events concern a file: upper folders, such as `/run`, have many that do not.
#[derive(Default)]
struct Relevant {
    components: BTreeSet<PathBuf>,
    /// Upper folders: of these only events of components count.
    upper: BTreeSet<PathBuf>,
}

impl Relevant {
    fn of(files: &BTreeMap<PathBuf, bool>) -> Self {
        let components = files.keys().flat_map(|file| file.ancestors()).map(Path::to_owned).collect();
        let direct: BTreeSet<_> = files.keys().filter_map(|file| file.parent()).collect();
        let upper =
            files.keys().filter_map(|file| file.parent()).flat_map(|folder| folder.ancestors().skip(1));
        let upper = upper.filter(|folder| !direct.contains(folder)).map(Path::to_owned).collect();
        Self { components, upper }
    }

    fn concerns(&self, path: &Path) -> bool {
        self.components.contains(path) || !path.parent().is_some_and(|folder| self.upper.contains(folder))
    }
}

impl Inotify {
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let relevant = Arc::new(Mutex::new(Relevant::default()));
        let filter = Arc::clone(&relevant);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Ok(event) = event {
                if event.kind.is_access() {
                    return; // reading a file changes nothing
                }
                let filter = locked(&filter);
                if !event.paths.is_empty() && !event.paths.iter().any(|path| filter.concerns(path)) {
                    return;
                }
                locked(&shared.named).extend(event.paths);
            }
            shared.check.notify_one();
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(%error, diagnosis = Diagnosis::InotifyExhausted.id(), remedy = Diagnosis::InotifyExhausted.remedy(), "inotify is not available: files are checked every second");
            })
            .ok()
            .map(Mutex::new);
        let folders = BTreeSet::new;
        let followed = Followed { folders: folders(), next: folders(), complete: true, was_complete: true };
        Self { watcher, followed: Mutex::new(followed), relevant }
    }

    pub(super) fn works(&self) -> bool {
        self.watcher.is_some() && locked(&self.followed).complete
    }

    pub(super) fn begin(&self, files: &BTreeMap<PathBuf, bool>) {
        *locked(&self.relevant) = Relevant::of(files);
        let mut followed = locked(&self.followed);
        followed.was_complete = followed.complete;
        followed.complete = true;
    }

    pub(super) fn follow<'a>(&self, folders: impl Iterator<Item = &'a PathBuf>) {
        let Some(watcher) = &self.watcher else { return };
        for folder in folders {
            if !locked(&self.followed).next.insert(folder.clone()) {
                continue;
            }
            // Watched again at each check: a folder of the same name may be another one.
            let Err(error) = locked(watcher).watch(folder, RecursiveMode::NonRecursive) else { continue };
            let mut followed = locked(&self.followed);
            followed.next.remove(folder);
            // An upper folder that we may pass through but not read has its own checks, which are rare.
            if locked(&self.relevant).upper.contains(folder) {
                continue;
            }
            followed.complete = false;
            if followed.was_complete {
                tracing::warn!(folder = %folder.display(), %error, diagnosis = Diagnosis::InotifyExhausted.id(), remedy = Diagnosis::InotifyExhausted.remedy(), "cannot be watched: files are checked every second");
            }
        }
    }

    /// The check is over: what it has not followed is no longer watched.
    pub(super) fn end(&self) {
        let Some(watcher) = &self.watcher else { return };
        let stale: Vec<_> = {
            let mut followed = locked(&self.followed);
            let next = std::mem::take(&mut followed.next);
            let before = std::mem::replace(&mut followed.folders, next);
            before.difference(&followed.folders).cloned().collect()
        };
        for folder in stale {
            let _ = locked(watcher).unwatch(&folder); // it may be gone already
        }
    }
}
