//! What the file system does to us: full, read-only, mounted over, not ours. Needs root for the most part.

use std::{ffi::OsStr, os::unix::process::CommandExt, process::Command};

use super::*;
use crate::{
    failure::{Diagnose, diagnosis::Diagnosis},
    fs::atomic_file::Cause,
};

/// A mount that ends with the test; none where this process may not mount.
struct Mount(PathBuf);

impl Mount {
    fn new(arguments: &[&str], at: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can mount");
            return None;
        }
        let done = Command::new("mount").args(arguments).arg(at).output().is_ok_and(|o| o.status.success());
        if !done {
            println!("skipped: mounting is not permitted here");
        }
        done.then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// What the test prints when it runs again as a user without rights, with the place in `variable`.
///
/// Rights bind every user but root, and a process cannot come back from being another: so a process of its own.
pub(super) fn as_nobody(name: &str, variable: &str, at: &OsStr) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return None;
    }
    // The place of the test binary may be closed to others.
    let place = Place::new();
    fs::set_permissions(place.directory.path(), Permissions::from_mode(0o755)).unwrap();
    test_support::install(std::env::current_exe().unwrap(), &place.at("test"));
    let mut again = Command::new(place.at("test"));
    again.args(["--exact", &format!("output::file::tests::{name}"), "--nocapture"]);
    let output = again.env(variable, at).uid(NOBODY).gid(NOBODY).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    Some(printed)
}

const NOBODY: u32 = 65534;

#[test]
fn a_bind_mounted_file_is_rejected() {
    let place = Place::new();
    put(&place.at("source"), "{}");
    put(&place.path(), "");
    let Some(_mount) = Mount::new(&["--bind", place.at("source").to_str().unwrap()], &place.path()) else {
        return;
    };
    let mut file = place.file();
    let error = file.check_path().unwrap_err();
    assert!(error.to_string().contains("is itself a mount point"), "{error}");
    assert_eq!(error.remedy().diagnosis, Diagnosis::MountedBySubPath);

    let report = file.reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12)]), now());
    let error = failed(&report);
    assert!(matches!(error, DockerConfigError::File(error) if error.cause == Cause::Mounted), "{error}");
    assert_eq!(error.remedy().diagnosis, Diagnosis::MountedBySubPath);
    assert_eq!(place.text(), "{}");
    assert_eq!(place.names(), ["config.json", "source"]);
}

#[test]
fn a_failed_write_reports_what_is_still_there() {
    let place = Place::new();
    let volume = place.at("volume");
    fs::create_dir(&volume).unwrap();
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "-o", "size=64k", "none"], &volume) else { return };
    let mut file = file_at(volume.join("config.json"), None);
    assert_eq!(written(&file.reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12)]), now())), Written::Changed);

    let mut filler = File::create(volume.join("filler")).unwrap();
    while filler.write(&[0; 4096]).is_ok() {}
    let newer = desired(&[(A, "QVdTOnR3bw==", 24), (B, "QVdTOnR3bw==", 24)]);
    // the old token is still there, again and again
    for _ in 0..2 {
        let report = file.reconciled(&newer, now());
        let error = failed(&report);
        assert!(matches!(error, DockerConfigError::File(error) if error.cause == Cause::Full), "{error}");
        assert_eq!(error.remedy().diagnosis, Diagnosis::VolumeFull);
        assert_eq!(in_place(&report), [(A, at_hour(12))]);
    }
    // a helper that comes before it takes it away from the readers
    let held = fs::read_to_string(volume.join("config.json")).unwrap();
    put(
        &volume.join("config.json"),
        &held.replacen('{', &format!("{{\"credHelpers\":{{\"{A}\":\"x\"}},"), 1),
    );
    assert_eq!(in_place(&file.reconciled(&newer, now())), []);
    put(&volume.join("config.json"), &held);
    assert_eq!(in_place(&file.reconciled(&newer, now())), [(A, at_hour(12))]);

    fs::remove_file(volume.join("config.json")).unwrap();
    while filler.write(&[0; 4096]).is_ok() {}
    assert_eq!(in_place(&file.reconciled(&newer, now())), []);
    let names = fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let temporary: Vec<_> = names.filter(|name| name.ends_with(".tmp")).collect();
    assert!(temporary.is_empty(), "left on a full disk: {temporary:?}");

    // A removed file keeps its space as long as a child that another test is starting has it open.
    filler.set_len(0).unwrap();
    let report = file.reconciled(&newer, now());
    assert_eq!(written(&report), Written::Changed);
    assert_eq!(in_place(&report), [(A, at_hour(24)), (B, at_hour(24))]);
}

