//! Static keys, from the environment or from files.

use std::{io, path::Path, sync::LazyLock, time::Duration};

use aws_credential_types::Credentials;
use tokio::sync::Semaphore;

use super::{IdentityError, StaticFiles};
use crate::{
    aws::key_material::{FoundKeys, KeyMaterial, Malformed, MalformedKey, Origin},
    config::env::Environment,
    secret::Secret,
};

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
    let keys = FoundKeys {
        access_key_id: variable("AWS_ACCESS_KEY_ID")?,
        secret_access_key: variable("AWS_SECRET_ACCESS_KEY")?,
        session_token: env.get("AWS_SESSION_TOKEN"),
        expiry: None,
    };
    let places = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"].map(str::to_owned);
    Ok(keys.into_credentials(&Origin { provider: "environment", places })?)
}

pub(super) async fn from_files(files: &StaticFiles) -> Result<Credentials, IdentityError> {
    let id = read_line("access key id", &files.access_key_id).await?;
    let secret = read_line("secret access key", &files.secret_access_key).await?;
    let session = match &files.session_token {
        Some(path) => Some(read_line("session token", path).await?),
        None => None,
    };
    let keys = FoundKeys {
        access_key_id: id.expose(),
        secret_access_key: secret.expose(),
        session_token: session.as_ref().map(|token| token.expose().as_str()),
        expiry: None,
    };
    let places = [Some(&files.access_key_id), Some(&files.secret_access_key), files.session_token.as_ref()];
    let places = places.map(|path| path.map(|path| path.display().to_string()).unwrap_or_default());
    Ok(keys.into_credentials(&Origin { provider: "static", places })?)
}

/// The key or token in a small file, without surrounding white space.
pub(crate) async fn read_line(what: &'static str, path: &Path) -> Result<Secret<String>, IdentityError> {
    let text =
        read(path).await.map_err(|source| IdentityError::File { what, path: path.to_owned(), source })?;
    match KeyMaterial::parse(text.expose()) {
        Ok(key) => Ok(key.into_secret()),
        Err(Malformed::Empty) => Err(IdentityError::EmptyFile { what, path: path.to_owned() }),
        Err(why) => Err(MalformedKey { what, place: path.display().to_string(), why }.into()),
    }
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
