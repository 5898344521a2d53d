//! What the user should know of a document; no value is ever shown.

use super::entry::BadAuth;
use crate::failure::{Warning, diagnosis::Diagnosis, foreign_text::clean};

pub(super) fn twin_removed(key: &str, host: &str) -> Warning {
    let key = shown(key);
    Warning::without_remedy(format!(
        "removed the entry `{key}` from `auths`: some clients would take it instead of `{host}`"
    ))
}

pub(super) fn helper_removed(key: &str, host: &str) -> Warning {
    let key = shown(key);
    Warning::without_remedy(format!(
        "removed the entry `{key}` from `credHelpers`: clients would ask that helper instead of reading the entry of `{host}`"
    ))
}

pub(super) fn more(count: usize) -> Warning {
    Warning::without_remedy(format!("{count} more entries call for a warning like these"))
}

pub(super) fn repository_entry(key: &str, host: &str) -> Warning {
    let key = shown(key);
    let message = format!(
        "the entry `{key}` is of another user: podman, skopeo and go-containerregistry take it instead of that of `{host}`"
    );
    Warning::new(message, Diagnosis::RepositoryEntry)
}

pub(super) fn creds_store(store: &str) -> Warning {
    let store = shown(store);
    let message = format!("`credsStore` names `{store}`: docker asks it instead of reading `auths`");
    Warning::new(message, Diagnosis::CredsStore)
}

pub(super) fn invalid_entry(key: &str, reason: BadAuth) -> Warning {
    let key = shown(key);
    let message =
        format!("the entry `{key}` makes docker and go-containerregistry reject the whole file: {reason}");
    Warning::new(message, Diagnosis::EntryInvalid)
}

/// A key of the file, made fit for one line; what stands before an `@` may be a password.
fn shown(key: &str) -> String {
    clean(key.rsplit_once('@').map_or(key, |(_, host)| host))
}
