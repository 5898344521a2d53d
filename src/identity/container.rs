//! Credentials from an agent on the node: EKS Pod Identity and ECS.
//!
//! Written here rather than taken from aws-config because its provider drops the agent's message ("no
//! association found") and retries by itself; what counts at night is that message.

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::{DateTime, date_time::Format};
use serde::Deserialize;

use super::{Identity, IdentityError, files};
use crate::{
    aws::key_material::{FoundKeys, Origin},
    config::env::Environment,
    failure::{
        chain,
        foreign_text::{clean, clean_of},
    },
    http,
    secret::Secret,
};

/// Where ECS answers relative URIs.
const ECS_AGENT: &str = "http://169.254.170.2";
const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer that is none of the agent's: cut short, too long, or something else altogether.
const NOT_CREDENTIALS: IdentityError =
    IdentityError::NoCredentialsInAnswer { operation: "the container credentials agent" };

/// What the agent answers, as EKS and ECS document it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

impl Identity {
    pub(super) async fn container(&self) -> Result<Credentials, IdentityError> {
        let url = agent_url(&self.env)?;
        let authorization = authorization(&self.env).await?;
        let secret = authorization.clone();
        let secrets = [secret.as_ref().map(|secret| secret.expose().as_str()).unwrap_or_default()];
        let exchange = tokio::time::timeout(TIMEOUT, http::get(&self.sdk, &url, authorization));
        let shown = clean(&url);
        let unreachable = |why: String| IdentityError::AgentUnreachable { url: shown.clone(), why };
        let http::Answer { status, body, .. } = match exchange.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(SdkError::ResponseError(_))) => return Err(NOT_CREDENTIALS),
            Ok(Err(error)) => return Err(unreachable(clean_of(&chain(&error), &secrets))),
            Err(_) => return Err(unreachable("no answer within 5 s".into())),
        };
        if !(200..300).contains(&status) {
            let message = clean_of(&String::from_utf8_lossy(&body), &secrets);
            return Err(IdentityError::AgentRefused { url: shown, status, message });
        }
        parse(&body)
    }
}

fn parse(body: &[u8]) -> Result<Credentials, IdentityError> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| NOT_CREDENTIALS)?;
    let expiry = DateTime::from_str(&answer.expiration, Format::DateTime).map_err(|_| NOT_CREDENTIALS)?;
    let keys = FoundKeys {
        access_key_id: &answer.access_key_id,
        secret_access_key: &answer.secret_access_key,
        session_token: Some(&answer.token),
        expiry: Some(SystemTime::try_from(expiry).map_err(|_| NOT_CREDENTIALS)?),
    };
    Ok(keys.into_credentials(&Origin::of("container", "the answer of the container credentials agent"))?)
}

fn agent_url(env: &Environment) -> Result<String, IdentityError> {
    if let Some(path) = env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        return Ok(format!("{ECS_AGENT}{path}"));
    }
    let url = env.get("AWS_CONTAINER_CREDENTIALS_FULL_URI").ok_or(IdentityError::Incomplete {
        source_name: "container",
        missing: "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    })?;
    let refused = |why: &str| IdentityError::AgentUrl { url: clean(url), why: why.to_owned() };
    let uri: ::http::Uri = url.parse().map_err(|_| refused("it is no URL"))?;
    let host = uri.host().ok_or_else(|| refused("it names no host"))?;
    if uri.scheme_str() == Some("https") || is_agent(host) {
        return Ok(url.to_owned());
    }
    Err(refused("over plain http only loopback, 169.254.170.2, 169.254.170.23 and fd00:ec2::23 are asked"))
}

/// The addresses that every AWS SDK admits over plain HTTP, so that a planted variable cannot send the
/// authorization token elsewhere.
fn is_agent(host: &str) -> bool {
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => {
            v4.is_loopback() || [[169, 254, 170, 2], [169, 254, 170, 23]].contains(&v4.octets())
        }
        Ok(IpAddr::V6(v6)) => v6.is_loopback() || v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23],
        Err(_) => host == "localhost",
    }
}

/// The token file is read anew each time: kubelet rotates it.
async fn authorization(env: &Environment) -> Result<Option<Secret<String>>, IdentityError> {
    if let Some(file) = env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        return files::read_line("container authorization token", Path::new(file)).await.map(Some);
    }
    Ok(env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(|token| Secret::new(token.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(full: &str) -> Result<String, IdentityError> {
        agent_url(&Environment::from_pairs([("AWS_CONTAINER_CREDENTIALS_FULL_URI", full)]))
    }

    #[test]
    fn the_authorization_token_is_sent_to_the_agent_only() {
        for good in [
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://127.0.0.1:80/c",
            "https://agent.example/c",
        ] {
            assert!(url(good).is_ok(), "{good}");
        }
        for evil in [
            "http://169.254.169.254/c",
            "http://evil.example/c",
            "http://127.0.0.1.evil.example/c",
            "ftp:x",
            "",
        ] {
            assert!(url(evil).is_err(), "{evil}");
        }
    }
}
