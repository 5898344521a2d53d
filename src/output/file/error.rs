//! What can be wrong with the file, each with its sentence; no value is ever shown.

use std::path::PathBuf;

use thiserror::Error;

use crate::{
    failure::{
        Class, Diagnose,
        diagnosis::{Diagnosis, Remedy},
    },
    fs::atomic_file::FileError,
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
