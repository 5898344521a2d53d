//! What the user should know of a document, each with its sentence; no value is ever shown.

use std::path::PathBuf;

use thiserror::Error;

use super::entry::BadAuth;
use crate::failure::foreign_text::clean;

/// Something in a document that stopped nothing. `Display` is the sentence, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Warning {
    #[error("removed the entry `{key}` from `auths`: some clients would take it instead of `{host}`")]
    TwinRemoved { key: String, host: String },
    #[error(
        "the entry `{key}` is of another user: podman, skopeo and go-containerregistry take it instead of that of `{host}`"
    )]
    RepositoryEntry { key: String, host: String },
    #[error(
        "removed the entry `{key}` from `credHelpers`: clients would ask that helper instead of reading the entry of `{host}`"
    )]
    HelperRemoved { key: String, host: String },
    #[error(
        "`credsStore` names `{store}`: docker asks it instead of reading `auths`, so our credentials go unused there; \
         remove `credsStore` from the file, or from its base"
    )]
    CredsStore { store: String },
    #[error(
        "the entry `{key}` makes docker and go-containerregistry reject the whole file, our credentials with it: \
         {reason}; fix or remove it"
    )]
    InvalidEntry { key: String, reason: BadAuth },
    #[error("{count} more entries of the file call for a warning like these")]
    More { count: usize },
    #[error("the base `{}` is not usable: {reason}; the entries that it had last are kept", path.display())]
    Base { path: PathBuf, reason: String },
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

    pub(super) fn invalid_entry(key: &str, reason: BadAuth) -> Self {
        Self::InvalidEntry { key: shown(key), reason }
    }
}

/// A key of the file, made fit for one line; what stands before an `@` may be a password.
fn shown(key: &str) -> String {
    clean(key.rsplit_once('@').map_or(key, |(_, host)| host))
}
