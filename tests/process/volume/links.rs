//! Links, of others and of our own, in the place of the file and of its directory.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
    path::{Path, PathBuf},
};

use serde_json::json;
use test_support::{
    Harness, Running,
    files::{auth, names, replace},
    harness::{DEADLINE, HOST},
    install, root,
};

use super::{is_ours, wait_until};
use crate::BINARY;

const NOBODY: u32 = 65534;
/// Another container of the pod.
const CONSUMER: u32 = 1000;
const CANARY: &str = "hunter2-canary";

/// A volume as an `emptyDir` is, at `out`, and a directory of the sidecar's user that no other user may write to.
fn shared(user: u32) -> (Harness, PathBuf) {
    let harness = Harness::new(BINARY);
    fs::set_permissions(harness.at("."), Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("out", 0o777), ("private", 0o755)] {
        fs::create_dir(harness.at(name)).unwrap();
        fs::set_permissions(harness.at(name), Permissions::from_mode(mode)).unwrap();
    }
    chown(harness.at("private"), Some(user), Some(user)).unwrap();
    let victim = harness.at("private/victim");
    (harness, victim)
}

fn victim(path: &Path, content: &str, user: u32) {
    replace(path, content);
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    chown(path, Some(user), Some(user)).unwrap();
}

/// Everything that could have been done to the directory of the victim.
fn state(victim: &Path) -> (Vec<String>, u64, u32, u32, String) {
    let metadata = fs::symlink_metadata(victim).unwrap();
    let text = fs::read_to_string(victim).unwrap();
    (names(victim.parent().unwrap()), metadata.ino(), metadata.mode(), metadata.uid(), text)
}

/// A link of the consumer's, in the place of a file or of a directory that the sidecar may be making again.
fn link(target: &Path, link: &Path) {
    let new = link.with_extension("new");
    symlink(target, &new).unwrap();
    lchown(&new, Some(CONSUMER), Some(CONSUMER)).unwrap();
    wait_until("the link in its place", || {
        let _ = fs::remove_dir_all(link);
        fs::rename(&new, link).is_ok()
    });
}

fn run_as(harness: &Harness, user: u32) -> Running {
    let own = harness.at("ecr-sidecar");
    install(BINARY, &own);
    harness.spawn("setpriv", |command| {
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        command.arg(&own).arg("run");
    })
}

#[test]
fn a_link_to_a_private_file_of_root_is_replaced() {
    if !root() {
        return;
    }
    let (harness, path) = shared(0);
    victim(&path, CANARY, 0);
    let before = state(&path);
    link(&path, &harness.file());
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    assert!(is_ours(&harness));
    // The file of expiries may still be on its way.
    wait_until("nothing to be set aside", || names(&harness.at("out")) == ["config.json"]);
    sidecar.wait_log("was a symbolic link that is not followed", DEADLINE);
    // and while it runs
    link(&path, &harness.file());
    wait_until("the file back", || is_ours(&harness));
    assert_eq!(state(&path), before);
    assert_eq!(sidecar.count_log(CANARY), 0);
}

#[test]
fn a_link_to_a_docker_config_is_replaced_without_its_entries() {
    if !root() {
        return;
    }
    let (harness, path) = shared(0);
    victim(&path, &json!({"auths": {"ghcr.io": {"auth": CANARY}}}).to_string(), 0);
    let before = state(&path);
    link(&path, &harness.file());
    harness.run(|_| {}).wait_ready();
    assert!(is_ours(&harness));
    assert_eq!(auth(&harness.file(), "ghcr.io"), None, "it was not for the readers of this volume");
    assert_eq!(state(&path), before);
}

/// Both containers may well be of one user: the link then belongs to the sidecar's.
#[test]
fn a_link_into_another_volume_is_replaced_by_a_sidecar_without_rights() {
    if !root() {
        return;
    }
    for owner in [CONSUMER, NOBODY] {
        let (harness, path) = shared(NOBODY);
        victim(&path, &json!({"auths": {}}).to_string(), NOBODY);
        let before = state(&path);
        symlink(&path, harness.file()).unwrap();
        lchown(harness.file(), Some(owner), Some(owner)).unwrap();
        let sidecar = run_as(&harness, NOBODY);
        sidecar.wait_ready();
        assert!(is_ours(&harness));
        assert_eq!(state(&path), before);
    }
}

#[test]
fn a_directory_swapped_for_a_link_while_running_is_reported_and_not_followed() {
    if !root() {
        return;
    }
    let (harness, path) = shared(0);
    victim(&path, &json!({"auths": {}}).to_string(), 0);
    let before = state(&path);
    let directory = harness.at("out/creds");
    let file = directory.join("victim");
    let sidecar = harness.run(|command| {
        command.env("ECR_SIDECAR_DOCKER_CONFIG", &file);
    });
    sidecar.wait_ready();
    fs::rename(&directory, harness.at("out/moved")).unwrap();
    link(&harness.at("private"), &directory);
    let line = sidecar.wait_log("output not written", DEADLINE);
    assert!(line.contains("untrusted-link") && line.contains("user 1000"), "{line}");
    let body = sidecar.wait_get("/readyz", 503);
    assert!(body.contains("symbolic link"), "{body}");
    assert_eq!(state(&path), before);

    // A directory in its place is as good as the first.
    fs::remove_file(&directory).unwrap();
    fs::create_dir_all(&directory).unwrap(); // the sidecar may be faster
    sidecar.wait_ready();
    assert!(auth(&file, HOST).is_some());
    assert_eq!(state(&path), before);
}

/// The documented case: the user's own link, where only the user may write.
#[test]
fn a_link_of_our_own_is_followed() {
    let harness = Harness::new(BINARY);
    let real = harness.put("dotfiles/docker.json", "{}");
    fs::create_dir(harness.at("out")).unwrap();
    symlink(&real, harness.file()).unwrap();
    harness.run(|_| {}).wait_ready();
    assert!(fs::symlink_metadata(harness.file()).unwrap().is_symlink());
    assert!(auth(&real, HOST).is_some());
}

#[test]
fn a_hard_link_is_replaced_and_its_other_name_untouched() {
    let harness = Harness::new(BINARY);
    for content in [CANARY, "{\"auths\":{}}"] {
        let other = harness.put("out/other", content);
        fs::set_permissions(&other, Permissions::from_mode(0o644)).unwrap();
        let _ = fs::remove_file(harness.file());
        fs::hard_link(&other, harness.file()).unwrap();
        let inode = fs::metadata(&other).unwrap().ino();
        harness.run(|_| {}).wait_ready();
        assert!(is_ours(&harness));
        let after = fs::metadata(&other).unwrap();
        assert_eq!((after.ino(), after.mode() & 0o7777), (inode, 0o644), "{content}");
        assert_eq!(fs::read_to_string(&other).unwrap(), content);
    }
}
