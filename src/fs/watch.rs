//! Notifies when files change, whatever happens to the folders around them.
//!
//! inotify is mostly a hint to check again at once: what counts is a fingerprint of each file (device, inode,
//! size, times, mode), taken at each hint and every ten seconds. So kubelet's `..data` symlink swap, a folder
//! that does not exist yet, one that is replaced, a file system without inotify (NFS), and an exhausted
//! inotify are all noticed; the last one within a second, by checking every second.
//!
//! What happens between two checks and leaves no trace is reported by inotify alone
//! (`a_file_that_is_gone_again_before_the_next_check_is_noticed`), and a folder whose events were not seen
//! counts as a change of the file (`a_folder_that_appears_is_reported_whatever_happened_there`). A file that this
//! process keeps is followed through every component of its path, and counts as changed at each regular check that
//! does not find it (`a_kept_file_that_is_missing_is_reported_until_it_is_back`).
//!
//! Files are checked on threads of their own. One whose volume hangs keeps its thread, alone and without another
//! attempt, and delays no other file (`a_file_that_hangs_delays_no_other`).

mod inotify;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, timeout},
};

use self::inotify::Inotify;
use crate::{
    fs::version::Version,
    tasks::{self, locked},
};

/// How often to check when inotify works.
const BACKSTOP: Duration = Duration::from_secs(10);
/// How often to check when it doesn't.
const POLL: Duration = Duration::from_secs(1);
/// Changes within this time are one change.
const SETTLE: Duration = Duration::from_millis(20);
/// How long whoever subscribes waits for the first check.
const FIRST_CHECK: Duration = Duration::from_secs(1);
/// A file that cannot be checked within this time hangs.
const PATIENCE: Duration = Duration::from_millis(250);
const PATIENCE_IF_LATE: Duration = Duration::from_secs(2);

#[derive(Clone, Default)]
pub struct FileWatcher(Arc<Shared>);

#[derive(Default)]
struct Shared {
    subscriptions: Mutex<Vec<Subscription>>,
    check: Notify,
    subscribed: Notify,
    /// What inotify has named since the last check.
    named: Mutex<BTreeSet<PathBuf>>,
    /// Files of which a check hangs.
    hung: Mutex<BTreeSet<PathBuf>>,
    /// What was seen of a file whose check had been given up as hung.
    late: Mutex<BTreeMap<PathBuf, Sight>>,
}

struct Subscription {
    files: Vec<Watching>,
    changed: Arc<Notify>,
    /// Sent once every file has been checked.
    seen: Option<oneshot::Sender<()>>,
}

struct Watching {
    file: PathBuf,
    /// This process keeps it: it is to be there.
    kept: bool,
    last: Option<Sight>,
}

/// Dropped to unsubscribe.
pub struct Watched {
    shared: Arc<Shared>,
    changed: Arc<Notify>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        locked(&self.shared.subscriptions)
            .retain(|subscription| !Arc::ptr_eq(&subscription.changed, &self.changed));
        self.shared.check.notify_one();
    }
}

impl Shared {
    fn files(&self) -> BTreeMap<PathBuf, bool> {
        let hung = locked(&self.hung);
        let mut files = BTreeMap::new();
        for watching in locked(&self.subscriptions).iter().flat_map(|subscription| &subscription.files) {
            if !hung.contains(&watching.file) {
                *files.entry(watching.file.clone()).or_default() |= watching.kept;
            }
        }
        files
    }
}

impl FileWatcher {
    /// Notifies `changed` when one of `files` appears, changes or goes, from now on.
    ///
    /// "Now" is when this returns: a volume that hangs is waited for for [`FIRST_CHECK`], and then counts as
    /// changed when it responds. Takes a running [`Self::run`].
    pub async fn watch(&self, files: Vec<PathBuf>, changed: Arc<Notify>) -> Watched {
        self.subscribe(files, None, changed).await
    }

    /// The same for `kept`, which this process keeps, and the `inputs` that it is made from: also notifies at each
    /// regular check that does not find `kept`.
    pub async fn watch_kept(&self, kept: PathBuf, inputs: Vec<PathBuf>, changed: Arc<Notify>) -> Watched {
        self.subscribe(inputs, Some(kept), changed).await
    }

    async fn subscribe(&self, files: Vec<PathBuf>, kept: Option<PathBuf>, changed: Arc<Notify>) -> Watched {
        let (seen, first_check) = oneshot::channel();
        let inputs = files.into_iter().map(|file| Watching { file, kept: false, last: None });
        let kept = kept.map(|file| Watching { file, kept: true, last: None });
        let files = inputs.chain(kept).collect();
        locked(&self.0.subscriptions).push(Subscription {
            files,
            changed: Arc::clone(&changed),
            seen: Some(seen),
        });
        let watched = Watched { shared: Arc::clone(&self.0), changed };
        self.0.subscribed.notify_one();
        let _ = timeout(FIRST_CHECK, first_check).await;
        watched
    }

