//! Tells when files change, whatever happens to the folders around them.
//!
//! inotify is mostly a hint to look again at once: what counts is a fingerprint of each file (device, inode,
//! size, times, mode), taken at each hint and every ten seconds. So kubelet's `..data` symlink swap, a folder
//! that does not exist yet, one that is replaced, a file system without inotify (NFS), and an exhausted
//! inotify are all noticed; the last one within a second, by looking every second.
//!
//! What happens between two looks and leaves no trace is told by inotify alone
//! (`a_file_that_is_gone_again_before_the_next_look_is_noticed`), and a folder in which nobody has seen what went
//! on counts as a change of the file (`a_folder_that_comes_is_told_whatever_went_on_there`).
//!
//! Files are looked at on a thread of their own, so that a volume that hangs stalls nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, oneshot};

use crate::diagnosis::Diagnosis;

/// How often to look when inotify works.
const BACKSTOP: Duration = Duration::from_secs(10);
/// How often to look when it doesn't.
const POLL: Duration = Duration::from_secs(1);
/// Changes within this time are one change.
const SETTLE: Duration = Duration::from_millis(20);
/// How long whoever subscribes waits for the first look.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// Watches any number of files with one inotify instance.
#[derive(Clone, Default)]
pub struct FileWatcher(Arc<Shared>);

#[derive(Default)]
struct Shared {
    subscriptions: Mutex<Vec<Subscription>>,
    look: Notify,
    subscribed: Notify,
    /// What inotify has named since the last look.
    named: Mutex<BTreeSet<PathBuf>>,
}

struct Subscription {
    /// What was seen of each file last.
    files: Vec<(PathBuf, Option<Sight>)>,
    changed: Arc<Notify>,
    /// Told once every file has been looked at.
    seen: Option<oneshot::Sender<()>>,
}

/// Dropped to unsubscribe.
pub struct Watched {
    shared: Arc<Shared>,
    changed: Arc<Notify>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shared.lock().retain(|subscription| !Arc::ptr_eq(&subscription.changed, &self.changed));
        self.shared.look.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Subscription>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileWatcher {
    /// Notifies `changed` when one of `files` appears, changes or goes, from now on.
    ///
    /// "Now" is when this returns: a volume that hangs is waited for for [`FIRST_LOOK`], and then counts as
    /// changed when it answers. Takes a running [`Self::run`].
    pub async fn watch(&self, files: Vec<PathBuf>, changed: Arc<Notify>) -> Watched {
        let (seen, first_look) = oneshot::channel();
        let files = files.into_iter().map(|file| (file, None)).collect();
        self.0.lock().push(Subscription { files, changed: Arc::clone(&changed), seen: Some(seen) });
        let watched = Watched { shared: Arc::clone(&self.0), changed };
        self.0.subscribed.notify_one();
        let _ = tokio::time::timeout(FIRST_LOOK, first_look).await;
        watched
    }

    /// Watches for ever; dropped to end.
    pub async fn run(self) {
        let mut inotify = Inotify::start(Arc::clone(&self.0));
        loop {
            let shared = Arc::clone(&self.0);
            let looked = tokio::task::spawn_blocking(move || {
                look(&shared, &mut inotify);
                inotify
            });
            inotify = match looked.await {
                Ok(inotify) => inotify,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => return, // the runtime is ending
            };
            let pause = if inotify.works() { BACKSTOP } else { POLL };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.0.subscribed.notified() => {}
                () = self.0.look.notified() => tokio::select! {
                    () = tokio::time::sleep(SETTLE) => {}
                    () = self.0.subscribed.notified() => {}
                },
            }
        }
    }
}

/// Compares every file with what was seen of it last, and tells whom it concerns.
fn look(shared: &Shared, inotify: &mut Inotify) {
    let files = shared.lock().iter().flat_map(|s| s.files.iter().map(|(file, _)| file.clone())).collect();
    // Not under the lock: a volume that hangs must not hold up whoever subscribes. And first the folders, then
    // the files: what happens to a file from here on, inotify tells.
    let folders = inotify.follow(files);
    let named = std::mem::take(&mut *shared.named.lock().unwrap_or_else(PoisonError::into_inner));
    let seen: BTreeMap<_, _> =
        folders.into_iter().map(|(file, folders)| (file.clone(), Sight::of(&file, folders))).collect();
    for subscription in shared.lock().iter_mut() {
        let mut changed = false;
        for (file, last) in &mut subscription.files {
            if let Some(now) = seen.get(file) {
                changed |= last.as_ref().is_some_and(|last| last != now || named.contains(file));
                *last = Some(now.clone());
            }
        }
        if subscription.files.iter().all(|(_, last)| last.is_some())
            && let Some(seen) = subscription.seen.take()
        {
            changed |= seen.send(()).is_err();
        }
        if changed {
            subscription.changed.notify_one();
        }
    }
}

