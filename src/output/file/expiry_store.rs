//! Persists token expiries across restarts.
//!
//! A docker config has no place for an expiry. A sidecar that is killed while AWS is away would not know, when it is
//! started again, that the credentials in the file are still good, and would needlessly report itself as not ready. So
//! next to `config.json` stands `.config.json.ecr-sidecar`: the SHA-256 of each token's `auth`, and when it expires. The
//! hash of a random token of a kilobyte reveals nothing of it. Whoever may read the docker config may read this file too, and
//! so knows what it has found (`who_may_read_the_file_may_read_its_expiries`).
//!
//! Whoever may write to the directory can put another file there. It is believed only as far as it can be true
//! ([`LATEST_EXPIRY`]), and only if root, this process's user or the author has written it, and no other user could
//! (`an_expiry_file_is_believed_within_bounds`). The author is known by a file of theirs: for a consumer the docker
//! config, since its author may state when its tokens expire; for the process that keeps it one that it makes itself
//! for the purpose. That one shows another owner or mode only on a file system that imposes them (CIFS, NFS that
//! squashes users), where the owner of a file means nothing: there everyone who may write to the directory is believed
//! (`an_expiry_file_on_a_file_system_that_imposes_its_owner_is_believed`). What that gains them is readiness for a
//! credential of theirs, for at most [`LATEST_EXPIRY`], until AWS gives the first token. Whatever else is wrong with the
//! file, it is ignored and replaced.

use std::{
    collections::BTreeMap, ffi::OsString, fs::Metadata, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc,
    time::SystemTime,
};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    aws::token::{LATEST_EXPIRY, Token},
    clock::{from_unix_seconds, unix_seconds},
    docker_config::Document,
    fs::{
        atomic_file::{FileError, FileMode, Operation, Replaced, Replacement, Target, remove_stale},
        read::read_open,
        version::Version,
    },
    registry::RegistryHost,
    secret::Secret,
};

const LARGEST: usize = 1 << 20;
const WRITABLE_BY_ALL: u32 = 0o002;

/// When each token that may be in the file expires, by the SHA-256 of its `auth`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ExpiryStore(BTreeMap<String, u64>);

impl ExpiryStore {
    /// What is stored next to `target`, as far as it can be true `now`; `by_author` returns the metadata of a file whose
    /// author is believed, and is called only if it matters.
    pub(super) fn load(
        target: &Target,
        now: SystemTime,
        by_author: impl FnOnce() -> Option<Metadata>,
    ) -> Self {
        let Ok(file) = target.directory.read(&name(target)) else { return Self::default() };
        if !file.metadata().is_ok_and(|metadata| is_believed(&metadata, by_author)) {
            return Self::default();
        }
        let text = read_open(file, LARGEST).unwrap_or_default();
        let mut expiries: BTreeMap<String, u64> = serde_json::from_slice(&text).unwrap_or_default();
        let latest = now.checked_add(LATEST_EXPIRY).unwrap_or(now);
        expiries.retain(|_, expiry| from_unix_seconds(*expiry).is_some_and(|time| time <= latest));
        Self(expiries)
    }

    /// The tokens in `document` whose expiry is stored.
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
                None => self.expiry_of(&auth).map(|expires_at| Arc::new(token_until(&auth, expires_at))),
            };
            if let Some(token) = token {
                tokens.insert(auth.into_owned(), Arc::clone(&token));
                recalled.insert(host, token);
            }
        }
        recalled
    }

    pub(super) fn expiry_of(&self, auth: &str) -> Option<SystemTime> {
        self.0.get(&digest(auth)).and_then(|expiry| from_unix_seconds(*expiry))
    }

    /// Stores the expiries of `tokens` next to `target`, for `readers`, and no others. To be called before the tokens are in
    /// the file, with those that are there now too: whichever of the two a killed process leaves there is known then.
    pub(super) fn keep<'a>(
        &mut self,
        target: &Target,
        readers: (FileMode, u32),
        tokens: impl Iterator<Item = &'a Arc<Token>>,
    ) -> Result<(), NotKept> {
        let kept = Self::of(tokens);
        if kept == *self && is_for(target, readers) {
            return Ok(());
        }
        let store = target
            .sibling(name(target))
            .map_err(|error| FileError::new(Operation::Inspect, &target.path(), error))?;
        let seen = store.version()?;
        self.replace_by(kept, &store, seen, readers)
    }

    pub(super) fn has<'a>(&self, tokens: impl Iterator<Item = &'a Arc<Token>>) -> bool {
        Self::of(tokens).0.iter().all(|token| self.0.get(token.0) == Some(token.1))
    }

    fn of<'a>(tokens: impl Iterator<Item = &'a Arc<Token>>) -> Self {
        let mut distinct: Vec<_> = tokens.collect();
        distinct.sort_by_key(|token| Arc::as_ptr(token));
        distinct.dedup_by_key(|token| Arc::as_ptr(token));
        Self(
            distinct
                .into_iter()
                .map(|token| (digest(token.auth.expose()), unix_seconds(token.expires_at)))
                .collect(),
        )
    }

    /// Removes the temporary files that a killed process left.
    pub(super) fn tidy(target: &Target) {
        // What keeps them from being removed keeps the store from being written, and is reported then.
        let _ = target.sibling(name(target)).and_then(|store| remove_stale(&store));
    }

    /// `kept` is known once it is saved, and only then.
    fn replace_by(
        &mut self,
        kept: Self,
        store: &Target,
        seen: Option<Version>,
        (mode, group): (FileMode, u32),
    ) -> Result<(), NotKept> {
        let replacement = Replacement { target: store, mode, group, seen, set_aside: &[] };
        match replacement.run(|out| Ok(serde_json::to_writer(out, &kept.0)?))? {
            Replaced::Done { .. } => *self = kept,
            Replaced::ChangedMeanwhile => return Err(NotKept::Changed { path: store.path() }),
        }
        Ok(())
    }
}

