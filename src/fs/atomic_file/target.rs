//! The file that is replaced: a name in an open directory.

use std::{
    ffi::OsString,
    fs::Metadata,
    io,
    path::{Path, PathBuf},
};

use super::{
    directory_of,
    error::{FileError, Operation},
};
use crate::fs::{
    directory::{Directory, MOST_LINKS},
    version::Version,
};

/// A name in an open directory, whatever has that name.
#[derive(Debug)]
pub struct Target {
    pub directory: Directory,
    pub name: OsString,
}

impl Target {
    /// The one at `path`, whose directory has to be there.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::with(path, Operation::Inspect, Directory::open)
    }

    /// The one at `path`, whose directory is made if it is not there.
    pub fn create(path: &Path) -> Result<Self, FileError> {
        Self::with(path, Operation::CreateDirectory, Directory::create)
    }

    fn with(
        path: &Path,
        operation: Operation,
        open: impl FnOnce(&Path) -> io::Result<Directory>,
    ) -> Result<Self, FileError> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename.into());
        let failed = |error| FileError::new(operation, directory_of(path), error);
        let name = name.map_err(failed)?.to_owned();
        Ok(Self { directory: open(directory_of(path)).map_err(failed)?, name })
    }

    pub fn sibling(&self, name: impl Into<OsString>) -> io::Result<Self> {
        Ok(Self { directory: self.directory.open_from(Path::new("."))?, name: name.into() })
    }

    /// Its path, for messages.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    /// The metadata of what is there, a link not followed; none when nothing is.
    pub fn metadata(&self) -> Result<Option<Metadata>, FileError> {
        self.directory.entry(&self.name).map_err(|error| self.failed(Operation::Inspect, error))
    }

    pub fn version(&self) -> Result<Option<Version>, FileError> {
        Ok(self.metadata()?.as_ref().map(Version::of))
    }

    /// The regular file behind the link that is there; none when it is not to be followed, or leads to no such file.
    pub fn behind_link(&self) -> Option<Self> {
        let mut link: Option<Self> = None;
        for _ in 0..MOST_LINKS {
            let here = link.as_ref().unwrap_or(self);
            let path = here.directory.target_of(&here.name).ok()?;
            let directory = here.directory.open_from(directory_of(&path)).ok()?;
            let behind = Self { directory, name: path.file_name()?.to_owned() };
            let metadata = behind.metadata().ok()??;
            if metadata.is_file() {
                return Some(behind);
            }
            metadata.is_symlink().then_some(())?;
            link = Some(behind);
        }
        None
    }

    pub(super) fn failed(&self, operation: Operation, error: io::Error) -> FileError {
        FileError::new(operation, &self.path(), error)
    }
}
