//! A directory that other users may write to, opened once: files in it are named relative to its descriptor.
//!
//! The path is walked component by component, and no component is followed through a symbolic link that another
//! user could have made or can swap ([`UntrustedLink`]). A link is followed if it belongs to root or to this
//! process's user and no other user may write to the directory that holds it: `/var/run` → `/run` is such a link.
//! Whatever happens to the path afterwards, what is done through the descriptor stays in the directory that was
//! opened (`what_is_done_stays_in_the_directory_that_was_opened`).
//!
//! It blocks on the file system.

use std::{
    collections::VecDeque,
    ffi::{CString, OsStr, OsString},
    fs::{File, Metadata},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::{MetadataExt, PermissionsExt},
        },
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, RenameFlags},
    io::Errno,
};

/// As many as the kernel follows.
pub(super) const MOST_LINKS: usize = 40;
/// Of the directories that are made: consumers of another user pass through them.
const MODE: u32 = 0o755;
const SETGID: u32 = 0o2000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A symbolic link that another user could have made, or can swap. In an [`io::Error`]: [`UntrustedLink::of`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is a symbolic link of user {uid} in a directory of user {directory_uid} with mode {directory_mode:04o}", path.display())]
pub struct UntrustedLink {
    pub path: PathBuf,
    pub uid: u32,
    pub directory_uid: u32,
    pub directory_mode: u32,
}

impl UntrustedLink {
    /// The link for which a path was not opened, if that is the reason.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// An open directory. Names are of one component each.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens the directory at `path`, following trusted links only.
    pub fn open(path: &Path) -> io::Result<Self> {
        walk(Self::start(path)?, path, false)
    }

    /// The same, and makes what is missing of it, with mode 0755 whatever the umask.
    pub fn create(path: &Path) -> io::Result<Self> {
        walk(Self::start(path)?, path, true)
    }

    fn start(path: &Path) -> io::Result<Self> {
        let start = Path::new(if path.is_absolute() { "/" } else { "." });
        let descriptor = rustix::fs::openat(CWD, start, DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { descriptor, path: start.to_owned() })
    }

    /// Its path, for messages: the links in it are resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        File::from(self.descriptor.try_clone()?).metadata()
    }

    /// The metadata of what has the name, a link not followed; none when nothing has it.
    pub fn entry(&self, name: &OsStr) -> io::Result<Option<Metadata>> {
        match self.openat(name, ENTRY, Mode::empty()) {
            Ok(entry) => File::from(entry).metadata().map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a file for reading: no link is followed, and a FIFO is not waited for.
    pub fn read(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(self.openat(name, flags, Mode::empty())?.into())
    }

    pub fn create_new(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        Ok(self.openat(name, flags, raw_mode(mode))?.into())
    }

    /// Gives an entry another name; what has that name goes.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.descriptor, from, &self.descriptor, to)?)
    }

    pub fn exchange(&self, one: &OsStr, other: &OsStr) -> io::Result<()> {
        let flags = RenameFlags::EXCHANGE;
        Ok(rustix::fs::renameat_with(&self.descriptor, one, &self.descriptor, other, flags)?)
    }

    /// Gives an entry a second name; a link is not followed.
    pub fn link(&self, name: &OsStr, second: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::linkat(&self.descriptor, name, &self.descriptor, second, AtFlags::empty())?)
    }

    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty())?)
    }

    pub fn remove_directory(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.descriptor, name, AtFlags::REMOVEDIR)?)
    }

    /// Whether a name in it `matches`, one at a time: others may have made any number of them.
    pub fn any_name(&self, mut matches: impl FnMut(&OsStr) -> bool) -> io::Result<bool> {
        for entry in rustix::fs::Dir::new(self.opened()?)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." && matches(name) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the names in it durable.
    pub fn sync(&self) -> io::Result<()> {
        File::from(self.opened()?).sync_all()
    }

    /// Where the link `name` leads, if it is to be followed.
    pub fn target_of(&self, name: &OsStr) -> io::Result<PathBuf> {
        // A link of /proc may lead where its text does not.
        if self.is_of_proc()? && name != "self" && name != "thread-self" {
            return Err(Errno::LOOP.into());
        }
        let link = self.openat(name, ENTRY, Mode::empty())?;
        let target = self.read_link(&link, name)?;
        let (link, directory) = (File::from(link).metadata()?, self.metadata()?);
        let trusted = |uid: u32| uid == 0 || uid == rustix::process::geteuid().as_raw();
        let mode = directory.mode() & 0o7777;
        if trusted(link.uid()) && trusted(directory.uid()) && mode & WRITABLE_BY_OTHERS == 0 {
            return Ok(PathBuf::from(OsString::from_vec(target.into_bytes())));
        }
        Err(io::Error::other(UntrustedLink {
            path: self.path.join(name),
            uid: link.uid(),
            directory_uid: directory.uid(),
            directory_mode: mode,
        }))
    }

    pub fn open_from(&self, path: &Path) -> io::Result<Self> {
        let start = match path.is_absolute() {
            true => Self::start(path)?,
            false => Self { descriptor: self.descriptor.try_clone()?, path: self.path.clone() },
        };
        walk(start, path, false)
    }

    #[cfg(target_os = "linux")]
    fn is_of_proc(&self) -> io::Result<bool> {
        Ok(rustix::fs::fstatfs(&self.descriptor)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
    }

    #[cfg(not(target_os = "linux"))]
    fn is_of_proc(&self) -> io::Result<bool> {
        Ok(false)
    }

    #[cfg(target_os = "linux")]
    fn read_link(&self, link: &OwnedFd, _: &OsStr) -> rustix::io::Result<CString> {
        rustix::fs::readlinkat(link, "", Vec::new())
    }

    /// By its name, which leads to another link only where others may write: such a link is not followed.
    #[cfg(not(target_os = "linux"))]
    fn read_link(&self, _: &OwnedFd, name: &OsStr) -> rustix::io::Result<CString> {
        rustix::fs::readlinkat(&self.descriptor, name, Vec::new())
    }

    /// This directory for reading: on Linux, the descriptor is O_PATH.
    fn opened(&self) -> io::Result<OwnedFd> {
        Ok(self.openat(OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?)
    }

    fn enter(&self, name: &OsStr) -> rustix::io::Result<Self> {
        let descriptor = self.openat(name, DIRECTORY, Mode::empty())?;
        Ok(Self { descriptor, path: self.path.join(name) })
    }

    fn openat(&self, name: &OsStr, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(&self.descriptor, name, flags | OFlags::CLOEXEC, mode)
    }

    fn make(&self, name: &OsStr) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.descriptor, name, raw_mode(MODE)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(()), // another process has made it meanwhile
            Err(error) => return Err(error.into()),
        }
        // With a umask that keeps its owner out it stays as it is: opening or entering it fails with an error.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        // Where it is right it stays: chmod(2) takes setgid away from who is not in the group.
        if let Ok(made) = self.openat(name, flags, Mode::empty()).map(File::from)
            && let Ok(metadata) = made.metadata()
            && metadata.uid() == rustix::process::geteuid().as_raw()
            && metadata.mode() & 0o777 != MODE
        {
            let mode = MODE | (metadata.mode() & SETGID);
            let _ = made.set_permissions(std::fs::Permissions::from_mode(mode));
        }
        Ok(())
    }
}

