use std::{
    fs::{self, File},
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use tempfile::TempDir;

use super::*;
use crate::failure::{Diagnose, diagnosis::Diagnosis};

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("config.json")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn put(path: &Path, content: &str) {
    File::create(path).unwrap().write_all(content.as_bytes()).unwrap();
}

fn opened(path: &Path) -> Target {
    Target::open(path).unwrap()
}

fn replacement(target: &Target, seen: Option<Version>) -> Replacement<'_> {
    let group = expected_group(&target.directory, None).unwrap();
    Replacement { target, mode: FileMode::default(), group, seen, set_aside: &[] }
}

fn replace(path: &Path, content: &str) -> Result<Replaced, FileError> {
    let target = Target::open(path)?;
    let seen = target.version()?;
    replacement(&target, seen).run(|out| out.write_all(content.as_bytes()))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_file_is_made_and_replaced() {
    let place = Place::new();
    for content in ["one", "two", ""] {
        assert!(matches!(replace(&place.target(), content).unwrap(), Replaced::Done { unsynced: None, .. }));
        assert_eq!(fs::read_to_string(place.target()).unwrap(), content);
        assert_eq!(mode(&place.target()), 0o640);
    }
    assert_eq!(place.names(), ["config.json"]);
}

/// The umask belongs to the whole process, so other tests could see it: a process of its own.
#[test]
fn the_umask_does_not_matter() {
    const MASK: &str = "ECR_SIDECAR_TEST_UMASK";
    if let Ok(mask) = std::env::var(MASK) {
        let place = Place::new();
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(u32::from_str_radix(&mask, 8).unwrap()));
        replace(&place.target(), "one").unwrap();
        assert_eq!(mode(&place.target()), 0o640);
        return;
    }
    for mask in ["0077", "0000", "0777"] {
        let name = "fs::atomic_file::tests::the_umask_does_not_matter";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let output = again.args(["--exact", name, "--nocapture"]).env(MASK, mask).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && printed.contains("1 passed"), "umask {mask}: {printed}");
    }
}

#[test]
fn a_setgid_directory_gives_its_group() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can give a directory to any group");
        return;
    }
    let place = Place::new();
    let path = place.directory.path();
    let directory = &Directory::open(path).unwrap();
    assert_eq!(expected_group(directory, None).unwrap(), rustix::process::getegid().as_raw());
    std::os::unix::fs::chown(path, None, Some(1337)).unwrap();
    assert_eq!(expected_group(directory, None).unwrap(), rustix::process::getegid().as_raw());
    fs::set_permissions(path, fs::Permissions::from_mode(0o2777)).unwrap();
    assert_eq!(expected_group(directory, None).unwrap(), 1337);
    assert_eq!(expected_group(directory, Some(7)).unwrap(), 7);
    replace(&place.target(), "one").unwrap();
    assert_eq!(fs::metadata(place.target()).unwrap().gid(), 1337);
    let target = opened(&place.target());
    let other = Replacement { group: 7, ..replacement(&target, target.version().unwrap()) };
    other.run(|out| out.write_all(b"two")).unwrap();
    assert_eq!((fs::metadata(place.target()).unwrap().gid(), mode(&place.target())), (7, 0o640));
}

