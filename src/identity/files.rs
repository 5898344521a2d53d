//! Static keys, from the environment or from files.

use std::path::{Path, PathBuf};

use aws_credential_types::Credentials;

use super::{IdentityError, StaticFiles};
use crate::{config::env::Environment, secret::Secret};

/// The most that is read of a key or token file.
const FILE_LIMIT: u64 = 64 << 10;

pub(super) fn from_environment(env: &Environment) -> Result<Credentials, IdentityError> {
    let variable = |name: &'static str| {
        env.get(name).ok_or(IdentityError::Incomplete { source_name: "environment", missing: name })
    };
    let session = env.get("AWS_SESSION_TOKEN").map(str::to_owned);
    let (id, secret) = (variable("AWS_ACCESS_KEY_ID")?, variable("AWS_SECRET_ACCESS_KEY")?);
    Ok(Credentials::new(id, secret, session, None, "environment"))
}

pub(super) fn from_files(files: &StaticFiles) -> Result<Credentials, IdentityError> {
    let id = read_line("access key id", &files.access_key_id)?;
    let secret = read_line("secret access key", &files.secret_access_key)?;
    let session = files.session_token.as_deref().map(|path| read_line("session token", path)).transpose()?;
    Ok(Credentials::new(
        id.expose().as_str(),
        secret.expose().as_str(),
        session.map(|token| token.expose().clone()),
        None,
        "static",
    ))
}

/// The content of a small text file without surrounding white space; never empty, never of several lines.
pub(super) fn read_line(what: &'static str, path: &Path) -> Result<Secret<String>, IdentityError> {
    use std::io::Read;
    let unreadable = |source| IdentityError::File { what, path: path.to_owned(), source };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_LIMIT).read_to_string(&mut text))
        .map_err(unreadable)?;
    let text = Secret::new(text);
    let line = text.expose().trim();
    if line.is_empty() {
        return Err(IdentityError::EmptyFile { what, path: path.to_owned() });
    }
    if line.contains(char::is_whitespace) {
        return Err(IdentityError::NotOneWord { what, path: path.to_owned() });
    }
    Ok(Secret::new(line.to_owned()))
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
