//! `GetAuthorizationToken` of ECR and ECR Public.
//!
//! One call serves every registry of a [`TokenKey`]. The answer is distrusted: what does not decode to
//! `AWS:<password>` with an expiry is an error of its own, and nothing of it is published.
//!
//! Who retries what: the SDK's retries are off. The one exception is an answer that says that something we
//! read is stale (token file, session, clock): [`TokenSource::fetch`] drops it, reads it again and asks once
//! more. Everything else is the refresher's plan.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use aws_smithy_types::DateTime;
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{
    aws::{
        endpoint::EndpointUrl,
        error::AwsFailure,
        identity::{Identity, IdentityError, Principal, Resolved, secrets_of},
        sdk::endpoint_of,
    },
    clock::Clock,
    failure::{
        Class, Diagnose,
        diagnosis::{Diagnosis, Remedy},
    },
    registry::{Location, Region, RegistryHost},
    secret::Secret,
};

/// No token of ECR lives longer.
pub(crate) const LONGEST_LIFE: Duration = Duration::from_secs(12 * 3600);
/// No stored expiry is later than so long from now, some minutes' difference of clocks included.
pub(crate) const LATEST_EXPIRY: Duration = LONGEST_LIFE.saturating_add(Duration::from_secs(15 * 60));

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    Ecr,
    EcrPublic,
}

impl Service {
    fn operation(self) -> &'static str {
        match self {
            Self::Ecr => "ecr:GetAuthorizationToken",
            Self::EcrPublic => "ecr-public:GetAuthorizationToken",
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ecr => "ecr",
            Self::EcrPublic => "ecr-public",
        }
    }

    /// As AWS's service models call it.
    fn id(self) -> &'static str {
        match self {
            Self::Ecr => "ECR",
            Self::EcrPublic => "ECR PUBLIC",
        }
    }
}

/// What a token belongs to: it serves every registry with the same key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKey {
    pub identity: String,
    pub service: Service,
    /// The region that is asked, and in which the token is valid.
    pub region: Region,
    pub endpoint: Option<EndpointUrl>,
    /// Ask the FIPS endpoint, unless an endpoint is named. `None`: as `AWS_USE_FIPS_ENDPOINT` says.
    pub fips: Option<bool>,
    /// Ask the dual-stack endpoint, unless an endpoint is named. `None`: as `AWS_USE_DUALSTACK_ENDPOINT` says.
    pub dual_stack: Option<bool>,
}

impl TokenKey {
    /// The key that the host's name implies; `None` when its region has to be configured.
    pub fn from_host(host: &RegistryHost, identity: &str) -> Option<Self> {
        let yes = |is: bool| is.then_some(true);
        let (service, region, fips, dual_stack) = match host.location() {
            Location::Private(registry) => {
                (Service::Ecr, registry.region, yes(registry.fips), yes(registry.dual_stack))
            }
            Location::Public => {
                (Service::EcrPublic, Region::us_east_1(), None, yes(host.is_dual_stack_public()))
            }
            Location::Other => return None,
        };
        Some(Self { identity: identity.to_owned(), service, region, endpoint: None, fips, dual_stack })
    }
}

impl fmt::Display for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} as {}", self.service.as_str(), self.region.as_str(), self.identity)?;
        match &self.endpoint {
            Some(endpoint) => write!(f, " at {endpoint}"),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Padded base64 of `AWS:<password>`: already the `auth` value of a docker config.
    pub auth: Secret<String>,
    pub obtained_at: SystemTime,
    pub expires_at: SystemTime,
}

impl Token {
    /// The password alone, as `docker login` takes it; `None` where `auth` is not of the user `AWS`.
    pub fn password(&self) -> Option<Zeroizing<Vec<u8>>> {
        let mut decoded = Zeroizing::new(STANDARD.decode(self.auth.expose()).ok()?);
        decoded.starts_with(b"AWS:").then(|| {
            decoded.drain(..4);
            decoded
        })
    }
}

