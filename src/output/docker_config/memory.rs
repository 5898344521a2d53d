//! What a process leaves to its successor: when the tokens in the file end.
//!
//! A docker config has no place for an expiry. A sidecar that is killed while AWS is away would not know, when it is
//! started again, that the credentials in the file are still good, and would call itself not ready for nothing. So
//! beside `config.json` stands `.config.json.ecr-sidecar`: the SHA-256 of each token's `auth`, and when it ends. The
//! hash of a random token of a kilobyte tells nothing of it. Whoever may read the docker config may read this file too, and
//! so knows what it has found (`who_may_read_the_file_may_read_what_is_remembered`). Whatever is wrong with this file, it
//! is only forgotten.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};

use super::super::atomic_file::{FileMode, Replacement, Version, remove_stale};
use crate::{registry::RegistryHost, secret::Secret, token::Token};

use super::document::Document;

/// More than this is not ours.
const LARGEST: u64 = 1 << 20;

/// When each token that may be in the file ends, by the SHA-256 of its `auth`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Memory(BTreeMap<String, u64>);

impl Memory {
    /// What is remembered beside `target`.
    pub(super) fn load(target: &Path) -> Self {
        let path = place(target);
        let small = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= LARGEST);
        let text = if small { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        Self(serde_json::from_slice(&text).unwrap_or_default())
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
                None => self.0.get(&digest(&auth)).map(|expiry| Arc::new(token_until(&auth, *expiry))),
            };
            if let Some(token) = token {
                tokens.insert(auth.into_owned(), Arc::clone(&token));
                recalled.insert(host, token);
            }
        }
        recalled
    }

    /// When the token with this `auth` ends, if that is remembered.
    pub(super) fn end_of(&self, auth: &str) -> Option<SystemTime> {
        self.0.get(&digest(auth)).map(|expiry| time(*expiry))
    }

    /// Remembers `tokens` beside `target`, for `readers`, and nothing else. To be done before they are in the file, with those
    /// that are there now: whichever of the two a killed process leaves behind is known then.
    pub(super) fn keep<'a>(
        &mut self,
        target: &Path,
        readers: (FileMode, u32),
        tokens: impl Iterator<Item = &'a Arc<Token>>,
    ) {
        let mut distinct: Vec<_> = tokens.collect();
        distinct.sort_by_key(|token| Arc::as_ptr(token));
        distinct.dedup_by_key(|token| Arc::as_ptr(token));
        let kept =
            Self(distinct.into_iter().map(|token| (digest(token.auth.expose()), seconds(token))).collect());
        if (kept != *self || !is_for(target, readers)) && kept.save(target, readers).is_some() {
            *self = kept;
        }
    }

    /// Removes what a killed process left of its own saving.
    pub(super) fn tidy(target: &Path) {
        let _ = remove_stale(&place(target)); // told where it stays in the way of the docker config
    }

    fn save(&self, target: &Path, (mode, group): (FileMode, u32)) -> Option<()> {
        let path = place(target);
        let text = serde_json::to_vec(&self.0).ok()?;
        let seen = Version::at(&path).ok()?;
        let replacement = Replacement { target: &path, mode, group, seen, set_aside: None };
        replacement.run(|out| out.write_all(&text)).ok().map(|_| ())
    }
}

/// Whether what is remembered beside `target` has this mode and group.
fn is_for(target: &Path, (mode, group): (FileMode, u32)) -> bool {
    fs::symlink_metadata(place(target))
        .is_ok_and(|metadata| metadata.mode() & 0o7777 == mode.bits() && metadata.gid() == group)
}

fn place(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".ecr-sidecar");
    target.with_file_name(name)
}

fn digest(auth: &str) -> String {
    Sha256::digest(auth).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seconds(token: &Token) -> u64 {
    token.expires_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn time(expiry: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(expiry)).unwrap_or(UNIX_EPOCH)
}

fn token_until(auth: &str, expiry: u64) -> Token {
    let expires_at = time(expiry);
    Token { auth: Secret::new(auth.to_owned()), obtained_at: expires_at, expires_at }
}
