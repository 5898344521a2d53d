//! Persists token expiries across restarts.
//!
//! A docker config has no place for an expiry. A sidecar that is killed while AWS is away would not know, when it is
//! started again, that the credentials in the file are still good, and would call itself not ready for nothing. So
//! next to `config.json` stands `.config.json.ecr-sidecar`: the SHA-256 of each token's `auth`, and when it expires. The
//! hash of a random token of a kilobyte tells nothing of it. Whoever may read the docker config may read this file too, and
//! so knows what it has found (`who_may_read_the_file_may_read_what_is_remembered`).
//!
//! Whoever may write to the directory can put another file there. It is believed only as far as it can be true
//! ([`LONGEST`]), and only from root, this process's user, or the user who wrote the docker config that it is read
//! with (`an_expiry_file_is_believed_within_bounds`). Whatever else is wrong with it, it is ignored and replaced.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};

use super::super::atomic_file::{FileError, FileMode, Replacement, Target, remove_stale};
use crate::{fs::read::read_open, registry::RegistryHost, secret::Secret, token::Token};

use super::document::Document;

/// More than this is not ours.
const LARGEST: usize = 1 << 20;
/// No token of ECR lives longer (12 h), clocks of some minutes' difference included: a later expiry is no one's.
pub(crate) const LONGEST: Duration = Duration::from_secs(12 * 3600 + 15 * 60);

/// When each token that may be in the file expires, by the SHA-256 of its `auth`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Memory(BTreeMap<String, u64>);

impl Memory {
    /// What is remembered next to `target`, as far as it can be true `now`; `writer` is a user who is believed too.
    pub(super) fn load(target: &Target, now: SystemTime, writer: Option<u32>) -> Self {
        let Ok(file) = target.directory.read(&name(target)) else { return Self::default() };
        let believed = file.metadata().is_ok_and(|metadata| {
            let ours = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
            (ours || writer == Some(metadata.uid())) && metadata.mode() & 0o002 == 0
        });
        if !believed {
            return Self::default();
        }
        let text = read_open(file, LARGEST).unwrap_or_default();
        let mut expiries: BTreeMap<String, u64> = serde_json::from_slice(&text).unwrap_or_default();
        let latest = now.checked_add(LONGEST).unwrap_or(now);
        expiries.retain(|_, expiry| time(*expiry).is_some_and(|time| time <= latest));
        Self(expiries)
    }

    /// The tokens in `document` that are remembered.
    pub(super) fn recall(&self, document: &Document<'_>) -> BTreeMap<RegistryHost, Arc<Token>> {
        let mut tokens: BTreeMap<String, Arc<Token>> = BTreeMap::new();
        let mut recalled = BTreeMap::new();
        if self.0.is_empty() {
            return recalled;
        }
        for key in document.auths.keys() {
            let Ok(host) = key.parse::<RegistryHost>() else { continue };
            let Some(auth) = document.auth_of(key) else { continue };
            let token = match tokens.get(auth.as_ref()) {
                Some(token) => Some(Arc::clone(token)),
                None => self.end_of(&auth).map(|expires_at| Arc::new(token_until(&auth, expires_at))),
            };
            if let Some(token) = token {
                tokens.insert(auth.into_owned(), Arc::clone(&token));
                recalled.insert(host, token);
            }
        }
        recalled
    }

    /// When the token with this `auth` expires, if that is remembered.
    pub(super) fn end_of(&self, auth: &str) -> Option<SystemTime> {
        self.0.get(&digest(auth)).and_then(|expiry| time(*expiry))
    }

    /// Remembers `tokens` next to `target`, for `readers`, and nothing else. To be done before they are in the file, with
    /// those that are there now: whichever of the two a killed process leaves behind is known then.
    pub(super) fn keep<'a>(
        &mut self,
        target: &Target,
        readers: (FileMode, u32),
        tokens: impl Iterator<Item = &'a Arc<Token>>,
    ) -> Result<(), FileError> {
        let mut distinct: Vec<_> = tokens.collect();
        distinct.sort_by_key(|token| Arc::as_ptr(token));
        distinct.dedup_by_key(|token| Arc::as_ptr(token));
        let kept =
            Self(distinct.into_iter().map(|token| (digest(token.auth.expose()), seconds(token))).collect());
        if kept != *self || !is_for(target, readers) {
            kept.save(target, readers)?;
            *self = kept;
        }
        Ok(())
    }

    /// Removes what a killed process left of its own saving.
    pub(super) fn tidy(target: &Target) {
        // Whatever stays in the way is reported when it stays in the way of saving.
        let _ = target.beside(name(target)).and_then(|store| remove_stale(&store));
    }

    fn save(&self, target: &Target, (mode, group): (FileMode, u32)) -> Result<(), FileError> {
        let store = target.beside(name(target)).map_err(|error| {
            FileError::new(super::super::atomic_file::Operation::Look, &target.path(), error)
        })?;
        let seen = store.version()?;
        let replacement = Replacement { target: &store, mode, group, seen, set_aside: &[] };
        replacement.run(|out| Ok(serde_json::to_writer(out, &self.0)?)).map(drop)
    }
}

/// Whether what is remembered next to `target` is a file of ours with this mode and group.
fn is_for(target: &Target, (mode, group): (FileMode, u32)) -> bool {
    target.directory.entry(&name(target)).ok().flatten().is_some_and(|metadata| {
        let ours = metadata.uid() == rustix::process::geteuid().as_raw();
        metadata.is_file() && ours && metadata.mode() & 0o7777 == mode.bits() && metadata.gid() == group
    })
}

fn name(target: &Target) -> OsString {
    let mut name = OsString::from(".");
    name.push(&target.name);
    name.push(".ecr-sidecar");
    name
}

fn digest(auth: &str) -> String {
    Sha256::digest(auth).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seconds(token: &Token) -> u64 {
    token.expires_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn time(expiry: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(expiry))
}

fn token_until(auth: &str, expires_at: SystemTime) -> Token {
    Token { auth: Secret::new(auth.to_owned()), obtained_at: expires_at, expires_at }
}
