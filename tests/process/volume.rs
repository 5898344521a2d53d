//! Whoever shares the volume: links, special files, deleted directories, and edits without end.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde_json::json;
use test_support::{
    Harness, Running,
    files::{auth, config, mode, names, overwrite, replace},
    harness::{DEADLINE, HOST},
    install, pause, root, wait_for,
};

use crate::BINARY;

const NOBODY: u32 = 65534;
/// Another container of the pod.
const CONSUMER: u32 = 1000;
const CANARY: &str = "hunter2-canary";

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, DEADLINE, || holds().then_some(()));
}

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

fn is_ours(harness: &Harness) -> bool {
    fs::symlink_metadata(harness.file()).is_ok_and(|metadata| metadata.is_file())
        && auth(&harness.file(), HOST).is_some()
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
    assert_eq!(names(&harness.at("out")), ["config.json"], "nothing was set aside");
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

fn fifo(path: &Path) -> bool {
    Command::new("mkfifo").arg(path).stderr(Stdio::null()).status().unwrap().success()
}

/// Puts it in the place of the file: the sidecar may be faster than one attempt.
fn put_in_place(path: &Path, make: &dyn Fn(&Path) -> bool) {
    wait_until("something in the place of the file", || {
        let _ = fs::remove_file(path);
        make(path)
    });
}

/// At the start and while it runs, at each of the three names.
#[test]
fn what_is_no_file_is_replaced() {
    type Put<'a> = (&'static str, &'a dyn Fn(&Path) -> bool);
    let things: [Put<'_>; 3] = [
        ("a FIFO", &fifo),
        ("a socket", &|path| UnixListener::bind(path).is_ok()),
        ("an empty directory", &|path| fs::create_dir(path).is_ok()),
    ];
    let harness = Harness::new(BINARY);
    fs::create_dir(harness.at("out")).unwrap();
    for (what, make) in things {
        let (invalid, expiries) =
            (harness.at("out/config.json.invalid"), harness.at("out/.config.json.ecr-sidecar"));
        for path in [&harness.file(), &expiries, &invalid] {
            put_in_place(path, make);
        }
        let sidecar = harness.run(|_| {});
        sidecar.wait_ready();
        sidecar.wait_log(&format!("was {what}"), DEADLINE);
        assert!(is_ours(&harness) && fs::symlink_metadata(&expiries).unwrap().is_file(), "{what}");

        put_in_place(&harness.file(), make);
        wait_until(&format!("the file in the place of {what}"), || is_ours(&harness));
        replace(&harness.file(), "not json");
        wait_until("the unusable file aside", || {
            // The test must not open a FIFO either.
            let is_file = fs::symlink_metadata(&invalid).is_ok_and(|metadata| metadata.is_file());
            is_file && fs::read_to_string(&invalid).unwrap() == "not json" && is_ours(&harness)
        });
    }
}

#[test]
fn a_full_directory_in_the_place_of_the_file_is_reported_and_heals() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    put_in_place(&harness.file(), &|path| fs::create_dir_all(path.join("x")).is_ok());
    let line = sidecar.wait_log("output not written", DEADLINE);
    assert!(line.contains("not-a-file") && line.contains("is a directory"), "{line}");
    sidecar.wait_get("/readyz", 503);
    fs::remove_dir(harness.file().join("x")).unwrap(); // the sidecar replaces what is empty
    sidecar.wait_ready();
    assert!(is_ours(&harness));
}

#[test]
fn a_forged_expiry_is_not_believed() {
    let harness = Harness::new(BINARY);
    harness.run(|_| {}).wait_ready();
    let expiries = harness.at("out/.config.json.ecr-sidecar");
    let known: serde_json::Value = config(&expiries).unwrap();
    let digest = known.as_object().unwrap().keys().next().unwrap();
    overwrite(&expiries, &json!({digest: 253_402_300_799_u64}).to_string()); // the year 9999
    harness.emulator.set_fault(ecr_emulator::Service::Ecr, ecr_emulator::Fault::AccessDenied);
    let sidecar = harness.run(|_| {});
    sidecar.wait_status("a refused refresh", |status| status["tokens"][0]["failed"] != 0);
    assert_eq!(
        sidecar.get("/readyz").0,
        503,
        "AWS has given no token, and nobody knows of the one in the file"
    );
}