#[derive(Debug)]
pub struct Fetched {
    pub token: Token,
    pub principal: Principal,
    /// The caller's own registry, as ECR names it. ECR Public names none.
    pub own_registry: Option<RegistryHost>,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Call(AwsFailure),
    #[error("{0} answered without authorization data")]
    Empty(&'static str),
    #[error("{0} answered without a usable expiry")]
    NoExpiry(&'static str),
    #[error("{0} answered with a token that is not base64")]
    NotBase64(&'static str),
    #[error("{0} answered with a token that is not of the form AWS:<password>")]
    NotAws(&'static str),
    #[error("{operation} got no answer within {seconds} s")]
    TimedOut { operation: &'static str, seconds: u64 },
}

impl Diagnose for TokenError {
    fn class(&self) -> Class {
        match self {
            Self::Identity(error) => error.class(),
            Self::Call(failure) => failure.class(),
            Self::Empty(_) | Self::NoExpiry(_) | Self::NotBase64(_) | Self::NotAws(_) => Class::BadAnswer,
            Self::TimedOut { .. } => Class::Transient,
        }
    }

    fn remedy(&self) -> Remedy {
        match self {
            Self::Identity(error) => error.remedy(),
            Self::Call(failure) => failure.remedy(),
            Self::Empty(_) | Self::NoExpiry(_) | Self::NotBase64(_) | Self::NotAws(_) => {
                Diagnosis::NotAws.into()
            }
            Self::TimedOut { .. } => Diagnosis::Unreachable.into(),
        }
    }
}

#[derive(Debug)]
pub struct TokenSource {
    key: TokenKey,
    identity: Arc<Identity>,
    client: Client,
    clock: Clock,
}

#[derive(Debug)]
enum Client {
    Ecr(aws_sdk_ecr::Client),
    EcrPublic(aws_sdk_ecrpublic::Client),
}

impl TokenSource {
    pub fn new(key: TokenKey, identity: Arc<Identity>, sdk: &SdkConfig, clock: Clock) -> Self {
        let mut builder = sdk.clone().into_builder();
        builder.set_region(Some(aws_config::Region::new(key.region.as_str().to_owned())));
        if key.endpoint.is_some() {
            // The SDK rejects these together with an endpoint; ours is named for this one registry.
            builder.set_use_fips(Some(false));
            builder.set_use_dual_stack(Some(false));
        } else if endpoint_of(sdk, key.service.id()).is_none() {
            // A FIPS or dual-stack registry host says nothing about an endpoint that a variable or profile names.
            builder.set_use_fips(key.fips.or(sdk.use_fips()));
            builder.set_use_dual_stack(key.dual_stack.or(sdk.use_dual_stack()));
        }
        let sdk = builder.build();
        let client = match key.service {
            Service::Ecr => {
                let mut config = aws_sdk_ecr::config::Builder::from(&sdk);
                if let Some(endpoint) = &key.endpoint {
                    config = config.endpoint_url(endpoint.as_str());
                }
                Client::Ecr(aws_sdk_ecr::Client::from_conf(config.build()))
            }
            Service::EcrPublic => {
                let mut config = aws_sdk_ecrpublic::config::Builder::from(&sdk);
                if let Some(endpoint) = &key.endpoint {
                    config = config.endpoint_url(endpoint.as_str());
                }
                Client::EcrPublic(aws_sdk_ecrpublic::Client::from_conf(config.build()))
            }
        };
        Self { key, identity, client, clock }
    }

    pub fn key(&self) -> &TokenKey {
        &self.key
    }

    /// Asks AWS, and once more when what the request rested on was stale.
    pub async fn fetch(&self) -> Result<Fetched, TokenError> {
        match self.fetch_once().await {
            Err(error) if error.class().is_worth_one_more_try() => {
                tracing::debug!(token = %self.key, %error, "asking once more with inputs read again");
                self.identity.forget();
                self.fetch_once().await
            }
            outcome => outcome,
        }
    }

    async fn fetch_once(&self) -> Result<Fetched, TokenError> {
        let Resolved { credentials, principal } = self.identity.credentials().await?;
        let obtained_at = self.clock.now();
        let operation = self.key.service.operation();
        // The two clients share no trait.
        macro_rules! ask {
            ($client:expr, $config:expr) => {
                $client
                    .get_authorization_token()
                    .customize()
                    .config_override($config.credentials_provider(credentials.clone()))
                    .send()
                    .await
                    .map_err(|error| {
                        let secrets = secrets_of(&credentials);
                        TokenError::Call(AwsFailure::new(operation, &error, self.clock.now(), &secrets))
                    })?
                    .authorization_data
            };
        }
        let answer = match &self.client {
            Client::Ecr(client) => {
                let data = ask!(client, aws_sdk_ecr::Config::builder());
                data.unwrap_or_default().into_iter().next().map(|data| Answer {
                    auth: data.authorization_token.map(Secret::new),
                    expires_at: data.expires_at,
                    proxy_endpoint: data.proxy_endpoint,
                })
            }
            Client::EcrPublic(client) => {
                ask!(client, aws_sdk_ecrpublic::Config::builder()).map(|data| Answer {
                    auth: data.authorization_token.map(Secret::new),
                    expires_at: data.expires_at,
                    proxy_endpoint: None,
                })
            }
        };
        let answer = answer.ok_or(TokenError::Empty(operation))?;
        let (token, proxy_endpoint) = answer.into_token(operation, obtained_at)?;
        let own_registry = proxy_endpoint.as_deref().and_then(host_of_url);
        Ok(Fetched { token, principal, own_registry })
    }
}

/// An answer of either API, not yet trusted.
struct Answer {
    auth: Option<Secret<String>>,
    expires_at: Option<DateTime>,
    proxy_endpoint: Option<String>,
}

impl Answer {
    fn into_token(
        self,
        operation: &'static str,
        obtained_at: SystemTime,
    ) -> Result<(Token, Option<String>), TokenError> {
        let auth = self.auth.ok_or(TokenError::Empty(operation))?;
        check_auth(auth.expose(), operation)?;
        let expires_at = self.expires_at.and_then(|time| SystemTime::try_from(time).ok());
        let expires_at = expires_at.ok_or(TokenError::NoExpiry(operation))?;
        Ok((Token { auth, obtained_at, expires_at }, self.proxy_endpoint))
    }
}

/// Padded base64 of `AWS:` and a password that consumers can send.
fn check_auth(auth: &str, operation: &'static str) -> Result<(), TokenError> {
    let decoded = STANDARD.decode(auth).map(Secret::new).map_err(|_| TokenError::NotBase64(operation))?;
    let password = decoded.expose().strip_prefix(b"AWS:").ok_or(TokenError::NotAws(operation))?;
    if password.is_empty() || !password.iter().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::NotAws(operation));
    }
    Ok(())
}

fn host_of_url(url: &str) -> Option<RegistryHost> {
    url.strip_prefix("https://")?.trim_end_matches('/').parse().ok()
}

/// What is wrong with a token's dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockFault {
    ExpiredOnArrival,
    /// It lives too shortly to be renewed in time.
    TooShort,
    /// It claims to live longer than any token of AWS's.
    TooLong,
}

impl ClockFault {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExpiredOnArrival => "expired-on-arrival",
            Self::TooShort => "too-short",
            Self::TooLong => "too-long",
        }
    }

