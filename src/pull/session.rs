//! Requests of one pull, with the credential as Basic, or exchanged for a bearer token where the registry wants that.
//!
//! The credential goes to the registry's host over TLS and nowhere else: redirects are not followed, and a challenge
//! that names another host is an error.

use aws_config::SdkConfig;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{
    aws::http::{self, Answer},
    failure::{causes, foreign_text::clean},
    registry::RegistryHost,
    secret::Secret,
};

/// The requests of one pull.
pub(crate) struct Session<'a> {
    sdk: &'a SdkConfig,
    host: &'a RegistryHost,
    /// Padded base64 of `AWS:<password>`.
    auth: &'a Secret<String>,
    bearer: Option<Secret<String>>,
    password: Zeroizing<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The causes, as the HTTP client has them, cleaned.
    Transport(String),
    /// The registry wants the credential at this host, cleaned.
    OtherHost(String),
}

#[derive(Deserialize)]
struct BearerAnswer {
    token: Option<Zeroizing<String>>,
    access_token: Option<Zeroizing<String>>,
}

impl BearerAnswer {
    /// A registry may send both, which are the same then.
    fn token(answer: &[u8]) -> Option<Secret<String>> {
        let Self { token, access_token } = serde_json::from_slice(answer).ok()?;
        token.or(access_token).map(|mut token| Secret::new(std::mem::take(&mut *token)))
    }
}

impl<'a> Session<'a> {
    pub(crate) fn new(sdk: &'a SdkConfig, host: &'a RegistryHost, auth: &'a Secret<String>) -> Self {
        let decoded = Zeroizing::new(STANDARD.decode(auth.expose()).unwrap_or_default());
        let password = decoded.strip_prefix(b"AWS:").and_then(|password| std::str::from_utf8(password).ok());
        let password = Zeroizing::new(password.unwrap_or_default().to_owned());
        Self { sdk, host, auth, bearer: None, password }
    }

    /// What no message may repeat.
    pub(crate) fn secrets(&self) -> Vec<&str> {
        let bearer = self.bearer.as_ref().map(|token| token.expose().as_str());
        [self.auth.expose().as_str(), self.password.as_str()].into_iter().chain(bearer).collect()
    }

    /// The answer to `method` of `path`, whatever its status.
    pub(crate) async fn ask(
        &mut self,
        method: &'static str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Answer, NoAnswer> {
        let first = self.send(method, path, headers).await?;
        let Some(realm) = bearer_realm(&first) else { return Ok(first) };
        if !is_of(&realm, self.host) {
            let authority = realm.authority().map_or("unknown", |it| it.as_str());
            let shown = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            return Err(NoAnswer::OtherHost(clean(shown)));
        }
        let basic = Secret::new(format!("Basic {}", self.auth.expose()));
        let answer = http::get(self.sdk, &realm.to_string(), Some(basic)).await;
        let answer = answer.map_err(|error| NoAnswer::Transport(causes(&error)))?;
        if answer.status != 200 {
            return Ok(answer);
        }
        let Some(token) = BearerAnswer::token(&answer.body) else { return Ok(first) };
        self.bearer = Some(token);
        self.send(method, path, headers).await
    }

    async fn send(
        &self,
        method: &'static str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Answer, NoAnswer> {
        let authorization = match &self.bearer {
            Some(token) => format!("Bearer {}", token.expose()),
            None => format!("Basic {}", self.auth.expose()),
        };
        let headers = headers.iter().map(|(name, value)| (*name, Secret::new((*value).to_owned())));
        let headers = headers.chain([("authorization", Secret::new(authorization))]).collect();
        let url = format!("https://{}{path}", self.host);
        let answer = http::ask(self.sdk, method, &url, headers).await;
        answer.map_err(|error| NoAnswer::Transport(causes(&error)))
    }
}

/// Whether the URL is of the registry: its host and its port.
fn is_of(url: &::http::Uri, host: &RegistryHost) -> bool {
    let authority = url.authority().map(|it| it.as_str().to_ascii_lowercase()).unwrap_or_default();
    let without_default = |text: &str| text.strip_suffix(":443").unwrap_or(text).to_owned();
    without_default(&authority) == without_default(host.as_str())
}

/// Where a registry with bearer tokens wants the credential, such as `public.ecr.aws`; only over TLS.
fn bearer_realm(answer: &Answer) -> Option<::http::Uri> {
    let challenge = answer.challenge.as_deref().filter(|_| answer.status == 401)?;
    let parameters = challenge.strip_prefix("Bearer ")?;
    let parameter = |name: &str| {
        parameters.split("\",").find_map(|pair| {
            pair.trim().strip_prefix(name)?.strip_prefix("=\"").map(|value| value.trim_end_matches('"'))
        })
    };
    let realm = parameter("realm")?;
    let query: String = ["service", "scope"]
        .into_iter()
        .filter_map(|name| {
            Some(form_urlencoded::Serializer::new(String::new()).append_pair(name, parameter(name)?).finish())
        })
        .collect::<Vec<_>>()
        .join("&");
    let uri: ::http::Uri = format!("{realm}?{query}").parse().ok()?;
    (uri.scheme_str() == Some("https")).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(text: &str, status: u16) -> Option<String> {
        let answer = Answer { status, challenge: Some(text.to_owned()), body: Vec::new() };
        bearer_realm(&answer).map(|uri| uri.to_string())
    }

    #[test]
    fn a_credential_goes_to_its_registry_and_port_alone() {
        for (host, realm, is_there) in [
            ("public.ecr.aws", "https://public.ecr.aws/token/", true),
            ("public.ecr.aws", "https://PUBLIC.ecr.aws:443/token/", true),
            ("public.ecr.aws", "https://public.ecr.aws:8443/token/", false),
            ("public.ecr.aws", "https://evil.example/public.ecr.aws", false),
            ("public.ecr.aws", "https://u@public.ecr.aws/token", false),
            ("ecr.example:8443", "https://ecr.example:8443/token", true),
            ("ecr.example:8443", "https://ecr.example/token", false),
        ] {
            assert_eq!(is_of(&realm.parse().unwrap(), &host.parse().unwrap()), is_there, "{host} {realm}");
        }
    }

    #[test]
    fn a_challenge_is_read_and_only_over_tls() {
        let text = r#"Bearer realm="https://public.ecr.aws/token/",service="public.ecr.aws",scope="repository:a/b:pull,push""#;
        assert_eq!(
            challenge(text, 401).unwrap(),
            "https://public.ecr.aws/token/?service=public.ecr.aws&scope=repository%3Aa%2Fb%3Apull%2Cpush"
        );
        assert!(challenge("Bearer realm=\"http://public.ecr.aws/token/\"", 401).is_none());
        assert!(challenge("Basic realm=\"https://x/\"", 401).is_none());
        assert!(challenge(text, 200).is_none());
    }

    #[test]
    fn a_bearer_token_has_either_name_or_both() {
        let token = |answer: &str| BearerAnswer::token(answer.as_bytes()).map(|token| token.expose().clone());
        assert_eq!(token(r#"{"token":"t","expires_in":300}"#).as_deref(), Some("t"));
        assert_eq!(token(r#"{"access_token":"t"}"#).as_deref(), Some("t"));
        assert_eq!(token(r#"{"token":"t","access_token":"t"}"#).as_deref(), Some("t"));
        assert!(token("{}").is_none());
    }
}