#[derive(Debug, Error)]
pub(super) enum NotKept {
    #[error("`{}` was changed by another program before it could be replaced", path.display())]
    Changed { path: PathBuf },
    #[error(transparent)]
    File(#[from] FileError),
}

/// Whether only root, this process's user or the author can have written the file.
fn is_believed(file: &Metadata, by_author: impl FnOnce() -> Option<Metadata>) -> bool {
    let ours = [0, rustix::process::geteuid().as_raw()].contains(&file.uid());
    let closed = file.mode() & WRITABLE_BY_ALL == 0;
    (ours && closed)
        || by_author().is_some_and(|other| {
            // Open to all, as the other file is: writing one is as good as writing the other.
            let same_mode = file.mode() == other.mode();
            (ours || file.uid() == other.uid()) && (closed || same_mode)
        })
}

/// Whether the store next to `target` is a file of ours with this mode and group.
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

fn token_until(auth: &str, expires_at: SystemTime) -> Token {
    Token { auth: Secret::new(auth.to_owned()), obtained_at: expires_at, expires_at }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, Permissions, set_permissions},
        os::unix::fs::{PermissionsExt, chown},
    };

    use super::*;
    use crate::fs::atomic_file::{expected_group, made_here};

    const AUTH: &str = "QVdTOm9uZQ==";

    fn now() -> SystemTime {
        from_unix_seconds(6 * 3600).unwrap()
    }

    fn readers(target: &Target) -> (FileMode, u32) {
        (FileMode::default(), expected_group(&target.directory, None).unwrap())
    }

    /// A target next to which the expiry of one token is stored, and that store.
    fn stored() -> (tempfile::TempDir, Target, ExpiryStore) {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::open(&folder.path().join("config.json")).unwrap();
        let mut expiry_store = ExpiryStore::default();
        let token = Arc::new(token_until(AUTH, now()));
        expiry_store.keep(&target, readers(&target), [&token].into_iter()).unwrap();
        (folder, target, expiry_store)
    }

    #[test]
    fn what_was_not_saved_is_not_known() {
        let (_folder, target, mut expiry_store) = stored();
        let token = Arc::new(token_until("QVdTOnR3bw==", now()));
        let store = target.sibling(name(&target)).unwrap();
        let kept = ExpiryStore::of([&token].into_iter());
        // as if another program had made the file since it was read
        let error = expiry_store.replace_by(kept, &store, None, readers(&target)).unwrap_err();
        assert!(error.to_string().contains("was changed by another program"), "{error}");
        assert!(!expiry_store.has([&token].into_iter()));
        assert_eq!(ExpiryStore::load(&target, now(), || None), expiry_store);
        expiry_store.keep(&target, readers(&target), [&token].into_iter()).unwrap();
        assert!(expiry_store.has([&token].into_iter()));
        assert_eq!(ExpiryStore::load(&target, now(), || None), expiry_store);
    }

    /// Stands for CIFS and the like: `other` shows the owner and mode of every file there.
    #[test]
    fn an_expiry_file_on_a_file_system_that_imposes_its_owner_is_believed() {
        const SOMEONE: u32 = 65534;
        let (folder, target, expiry_store) = stored();
        let (store, other) = (folder.path().join(name(&target)), folder.path().join("other"));
        let other = || Some(File::open(&other).unwrap().metadata().unwrap());
        File::create(folder.path().join("other")).unwrap();
        let set = |mode: u32, uid: Option<u32>| {
            for path in [&store, &folder.path().join("other")] {
                set_permissions(path, Permissions::from_mode(mode)).unwrap();
                chown(path, uid, None).unwrap();
            }
        };
        let is_believed = |by_author: &dyn Fn() -> Option<Metadata>| {
            let loaded = ExpiryStore::load(&target, now(), by_author);
            assert!(loaded == expiry_store || loaded == ExpiryStore::default());
            loaded == expiry_store
        };
        let made = || made_here(&target).ok();
        let root = rustix::process::geteuid().is_root();
        for (mode, uid) in [(0o777, None), (0o755, Some(SOMEONE)), (0o777, Some(SOMEONE))] {
            if uid.is_some() && !root {
                continue;
            }
            set(mode, uid);
            assert!(is_believed(&other), "{mode:o} of {uid:?}");
            // Here a file that is made shows its owner and mode: one of another user, or open to all, is theirs.
            assert!(!is_believed(&made), "{mode:o} of {uid:?}");
            set_permissions(folder.path().join("other"), Permissions::from_mode(0o640)).unwrap();
            assert_eq!(is_believed(&other), mode == 0o755, "open to all while the other file is not");
        }
    }
}
