//! Replacing a file so that a reader sees the old one or the new one, whole, with the right mode and group.
//!
//! The new content goes into a temporary file beside the target, which then takes the target's name. Nothing is
//! ever written in place, and whatever fails, the old file stays as it was and the temporary file goes.
//!
//! Invariants:
//! * a reader sees no torn, missing or differently owned file: `a_reader_never_sees_half_a_file`
//! * mode and group do not depend on the umask or on who made the directory: `the_umask_does_not_matter`,
//!   `a_setgid_directory_gives_its_group`
//! * a file that another process changed since it was read is not overwritten: `a_change_meanwhile_is_noticed`
//! * a temporary file is removed when its writer is gone, and only then: `a_stale_temporary_file_goes_a_live_one_stays`
//!
//! Between the last look at the target and the rename there is a moment that no file system call closes: a
//! writer that replaces the target just then loses its change.

mod error;
mod mode;
mod temp;

use std::{
    fs::{self, File, Metadata},
    io::{self, BufWriter, Write},
    os::unix::fs::{MetadataExt, fchown},
    path::Path,
};

use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
};

pub use error::{Cause, FileError, Operation, Owner};
pub use mode::{FileMode, FileModeError};
use temp::TempFile;
pub use temp::remove_stale;

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    /// The state that the metadata were taken in.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The state of the file at the path, a symbolic link not followed; none when there is no file.
    pub fn at(path: &Path) -> Result<Option<Self>, FileError> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::new(Operation::Look, path, error)),
        }
    }
}

/// One replacement of a file.
#[derive(Debug)]
pub struct Replacement<'a> {
    /// The file; it need not exist, its directory has to. A symbolic link is replaced, not followed.
    pub target: &'a Path,
    /// The permission bits of the new file.
    pub mode: FileMode,
    /// The group of the new file.
    pub group: u32,
    /// The state in which the target was read; none when it was not there.
    pub seen: Option<Version>,
    /// The name beside the target that the old file gets, readable by its owner alone.
    pub set_aside: Option<&'a Path>,
}

/// What became of a replacement that met no error.
#[derive(Debug)]
pub enum Replaced {
    /// The new file is in place.
    Done {
        /// Its metadata, taken before it got its name.
        metadata: Metadata,
        /// Its name may be lost if the machine stops now.
        unsynced: Option<io::Error>,
    },
    /// The target is not in the state that it was read in: nothing was done.
    ChangedMeanwhile,
}

impl Replacement<'_> {
    /// Replaces the target by what `write` writes.
    pub fn run(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Replaced, FileError> {
        let failed = |operation| move |error| FileError::new(operation, self.target, error);
        let temp = TempFile::create(self.target)?;
        let mut buffer = BufWriter::with_capacity(BUFFER, temp.file());
        write(&mut buffer).and_then(|()| buffer.flush()).map_err(failed(Operation::Write))?;
        // A buffer that is dropped with content would be written once more.
        drop(buffer.into_parts());

        let metadata = temp.file().metadata().map_err(failed(Operation::Look))?;
        if metadata.gid() != self.group {
            fchown(temp.file(), None, Some(self.group))
                .map_err(failed(Operation::SetGroup { group: self.group }))?;
        }
        let mode = rustix::fs::Mode::from_raw_mode(self.mode.bits());
        rustix::fs::fchmod(temp.file(), mode)
            .map_err(|error| FileError::new(Operation::SetMode, self.target, error.into()))?;
        temp.file().sync_all().map_err(failed(Operation::Sync))?;
        let metadata = temp.file().metadata().map_err(failed(Operation::Look))?;

        if Version::at(self.target)? != self.seen {
            return Ok(Replaced::ChangedMeanwhile);
        }
        match self.set_aside {
            None => temp.rename_to(self.target)?,
            Some(aside) => self.set_aside(temp, aside)?,
        }
        Ok(Replaced::Done { metadata, unsynced: sync_directory(self.target).err() })
    }

    /// Puts the new file in place and the old one aside, with no moment between in which there is none.
    fn set_aside(&self, temp: TempFile, aside: &Path) -> Result<(), FileError> {
        let failed = |error| FileError::new(Operation::SetAside, self.target, error);
        let old = temp.beside();
        match fs::hard_link(self.target, &old) {
            Ok(()) => {
                // When both names are the same file already, rename does nothing and `old` is left over.
                let renamed = fs::rename(&old, aside);
                let _ = fs::remove_file(&old);
                renamed.map_err(failed)?;
                temp.rename_to(self.target)?;
            }
            // `fs.protected_hardlinks`, or a file system without links.
            Err(_) => {
                rustix::fs::renameat_with(CWD, temp.path(), CWD, self.target, RenameFlags::EXCHANGE)
                    .map_err(|error| failed(error.into()))?;
                temp.rename_to(aside)?;
            }
        }
        make_private(aside, self.seen);
        Ok(())
    }
}

/// The group that a file in the directory should have: the one wanted, else that of a setgid directory, else
/// the process's own.
pub fn expected_group(directory: &Path, wanted: Option<u32>) -> Result<u32, FileError> {
    const SETGID: u32 = 0o2000;
    if let Some(group) = wanted {
        return Ok(group);
    }
    let metadata =
        fs::metadata(directory).map_err(|error| FileError::new(Operation::Look, directory, error))?;
    let setgid = metadata.mode() & SETGID != 0;
    Ok(if setgid { metadata.gid() } else { rustix::process::getegid().as_raw() })
}

/// The directory that holds the file; `.` for a bare name.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

const BUFFER: usize = 64 * 1024;

/// Makes the new name durable. A file system that cannot say so is taken at its word.
fn sync_directory(path: &Path) -> io::Result<()> {
    let Err(error) = File::open(directory_of(path)).and_then(|directory| directory.sync_all()) else {
        return Ok(());
    };
    let lost = [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::ROFS];
    if Errno::from_io_error(&error).is_some_and(|errno| lost.contains(&errno)) { Err(error) } else { Ok(()) }
}

/// Takes the file that was set aside from the eyes of others, if it is ours to do so.
fn make_private(aside: &Path, seen: Option<Version>) {
    let Ok(file) = temp::open_as_it_is(aside) else { return };
    let same = |metadata: Metadata| {
        seen.is_some_and(|seen| seen.inode == metadata.ino() && seen.device == metadata.dev())
    };
    if file.metadata().is_ok_and(same) {
        let _ = rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(FileMode::PRIVATE.bits()));
    }
}

#[cfg(test)]
mod tests;
