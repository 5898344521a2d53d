//! The credential that a consumer finds in the Secrets of an output.

use std::time::SystemTime;

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{
    Kind,
    desired::{Content, DOCKER_CONFIG_KEY},
    ownership::{Memory, Ownership},
    targets::targets,
    watches::discovered_now,
};
use crate::{
    credentials::CredentialSet,
    docker_config::Document,
    failure::Problem,
    kubernetes::{Cluster, ObjectRef, SecretObject},
    output::{Output, OutputConfig},
    registry::RegistryHost,
    secret::Secret,
};

pub(crate) struct Published {
    pub(crate) at: ObjectRef,
    /// Padded base64 of `AWS:<password>`.
    pub(crate) auth: Secret<String>,
    /// `None` where no sidecar put it there.
    pub(crate) expires_at: Option<SystemTime>,
}

/// Whether only the API server knows which Secrets the output keeps.
pub(crate) fn are_discovered(config: &OutputConfig) -> bool {
    matches!(Output::new(config), Output::Secrets(kind) if kind.is_discovered())
}

/// How many docker configs of an output are read: all of them hold the same.
const MOST: usize = 20;

/// The credential for `host` in the Secrets of an output: the first that a sidecar put there, else the first. Where a
/// selector decides, whoever has a namespace can put another one into its Secret; then only the one that is `known` is
/// read, else as many as the selector matches now.
pub(crate) async fn published(
    config: &OutputConfig,
    cluster: &Cluster,
    host: &RegistryHost,
    known: Option<&ObjectRef>,
    now: SystemTime,
) -> Result<Option<Published>, Problem> {
    let Output::Secrets(kind) = Output::new(config) else { return Ok(None) };
    let mut desired = CredentialSet::default();
    desired.awaited.insert(host.clone());
    let discovered = match (known, &kind) {
        (None, _) => discovered_now(&kind, cluster).await?,
        (Some(at), Kind::Repositories(_)) => [at.name.clone()].into(),
        (Some(at), Kind::DockerConfig(_) | Kind::RepoCreds(_)) => [at.namespace.clone()].into(),
    };
    let most = if matches!(kind, Kind::DockerConfig(_)) { MOST } else { usize::MAX };
    let mut unmanaged = None;
    for (at, content) in
        targets(&kind, cluster.namespace(), &discovered, &desired, None).into_iter().take(most)
    {
        let found = cluster.secret(&at).await.map_err(|error| error.problem(&at.wanted("get")))?;
        let Some((auth, expires_at)) = found.and_then(|found| credential(&found, &content, host, now)) else {
            continue;
        };
        let published = Published { at, auth, expires_at };
        if published.expires_at.is_some() {
            return Ok(Some(published));
        }
        unmanaged.get_or_insert(published);
    }
    Ok(unmanaged)
}

fn credential(
    found: &SecretObject,
    content: &Content,
    host: &RegistryHost,
    now: SystemTime,
) -> Option<(Secret<String>, Option<SystemTime>)> {
    let memory = Memory::default();
    let expiry =
        |key, credential: &[u8]| Ownership::of(Some(found), key, &memory).expiry(host, credential, now);
    if let Content::DockerConfig { .. } = content {
        let text = found.value(DOCKER_CONFIG_KEY)?;
        let auth =
            Document::parse(std::str::from_utf8(&text).ok()?).ok()?.auth_of(host.as_str())?.into_owned();
        let expires_at = expiry(DOCKER_CONFIG_KEY, auth.as_bytes());
        return Some((Secret::new(auth), expires_at));
    }
    let url = found.value("url")?;
    let url = std::str::from_utf8(&url).ok()?;
    let named = url.strip_prefix("oci://").unwrap_or(url).split('/').next()?;
    if !named.eq_ignore_ascii_case(host.as_str()) || found.value("username")?.as_slice() != b"AWS" {
        return None;
    }
    let password = found.value("password").filter(|password| !password.is_empty())?;
    let mut pair = Zeroizing::new(b"AWS:".to_vec());
    pair.extend_from_slice(&password);
    Some((Secret::new(STANDARD.encode(&*pair)), expiry("password", &password)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

    fn found(data: &[(&str, &str)]) -> SecretObject {
        let data: serde_json::Map<_, _> =
            data.iter().map(|(key, value)| ((*key).to_owned(), json!(STANDARD.encode(value)))).collect();
        serde_json::from_value(json!({"metadata": {}, "type": "Opaque", "data": data})).unwrap()
    }

    fn auth(data: &[(&str, &str)], content: &Content) -> Option<String> {
        let host = HOST.parse().unwrap();
        let (auth, expires_at) = credential(&found(data), content, &host, SystemTime::UNIX_EPOCH)?;
        assert_eq!(expires_at, None);
        Some(auth.expose().clone())
    }

    #[test]
    fn a_credential_is_what_the_consumer_of_the_secret_would_send() {
        let token = STANDARD.encode("AWS:pw");
        let config = Content::DockerConfig { adopt: false, base: None };
        let document = format!(r#"{{"auths": {{"{HOST}": {{"auth": "{token}"}}}}}}"#);
        assert_eq!(auth(&[(DOCKER_CONFIG_KEY, &document)], &config), Some(token.clone()));
        assert_eq!(auth(&[(DOCKER_CONFIG_KEY, "{}")], &config), None);
        let helped = document
            .replace("{\"auths\"", &format!(r#"{{"credHelpers": {{"{HOST}": "ecr-login"}}, "auths""#));
        assert_eq!(auth(&[(DOCKER_CONFIG_KEY, &helped)], &config), None);
        let url = format!("oci://{HOST}/charts");
        let repository = [("url", &*url), ("username", "AWS"), ("password", "pw")];
        assert_eq!(auth(&repository, &Content::Repository), Some(token));
        for other in [("url", "oci://ghcr.io/charts"), ("username", "me"), ("password", "")] {
            let changed = repository.map(|pair| if pair.0 == other.0 { other } else { pair });
            assert_eq!(auth(&changed, &Content::Repository), None, "{other:?}");
        }
    }
}
