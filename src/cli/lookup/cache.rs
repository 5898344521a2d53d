//! Tokens that were fetched without a sidecar, kept for the next process, so that any number of `docker pull`s at a time cost
//! one call to AWS.
//!
//! A file a token, for its owner alone, in `$XDG_RUNTIME_DIR/ecr-sidecar`, else in `ecr-sidecar` of `$XDG_CACHE_HOME` or
//! `~/.cache`. There are at most [`MOST`] of them (`one_fetches_at_a_time_and_old_tokens_go`), since on a node whoever may
//! create pods and ServiceAccounts causes them. A folder or file of another user, or that other users may read or change,
//! is not used (`an_open_cache_is_not_used`). Whatever is wrong here costs a call, and never fails.
//!
//! A file's name is a digest of all that decides what is in it: the token key, the identity, the AWS variables and files that
//! decide whose the credentials are (`another_profile_does_not_get_this_ones_token`); for a ServiceAccount its role, issuer,
//! subject and uid (`no_service_account_gets_another_one_s_token`). Secret keys and session tokens are left out of it: they
//! are renewed while the principal stays.
//!
//! It blocks on the file system.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    aws::{
        identity::IdentitySpec,
        token::{LATEST_EXPIRY, Token, TokenKey},
    },
    clock::{from_unix_seconds, unix_seconds},
    env::Environment,
    fs::{
        atomic_file::{FileError, FileMode, Replaced, Replacement, Target, expected_group, remove_stale},
        read::{read_now, read_open},
    },
    secret::Secret,
};

/// More than this is not ours.
const LARGEST: usize = 64 << 10;
/// More than this is not read of a file that decides whose the credentials are.
const LARGEST_INPUT: usize = 1 << 20;
/// A token that was written longer ago than this has expired.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// There are no more tokens than this: the oldest go first.
const MOST: usize = 1000;
/// Variables that change while the principal stays.
const RENEWED: [&str; 4] = [
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
];

#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    #[error("neither XDG_RUNTIME_DIR, XDG_CACHE_HOME nor HOME names a folder")]
    Nowhere,
    #[error("`{}`: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    /// The folder is not for us alone.
    #[error("`{}` belongs to user {owner} with mode {mode:04o}: it has to be ours, and closed to other users", path.display())]
    Open { path: PathBuf, owner: u32, mode: u32 },
}

#[derive(Debug, Clone)]
pub(super) struct Slot {
    folder: PathBuf,
    name: String,
}

/// Held while a token is fetched.
#[derive(Debug)]
pub(super) struct Fetching(#[expect(dead_code, reason = "its lock ends when it is closed")] File);

impl Slot {
    /// The place for the token of `key`, as the identity `spec` in this environment would get it.
    pub(super) fn open(key: &TokenKey, spec: &IdentitySpec, env: &Environment) -> Result<Self, CacheError> {
        let mut error = CacheError::Nowhere;
        for folder in folders(env) {
            match make(&folder) {
                Ok(()) => return Ok(Self { folder, name: name(key, spec, env) }),
                Err(rejected) => error = rejected,
            }
        }
        Err(error)
    }

    /// The token, if there is one that can be true. It may have expired.
    pub(super) fn token(&self, now: SystemTime) -> Option<Token> {
        let file = open_private(OpenOptions::new().read(true), &self.path()).ok()?;
        let text = read_open(file, LARGEST).ok()?;
        let stored: Stored<'_> = serde_json::from_slice(&text).ok()?;
        let (obtained_at, expires_at) =
            (from_unix_seconds(stored.obtained_at)?, from_unix_seconds(stored.expires_at)?);
        (expires_at <= now.checked_add(LATEST_EXPIRY)?).then(|| Token {
            auth: Secret::new(stored.auth.to_owned()),
            obtained_at,
            expires_at,
        })
    }

    /// Keeps the token, and removes those that expired long ago.
    pub(super) fn keep(&self, token: &Token, now: SystemTime) -> Result<(), FileError> {
        let target = Target::open(&self.path())?;
        let _ = remove_stale(&target);
        self.tidy(now);
        let (obtained_at, expires_at) = (unix_seconds(token.obtained_at), unix_seconds(token.expires_at));
        let stored = Stored { auth: token.auth.expose(), obtained_at, expires_at };
        let (mode, group) = (FileMode::PRIVATE, expected_group(&target.directory, None)?);
        let seen = target.version()?;
        let replacement = Replacement { target: &target, mode, group, seen, set_aside: &[] };
        match replacement.run(|out| serde_json::to_writer(out, &stored).map_err(io::Error::from))? {
            Replaced::Done { .. } => Ok(()),
            Replaced::ChangedMeanwhile => Ok(()), // the other process's is as good
        }
    }

    /// Waits for the right to fetch.
    pub(super) fn fetching(&self) -> io::Result<Fetching> {
        let file = self.lock_file()?;
        file.lock()?;
        Ok(Fetching(file))
    }

    /// The right to fetch, unless another process has it.
    pub(super) fn try_fetching(&self) -> Option<Fetching> {
        let file = self.lock_file().ok()?;
        file.try_lock().ok()?;
        Some(Fetching(file))
    }

    fn path(&self) -> PathBuf {
        self.folder.join(&self.name).with_extension(EXTENSION)
    }

    /// One of sixteen, which stay: a lock file that is removed while a process waits for it is none.
    fn lock_file(&self) -> io::Result<File> {
        let name = format!("lock-{}", self.name.get(..1).unwrap_or_default());
        open_private(
            OpenOptions::new().write(true).create(true).truncate(false).mode(FileMode::PRIVATE.bits()),
            &self.folder.join(name),
        )
    }

    fn tidy(&self, now: SystemTime) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let paths = entries.flatten().map(|entry| entry.path());
        let tokens = paths.filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
        let mut by_age: Vec<_> = tokens
            .filter_map(|path| Some((fs::symlink_metadata(&path).and_then(|it| it.modified()).ok()?, path)))
            .collect();
        by_age.sort_unstable_by(|a, b| b.cmp(a));
        for (index, (modified, path)) in by_age.iter().enumerate() {
            if index >= MOST || now.duration_since(*modified).is_ok_and(|age| age > KEPT) {
                let _ = fs::remove_file(path); // the next one tries again
            }
        }
    }
}

