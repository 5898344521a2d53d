//! Credentials from an agent on the node: EKS Pod Identity and ECS.
//!
//! Written here rather than taken from aws-config because its provider drops the agent's message ("no
//! association found") and retries automatically; that message is what an operator needs.

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::{DateTime, date_time::Format};
use serde::Deserialize;

use super::{Identity, IdentityError, static_keys};
use crate::{
    aws::{
        http,
        key_material::{FoundKeys, Origin},
    },
    env::Environment,
    failure::{
        chain,
        foreign_text::{clean, clean_of},
    },
    secret::Secret,
};

const RELATIVE_URI: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL_URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
const MESSAGE_LIMIT: usize = 4 << 10;
/// Where ECS answers relative URIs.
const ECS_AGENT: &str = "http://169.254.170.2";
const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer that is none of the agent's: cut short, too long, or something else altogether.
const NOT_CREDENTIALS: IdentityError =
    IdentityError::NoCredentialsInAnswer { operation: "the container credentials agent" };

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
            let start = String::from_utf8_lossy(&body[..body.len().min(MESSAGE_LIMIT)]);
            let message = clean_of(&start, &secrets);
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
    if let Some(path) = env.get(RELATIVE_URI) {
        let invalid = |why| IdentityError::AgentUrl { variable: RELATIVE_URI, shown: "invalid".into(), why };
        // Otherwise it would go on with the authority: another host, port or user.
        if !path.starts_with('/') {
            return Err(invalid("it must start with /"));
        }
        return checked(format!("{ECS_AGENT}{path}")).map_err(|(_, why)| invalid(why));
    }
    let url =
        env.get(FULL_URI).ok_or(IdentityError::Incomplete { source_name: "container", missing: FULL_URI })?;
    checked(url.to_owned()).map_err(|(shown, why)| IdentityError::AgentUrl { variable: FULL_URI, shown, why })
}

/// The URL, if the authorization token may be sent there; else how it may be shown, and why not.
fn checked(url: String) -> Result<String, (String, &'static str)> {
    let not_shown = |why| Err(("invalid".to_owned(), why));
    let Ok(uri) = url.parse::<::http::Uri>() else { return not_shown("it is not a URL") };
    let Some(host) = uri.host() else { return not_shown("it names no host") };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return not_shown("a user name stands before its host");
    }
    if uri.port_u16().is_none()
        && uri.authority().is_some_and(|authority| authority.as_str().len() > host.len())
    {
        return not_shown("its port is not a number");
    }
    match uri.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_agent(host) => Ok(url),
        Some("http") => Err((
            format!("`{}`", clean(&url)),
            "over plain http only loopback, 169.254.170.2, 169.254.170.23 and fd00:ec2::23 are allowed",
        )),
        _ => not_shown("its scheme is neither http nor https"),
    }
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

/// The token file is read again each time: kubelet rotates it.
async fn authorization(env: &Environment) -> Result<Option<Secret<String>>, IdentityError> {
    let (variable, token) = if let Some(file) = env.get(TOKEN_FILE) {
        (TOKEN_FILE, static_keys::read_line("container authorization token", Path::new(file)).await?)
    } else if let Some(token) = env.get(TOKEN) {
        (TOKEN, Secret::new(token.to_owned()))
    } else {
        return Ok(None);
    };
    let is_sendable = ::http::HeaderValue::from_str(token.expose()).is_ok_and(|value| value.to_str().is_ok());
    if is_sendable { Ok(Some(token)) } else { Err(IdentityError::AgentToken { variable }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(full: &str) -> Result<String, IdentityError> {
        agent_url(&Environment::from_pairs([(FULL_URI, full)]))
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
            "http://127.0.0.1./c",
            "http://[::ffff:169.254.169.254]/c",
            "ftp:x",
            "ftp://127.0.0.1/c",
            "//127.0.0.1/c",
            "http://hunter2@127.0.0.1/c",
            "https://me:hunter2@agent.example/c",
            "http://127.0.0.1:hunter2@evil.example/c",
            "http://hunter2:x",
            "",
        ] {
            let error = url(evil).expect_err(evil).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    /// Each would be another host, port or user behind `http://169.254.170.2`.
    #[test]
    fn a_relative_uri_leads_nowhere_else() {
        let url = |path| agent_url(&Environment::from_pairs([(RELATIVE_URI, path)]));
        for evil in [
            "@127.0.0.1:19059/creds",
            ":80@host/x",
            ".evil.example/x",
            ":8080/x",
            "3/x",
            "?x",
            "#x",
            "http://127.0.0.1/x",
            "/a b",
            "/a\nb",
        ] {
            let error = url(evil).expect_err(evil).to_string();
            assert!(error.starts_with("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is invalid: "), "{error}");
        }
        assert_eq!(url("/v2/credentials/1").unwrap(), "http://169.254.170.2/v2/credentials/1");
        assert_eq!(url("/x@y").unwrap(), "http://169.254.170.2/x@y");
        assert_eq!(url("//evil/x").unwrap(), "http://169.254.170.2//evil/x"); // a path still
    }

    #[tokio::test]
    async fn a_token_that_no_header_may_hold_is_not_sent_and_not_shown() {
        for token in ["hunter2\r\nX: y", "hunter2\u{1}", "hunter2\u{7f}", "hunter2\u{e4}"] {
            let error =
                authorization(&Environment::from_pairs([(TOKEN, token)])).await.unwrap_err().to_string();
            assert!(error.contains(TOKEN) && !error.contains("hunter2"), "{error}");
        }
        let token = authorization(&Environment::from_pairs([(TOKEN, "Basic aHVudGVyMg==")])).await.unwrap();
        assert_eq!(token.unwrap().expose(), "Basic aHVudGVyMg==");
    }
}
