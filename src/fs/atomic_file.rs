//! Replacing a file so that a reader sees the old one or the new one, whole, with the right mode and group.
//!
//! The new content goes into a temporary file next to the target, which then takes the target's name. Nothing is
//! ever written in place, and whatever fails, the old file stays as it was and the temporary file goes. All of it
//! happens in one open directory, whatever becomes of the path to it.
//!
//! Invariants:
//! * a reader sees no torn, missing or differently owned file: `a_reader_never_sees_half_a_file`
//! * mode and group do not depend on the umask or on who made the directory: `the_umask_does_not_matter`,
//!   `a_setgid_directory_gives_its_group`
//! * a file that another process changed since it was read is not overwritten: `a_change_meanwhile_is_noticed`
//! * what has the name is replaced, never opened for writing, followed or chmodded, be it a link, a FIFO or an empty
//!   directory: `whatever_has_the_name_is_replaced`, `a_hard_linked_file_keeps_its_mode`
//! * a temporary file is removed when its writer is gone, and only then: `a_stale_temporary_file_goes_a_live_one_stays`
//!
//! Between the last check of the target and the rename there is a gap that no file system call closes: a writer
//! that replaces the target in it loses its change.

mod error;
mod mode;
mod target;
mod temp;

use std::{
    ffi::{OsStr, OsString},
    fs::Metadata,
    io::{self, BufWriter, Write},
    os::unix::fs::{MetadataExt, fchown},
    path::Path,
};

use rustix::io::Errno;

pub use error::{Cause, FileError, Operation, Owner};
pub use mode::{FileMode, FileModeError};
pub use target::Target;
use temp::TempFile;
pub use temp::remove_stale;

use crate::fs::{
    directory::{Directory, raw_mode},
    version::Version,
};

#[derive(Debug)]
pub struct Replacement<'a> {
    /// It need not exist. A symbolic link is replaced, not followed.
    pub target: &'a Target,
    pub mode: FileMode,
    pub group: u32,
    /// The state in which the target was read; none when it was not there.
    pub seen: Option<Version>,
    /// Of these names in the same directory the old file gets the first that nothing keeps from it, readable by its
    /// owner alone. None: it goes.
    pub set_aside: &'a [OsString],
}

#[derive(Debug)]
pub enum Replaced {
    Done {
        /// Its metadata, taken before it got its name.
        metadata: Box<Metadata>,
        aside: Option<OsString>,
        /// Its name may be lost if the machine stops now.
        unsynced: Option<io::Error>,
    },
    /// The target is not in the state that it was read in: nothing was done.
    ChangedMeanwhile,
}

impl Replacement<'_> {
    pub fn run(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Replaced, FileError> {
        let failed = |operation| move |error| self.target.failed(operation, error);
        let temp = TempFile::create(self.target)?;
        let mut buffer = BufWriter::with_capacity(BUFFER, &temp.file);
        write(&mut buffer).and_then(|()| buffer.flush()).map_err(failed(Operation::Write))?;
        // A buffer that is dropped with content would be written once more.
        drop(buffer.into_parts());

        let metadata = temp.file.metadata().map_err(failed(Operation::Inspect))?;
        if metadata.gid() != self.group {
            fchown(&temp.file, None, Some(self.group))
                .map_err(failed(Operation::SetGroup { group: self.group }))?;
        }
        let mode = raw_mode(self.mode.bits());
        rustix::fs::fchmod(&temp.file, mode)
            .map_err(|error| self.target.failed(Operation::SetMode, error.into()))?;
        temp.file.sync_all().map_err(failed(Operation::Sync))?;
        let metadata = temp.file.metadata().map_err(failed(Operation::Inspect))?;

        if self.target.version()? != self.seen {
            return Ok(Replaced::ChangedMeanwhile);
        }
        let mut aside = None;
        if self.set_aside.is_empty() {
            temp.rename_to(&self.target.name).map_err(failed(Operation::Rename))?;
        } else {
            aside = Some(self.set_aside(temp)?.to_owned());
        }
        Ok(Replaced::Done {
            metadata: Box::new(metadata),
            aside,
            unsynced: sync(&self.target.directory).err(),
        })
    }

    /// Puts the new file in place and the old one aside, with no moment between in which there is none. The name that
    /// the old one has got.
    fn set_aside(&self, temp: TempFile<'_>) -> Result<&OsStr, FileError> {
        let Target { directory, name } = self.target;
        let failed = |error| {
            let first = self.set_aside.first().unwrap_or(name);
            FileError::new(Operation::SetAside, &directory.path().join(first), error)
        };
        let old = temp.old_name();
        let aside = match directory.link(name, &old) {
            Ok(()) => {
                // When both names are the same file already, rename does nothing and `old` is left over.
                let aside = take_first(directory, &old, self.set_aside);
                let _ = directory.remove(&old);
                let aside = aside.map_err(failed)?;
                temp.rename_to(name).map_err(|error| self.target.failed(Operation::Rename, error))?;
                aside
            }
            // `fs.protected_hardlinks`, or a file system without links.
            Err(_) => {
                directory.exchange(&temp.name, name).map_err(failed)?;
                match take_first(directory, &temp.name, self.set_aside) {
                    Ok(aside) => {
                        temp.renamed();
                        aside
                    }
                    Err(error) => {
                        let back = directory.exchange(&temp.name, name);
                        if back.is_err() {
                            temp.renamed(); // what has its name is the old file, which is not lost
                        }
                        return Err(failed(back.err().unwrap_or(error)));
                    }
                }
            }
        };
        make_private(directory, aside, self.seen);
        Ok(aside)
    }
}

