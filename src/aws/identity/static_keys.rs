//! Static keys, from the environment or from files.

use std::path::Path;

use aws_credential_types::Credentials;

use super::{IdentityError, StaticFiles};
use crate::{
    aws::key_material::{FoundKeys, KeyMaterial, Malformed, MalformedKey, Origin},
    env::Environment,
    failure::shown_value::clean_path,
    fs::read::read_text,
    secret::Secret,
};

/// No key or token is larger than this.
const FILE_LIMIT: usize = 64 << 10;

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
    let places = places.map(|path| path.map(|path| clean_path(path)).unwrap_or_default());
    Ok(keys.into_credentials(&Origin { provider: "static", places })?)
}

/// The key or token in a small file, without surrounding white space.
pub(crate) async fn read_line(what: &'static str, path: &Path) -> Result<Secret<String>, IdentityError> {
    let failed = |source| IdentityError::File { what, path: path.to_owned(), source };
    let text = read_text(path, FILE_LIMIT).await.map_err(failed)?;
    match KeyMaterial::parse(&text) {
        Ok(key) => Ok(key.into_secret()),
        Err(Malformed::Empty) => Err(IdentityError::EmptyFile { what, path: path.to_owned() }),
        Err(why) => Err(MalformedKey { what, place: clean_path(path), why }.into()),
    }
}
