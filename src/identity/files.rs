//! Static keys, from the environment or from files.

use std::path::{Path, PathBuf};

use aws_credential_types::Credentials;

use super::{IdentityError, StaticFiles};
use crate::{config::env::Environment, fs::read::read_text, secret::Secret};

/// No key or token is larger than this.
const FILE_LIMIT: usize = 64 << 10;

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
    let failed = |source| IdentityError::File { what, path: path.to_owned(), source };
    let text = read_text(path, FILE_LIMIT).await.map_err(failed)?;
    let line = text.trim();
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