    pub async fn run(self) {
        let inotify = Arc::new(Inotify::start(Arc::clone(&self.0)));
        let mut last_regular = Instant::now();
        loop {
            let pause = if inotify.works() { BACKSTOP } else { POLL };
            let regular = last_regular.elapsed() >= pause;
            if regular {
                last_regular = Instant::now();
            }
            check(&self.0, &inotify, regular).await;
            let pause = if inotify.works() { BACKSTOP } else { POLL };
            tokio::select! {
                () = tokio::time::sleep_until(last_regular + pause) => {}
                () = self.0.subscribed.notified() => {}
                () = self.0.check.notified() => tokio::select! {
                    () = tokio::time::sleep(SETTLE) => {}
                    () = self.0.subscribed.notified() => {}
                },
            }
        }
    }
}

/// Compares every file with what was seen of it last, and notifies whom it concerns.
async fn check(shared: &Arc<Shared>, inotify: &Arc<Inotify>, regular: bool) {
    let late = std::mem::take(&mut *locked(&shared.late));
    let files = shared.files();
    // Before the files are checked: what happens to one from here on is seen, or named for the next check.
    let named = std::mem::take(&mut *locked(&shared.named));
    inotify.begin(&files);
    let mut seen = sights(shared, files, &late, {
        let inotify = Arc::clone(inotify);
        move |file, kept| {
            let folders = folders_of(file, kept);
            inotify.follow(folders.keys()); // and first the folders
            Sight { file: version(file), folders }
        }
    })
    .await;
    for (file, sight) in late {
        seen.entry(file).or_insert(sight);
    }
    inotify.end();
    for subscription in locked(&shared.subscriptions).iter_mut() {
        let mut changed = false;
        for Watching { file, kept, last } in &mut subscription.files {
            let Some(now) = seen.get(file) else { continue };
            let is_named = named.contains(file) || *kept && file.ancestors().any(|it| named.contains(it));
            changed |= last.as_ref().is_some_and(|last| last != now || is_named);
            changed |= *kept && regular && now.file.is_none();
            *last = Some(now.clone());
        }
        if subscription.files.iter().all(|watching| watching.last.is_some())
            && let Some(seen) = subscription.seen.take()
        {
            changed |= seen.send(()).is_err();
        }
        if changed {
            subscription.changed.notify_one();
        }
    }
}

/// What `see` sees of each file, without those that hang; one after the other, on a thread that a hung file keeps. One
/// that was `late` gets more time: it is slow, and would be late for ever.
async fn sights(
    shared: &Arc<Shared>,
    files: BTreeMap<PathBuf, bool>,
    late: &BTreeMap<PathBuf, Sight>,
    see: impl Fn(&Path, bool) -> Sight + Clone + Send + 'static,
) -> BTreeMap<PathBuf, Sight> {
    let mut seen = BTreeMap::new();
    let mut ahead: VecDeque<_> = files.into_iter().collect();
    while !ahead.is_empty() {
        let (sender, mut results) = mpsc::unbounded_channel();
        let (batch, see, board) = (ahead.clone(), see.clone(), Arc::clone(shared));
        let thread = tasks::blocking(move || {
            for (file, kept) in batch {
                let sight = see(&file, kept);
                if let Err(mpsc::error::SendError((file, sight))) = sender.send((file, sight)) {
                    // It was given up as hung, and responds after all.
                    locked(&board.late).insert(file.clone(), sight);
                    locked(&board.hung).remove(&file);
                    return board.check.notify_one();
                }
            }
        });
        loop {
            let is_slow = ahead.front().is_some_and(|(file, _)| late.contains_key(file));
            match timeout(if is_slow { PATIENCE_IF_LATE } else { PATIENCE }, results.recv()).await {
                Ok(Some((file, sight))) => {
                    ahead.pop_front();
                    seen.insert(file, sight);
                }
                Ok(None) => {
                    thread.await;
                    return seen;
                }
                Err(_) => {
                    let Some((file, kept)) = ahead.pop_front() else { break };
                    // In this order: the thread takes it out of the set when it finds the channel closed.
                    locked(&shared.hung).insert(file.clone());
                    results.close();
                    if let Ok((file, sight)) = results.try_recv() {
                        locked(&shared.hung).remove(&file);
                        seen.insert(file, sight);
                    } else {
                        tracing::debug!(file = %file.display(), kept, "checking the file takes long: it is left to its thread");
                    }
                    break;
                }
            }
        }
    }
    seen
}

/// What there is to see of a file: its state, and the folders in which a change of it would show.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sight {
    file: Option<Version>,
    folders: Folders,
}

/// Folders by path, with device and inode: one of the same name may be another one.
type Folders = BTreeMap<PathBuf, (u64, u64)>;

/// `None` for a file that is not there or cannot be seen.
fn version(file: &Path) -> Option<Version> {
    std::fs::metadata(file).ok().as_ref().map(Version::of)
}

/// The nearest folder that exists above the file, and that of what a symlink leads to; of a file that is kept all
/// folders above it.
fn folders_of(file: &Path, kept: bool) -> Folders {
    let shown = |folder: &Path| match folder.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => folder.to_owned(),
    };
    let existing = file.ancestors().skip(1).map(shown).filter(|folder| folder.is_dir());
    let behind = std::fs::canonicalize(file).ok().and_then(|target| Some(target.parent()?.to_owned()));
    let folders = existing.take(if kept { usize::MAX } else { 1 }).chain(behind);
    folders.filter_map(|folder| Some((folder.clone(), version(&folder)?.file()))).collect()
}

#[cfg(test)]
mod tests;
