//! What can be wrong with the file, its base or its entries, each with its sentence; no value is ever shown.

use std::{io, path::PathBuf};

use thiserror::Error;

pub(crate) use super::document::{BadAuth, Unfit};
use crate::{
    failure::{
        Class, Diagnose,
        diagnosis::{Diagnosis, Remedy},
        foreign_text::clean,
    },
    fs::atomic_file::{FileError, FileMode},
};

/// Why the file is not as desired. `Display` says what failed, where and why; [`Self::remedy`] what to do.
#[derive(Debug, Error)]
pub(crate) enum DockerConfigError {
    /// The path is a mount point, as `subPath` and a single-file mount make it.
    #[error("`{}` is itself a mount point: it could only be written in place, and its readers would keep the old file", path.display())]
    SingleFileMount { path: PathBuf },
    /// The path names a directory.
    #[error("`{}` is a directory, not a file", path.display())]
    IsADirectory { path: PathBuf },
    /// The path names a device, a pipe or a socket.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    /// The path has no file name at its end.
    #[error("`{}` does not end in a file name", path.display())]
    NoFileName { path: PathBuf },
    /// Another program changed the file each time before it could be replaced.
    #[error("`{}` was changed by another program between reading and replacing it, {tries} times in a row", path.display())]
    Contended { path: PathBuf, tries: usize },
    /// A step of reading or replacing it failed.
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
    /// A key that clients take for one of our hosts left `auths`.
    #[error("removed the entry `{key}` from `auths`: some clients would take it instead of `{host}`")]
    TwinRemoved { key: String, host: String },
    /// Another user's entry for some repositories of one of our hosts.
    #[error(
        "the entry `{key}` is of another user: podman, skopeo and go-containerregistry take it instead of that of `{host}`"
    )]
    RepositoryEntry { key: String, host: String },
    /// A credential helper for one of our hosts left `credHelpers`.
    #[error(
        "removed the entry `{key}` from `credHelpers`: clients would ask that helper instead of reading the entry of `{host}`"
    )]
    HelperRemoved { key: String, host: String },
    /// A credential store comes before every entry of the file.
    #[error(
        "`credsStore` names `{store}`: docker asks it instead of reading `auths`, so our credentials go unused there; \
         remove `credsStore` from the file, or from its base"
    )]
    CredsStore { store: String },
    /// An entry of somebody else's for which clients reject the whole file.
    #[error(
        "the entry `{key}` makes docker and go-containerregistry reject the whole file, our credentials with it: \
         {reason}; fix or remove it"
    )]
    ForeignAuth {
        key: String,
        /// What is wrong with it.
        reason: BadAuth,
    },
    /// There is more to warn of than is worth a line each.
    #[error("{count} more entries of the file call for a warning like these")]
    More { count: usize },
    /// The base could not be read: its last known entries are kept.
    #[error("the base `{}` is not usable: {reason}; the entries that it had last are kept", path.display())]
    Base { path: PathBuf, reason: String },
    /// The file could not be used, and was moved out of the way.
    #[error("`{}` was set aside as `{}`: {reason}; take what you need from it", path.display(), aside.display())]
    SetAside {
        path: PathBuf,
        /// Where its content is now.
        aside: PathBuf,
        reason: Unfit,
    },
    /// Something other than a file had the name, and was replaced.
    #[error("`{}` was {what}; it was replaced by a file", path.display())]
    Replaced { path: PathBuf, what: &'static str },
    /// After a restart the credentials in the file would be of unknown expiry.
    #[error("the expiries of the credentials are not stored for the next start: {reason}")]
    ExpiriesNotStored { reason: String },
    /// The file system does not keep what we set.
    #[error(
        "the file system does not keep the mode and group of `{}`: it shows {found} and group {found_group} for {wanted} and \
         group {wanted_group}; set them by the options of its mount",
        path.display()
    )]
    ModeNotKept {
        path: PathBuf,
        /// The mode that was set.
        wanted: FileMode,
        /// The group that was set.
        wanted_group: u32,
        /// The mode that it shows, in octal.
        found: String,
        /// The group that it shows.
        found_group: u32,
    },
    /// Nobody but this process's user may read the file.
    #[error(
        "only user {uid} may read `{}`, by its mode {mode}; {}",
        path.display(),
        Diagnosis::ConsumerCannotRead.remedy()
    )]
    OnlyOurs {
        path: PathBuf,
        mode: FileMode,
        /// That user.
        uid: u32,
    },
    /// The new file is there, and may not be after a power failure.
    #[error("`{}` was replaced, but its directory could not be synced: {error}", path.display())]
    NotSynced { path: PathBuf, error: io::ErrorKind },
}

impl Warning {
    pub(super) fn twin_removed(key: &str, host: &str) -> Self {
        Self::TwinRemoved { key: shown(key), host: host.to_owned() }
    }

    pub(super) fn repository_entry(key: &str, host: &str) -> Self {
        Self::RepositoryEntry { key: shown(key), host: host.to_owned() }
    }

    pub(super) fn helper_removed(key: &str, host: &str) -> Self {
        Self::HelperRemoved { key: shown(key), host: host.to_owned() }
    }

    pub(super) fn creds_store(store: &str) -> Self {
        Self::CredsStore { store: shown(store) }
    }

    pub(super) fn foreign_auth(key: &str, reason: BadAuth) -> Self {
        Self::ForeignAuth { key: shown(key), reason }
    }
}

/// A key of the file, made fit for one line; what stands before an `@` may be a password.
fn shown(key: &str) -> String {
    clean(key.rsplit_once('@').map_or(key, |(_, host)| host))
}
