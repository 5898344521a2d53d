use std::{
    fs::{self, Permissions},
    os::unix::fs::{lchown, symlink},
};

use super::*;

const NOBODY: u32 = 65534;

struct Place(tempfile::TempDir);

impl Place {
    /// A directory with a real one in it, `real`, that has the mode.
    fn new(mode: u32) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.at("real")).unwrap();
        fs::set_permissions(place.at("."), Permissions::from_mode(mode)).unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: only root can make files of other users");
    }
    root
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn a_link_that_nobody_else_can_make_is_followed() {
    let place = Place::new(0o755);
    symlink("real", place.at("relative")).unwrap();
    symlink(place.at("real"), place.at("absolute")).unwrap();
    symlink("absolute", place.at("twice")).unwrap();
    symlink("real/../real/.", place.at("dotted")).unwrap();
    for name in ["real", "relative", "absolute", "twice", "dotted", "real/../relative", "./real"] {
        let directory = Directory::open(&place.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(directory.metadata().unwrap().ino(), inode(&place.at("real")), "{name}");
    }
    // The way that the shipped manifests name the volume.
    let directory = Directory::open(Path::new("/var/run")).unwrap();
    assert_eq!(directory.metadata().unwrap().ino(), inode(Path::new("/var/run")));
    assert_eq!(Directory::open(Path::new("src")).unwrap().metadata().unwrap().ino(), inode(Path::new("src")));
}

/// Each of them could be made, or swapped, by a user who wants another directory to be written to.
#[test]
fn a_link_that_another_user_can_make_is_not_followed() {
    for mode in [0o777, 0o1777, 0o775, 0o757] {
        let place = Place::new(mode);
        symlink("real", place.at("link")).unwrap();
        fs::create_dir(place.at("real/deep")).unwrap();
        for path in ["link", "link/deep"] {
            for opened in [Directory::open(&place.at(path)), Directory::create(&place.at(path))] {
                let error = opened.unwrap_err();
                let link = UntrustedLink::of(&error).unwrap_or_else(|| panic!("{mode:o}: {error}"));
                assert!(link.path.ends_with("link") && link.directory_mode == mode, "{link}");
            }
        }
    }
    if !root() {
        return;
    }
    let place = Place::new(0o755);
    symlink("real", place.at("theirs")).unwrap();
    lchown(place.at("theirs"), Some(NOBODY), None).unwrap();
    let error = Directory::open(&place.at("theirs")).unwrap_err();
    assert_eq!(UntrustedLink::of(&error).unwrap().uid, NOBODY);
    // A home of another user, seen by root.
    symlink("real", place.at("ours")).unwrap();
    fs::set_permissions(place.at("."), Permissions::from_mode(0o700)).unwrap();
    lchown(place.at("."), Some(NOBODY), None).unwrap();
    let error = Directory::open(&place.at("ours")).unwrap_err();
    assert_eq!(UntrustedLink::of(&error).unwrap().directory_uid, NOBODY);
}

#[test]
fn what_cannot_be_opened_says_why() {
    let place = Place::new(0o755);
    symlink("loop", place.at("loop")).unwrap();
    fs::File::create(place.at("file")).unwrap();
    let errno = |path: &Path| Errno::from_io_error(&Directory::open(path).unwrap_err()).unwrap();
    assert_eq!(errno(&place.at("loop")), Errno::LOOP);
    assert_eq!(errno(&place.at("file/x")), Errno::NOTDIR);
    assert_eq!(errno(&place.at("none")), Errno::NOENT);
    assert_eq!(errno(Path::new("/proc/self/root/etc")), Errno::LOOP, "its text is another path");
}

#[test]
fn what_is_done_stays_in_the_directory_that_was_opened() {
    let place = Place::new(0o777);
    fs::create_dir(place.at("victim")).unwrap();
    let directory = Directory::open(&place.at("real")).unwrap();
    fs::rename(place.at("real"), place.at("moved")).unwrap();
    symlink("victim", place.at("real")).unwrap();
    let name = OsStr::new("a");
    directory.create_new(name, 0o600).unwrap();
    directory.link(name, OsStr::new("b")).unwrap();
    directory.rename(name, OsStr::new("c")).unwrap();
    let mut names = Vec::new();
    assert!(
        !directory
            .any_name(|name| {
                names.push(name.to_owned());
                false
            })
            .unwrap()
    );
    assert_eq!(names.len(), 2);
    assert!(directory.any_name(|name| name == "c").unwrap());
    assert_eq!(fs::read_dir(place.at("victim")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(place.at("moved")).unwrap().count(), 2);
    assert!(UntrustedLink::of(&Directory::open(&place.at("real")).unwrap_err()).is_some());
}

/// The umask belongs to the whole process, so other tests could see it: a process of its own.
#[test]
fn a_directory_that_is_made_does_not_depend_on_the_umask() {
    const MASK: &str = "ECR_SIDECAR_TEST_DIRECTORY_UMASK";
    if let Ok(mask) = std::env::var(MASK) {
        let place = Place::new(0o755);
        rustix::process::umask(Mode::from_raw_mode(u32::from_str_radix(&mask, 8).unwrap()));
        Directory::create(&place.at("real/a/b")).unwrap();
        for made in ["real/a", "real/a/b"] {
            assert_eq!(fs::metadata(place.at(made)).unwrap().mode() & 0o7777, 0o755, "{made}");
        }
        fs::set_permissions(place.at("real"), Permissions::from_mode(0o2770)).unwrap();
        Directory::create(&place.at("real/c")).unwrap();
        assert_eq!(fs::metadata(place.at("real/c")).unwrap().mode() & 0o7777, 0o2755, "its group goes on");
        return;
    }
    for mask in ["0000", "0022", "0077", "0027"] {
        let name = "fs::directory::tests::a_directory_that_is_made_does_not_depend_on_the_umask";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let output = again.args(["--exact", name, "--nocapture"]).env(MASK, mask).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && printed.contains("1 passed"), "umask {mask}: {printed}");
    }
}
