//! Temporary files whose names show which process made them, and whose locks show whether it still runs.
//!
//! A name is `.FILE.ecr-sidecar-PID-RANDOM.tmp`, in the directory of the file that it is for. The process id is for
//! people: in two containers it may be the same, so only the lock counts, which is released with its process.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, TryLockError},
    io, iter,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    process,
};

use super::{
    FileMode, Target,
    error::{FileError, Operation},
    take_name,
};
use crate::fs::directory::Directory;

/// A file of this process that has not got its name yet; dropped, it is removed.
#[derive(Debug)]
pub(super) struct TempFile<'a> {
    directory: &'a Directory,
    pub(super) name: OsString,
    pub(super) file: File,
    renamed: bool,
}

impl<'a> TempFile<'a> {
    /// Creates one for the target: new, private and locked.
    pub(super) fn create(target: &'a Target) -> Result<Self, FileError> {
        let failed = |error| target.failed(Operation::CreateTemp, error);
        let directory = &target.directory;
        for _ in 0..TRIES {
            let name = new_name(&target.name);
            let file = match directory.create_new(&name, FileMode::PRIVATE.bits()) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(failed(error)),
            };
            let temp = Self { directory, name, file, renamed: false };
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

    /// A name for the file that is replaced, which a later [`remove_stale`] knows too.
    pub(super) fn old_name(&self) -> OsString {
        Path::new(&self.name).with_extension("old.tmp").into()
    }

    pub(super) fn rename_to(self, name: &OsStr) -> io::Result<()> {
        take_name(self.directory, &self.name, name)?;
        self.renamed();
        Ok(())
    }

    pub(super) fn renamed(mut self) {
        self.renamed = true;
    }
}

impl Drop for TempFile<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = self.directory.remove(&self.name);
        }
    }
}

/// Removes the temporary files for the target whose writers are gone, and returns how many those were.
///
/// What cannot be opened is another user's, and is left alone.
pub fn remove_stale(target: &Target) -> io::Result<usize> {
    let prefix = prefix(&target.name);
    let mut removed = 0;
    target.directory.any_name(|name| {
        if is_temp_name(name, &prefix)
            && let Ok(file) = target.directory.read(name)
            && file.metadata().is_ok_and(|metadata| metadata.is_file())
            && file.try_lock().is_ok()
            && target.directory.remove(name).is_ok()
        {
            removed += 1;
        }
        false
    })?;
    Ok(removed)
}

const TRIES: usize = 16;
const RANDOM: usize = 8;

fn prefix(target: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(target);
    prefix.push(".ecr-sidecar-");
    prefix
}

fn new_name(target: &OsStr) -> OsString {
    let random: String = iter::repeat_with(fastrand::alphanumeric).take(RANDOM).collect();
    let mut name = prefix(target);
    name.push(format!("{}-{random}.tmp", process::id()));
    name
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
