//! Who asks AWS: a credential source plus an optional chain of assumed roles.
//!
//! Invariants:
//! * A source that is configured but broken is an error that names it; nothing falls through to another
//!   principal (`a_broken_source_is_never_passed_over`).
//! * The instance metadata service is used only when it is named (`auto_never_asks_imds`).
//! * When nothing is found, the error lists what was looked for, what was found, and the likely fix.
//!
//! Credentials are kept until shortly before their expiry and shared by every token of the identity;
//! [`Identity::forget`] drops them when AWS calls them stale or one of their files changed. Nothing here
//! retries: that is the refresher's job.

mod chain;
mod container;
mod default_chain;
mod error;
mod process;
mod profile;
mod service_account;
mod sso;
mod static_keys;
mod sts;

use std::{
    path::PathBuf,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use serde::{Deserialize, Serialize};

pub(crate) use self::static_keys::read_line;
pub use self::{
    default_chain::no_source_configured,
    error::{IdentityError, Looked},
    service_account::{InvalidServiceAccount, ServiceAccount},
};
use crate::{
    aws::profile_file,
    clock::Clock,
    env::Environment,
    registry::{AccountId, Region},
    tasks::locked,
};

/// Credentials are resolved again when less than this is left of them.
const EXPIRY_MARGIN: Duration = Duration::from_secs(300);
/// The name of a session that is given none.
const SESSION_NAME: &str = "ecr-sidecar";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySpec {
    pub name: String,
    pub source: Source,
    pub assume_roles: Vec<AssumeRole>,
    pub sts_region: Region,
    pub expect_account: Option<AccountId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The first configured of environment, profile, web identity, container; never IMDS.
    Auto,
    /// `AWS_ACCESS_KEY_ID` and companions.
    Environment,
    /// A profile of the shared AWS files, `AWS_PROFILE` unless named.
    Profile { name: Option<String> },
    /// A token file exchanged at STS (IRSA): `AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN` unless named.
    WebIdentity { role_arn: Option<String>, token_file: Option<PathBuf> },
    /// The EKS Pod Identity agent or the ECS agent: `AWS_CONTAINER_CREDENTIALS_*`.
    PodIdentity,
    /// A pod's ServiceAccount, whose token the kubelet passes. Never configured.
    ServiceAccount(ServiceAccount),
    /// Keys in files, read again each time.
    Static(StaticFiles),
    /// The node's role, by the instance metadata service.
    Imds,
}

impl Source {
    /// What `auto` finds in the environment; any other source is itself.
    fn behind_auto(&self, env: &Environment) -> Option<Self> {
        match self {
            Self::Auto => default_chain::pick(env),
            source => Some(source.clone()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticFiles {
    pub access_key_id: PathBuf,
    pub secret_access_key: PathBuf,
    pub session_token: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssumeRole {
    pub role_arn: String,
    pub external_id: Option<String>,
    pub session_name: String,
}

impl IdentitySpec {
    pub fn sends_web_identity(&self, env: &Environment) -> bool {
        matches!(self.source.behind_auto(env), Some(Source::WebIdentity { .. } | Source::ServiceAccount(_)))
    }

    /// The files whose content decides whose the credentials are. A web-identity token is not among them: it is renewed
    /// all the time, and the role is named with it.
    pub fn principal_files(&self, env: &Environment) -> Vec<PathBuf> {
        match self.source.behind_auto(env) {
            None | Some(Source::Profile { .. }) => profile_file::paths(env),
            Some(Source::Static(keys)) => vec![keys.access_key_id],
            Some(_) => Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Principal {
    /// The source that gave the first credentials, for example `web identity`.
    pub source: String,
    pub arn: Option<String>,
}

pub struct Identity {
    spec: IdentitySpec,
    env: Environment,
    sdk: SdkConfig,
    /// Made when a role is first assumed: it takes a tenth of the whole start, and most identities need none.
    sts: OnceLock<aws_sdk_sts::Client>,
    clock: Clock,
    /// Held while resolving, so that any number of refreshers cost one resolution.
    resolving: tokio::sync::Mutex<()>,
    cached: Mutex<Cached>,
    /// A login of an SSO session that was renewed here.
    login: Mutex<Option<sso::Login>>,
}

#[derive(Default)]
struct Cached {
    resolved: Option<Resolved>,
    times_forgotten: u64,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("spec", &self.spec).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
pub struct Resolved {
    pub credentials: Credentials,
    pub principal: Principal,
}

/// What of the credentials an answer must not repeat to a reader.
pub fn secrets_of(credentials: &Credentials) -> [&str; 2] {
    [credentials.secret_access_key(), credentials.session_token().unwrap_or_default()]
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub account: String,
    pub arn: String,
}

impl Identity {
    pub fn new(spec: IdentitySpec, env: Environment, sdk: SdkConfig, clock: Clock) -> Self {
        Self {
            spec,
            env,
            sdk,
            sts: OnceLock::default(),
            clock,
            resolving: tokio::sync::Mutex::default(),
            cached: Mutex::default(),
            login: Mutex::default(),
        }
    }

    pub fn spec(&self) -> &IdentitySpec {
        &self.spec
    }

    pub async fn credentials(&self) -> Result<Resolved, IdentityError> {
        let _one_at_a_time = self.resolving.lock().await;
        if let Some(resolved) = self.cached() {
            return Ok(resolved);
        }
        let times_forgotten = locked(&self.cached).times_forgotten;
        let resolved = self.resolve().await?;
        let mut cached = locked(&self.cached);
        // What was forgotten meanwhile may be what this was resolved from.
        if cached.times_forgotten == times_forgotten {
            cached.resolved = Some(resolved.clone());
        }
        Ok(resolved)
    }

    /// Drops the cached credentials: AWS called them stale, or one of their files changed.
    pub fn forget(&self) {
        let mut cached = locked(&self.cached);
        cached.resolved = None;
        cached.times_forgotten += 1;
        // A login that was renewed here may be revoked, and a newer one on disk.
        *locked(&self.login) = None;
    }

    /// The source that it comes from, never `auto`. `None` where nothing announces one; then there may still be a
    /// profile `default`.
    pub fn source(&self) -> Option<Source> {
        self.spec.source.behind_auto(&self.env)
    }

    /// The files whose change may change the credentials.
    pub fn files(&self) -> Vec<PathBuf> {
        let named = |variable| self.env.get(variable).map(PathBuf::from).into_iter().collect();
        match self.source() {
            None | Some(Source::Profile { .. }) => profile_file::paths(&self.env),
            Some(Source::WebIdentity { token_file: Some(file), .. }) => vec![file],
            Some(Source::WebIdentity { .. }) => named("AWS_WEB_IDENTITY_TOKEN_FILE"),
            Some(Source::PodIdentity) => named("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
            Some(Source::Static(keys)) => {
                [keys.access_key_id, keys.secret_access_key].into_iter().chain(keys.session_token).collect()
            }
            Some(Source::Auto | Source::Environment | Source::Imds | Source::ServiceAccount(_)) => Vec::new(),
        }
    }

    fn cached(&self) -> Option<Resolved> {
        let cached = locked(&self.cached).resolved.clone()?;
        // Static keys are cheap to read and may be rotated under us: only what expires is kept.
        let expiry = cached.credentials.expiry()?;
        (expiry > self.clock.now() + EXPIRY_MARGIN).then_some(cached)
    }

    async fn resolve(&self) -> Result<Resolved, IdentityError> {
        let mut resolved = match self.resolve_source(&self.spec.source).await? {
            Some(resolved) => resolved,
            None => return Err(default_chain::nothing_found(&self.spec, &self.env).await),
        };
        for role in &self.spec.assume_roles {
            resolved = self.assume_role(role, resolved).await?;
        }
        if let Some(expected) = &self.spec.expect_account {
            self.check_account(expected, &mut resolved).await?;
        }
        Ok(resolved)
    }

    /// `None` when `source` is `auto` and nothing is configured.
    async fn resolve_source(&self, source: &Source) -> Result<Option<Resolved>, IdentityError> {
        let (name, credentials, arn) = match source {
            Source::Auto => {
                return match default_chain::pick(&self.env) {
                    Some(source) => Box::pin(self.resolve_source(&source)).await,
                    None => Box::pin(self.default_profile()).await,
                };
            }
            Source::Environment => ("environment", static_keys::from_environment(&self.env)?, None),
            Source::Static(files) => ("static", static_keys::from_files(files).await?, None),
            Source::WebIdentity { role_arn, token_file } => {
                let (credentials, arn) =
                    self.web_identity(role_arn.as_deref(), token_file.as_deref(), None).await?;
                ("web identity", credentials, Some(arn))
            }
            Source::ServiceAccount(account) => {
                let (credentials, arn) = self.exchange(account.role_arn(), account.token(), None).await?;
                ("service account", credentials, Some(arn))
            }
            Source::PodIdentity => ("container", self.container().await?, None),
            Source::Profile { name } => {
                let name = name.as_deref().or_else(|| self.env.get("AWS_PROFILE")).unwrap_or("default");
                return Box::pin(self.profile(name)).await.map(Some);
            }
            Source::Imds => ("imds", self.imds().await?, None),
        };
        Ok(Some(Resolved { credentials, principal: Principal { source: name.into(), arn } }))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Write,
        sync::Arc,
    };

    use super::*;

    #[tokio::test]
    async fn what_is_forgotten_while_it_is_resolved_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let [config, runs, gate] = ["config", "runs", "gate"].map(|name| folder.path().join(name));
        let keys =
            r#"{"Version":1,"AccessKeyId":"A","SecretAccessKey":"s","Expiration":"2999-01-01T00:00:00Z"}"#;
        let process = format!(
            "echo run >>'{}'; until [ -e '{}' ]; do sleep 0.01; done; echo '{keys}'",
            runs.display(),
            gate.display()
        );
        let write = |path, text: &str| File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
        write(&config, &format!("[default]\ncredential_process = {process}\n"));
        let spec = IdentitySpec {
            name: "default".into(),
            source: Source::Profile { name: None },
            assume_roles: Vec::new(),
            sts_region: "eu-west-1".parse().unwrap(),
            expect_account: None,
        };
        let env =
            Environment::from_pairs([("AWS_CONFIG_FILE", config.to_str().unwrap()), ("HOME", "/nowhere")]);
        let identity = Arc::new(Identity::new(spec, env, SdkConfig::builder().build(), Clock::System));
        let count = || fs::read_to_string(&runs).map_or(0, |text| text.lines().count());

        let under_way = tokio::spawn({
            let identity = Arc::clone(&identity);
            async move { identity.credentials().await.map(drop) }
        });
        while count() == 0 {
            tokio::task::yield_now().await;
        }
        identity.forget();
        write(&gate, "");
        under_way.await.unwrap().unwrap();
        assert_eq!(count(), 1);

        for _ in 0..2 {
            identity.credentials().await.unwrap();
            assert_eq!(count(), 2, "again, and kept from then on");
        }
    }
}
