//! What can be wrong with the file, each with its sentence; no value is ever shown.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::{
    docker_config::{self, Unfit},
    failure::{
        Class, Diagnose,
        diagnosis::{Diagnosis, Remedy},
    },
    fs::atomic_file::{FileError, FileMode},
};

/// Why the file is not as desired. `Display` states what failed, where and why; [`Self::remedy`] what to do.
#[derive(Debug, Error)]
pub(crate) enum DockerConfigError {
    #[error("`{}` is itself a mount point: it could only be written in place, and its readers would keep the old file", path.display())]
    SingleFileMount { path: PathBuf },
    #[error("`{}` is a directory, not a file", path.display())]
    IsADirectory { path: PathBuf },
    #[error("`{}` is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("`{}` does not end in a file name", path.display())]
    NoFileName { path: PathBuf },
    #[error("`{}` was changed by another program between reading and replacing it, {tries} times in a row", path.display())]
    Contended { path: PathBuf, tries: usize },
    #[error(transparent)]
    File(#[from] FileError),
}

impl Diagnose for DockerConfigError {
    fn class(&self) -> Class {
        Class::Transient
    }

    fn remedy(&self) -> Remedy {
        match self {
            Self::SingleFileMount { .. } => Diagnosis::MountedBySubPath.into(),
            Self::IsADirectory { path } => {
                Remedy::with(Diagnosis::NotAFile, format!("such as `{}`", path.join("config.json").display()))
            }
            Self::NotAFile { .. } | Self::NoFileName { .. } => Diagnosis::NotAFile.into(),
            Self::Contended { .. } => Diagnosis::Contended.into(),
            Self::File(error) => error.remedy(),
        }
    }
}

/// Something that the user should know and that stopped nothing. `Display` is the sentence, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Warning {
    #[error(transparent)]
    Format(#[from] docker_config::Warning),
    #[error("`{}` was set aside as `{}`: {reason}; take what you need from it", path.display(), aside.display())]
    SetAside { path: PathBuf, aside: PathBuf, reason: Unfit },
    #[error("`{}` was {what}; it was replaced by a file", path.display())]
    Replaced { path: PathBuf, what: &'static str },
    /// After a restart the credentials in the file would be of unknown expiry.
    #[error("the expiries of the credentials are not stored for the next start: {reason}")]
    ExpiriesNotStored { reason: String },
    #[error(
        "the file system does not keep the mode and group of `{}`: it shows {found} and group {found_group} for {wanted} and \
         group {wanted_group}; set them by the options of its mount",
        path.display()
    )]
    ModeNotKept { path: PathBuf, wanted: FileMode, wanted_group: u32, found: String, found_group: u32 },
    #[error(
        "only user {uid} may read `{}`, by its mode {mode}; {}",
        path.display(),
        Diagnosis::ConsumerCannotRead.remedy()
    )]
    OnlyOurs { path: PathBuf, mode: FileMode, uid: u32 },
    /// The new file is there, and may not be after a power failure.
    #[error("`{}` was replaced, but its directory could not be synced: {error}", path.display())]
    NotSynced { path: PathBuf, error: io::ErrorKind },
}
