//! Directories of the path that are removed or moved.

use std::{fs, time::Duration};

use test_support::{Harness, files::auth, harness::HOST, pause, wait_for};

use super::is_ours;
use crate::BINARY;

/// The second removal comes while the first is being repaired.
#[test]
fn a_directory_that_is_removed_twice_comes_back_at_once() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    let directory = harness.at("out");
    for time in [5, 20, 25, 30, 35, 40, 60] {
        let _ = fs::remove_dir_all(&directory);
        // What the removal is to hit is the sidecar's own work: there is no condition to wait for.
        pause(Duration::from_millis(time));
        let _ = fs::remove_dir_all(&directory);
        wait_for("the file back", Duration::from_secs(15), || is_ours(&harness).then_some(()));
    }
    sidecar.wait_ready();
}

/// How the path is changed above the directory that holds the file. The watcher's own test shows that it needs no check
/// that happens to be due for that: `a_kept_file_is_followed_through_every_folder_above_it`.
#[test]
fn a_path_that_leads_elsewhere_is_noticed_at_every_component() {
    for component in ["a/b/c", "a/b", "a"] {
        let harness = Harness::new(BINARY);
        let file = harness.at("a/b/c/config.json");
        fs::create_dir_all(harness.at("a/b/c")).unwrap();
        let sidecar = harness.run(|command| {
            command.env("ECR_SIDECAR_DOCKER_CONFIG", &file);
        });
        sidecar.wait_ready();
        fs::rename(harness.at(component), harness.at("moved")).unwrap();
        wait_for(component, Duration::from_secs(8), || auth(&file, HOST)); // before the next poll of ten seconds
    }
}