const DIRECTORY: OFlags = PASSED.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);

/// O_PATH opens nothing: neither rights on it nor a writer at a FIFO is needed.
#[cfg(target_os = "linux")]
const PASSED: OFlags = OFlags::PATH;
#[cfg(target_os = "linux")]
const ENTRY: OFlags = PASSED.union(OFlags::NOFOLLOW);

/// Opens a symbolic link itself: open(2) of macOS.
#[cfg(not(target_os = "linux"))]
const O_SYMLINK: u32 = 0x0020_0000;
/// Without O_PATH, what may not be read can't be inspected either.
#[cfg(not(target_os = "linux"))]
const PASSED: OFlags = OFlags::RDONLY;
#[cfg(not(target_os = "linux"))]
const ENTRY: OFlags = PASSED.union(OFlags::NONBLOCK).union(OFlags::from_bits_retain(O_SYMLINK));

/// The type of a mode differs between systems.
pub(super) fn raw_mode(mode: u32) -> Mode {
    Mode::from_raw_mode(mode as rustix::fs::RawMode)
}

/// Walks from `directory`, which is the root for an absolute path, along `path`.
fn walk(mut directory: Directory, path: &Path, make: bool) -> io::Result<Directory> {
    let mut ahead = names_in(path);
    ahead.pop_front_if(|name| name == ROOT);
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ROOT {
            directory = Directory::start(Path::new(ROOT))?;
            continue;
        }
        directory = match directory.enter(&name) {
            Ok(entered) => entered,
            Err(Errno::NOENT) if make => {
                directory.make(&name)?;
                directory.enter(&name)?
            }
            Err(Errno::NOTDIR | Errno::LOOP)
                if directory.entry(&name)?.is_some_and(|entry| entry.is_symlink()) =>
            {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let mut path = names_in(&directory.target_of(&name)?);
                path.append(&mut ahead);
                ahead = path;
                directory
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(directory)
}

const ROOT: &str = "/";

/// The components of the path, `/` and `..` among them.
fn names_in(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter(|component| *component != Component::CurDir);
    names.map(|component| component.as_os_str().to_owned()).collect()
}

impl AsFd for Directory {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests;
