//! The token that a docker `config.json` has for one registry, and when it expires.
//!
//! For `ecr-sidecar print` and the credential helper, which read the file that a sidecar keeps. Only an entry of the user
//! `AWS` counts; its expiry is known if a sidecar has put it there and stored that next to the file.
//! It blocks on the file system.

use std::{fs, io, path::Path, time::SystemTime};

use thiserror::Error;

use super::{
    error::DockerConfigError,
    expiry_store::ExpiryStore,
    read::{Found, read},
};
use crate::{
    docker_config::{Unfit, auth, entry_of, is_ecr_token},
    fs::atomic_file::{FileError, Operation, Target},
    registry::RegistryHost,
    secret::Secret,
};

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Padded base64 of `AWS:<password>`.
    pub auth: Secret<String>,
    pub end: End,
}

/// When a token in the file expires. `Unknown`: none is stored, but the token is not younger than the file's last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Known(SystemTime),
    Unknown { changed_at: SystemTime },
}

#[derive(Debug, Error)]
pub(crate) enum FindError {
    #[error("`{}` cannot be used: {unfit}", path.display())]
    Unfit { path: std::path::PathBuf, unfit: Unfit },
    #[error(transparent)]
    Read(#[from] DockerConfigError),
}

impl From<FileError> for FindError {
    fn from(error: FileError) -> Self {
        Self::Read(error.into())
    }
}

/// The token for `host` in the file at `path`; none when there is no file, no entry, or one of another kind. Links are
/// followed, as a consumer follows them.
pub(crate) fn find(path: &Path, host: &RegistryHost, now: SystemTime) -> Result<Option<Held>, FindError> {
    let target = match fs::canonicalize(path) {
        Ok(real) => Target::open(&real)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::new(Operation::Inspect, path, error).into()),
    };
    let found = read(&target)?;
    let (text, metadata) = match &found {
        Found::Absent => return Ok(None),
        Found::Unfit(unfit) => {
            return Err(FindError::Unfit { path: path.to_owned(), unfit: unfit.clone() });
        }
        Found::Other(_) => return Err(DockerConfigError::NotAFile { path: path.to_owned() }.into()),
        Found::Config(text, metadata) => (text, metadata),
    };
    let entry = entry_of(text, host.as_str()).ok().flatten().filter(|entry| is_ecr_token(entry));
    let Some(auth) = entry.and_then(|entry| auth(entry).ok().flatten()) else { return Ok(None) };
    // The store has a token before the file does.
    let end = match ExpiryStore::load(&target, now, || Some(metadata.clone())).expiry_of(&auth) {
        Some(end) => End::Known(end),
        // Without a time of its own, a file is taken to be from long ago.
        None => End::Unknown { changed_at: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH) },
    };
    Ok(Some(Held { auth: Secret::new(auth.into_owned()), end }))
}
