use std::{fs, os::unix::fs::symlink, sync::mpsc as std_mpsc};

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

    async fn notified(&self) {
        tokio::time::timeout(Duration::from_secs(30), self.changed.notified())
            .await
            .expect("notified of the change");
    }
}

#[tokio::test]
async fn a_file_that_appears_changes_and_goes_is_noticed() {
    let running = watching("a").await;
    running.put("a", "1");
    running.notified().await;
    running.put("a", "22");
    running.notified().await;
    fs::remove_file(running.folder.path().join("a")).unwrap();
    running.notified().await;
}

#[tokio::test]
async fn a_file_that_is_gone_again_before_the_next_check_is_noticed() {
    let running = watching("a").await;
    for _ in 0..20 {
        running.put("a", "1");
        fs::remove_file(running.folder.path().join("a")).unwrap();
        running.notified().await;
    }
}

#[tokio::test]
async fn a_folder_that_does_not_exist_yet_is_noticed() {
    let running = watching("x/y/a").await;
    fs::create_dir_all(running.folder.path().join("x/y")).unwrap();
    running.put("x/y/a", "1");
    running.notified().await;
}

/// Its folder comes, with the file, which goes again before anybody watches the folder.
#[tokio::test]
async fn a_folder_that_appears_is_reported_whatever_happened_there() {
    let running = watching("x/a").await;
    let folder = running.folder.path().join("x");
    for _ in 0..20 {
        fs::create_dir(&folder).unwrap();
        running.put("x/a", "1");
        fs::remove_file(folder.join("a")).unwrap();
        running.notified().await;
        fs::remove_dir(&folder).unwrap();
        running.notified().await;
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
    running.notified().await;
    symlink("..2", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    fs::remove_dir_all(path("..1")).unwrap();
    running.notified().await;
}

#[tokio::test]
async fn a_kept_file_that_is_missing_is_reported_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("x/a");
    let shared = Arc::new(Shared::default());
    let inotify = Arc::new(Inotify::start(Arc::clone(&shared)));
    let changed = Arc::new(Notify::new());
    let watching = |file: &Path, kept| Watching { file: file.to_owned(), kept, last: None };
    let files = vec![watching(&kept, true), watching(&folder.path().join("input"), false)];
    locked(&shared.subscriptions).push(Subscription { files, changed: Arc::clone(&changed), seen: None });
    let is_notified = async |regular| {
        check(&shared, &inotify, regular).await;
        timeout(Duration::ZERO, changed.notified()).await.is_ok()
    };
    for (regular, expected) in [(true, true), (true, true), (false, false)] {
        assert_eq!(is_notified(regular).await, expected);
    }
    fs::create_dir(folder.path().join("x")).unwrap();
    fs::File::create(&kept).unwrap();
    assert!(is_notified(false).await, "it has appeared");
    while is_notified(false).await {} // events of it that are still to come
    assert!(!is_notified(true).await, "it is there");
    // Removed and made again by another process between two checks, with everything as before: the folder's event shows it.
    locked(&shared.named).insert(folder.path().join("x"));
    assert!(is_notified(false).await);
}

#[tokio::test]
async fn a_kept_file_is_followed_through_every_folder_above_it() {
    for component in ["a/b/c", "a/b", "a"] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("a/b/c")).unwrap();
        fs::File::create(at("a/b/c/config.json")).unwrap();
        let (watcher, changed) = (FileWatcher::default(), Arc::new(Notify::new()));
        let task = tokio::spawn(watcher.clone().run());
        let _watched = watcher.watch_kept(at("a/b/c/config.json"), Vec::new(), Arc::clone(&changed)).await;
        fs::rename(at(component), at("moved")).unwrap();
        // The next regular check would notice it too.
        let noticed = tokio::time::timeout(BACKSTOP - Duration::from_secs(2), changed.notified()).await;
        assert!(noticed.is_ok(), "{component}");
        task.abort();
    }
}

/// As a path on a network file system whose server is gone.
#[tokio::test]
async fn a_file_that_hangs_delays_no_other() {
    let shared = Arc::new(Shared::default());
    let (release, hangs) = std_mpsc::channel::<()>();
    let hangs = Arc::new(Mutex::new(hangs));
    let nothing = || Sight { file: None, folders: Folders::new() };
    let see = {
        let hangs = Arc::clone(&hangs);
        move |file: &Path, _| {
            if file == Path::new("/hung") {
                let _ = locked(&hangs).recv();
            }
            nothing()
        }
    };
    let files = |shared: &Shared| {
        let hung = locked(&shared.hung);
        let names = ["/a", "/hung", "/z"].into_iter().map(PathBuf::from);
        names.filter(|name| !hung.contains(name)).map(|name| (name, false)).collect::<BTreeMap<_, _>>()
    };
    for _ in 0..3 {
        let seen = sights(&shared, files(&shared), &BTreeMap::new(), see.clone()).await;
        assert_eq!(seen.keys().map(|file| file.to_str().unwrap()).collect::<Vec<_>>(), ["/a", "/z"]);
        assert_eq!(locked(&shared.hung).len(), 1, "one check of it is pending");
    }
    drop(release);
    shared.check.notified().await;
    assert!(locked(&shared.hung).is_empty() && locked(&shared.late).contains_key(Path::new("/hung")));
    assert_eq!(sights(&shared, files(&shared), &BTreeMap::new(), see).await.len(), 3);
}

/// As on a volume that takes a moment for everything, or that has stalled once.
#[tokio::test]
async fn a_file_that_is_seen_late_has_changed_only_if_it_differs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a");
    let (shared, changed) = (Arc::new(Shared::default()), Arc::new(Notify::new()));
    let inotify = Arc::new(Inotify::start(Arc::clone(&shared)));
    let files = vec![Watching { file: file.clone(), kept: false, last: None }];
    locked(&shared.subscriptions).push(Subscription { files, changed: Arc::clone(&changed), seen: None });
    check(&shared, &inotify, false).await;
    for differs in [false, true] {
        if differs {
            fs::create_dir(&file).unwrap();
        }
        let last = locked(&shared.subscriptions)[0].files[0].last.clone().unwrap();
        locked(&shared.late).insert(file.clone(), last);
        check(&shared, &inotify, false).await;
        let notified = tokio::time::timeout(Duration::ZERO, changed.notified()).await.is_ok();
        assert_eq!(notified, differs);
    }
}
