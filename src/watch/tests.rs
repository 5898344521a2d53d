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