/// What there is to see of a file: its state, and the folders in which a change of it would show.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sight {
    file: Option<Fingerprint>,
    folders: Folders,
}

/// Folders by path, with device and inode: one of the same name may be another one.
type Folders = BTreeMap<PathBuf, (u64, u64)>;

impl Sight {
    fn of(file: &Path, folders: Folders) -> Self {
        Self { file: fingerprint(file), folders }
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fingerprint {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// `None` for a file that is not there or cannot be seen.
fn fingerprint(file: &Path) -> Option<Fingerprint> {
    let metadata = std::fs::metadata(file).ok()?;
    Some(Fingerprint {
        inode: (metadata.dev(), metadata.ino()),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// The kernel's hints. Without them the caller polls.
struct Inotify {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    complete: bool,
}

impl Inotify {
    fn start(shared: Arc<Shared>) -> Self {
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

    fn works(&self) -> bool {
        self.watcher.is_some() && self.complete
    }

    /// Watches the folders in which a change of `files` would show, and says which ones these are.
    fn follow(&mut self, files: BTreeSet<PathBuf>) -> BTreeMap<PathBuf, Folders> {
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

/// The nearest folder that exists above the file, and that of what a symlink leads to.
fn folders_of(file: &Path) -> Folders {
    let nearest = file.ancestors().skip(1).find(|folder| folder.is_dir() || folder.as_os_str().is_empty());
    let nearest = nearest.map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let behind = std::fs::canonicalize(file).ok().and_then(|target| Some(target.parent()?.to_owned()));
    let folders = nearest.map(Path::to_owned).into_iter().chain(behind);
    folders.filter_map(|folder| Some((folder.clone(), fingerprint(&folder)?.inode))).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    struct Running {
        folder: tempfile::TempDir,
        changed: Arc<Notify>,
        _watched: Watched,
        _task: tokio::task::JoinHandle<()>,
    }

    async fn watching(file: &str) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let watcher = FileWatcher::default();
        let changed = Arc::new(Notify::new());
        let task = tokio::spawn(watcher.clone().run());
        let watched = watcher.watch(vec![folder.path().join(file)], Arc::clone(&changed)).await;
        Running { folder, changed, _watched: watched, _task: task }
    }

    impl Running {
        fn put(&self, file: &str, text: &str) {
            use std::io::Write;
            fs::File::create(self.folder.path().join(file)).unwrap().write_all(text.as_bytes()).unwrap();
        }

        async fn told(&self) {
            tokio::time::timeout(Duration::from_secs(30), self.changed.notified())
                .await
                .expect("told of the change");
        }
    }

    #[tokio::test]
    async fn a_file_that_appears_changes_and_goes_is_noticed() {
        let running = watching("a").await;
        running.put("a", "1");
        running.told().await;
        running.put("a", "22");
        running.told().await;
        fs::remove_file(running.folder.path().join("a")).unwrap();
        running.told().await;
    }

    #[tokio::test]
    async fn a_file_that_is_gone_again_before_the_next_look_is_noticed() {
        let running = watching("a").await;
        for _ in 0..20 {
            running.put("a", "1");
            fs::remove_file(running.folder.path().join("a")).unwrap();
            running.told().await;
        }
    }

    #[tokio::test]
    async fn a_folder_that_does_not_exist_yet_is_noticed() {
        let running = watching("x/y/a").await;
        fs::create_dir_all(running.folder.path().join("x/y")).unwrap();
        running.put("x/y/a", "1");
        running.told().await;
    }

    /// Its folder comes, with the file, which goes again before anybody watches the folder.
    #[tokio::test]
    async fn a_folder_that_comes_is_told_whatever_went_on_there() {
        let running = watching("x/a").await;
        let folder = running.folder.path().join("x");
        for _ in 0..20 {
            fs::create_dir(&folder).unwrap();
            running.put("x/a", "1");
            fs::remove_file(folder.join("a")).unwrap();
            running.told().await;
            fs::remove_dir(&folder).unwrap();
            running.told().await;
        }
    }

    /// As kubelet does it: `a` → `..data/a`, `..data` → a folder; the symlink `..data` is renamed over.
    #[tokio::test]
    async fn the_data_swap_of_kubelet_is_noticed() {
        let running = watching("a").await;
        let path = |name: &str| running.folder.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(path(version)).unwrap();
            running.put(&format!("{version}/a"), version);
        }
        symlink("..1", path("..data")).unwrap();
        symlink("..data/a", path("a")).unwrap();
        running.told().await;
        symlink("..2", path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
        fs::remove_dir_all(path("..1")).unwrap();
        running.told().await;
    }
}