const EXTENSION: &str = "token";

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    auth: &'a str,
    obtained_at: u64,
    expires_at: u64,
}

/// Where the folder may be, by the XDG base directories; relative paths are ignored, as specified there.
fn folders(env: &Environment) -> Vec<PathBuf> {
    let absolute = |name| env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    let bases = absolute("XDG_RUNTIME_DIR").into_iter().chain(cache);
    bases.map(|base| base.join("ecr-sidecar")).collect()
}

/// Makes the folder, if it is ours to make, and rejects one that is not for us alone.
fn make(folder: &Path) -> Result<(), CacheError> {
    let failed = |source| CacheError::Folder { path: folder.to_owned(), source };
    if let Some(there) = folder.ancestors().skip(1).find(|ancestor| ancestor.exists())
        && !folder.exists()
    {
        // A folder that root makes in a user's home, that user could not write to.
        check_owner(there, &fs::metadata(there).map_err(failed)?)?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let metadata = fs::symlink_metadata(folder).map_err(failed)?;
    check_owner(folder, &metadata)?;
    if !metadata.is_dir() || is_open(&metadata) {
        return Err(rejected(folder, &metadata));
    }
    Ok(())
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), CacheError> {
    if is_ours(metadata) { Ok(()) } else { Err(rejected(path, metadata)) }
}

fn rejected(path: &Path, metadata: &Metadata) -> CacheError {
    CacheError::Open { path: path.to_owned(), owner: metadata.uid(), mode: metadata.mode() & 0o7777 }
}

fn is_ours(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

fn is_open(metadata: &Metadata) -> bool {
    metadata.mode() & 0o077 != 0
}

/// Opens a file of ours that no other user may touch: no symbolic link followed, no waiting at a pipe.
fn open_private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && is_ours(&metadata) && !is_open(&metadata) {
        Ok(file)
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// The digest of all that decides what the token is.
fn name(key: &TokenKey, spec: &IdentitySpec, env: &Environment) -> String {
    let mut digest = Sha256::new();
    // Each part with its length, so that no two lists of parts are one text.
    let mut add = |part: &[u8]| {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    };
    add(format!("{key:?}").as_bytes());
    add(format!("{spec:?}").as_bytes());
    for variable in env.names_with_prefix("AWS_").filter(|name| !RENEWED.contains(name)) {
        add(variable.as_bytes());
        add(env.get(variable).unwrap_or_default().as_bytes());
    }
    for file in spec.principal_files(env) {
        add(file.as_os_str().as_encoded_bytes());
        add(&read_now(&file, LARGEST_INPUT).unwrap_or_default());
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