    /// Of each of them: which clock is wrong cannot be told.
    pub fn remedy() -> Remedy {
        Remedy::with(Diagnosis::ClockOff, "an emulator's dates may also be wrong")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(auth: Option<&str>, expires: Option<i64>) -> Result<(Token, Option<String>), TokenError> {
        let auth = auth.map(|auth| Secret::new(auth.to_owned()));
        Answer { auth, expires_at: expires.map(DateTime::from_secs), proxy_endpoint: None }
            .into_token("op", SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_good_answer_is_taken_as_it_is() {
        let (token, _) = answer(Some("QVdTOmE6Yg=="), Some(43_200)).unwrap(); // AWS:a:b
        assert_eq!(token.auth.expose(), "QVdTOmE6Yg==");
        assert_eq!(token.expires_at, SystemTime::UNIX_EPOCH + Duration::from_secs(43_200));
    }

    #[test]
    fn every_other_answer_is_an_error_of_its_own() {
        let good = Some("QVdTOmE6Yg==");
        assert!(matches!(answer(None, Some(1)), Err(TokenError::Empty(_))));
        assert!(matches!(answer(Some("<html>"), Some(1)), Err(TokenError::NotBase64(_))));
        assert!(matches!(answer(Some("QVdTOmE6Yg"), Some(1)), Err(TokenError::NotBase64(_)))); // unpadded
        assert!(matches!(answer(Some("Zm9vOmJhcg=="), Some(1)), Err(TokenError::NotAws(_)))); // foo:bar
        assert!(matches!(answer(Some("QVdTOg=="), Some(1)), Err(TokenError::NotAws(_)))); // AWS:
        assert!(matches!(answer(Some("QVdTOmEK"), Some(1)), Err(TokenError::NotAws(_)))); // AWS:a\n
        assert!(matches!(answer(good, None), Err(TokenError::NoExpiry(_))));
        assert!(answer(good, Some(i64::MAX)).is_ok()); // absurd: the plan's business
    }

    #[test]
    fn the_dual_stack_host_of_ecr_public_asks_the_dual_stack_endpoint() {
        let dual_stack =
            |host: &str| TokenKey::from_host(&host.parse().unwrap(), "default").unwrap().dual_stack;
        assert_eq!(["ecr-public.aws.com", "public.ecr.aws"].map(dual_stack), [Some(true), None]);
    }

    #[test]
    fn the_own_registry_is_the_host_of_the_proxy_endpoint() {
        let host = host_of_url("https://123456789012.dkr.ecr.eu-west-1.amazonaws.com").unwrap();
        assert_eq!(host.as_str(), "123456789012.dkr.ecr.eu-west-1.amazonaws.com");
        assert!(host_of_url("http://evil.example").is_none());
        assert!(host_of_url("https://evil.example/path").is_none());
    }
}
