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

mod inotify;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};

use self::inotify::Inotify;

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

/// The nearest folder that exists above the file, and that of what a symlink leads to.
fn folders_of(file: &Path) -> Folders {
    let nearest = file.ancestors().skip(1).find(|folder| folder.is_dir() || folder.as_os_str().is_empty());
    let nearest = nearest.map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let behind = std::fs::canonicalize(file).ok().and_then(|target| Some(target.parent()?.to_owned()));
    let folders = nearest.map(Path::to_owned).into_iter().chain(behind);
    folders.filter_map(|folder| Some((folder.clone(), fingerprint(&folder)?.inode))).collect()
}

#[cfg(test)]
mod tests;