/// Gives `from` the first of `names` that it can have; the error is that of the very first.
fn take_first<'n>(directory: &Directory, from: &OsStr, names: &'n [OsString]) -> io::Result<&'n OsStr> {
    let mut first_error = None;
    for name in names {
        match take_name(directory, from, name) {
            Ok(()) => return Ok(name),
            Err(error) => first_error.get_or_insert(error),
        };
    }
    Err(first_error.unwrap_or_else(|| io::ErrorKind::InvalidFilename.into()))
}

/// Gives `from` the name `to`, whatever has that name, unless it is a directory with something in it.
fn take_name(directory: &Directory, from: &OsStr, to: &OsStr) -> io::Result<()> {
    match directory.rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            directory.remove_directory(to).map_err(|_| error)?;
            directory.rename(from, to)
        }
        renamed => renamed,
    }
}

/// The group that a file in the directory should have: the one wanted, else that of a setgid directory, else
/// the process's own.
pub fn expected_group(directory: &Directory, wanted: Option<u32>) -> Result<u32, FileError> {
    const SETGID: u32 = 0o2000;
    if let Some(group) = wanted {
        return Ok(group);
    }
    let metadata =
        directory.metadata().map_err(|error| FileError::new(Operation::Inspect, directory.path(), error))?;
    let setgid = metadata.mode() & SETGID != 0;
    Ok(if setgid { metadata.gid() } else { rustix::process::getegid().as_raw() })
}

/// What a file that this process makes next to `target` shows of its owner and mode: others than this process's user and
/// [`FileMode::PRIVATE`] only where the file system imposes them.
pub fn made_here(target: &Target) -> Result<Metadata, FileError> {
    let temp = TempFile::create(target)?;
    temp.file.metadata().map_err(|error| target.failed(Operation::Inspect, error))
}

/// The directory that holds the file; `.` for a bare name.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

const BUFFER: usize = 64 * 1024;

/// Makes the new name durable. That a file system does not support this is no error.
fn sync(directory: &Directory) -> io::Result<()> {
    let Err(error) = directory.sync() else { return Ok(()) };
    let lost = [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::ROFS];
    if Errno::from_io_error(&error).is_some_and(|errno| lost.contains(&errno)) { Err(error) } else { Ok(()) }
}

/// Makes the file that was set aside readable by us alone, unless it has another owner or another name: the mode is
/// that of the file behind every name.
fn make_private(directory: &Directory, aside: &OsStr, seen: Option<Version>) {
    let Ok(file) = directory.read(aside) else { return };
    let same = |metadata: &Metadata| seen.is_some_and(|seen| seen.file() == Version::of(metadata).file());
    let only_ours = |metadata: &Metadata| {
        metadata.is_file() && metadata.nlink() == 1 && metadata.uid() == rustix::process::geteuid().as_raw()
    };
    if file.metadata().is_ok_and(|metadata| same(&metadata) && only_ours(&metadata)) {
        let _ = rustix::fs::fchmod(&file, raw_mode(FileMode::PRIVATE.bits()));
    }
}

#[cfg(test)]
mod tests;