/// On tmpfs a time may be any number.
#[test]
fn print_takes_any_time_of_the_file() {
    let harness = Harness::new(BINARY);
    harness.run(|_| {}).wait_ready();
    fs::remove_file(harness.at("out/.config.json.ecr-sidecar")).unwrap();
    harness.emulator.set_fault(ecr_emulator::Service::Ecr, ecr_emulator::Fault::AccessDenied);
    for time in ["@9223372036854775807", "@-9223372036854775808", "@253402300799"] {
        let touched = Command::new("touch").args(["-d", time]).arg(harness.file()).status().unwrap();
        assert!(touched.success());
        let printed = harness.spawn(BINARY, |command| {
            command.args(["print", HOST]);
        });
        let code = printed.wait_exit(DEADLINE).code();
        assert!(matches!(code, Some(0 | 69)), "{time}: {code:?} {}", printed.stderr());
        assert!(!printed.stderr().contains("panicked"), "{time}: {}", printed.stderr());
    }
}

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

/// Edits the file once in this time until `over`; each edit takes our entry away.
fn edit_without_end(file: &Path, every: Duration, over: &AtomicBool, edits: &AtomicUsize) {
    while !over.load(Ordering::Acquire) {
        let edit = edits.fetch_add(1, Ordering::Relaxed);
        replace(file, &json!({"auths": {"ghcr.io": {"auth": "bWU6eA=="}}, "edit": edit}).to_string());
        pause(every);
    }
}

/// Ends the threads of a test, also when it fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn edits_without_end_are_answered_at_a_bounded_rate_and_reported() {
    for every in [Duration::from_millis(10), Duration::from_micros(200), Duration::ZERO] {
        let harness = Harness::new(BINARY);
        let sidecar = harness.run(|_| {});
        sidecar.wait_ready();
        let (over, torn, edits) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        let file = harness.file();
        // Who changes it fast enough is faster each time: that is tried again, too.
        let rounds = || {
            let output = &sidecar.status()["outputs"][0];
            output["writes"].as_u64().unwrap() + output["failed"].as_u64().unwrap()
        };
        thread::scope(|scope| {
            let ends = Ends(&over);
            scope.spawn(|| edit_without_end(&file, every, &over, &edits));
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    torn.fetch_add(usize::from(config(&file).is_none()), Ordering::Relaxed);
                }
            });
            let line = sidecar.wait_log("ownership conflict over an output", DEADLINE);
            assert!(line.contains("\"diagnosis\":\"contended\""), "{line}");
            sidecar.wait_status("contended", |status| {
                status["outputs"][0]["last_error"]["diagnosis"] == "contended"
            });
            let body = sidecar.wait_get("/readyz", 503);
            assert!(body.contains("set that file as `base`"), "{body}");
            let (before, lines) = (rounds(), sidecar.log_lines().len());
            // Consumers find our entry again and again, if not for long; the edits count the time.
            let start = edits.load(Ordering::Relaxed);
            wait_until("some rounds", || rounds() >= before + 3);
            let (more, lines) = (edits.load(Ordering::Relaxed) - start, sidecar.log_lines().len() - lines);
            assert!(more >= 50 && lines <= 2, "{more} edits and {lines} lines between three rounds");
            drop(ends);
        });
        assert_eq!(torn.load(Ordering::Relaxed), 0);
        sidecar.wait_log("ownership conflict is over", DEADLINE);
        sidecar.wait_ready();
        assert!(auth(&file, HOST).is_some() && auth(&file, "ghcr.io").is_some());
        sidecar.wait_status("in order", |status| status["outputs"][0]["last_error"].is_null());
    }
}

/// The content stays: a mode that lets everyone read the token, or replace it, is harm enough.
#[test]
fn a_mode_that_is_opened_without_end_is_put_right_every_time() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    let (over, file) = (AtomicBool::new(false), harness.file());
    let writes = || sidecar.status()["outputs"][0]["writes"].as_u64().unwrap();
    thread::scope(|scope| {
        let ends = Ends(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let _ = fs::set_permissions(&file, Permissions::from_mode(0o666));
                pause(Duration::from_millis(5));
            }
        });
        sidecar.wait_log("ownership conflict over an output", DEADLINE);
        let before = writes();
        wait_until("some restores", || writes() >= before + 3);
        drop(ends);
    });
    wait_until("the mode back", || mode(&file) == 0o640);
    sidecar.wait_log("ownership conflict is over", DEADLINE);
    assert_eq!(sidecar.count_log("does not keep the mode"), 0);
}