#[test]
fn a_read_only_volume_says_so() {
    let place = Place::new();
    let volume = place.at("volume");
    fs::create_dir(&volume).unwrap();
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "-o", "ro", "none"], &volume) else { return };
    let mut file = file_at(volume.join("config.json"), None);
    file.check_path().unwrap();
    let report = file.reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12)]), now());
    let error = failed(&report);
    assert!(error.to_string().contains("the file system is mounted read-only"), "{error}");
    assert_eq!(error.remedy().diagnosis, Diagnosis::ReadOnlyVolume);
    assert_eq!(in_place(&report), []);
}

#[test]
fn a_directory_of_another_user_says_whose_it_is() {
    const AT: &str = "ECR_SIDECAR_TEST_DENIED";
    if let Some(at) = std::env::var_os(AT) {
        let report = file_at(PathBuf::from(at).join("config.json"), None)
            .reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12)]), now());
        let error = failed(&report);
        println!("{error}\n{}", error.remedy());
        return;
    }
    let place = Place::new();
    fs::set_permissions(place.directory.path(), Permissions::from_mode(0o755)).unwrap();
    let name = "faults::a_directory_of_another_user_says_whose_it_is";
    let Some(printed) = as_nobody(name, AT, place.directory.path().as_os_str()) else { return };
    for part in [
        "(uid 65534, gid 65534)",
        "belongs to 0:0 with mode 0755",
        "run as the owner of the directory (`runAsUser`)",
        "it is user 0",
        "`fsGroup`",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
}

#[test]
fn a_group_that_is_not_ours_says_so() {
    const AT: &str = "ECR_SIDECAR_TEST_GROUP";
    if let Some(at) = std::env::var_os(AT) {
        let path = PathBuf::from(at).join("config.json");
        let settings = DockerConfigSettings { path, mode: FileMode::default(), group: Some(7), base: None };
        let report = DockerConfigFile::new(settings).reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12)]), now());
        let error = failed(&report);
        println!("{error}\n{}", error.remedy());
        return;
    }
    let place = Place::new();
    fs::set_permissions(place.directory.path(), Permissions::from_mode(0o777)).unwrap();
    let name = "faults::a_group_that_is_not_ours_says_so";
    let Some(printed) = as_nobody(name, AT, place.directory.path().as_os_str()) else { return };
    for part in ["cannot set the group 7 on", "add this process to the group (`fsGroup`", "(it is group 7)"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert_eq!(place.names(), [""; 0]);
}

/// The file of a root init container in a directory that all may write: the kernel forbids a hard link to it.
#[test]
fn an_unreadable_file_is_set_aside() {
    const AT: &str = "ECR_SIDECAR_TEST_UNREADABLE";
    if let Some(at) = std::env::var_os(AT) {
        let report = file_at(PathBuf::from(at).join("config.json"), None)
            .reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12)]), now());
        assert_eq!(written(&report), Written::Changed);
        println!("{}", warnings(&report));
        return;
    }
    let place = Place::new();
    fs::set_permissions(place.directory.path(), Permissions::from_mode(0o777)).unwrap();
    put(&place.path(), "{\"theirs\":1}");
    fs::set_permissions(place.path(), Permissions::from_mode(0o600)).unwrap();
    let name = "faults::an_unreadable_file_is_set_aside";
    let Some(printed) = as_nobody(name, AT, place.directory.path().as_os_str()) else { return };
    assert!(printed.contains("this process (uid 65534) has no permission to read it"), "{printed}");
    assert_eq!(fs::read_to_string(place.at("config.json.invalid")).unwrap(), "{\"theirs\":1}");
    assert!(place.text().contains(A));
    assert_eq!(place.names(), ["config.json", "config.json.invalid"]);
}
