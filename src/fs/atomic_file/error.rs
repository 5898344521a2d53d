//! What failed on a file, why, and what to do about it.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use thiserror::Error;

use super::directory_of;
use crate::{
    failure::{
        Class, Diagnose,
        diagnosis::{Diagnosis, Remedy},
        is_file_limit,
    },
    fs::directory::UntrustedLink,
};

/// A failed step of reading or replacing a file. `Display` states what failed, where and why.
#[derive(Debug, Error)]
#[error("cannot {operation} `{}`: {cause}", path.display())]
pub struct FileError {
    pub operation: Operation,
    pub path: PathBuf,
    pub cause: Cause,
    source: io::Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Inspect,
    Read,
    CreateDirectory,
    CreateTemp,
    Write,
    SetMode,
    SetGroup { group: u32 },
    Sync,
    SetAside,
    Rename,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Cause {
    #[error("the file system is mounted read-only")]
    ReadOnly,
    #[error("the volume is full, or a quota is used up")]
    Full,
    #[error("not permitted for this process (uid {uid}, gid {gid}){}", directory.as_ref().map(Owner::shown).unwrap_or_default())]
    Denied { uid: u32, gid: u32, directory: Option<Owner> },
    #[error("the file itself is a mount point and cannot be replaced")]
    Mounted,
    #[error("the directory does not exist")]
    Missing,
    #[error("a part of the path is not a directory")]
    NotADirectory,
    #[error("it is a directory")]
    IsADirectory,
    #[error("its symbolic links lead in a circle")]
    LinkLoop,
    #[error("{0}, and is not followed")]
    Untrusted(UntrustedLink),
    #[error("its name is too long")]
    NameTooLong,
    #[error("the device has an input/output error")]
    Device,
    #[error("{0}")]
    Other(io::ErrorKind),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub path: PathBuf,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

impl FileError {
    /// Finds the cause; inspects the directory when permission was denied.
    pub fn new(operation: Operation, path: &Path, source: io::Error) -> Self {
        let cause = Cause::of(&source, path);
        Self { operation, path: path.to_owned(), cause, source }
    }
}

impl Diagnose for FileError {
    /// A volume may be repaired, filled or remounted at any time.
    fn class(&self) -> Class {
        Class::Transient
    }

    fn remedy(&self) -> Remedy {
        match (self.operation, &self.cause) {
            (Operation::SetGroup { group }, Cause::Denied { .. }) => {
                Remedy::with(Diagnosis::GroupNotPermitted, format!("it is group {group}"))
            }
            _ if is_file_limit(&self.source) => Diagnosis::TooManyOpenFiles.into(),
            _ => self.cause.remedy(),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inspect => f.write_str("inspect"),
            Self::Read => f.write_str("read"),
            Self::CreateDirectory => f.write_str("create the directory"),
            Self::CreateTemp => f.write_str("create a temporary file next to"),
            Self::Write => f.write_str("write the new content of"),
            Self::SetMode => f.write_str("set the mode of"),
            Self::SetGroup { group } => write!(f, "set the group {group} on"),
            Self::Sync => f.write_str("sync the new content of"),
            Self::SetAside => f.write_str("set aside the unusable"),
            Self::Rename => f.write_str("put the new file in the place of"),
        }
    }
}

impl Cause {
    fn of(error: &io::Error, path: &Path) -> Self {
        if let Some(link) = UntrustedLink::of(error) {
            return Self::Untrusted(link.clone());
        }
        match Errno::from_io_error(error) {
            Some(Errno::ROFS) => Self::ReadOnly,
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full,
            Some(Errno::ACCESS | Errno::PERM) => Self::Denied {
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
                directory: Owner::of(path),
            },
            Some(Errno::BUSY | Errno::XDEV) => Self::Mounted,
            Some(Errno::NOENT) => Self::Missing,
            Some(Errno::NOTDIR) => Self::NotADirectory,
            Some(Errno::ISDIR) => Self::IsADirectory,
            Some(Errno::LOOP) => Self::LinkLoop,
            Some(Errno::NAMETOOLONG) => Self::NameTooLong,
            Some(Errno::IO) => Self::Device,
            _ => Self::Other(error.kind()),
        }
    }

    fn remedy(&self) -> Remedy {
        match self {
            Self::ReadOnly => Diagnosis::ReadOnlyVolume.into(),
            Self::Full => Diagnosis::VolumeFull.into(),
            Self::Denied { directory: Some(owner), .. } => {
                let Owner { uid, path, .. } = owner;
                let detail = format!("it is user {uid}; or `chmod g+w {}`", path.display());
                Remedy::with(Diagnosis::NotPermitted, detail)
            }
            Self::Denied { directory: None, .. } => Diagnosis::NotPermitted.into(),
            Self::Mounted => Diagnosis::MountedBySubPath.into(),
            Self::Missing => Diagnosis::DirectoryMissing.into(),
            Self::IsADirectory => Remedy::with(Diagnosis::NotAFile, "or remove the directory"),
            Self::Untrusted(_) => Diagnosis::UntrustedLink.into(),
            Self::NotADirectory => {
                Remedy::with(Diagnosis::NotAFile, "every part of the path but the last has to be a directory")
            }
            Self::LinkLoop => {
                Remedy::with(Diagnosis::NotAFile, "the symbolic links of this one lead in a circle")
            }
            Self::NameTooLong => Remedy::with(
                Diagnosis::NotAFile,
                "with a shorter name: the temporary file next to it needs some 40 characters more, and 255 are allowed",
            ),
            Self::Device | Self::Other(_) => Diagnosis::VolumeBroken.into(),
        }
    }
}

impl Owner {
    /// The owner of the directory of the path; none when that cannot be seen either.
    fn of(path: &Path) -> Option<Self> {
        let directory = directory_of(path);
        let metadata = fs::metadata(directory).ok()?;
        let mode = metadata.mode() & 0o7777;
        Some(Self { path: directory.to_owned(), uid: metadata.uid(), gid: metadata.gid(), mode })
    }

    fn shown(&self) -> String {
        let Self { path, uid, gid, mode } = self;
        format!("; the directory `{}` belongs to {uid}:{gid} with mode {mode:04o}", path.display())
    }
}