#[test]
fn a_change_meanwhile_is_noticed() {
    let place = Place::new();
    let target = place.target();
    type Change = (&'static str, fn(&Path));
    let changes: [Change; 5] = [
        ("made", |target| put(target, "theirs")),
        ("written in place", |target| put(target, "theirs, too")),
        ("replaced by the same", |target| {
            let other = target.with_extension("other");
            put(&other, "theirs, too");
            fs::rename(other, target).unwrap();
        }),
        ("its mode changed", |target| {
            fs::set_permissions(target, fs::Permissions::from_mode(0o604)).unwrap()
        }),
        ("removed", |target| fs::remove_file(target).unwrap()),
    ];
    for (change, make) in changes {
        let opened = opened(&target);
        let outcome = replacement(&opened, opened.version().unwrap()).run(|out| {
            make(&target);
            out.write_all(b"ours")
        });
        assert!(matches!(outcome.unwrap(), Replaced::ChangedMeanwhile), "{change}");
        assert_ne!(fs::read_to_string(&target).ok().as_deref(), Some("ours"), "{change}");
        assert!(place.names().len() <= 1, "{change}: {:?}", place.names());
    }
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_other() {
    let place = Place::new();
    put(&place.target(), "old");
    let target = opened(&place.target());
    let failed = replacement(&target, target.version().unwrap()).run(|out| {
        out.write_all(b"half")?;
        Err(io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error()))
    });
    let error = failed.unwrap_err();
    assert_eq!((error.operation, &error.cause), (Operation::Write, &Cause::Full));
    assert_eq!(fs::read_to_string(place.target()).unwrap(), "old");
    assert_eq!(place.names(), ["config.json"]);
}

#[test]
fn a_stale_temporary_file_goes_a_live_one_stays() {
    let place = Place::new();
    let directory = place.directory.path();
    let stale =
        [".config.json.ecr-sidecar-1-abcDEF12.tmp", ".config.json.ecr-sidecar-4194304-00000000.old.tmp"];
    let others = [
        ".config.json.ecr-sidecar-1-abcDEF12.tmp.bak",
        ".config.json.ecr-sidecar-x-abcDEF12.tmp",
        ".config.json.ecr-sidecar-1-short.tmp",
        ".other.json.ecr-sidecar-1-abcDEF12.tmp",
        "config.json",
        "x.tmp",
    ];
    stale.iter().chain(&others).for_each(|name| put(&directory.join(name), "x"));
    // names like ours that are no files of ours
    fs::create_dir(directory.join(".config.json.ecr-sidecar-1-aaaaaaaa.tmp")).unwrap();
    symlink("config.json", directory.join(".config.json.ecr-sidecar-1-bbbbbbbb.tmp")).unwrap();
    let target = opened(&place.target());
    let live = TempFile::create(&target).unwrap();

    assert_eq!(remove_stale(&target).unwrap(), stale.len());
    let names = place.names();
    assert!(stale.iter().all(|name| !names.contains(&(*name).to_owned())), "{names:?}");
    assert!(directory.join(&live.name).exists());
    assert_eq!(names.len(), others.len() + 3, "{names:?}");
    drop(live);
    assert_eq!(place.names().len(), others.len() + 2);
    assert_eq!(remove_stale(&target).unwrap(), 0);
}

#[test]
fn what_is_set_aside_is_whole_and_private() {
    let place = Place::new();
    let (target, aside) = (place.target(), place.directory.path().join("config.json.invalid"));
    for content in ["first", "second"] {
        put(&target, content);
        fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
        let opened = opened(&target);
        let seen = opened.version().unwrap();
        let set_aside = [aside.file_name().unwrap().to_owned()];
        let replacement = Replacement { set_aside: &set_aside, ..replacement(&opened, seen) };
        replacement.run(|out| out.write_all(b"new")).unwrap();
        assert_eq!(fs::read_to_string(&aside).unwrap(), content);
        assert_eq!(mode(&aside), 0o600);
        assert_eq!((fs::read_to_string(&target).unwrap().as_str(), mode(&target)), ("new", 0o640));
        assert_eq!(place.names(), ["config.json", "config.json.invalid"]);
    }
}

#[test]
fn what_cannot_be_written_says_why() {
    let place = Place::new();
    put(&place.directory.path().join("file"), "x");
    symlink("loop", place.directory.path().join("loop")).unwrap();
    let at = |path: &str| place.directory.path().join(path);
    let cases = [
        (at("none/config.json"), Cause::Missing, "the directory does not exist"),
        (at("file/config.json"), Cause::NotADirectory, "a part of the path is not a directory"),
        (at("loop/config.json"), Cause::LinkLoop, "its symbolic links lead in a circle"),
        (at(&"x".repeat(240)), Cause::NameTooLong, "its name is too long"),
    ];
    for (path, cause, sentence) in cases {
        let error = replace(&path, "x").unwrap_err();
        assert_eq!(error.cause, cause);
        assert!(error.to_string().ends_with(sentence), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[test]
fn a_reader_never_sees_half_a_file() {
    const REWRITES: usize = 1000;
    const READS: usize = 10_000;
    let place = Place::new();
    let target = place.target();
    let content = |n: usize| format!("{n:08} ").repeat(1000 + n);
    replace(&target, &content(0)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while reads < READS || !done.load(Ordering::Relaxed) {
                let mut file = File::open(&target).expect("there always is a file");
                let metadata = file.metadata().unwrap();
                assert_eq!(metadata.mode() & 0o7777, 0o640);
                assert_eq!(metadata.gid(), rustix::process::getegid().as_raw());
                let mut text = String::new();
                io::Read::read_to_string(&mut file, &mut text).unwrap();
                let n: usize = text[..8].parse().unwrap();
                assert!(text == content(n), "torn: {n} with {} bytes", text.len());
                reads += 1;
            }
        });
        for n in 1..=REWRITES {
            replace(&target, &content(n)).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    assert_eq!(place.names(), ["config.json"]);
}

#[test]
fn each_refusal_of_the_system_has_its_diagnosis() {
    let diagnosis = |errno: Errno| {
        FileError::new(Operation::CreateTemp, Path::new("/nowhere/config.json"), errno.into())
            .remedy()
            .diagnosis
    };
    for (errno, expected) in [
        (Errno::ROFS, Diagnosis::ReadOnlyVolume),
        (Errno::NOSPC, Diagnosis::VolumeFull),
        (Errno::DQUOT, Diagnosis::VolumeFull),
        (Errno::ACCESS, Diagnosis::NotPermitted),
        (Errno::BUSY, Diagnosis::MountedBySubPath),
        (Errno::NOENT, Diagnosis::DirectoryMissing),
        (Errno::NOTDIR, Diagnosis::NotAFile),
        (Errno::IO, Diagnosis::VolumeBroken),
        (Errno::NOLCK, Diagnosis::VolumeBroken),
    ] {
        assert_eq!(diagnosis(errno), expected, "{errno:?}");
    }
}

/// What a consumer, or an accident, can put in the place of the file; none of it is waited for or followed.
#[test]
fn whatever_has_the_name_is_replaced() {
    let place = Place::new();
    let (target, aside) = (place.target(), place.directory.path().join("config.json.invalid"));
    let elsewhere = place.directory.path().join("elsewhere");
    put(&elsewhere, "theirs");
    let before = fs::metadata(&elsewhere).unwrap();
    type Put<'a> = (&'static str, &'a dyn Fn(&Path));
    let things: [Put<'_>; 6] = [
        ("a FIFO", &|path| {
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        }),
        ("a socket", &|path| drop(UnixListener::bind(path).unwrap())),
        ("a link", &|path| symlink("elsewhere", path).unwrap()),
        ("a link to nothing", &|path| symlink("nothing", path).unwrap()),
        ("a hard link", &|path| fs::hard_link(&elsewhere, path).unwrap()),
        ("an empty directory", &|path| fs::create_dir(path).unwrap()),
    ];
    for (what, make) in things {
        make(&target);
        replace(&target, "ours").unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(fs::symlink_metadata(&target).unwrap().is_file(), "{what}");

        make(&aside);
        let opened = opened(&target);
        let seen = opened.version().unwrap();
        let set_aside = [aside.file_name().unwrap().to_owned()];
        let replacement = Replacement { set_aside: &set_aside, ..replacement(&opened, seen) };
        replacement.run(|out| out.write_all(b"new")).unwrap_or_else(|error| panic!("aside {what}: {error}"));
        assert_eq!(fs::read_to_string(&aside).unwrap(), "ours", "aside {what}");
        assert_eq!(place.names(), ["config.json", "config.json.invalid", "elsewhere"], "{what}");
        [&target, &aside].into_iter().for_each(|path| fs::remove_file(path).unwrap());
    }
    let after = fs::metadata(&elsewhere).unwrap();
    assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "theirs");
}

/// A directory with something in it is not taken away, neither for the file nor for the old one, which stays.
#[test]
fn a_full_directory_stays_and_so_does_the_old_file() {
    let place = Place::new();
    let (target, aside) = (place.target(), place.directory.path().join("config.json.invalid"));
    fs::create_dir_all(aside.join("x")).unwrap();
    put(&target, "old");
    let opened = opened(&target);
    let seen = opened.version().unwrap();
    let set_aside = [aside.file_name().unwrap().to_owned()];
    let replacement = Replacement { set_aside: &set_aside, ..replacement(&opened, seen) };
    let error = replacement.run(|out| out.write_all(b"new")).unwrap_err();
    assert_eq!((error.operation, &error.cause), (Operation::SetAside, &Cause::IsADirectory), "{error}");
    assert!(error.to_string().contains("config.json.invalid"), "{error}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "old");
    assert_eq!(place.names(), ["config.json", "config.json.invalid"]);
}

/// The mode belongs to the file, not to its name: the other name would lose its readers.
#[test]
fn a_hard_linked_file_keeps_its_mode() {
    let place = Place::new();
    let (target, aside) = (place.target(), place.directory.path().join("config.json.invalid"));
    let elsewhere = place.directory.path().join("elsewhere");
    put(&elsewhere, "theirs");
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o644)).unwrap();
    fs::hard_link(&elsewhere, &target).unwrap();
    let opened = opened(&target);
    let seen = opened.version().unwrap();
    let set_aside = [aside.file_name().unwrap().to_owned()];
    let replacement = Replacement { set_aside: &set_aside, ..replacement(&opened, seen) };
    replacement.run(|out| out.write_all(b"new")).unwrap();
    assert_eq!((mode(&elsewhere), mode(&aside)), (0o644, 0o644));
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "theirs");
}
