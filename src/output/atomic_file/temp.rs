//! Temporary files whose names tell who made them, and whose locks tell whether the maker still lives.
//!
//! A name is `.FILE.ecr-sidecar-PID-RANDOM.tmp`, in the directory of the file that it is for. The process id is for
//! people: in two containers it may be the same, so only the lock counts, which ends with its process.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, TryLockError},
    io, iter,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process,
};

use rustix::fs::OFlags;

use super::{
    FileMode, directory_of,
    error::{FileError, Operation},
};

/// A file of this process that has not got its name yet; dropped, it is removed.
#[derive(Debug)]
pub(super) struct TempFile {
    path: PathBuf,
    file: File,
    named: bool,
}

impl TempFile {
    /// Creates one for the target: new, private and locked.
    pub(super) fn create(target: &Path) -> Result<Self, FileError> {
        let failed = |error| FileError::new(Operation::CreateTemp, target, error);
        for _ in 0..TRIES {
            let path = new_name(target).ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
            let options =
                OpenOptions::new().write(true).create_new(true).mode(FileMode::PRIVATE.bits()).to_owned();
            let file = match options.open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(failed(error)),
            };
            let temp = Self { path, file, named: false };
            match temp.file.try_lock() {
                // Where there are no locks, no one else can hold one either, and nothing stale is removed.
                Ok(()) | Err(TryLockError::Error(_)) => {}
                // Another process takes it for a stale one, between our creating it and our locking it.
                Err(TryLockError::WouldBlock) => continue,
            }
            if temp.file.metadata().map_err(failed)?.nlink() > 0 {
                return Ok(temp);
            }
        }
        Err(failed(io::ErrorKind::ResourceBusy.into()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Another name beside it, which a later [`remove_stale`] knows too.
    pub(super) fn beside(&self) -> PathBuf {
        self.path.with_extension("old.tmp")
    }

    /// Gives the file at [`Self::path`] its name.
    pub(super) fn rename_to(mut self, name: &Path) -> Result<(), FileError> {
        fs::rename(&self.path, name).map_err(|error| FileError::new(Operation::Rename, name, error))?;
        self.named = true;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.named {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the temporary files for the target whose writers are gone, and says how many those were.
///
/// What cannot be opened is another user's, and is left alone.
pub fn remove_stale(target: &Path) -> io::Result<usize> {
    let Some(prefix) = prefix(target) else { return Ok(0) };
    let mut removed = 0;
    for entry in fs::read_dir(directory_of(target))? {
        let entry = entry?;
        if !is_temp_name(&entry.file_name(), &prefix) {
            continue;
        }
        let Ok(file) = open_as_it_is(&entry.path()) else { continue };
        let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if regular && file.try_lock().is_ok() && fs::remove_file(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// Opens a file for reading: no symbolic link followed, no waiting for a writer at a pipe.
pub(super) fn open_as_it_is(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

const TRIES: usize = 16;
const RANDOM: usize = 8;

fn prefix(target: &Path) -> Option<OsString> {
    let mut prefix = OsString::from(".");
    prefix.push(target.file_name()?);
    prefix.push(".ecr-sidecar-");
    Some(prefix)
}

fn new_name(target: &Path) -> Option<PathBuf> {
    let random: String = iter::repeat_with(fastrand::alphanumeric).take(RANDOM).collect();
    let mut name = prefix(target)?;
    name.push(format!("{}-{random}.tmp", process::id()));
    Some(directory_of(target).join(name))
}

/// Whether the name is `PREFIX` + `PID-RANDOM.tmp` or `PID-RANDOM.old.tmp`.
fn is_temp_name(name: &OsStr, prefix: &OsStr) -> bool {
    let rest = name.as_bytes().strip_prefix(prefix.as_bytes()).and_then(|rest| rest.strip_suffix(b".tmp"));
    let Some(rest) = rest.map(|rest| rest.strip_suffix(b".old").unwrap_or(rest)) else { return false };
    let mut parts = rest.splitn(2, |&b| b == b'-');
    let (pid, random) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    !pid.is_empty()
        && pid.iter().all(u8::is_ascii_digit)
        && random.len() == RANDOM
        && random.iter().all(u8::is_ascii_alphanumeric)
}
