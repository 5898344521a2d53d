//! What the kernel reports of files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, TryLockError},
};

use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::io::Errno;

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
                let (diagnosis, remedy) = advice(error).unzip();
                tracing::warn!(
                    %error,
                    diagnosis,
                    remedy,
                    "inotify is not available: files are checked every second"
                );
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

    /// Watches each again: a folder of the same name may be another one.
    pub(super) fn follow<'a>(&self, folders: impl Iterator<Item = &'a PathBuf>) {
        for folder in folders {
            if !locked(&self.followed).next.insert(folder.clone()) {
                continue;
            }
            let result = self.idle_watcher().map(|mut it| it.watch(folder, RecursiveMode::NonRecursive));
            if let Some(Ok(())) = result {
                continue;
            }
            let mut followed = locked(&self.followed);
            followed.next.remove(folder);
            // An upper folder that we may pass through but not read has its own checks, which are rare.
            if result.is_some() && locked(&self.relevant).upper.contains(folder) {
                continue;
            }
            followed.complete = false;
            if let Some(Err(error)) = result
                && followed.was_complete
            {
                let (diagnosis, remedy) = advice(&error).unzip();
                tracing::warn!(
                    folder = %folder.display(),
                    %error,
                    diagnosis,
                    remedy,
                    "cannot be watched: files are checked every second"
                );
            }
        }
    }

    /// The check is over: what it has not followed is no longer watched.
    pub(super) fn end(&self) {
        let mut followed = locked(&self.followed);
        let next = std::mem::take(&mut followed.next);
        let stale: Vec<_> = followed.folders.difference(&next).cloned().collect();
        followed.folders = next;
        for folder in stale {
            match self.idle_watcher() {
                Some(mut watcher) => {
                    let _ = watcher.unwatch(&folder); // it may be gone already
                }
                None => {
                    followed.folders.insert(folder); // it is still watched
                }
            }
        }
    }

    /// The watcher, unless a call to it has not returned, as of a folder on a volume that hangs.
    fn idle_watcher(&self) -> Option<MutexGuard<'_, RecommendedWatcher>> {
        match self.watcher.as_ref()?.try_lock() {
            Ok(watcher) => Some(watcher),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// The diagnosis and the remedy, where the node is what the error is of.
fn advice(error: &notify::Error) -> Option<(&'static str, &'static str)> {
    let is_exhausted = match &error.kind {
        ErrorKind::MaxFilesWatch => true,
        ErrorKind::Io(error) => {
            matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOSPC))
        }
        _ => false,
    };
    is_exhausted.then(|| (Diagnosis::InotifyExhausted.id(), Diagnosis::InotifyExhausted.remedy()))
}

#[cfg(test)]
mod tests {
    use std::{io, sync::mpsc, thread, time::Duration};

    use super::*;

    #[test]
    fn a_call_that_hangs_holds_up_no_check() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [one, other] = folders.each_ref().map(|it| it.path().to_owned());
        let inotify = Arc::new(Inotify::start(Arc::default()));
        let check = |folders: Vec<PathBuf>| {
            let (done, checked) = mpsc::channel();
            let inotify = Arc::clone(&inotify);
            thread::spawn(move || {
                inotify.begin(&folders.iter().map(|folder| (folder.join("file"), false)).collect());
                inotify.follow(folders.iter());
                inotify.end();
                done.send(inotify.works())
            });
            checked.recv_timeout(Duration::from_secs(30)).expect("the check to end")
        };
        let followed = || locked(&inotify.followed).folders.iter().cloned().collect::<Vec<_>>();
        assert!(check(vec![one.clone()]));

        let hanging = locked(inotify.watcher.as_ref().unwrap());
        assert!(!check(vec![other.clone()]), "it is polled");
        assert_eq!(followed(), [one]);
        drop(hanging);
        assert!(check(vec![other.clone()]));
        assert_eq!(followed(), [other]);
    }

    #[test]
    fn only_what_the_node_lacks_has_the_remedy_of_the_node() {
        let of = |errno: Errno| advice(&notify::Error::io(io::Error::from(errno))).is_some();
        assert!(
            of(Errno::MFILE)
                && of(Errno::NFILE)
                && advice(&notify::Error::new(ErrorKind::MaxFilesWatch)).is_some()
        );
        assert!(!of(Errno::NOTCONN) && !of(Errno::ACCESS) && !of(Errno::IO));
    }
}
