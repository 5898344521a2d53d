//! Static keys, from the environment or from files.

use std::{
    io,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use aws_credential_types::Credentials;
use tokio::sync::Semaphore;

use super::{IdentityError, StaticFiles};
use crate::{config::env::Environment, secret::Secret};

/// The most that is read of a key or token file.
const FILE_LIMIT: u64 = 64 << 10;
/// A volume that takes longer gives no answer.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// Threads that may wait for volumes: those that hang for ever must not become more with each attempt.
static READERS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(8));

pub(super) fn from_environment(env: &Environment) -> Result<Credentials, IdentityError> {
    let variable = |name: &'static str| {
        env.get(name).ok_or(IdentityError::Incomplete { source_name: "environment", missing: name })
    };
    let session = env.get("AWS_SESSION_TOKEN").map(str::to_owned);
    let (id, secret) = (variable("AWS_ACCESS_KEY_ID")?, variable("AWS_SECRET_ACCESS_KEY")?);
    Ok(Credentials::new(id, secret, session, None, "environment"))
}

pub(super) async fn from_files(files: &StaticFiles) -> Result<Credentials, IdentityError> {
    let id = read_line("access key id", &files.access_key_id).await?;
    let secret = read_line("secret access key", &files.secret_access_key).await?;
    let session = match &files.session_token {
        Some(path) => Some(read_line("session token", path).await?),
        None => None,
    };
    Ok(Credentials::new(
        id.expose().as_str(),
        secret.expose().as_str(),
        session.map(|token| token.expose().clone()),
        None,
        "static",
    ))
}

/// The content of a small text file without surrounding white space; never empty, never of several lines.
pub(crate) async fn read_line(what: &'static str, path: &Path) -> Result<Secret<String>, IdentityError> {
    let text =
        read(path).await.map_err(|source| IdentityError::File { what, path: path.to_owned(), source })?;
    let line = text.expose().trim();
    if line.is_empty() {
        return Err(IdentityError::EmptyFile { what, path: path.to_owned() });
    }
    if line.contains(char::is_whitespace) {
        return Err(IdentityError::NotOneWord { what, path: path.to_owned() });
    }
    Ok(Secret::new(line.to_owned()))
}

/// On a thread of its own: a volume may hang, and nothing else must wait for it.
async fn read(path: &Path) -> io::Result<Secret<String>> {
    let path = path.to_owned();
    let reading = async {
        let permit = READERS.acquire().await.map_err(io::Error::other)?;
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read_now(&path)
        });
        read.await.map_err(io::Error::other)?
    };
    let hangs = || io::Error::new(io::ErrorKind::TimedOut, "the volume gives no answer");
    tokio::time::timeout(READ_LIMIT, reading).await.map_err(|_| hangs())?
}

fn read_now(path: &Path) -> io::Result<Secret<String>> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_LIMIT).read_to_string(&mut text)?;
    Ok(Secret::new(text))
}

/// `~/.aws/config` and `~/.aws/credentials`, or what `AWS_CONFIG_FILE` and
/// `AWS_SHARED_CREDENTIALS_FILE` name.
pub(super) fn shared_aws_files(env: &Environment) -> Vec<PathBuf> {
    let home = env.get("HOME").map(PathBuf::from);
    let file = |variable, name: &str| {
        env.get(variable)
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|home| home.join(".aws").join(name)))
    };
    [file("AWS_CONFIG_FILE", "config"), file("AWS_SHARED_CREDENTIALS_FILE", "credentials")]
        .into_iter()
        .flatten()
        .collect()
}
