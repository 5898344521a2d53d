//! One credential for one registry, now: from the file that a sidecar keeps, else from AWS.
//!
//! For `ecr-sidecar print`, the docker credential helper and the kubelet's credential provider. In this order:
//!
//! 1. a token in a docker config.json of the configuration that is known to be valid: returned at once, without a request
//!    (`a_living_token_in_the_file_is_printed_without_asking_aws`);
//! 2. one that was fetched before and is not half over, from the [`cache`];
//! 3. one that AWS hands out, by the same identity and call as the sidecar's own (`without_a_file_aws_is_asked`); of
//!    concurrent processes one fetches, and the others take it from the cache (`fifty_at_a_time_cost_one_call`);
//! 4. when AWS hands out none: one of the cache that lives (`a_cached_token_is_used_while_it_lives`);
//! 5. else a token in the file that is about to expire, or one of unknown expiry, if the file was
//!    changed within the longest life of a token. It may be valid, and a registry rejects an expired one with a clear answer;
//!    with none the pull fails for sure. A warning is logged (`a_token_of_unknown_end_is_the_last_resort`). One that is known
//!    to have expired is never given (`an_ended_token_is_never_printed`).
//!
//! Settings for AWS that do not parse are reported when AWS is asked: a file that holds a token needs none
//! (`settings_for_aws_matter_only_when_aws_is_asked`).
//!
//! It returns within [`LIMIT`], whatever hangs: Argo CD Image Updater waits 10 s for a script, and kills it.

mod cache;
mod found;
mod life;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::time::{Instant, timeout, timeout_at};

pub use self::life::Life;
use self::{cache::Slot, found::Found, life::is_fresh};
use crate::{
    aws::{
        http,
        identity::{Identity, IdentitySpec, ServiceAccount, Source},
        token::{Token, TokenError, TokenKey, TokenSource},
    },
    clock::{Clock, rfc3339},
    config::{self, Config, Context, Flags, Registries, Violations},
    env::Environment,
    failure::{Class, Diagnose, Problem, diagnosis::Diagnosis, log_problem, shown_value::clean_path},
    output::{OutputConfig, file::lookup::find},
    registry::RegistryHost,
    secret::Secret,
    tasks, telemetry,
};

pub const LIMIT: Duration = Duration::from_secs(9);
/// What AWS may take of it, so that there is time to report what was wrong.
const FETCH_LIMIT: Duration = Duration::from_millis(8_500);
/// What a volume may take of it.
const VOLUME_LIMIT: Duration = Duration::from_secs(2);
/// What AWS may take when there is a token that lives.
const RENEWAL_LIMIT: Duration = Duration::from_secs(3);
/// How long another process that fetches already is waited for.
const WAIT_LIMIT: Duration = Duration::from_secs(5);
/// A token that expires sooner may expire before it is used.
const SPARE: Duration = Duration::from_secs(10);
/// The first pause after a transient failure.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error(transparent)]
    Configuration(#[from] Violations),
    #[error(
        "the registry `{0}` is not configured, and its name has no AWS region: add it to `registries`, with its region"
    )]
    NotOurs(RegistryHost),
    #[error("no credential for {host}: {}asking AWS: {}; to fix it: {}", listed(found), problem.message, problem.remedy)]
    None {
        host: RegistryHost,
        /// What was found in each place that may have one.
        found: Vec<String>,
        problem: Problem,
    },
    #[error(
        "no answer within {} s: a volume hangs; check those of the configuration, of the docker config and of the AWS profile",
        LIMIT.as_secs()
    )]
    TimedOut,
}

fn listed(found: &[String]) -> String {
    found.iter().flat_map(|note| [note, "; "]).collect()
}

/// A credential of the user `AWS`.
#[derive(Debug)]
pub struct Credential(Secret<String>);

impl Credential {
    /// `AWS:<password>`, from the `auth` value of a docker config.
    fn of_auth(auth: &Secret<String>) -> Option<Self> {
        let decoded = STANDARD.decode(auth.expose()).ok()?;
        let text = String::from_utf8(decoded).ok().map(Secret::new)?;
        text.expose().starts_with("AWS:").then_some(Self(text))
    }

    /// `AWS:<password>`.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    pub fn expose_password(&self) -> &str {
        self.0.expose().strip_prefix("AWS:").unwrap_or_default()
    }
}

/// A credential, and what is known of its life.
#[derive(Debug)]
pub struct Obtained {
    pub credential: Credential,
    pub life: Life,
}

/// The credential for `host` under the configuration of `flags` and `env`.
pub async fn credential(
    host: &RegistryHost,
    flags: &Flags,
    env: Environment,
) -> Result<Credential, LookupError> {
    obtain(host, None, flags, env).await.map(|obtained| obtained.credential)
}

/// The same for a pod's ServiceAccount, if there is one: by its role alone, and never by the configured identity
/// (`a_role_that_is_refused_is_not_replaced_by_the_node_s_identity`). The registry's other settings apply.
pub async fn obtain(
    host: &RegistryHost,
    account: Option<ServiceAccount>,
    flags: &Flags,
    env: Environment,
) -> Result<Obtained, LookupError> {
    // On the heap: futures of AWS calls are large, and what holds several by value is too large for rustc.
    let found = Box::pin(async {
        let (config, context, invalid) = configuration(Some(host), flags, env).await?;
        let key = key_of(&config, host).ok_or_else(|| LookupError::NotOurs(host.clone()))?;
        let spec = config.identities.get(&key.identity).cloned();
        let spec = spec.ok_or_else(|| LookupError::NotOurs(host.clone()))?;
        telemetry::start(&config.log);
        let (clock, started) = (Clock::System, Instant::now());
        let (files, spec) = match account {
            // What a sidecar keeps in a file, it has obtained by the configured identity.
            Some(account) => (Vec::new(), of_account(spec, account)),
            None => (files(&config), spec),
        };
        Lookup { host, key, spec, files, context, invalid, clock, started }.run().await
    });
    timeout(LIMIT, found).await.map_err(|_| LookupError::TimedOut)?
}

/// Whether a credential for `host` would be asked for.
pub async fn is_ours(host: &RegistryHost, flags: &Flags, env: Environment) -> Result<bool, LookupError> {
    let loaded = timeout(LIMIT, Box::pin(configuration(Some(host), flags, env))).await;
    let (config, ..) = loaded.map_err(|_| LookupError::TimedOut)??;
    Ok(key_of(&config, host).is_some())
}

/// Who asks for a pod: its account in the role that it names, and nothing else of the configured identity than the
/// region whose STS is called.
fn of_account(spec: IdentitySpec, account: ServiceAccount) -> IdentitySpec {
    let source = Source::ServiceAccount(account);
    IdentitySpec { source, assume_roles: Vec::new(), expect_account: None, ..spec }
}

/// The docker configs that a sidecar of this configuration keeps.
fn files(config: &Config) -> Vec<PathBuf> {
    let outputs = config.outputs.iter().filter_map(|output| match output {
        OutputConfig::DockerConfig(settings) => Some(settings.path.clone()),
        _ => None,
    });
    outputs.collect()
}

pub async fn hosts(flags: &Flags, env: Environment) -> Result<Vec<RegistryHost>, LookupError> {
    let loaded = timeout(LIMIT, Box::pin(configuration(None, flags, env))).await;
    let (config, ..) = loaded.map_err(|_| LookupError::TimedOut)??;
    Ok(match config.registries {
        Registries::Listed(registries) => registries.into_iter().map(|registry| registry.host).collect(),
        Registries::Own(_) => Vec::new(),
    })
}

/// The configuration, what surrounds it, and the settings for AWS that do not parse.
async fn configuration(
    host: Option<&RegistryHost>,
    flags: &Flags,
    env: Environment,
) -> Result<(Config, Context, Option<Violations>), LookupError> {
    let (context, invalid) = match Context::load(env.clone()).await {
        Ok(context) => (context, None),
        Err(invalid) => (Context { env, ..Context::default() }, Some(invalid)),
    };
    let config = config::load_to_answer(host, flags, &context).await?;
    Ok((config, context, invalid))
}

/// The configured token key of `host`, else the one of its name, for the default identity.
fn key_of(config: &Config, host: &RegistryHost) -> Option<TokenKey> {
    let configured = match &config.registries {
        Registries::Listed(registries) => registries.iter().find(|registry| registry.host == *host),
        Registries::Own(_) => None,
    };
    configured.map(|registry| registry.key.clone()).or_else(|| TokenKey::from_host(host, "default"))
}

struct Lookup<'a> {
    host: &'a RegistryHost,
    key: TokenKey,
    spec: IdentitySpec,
    files: Vec<PathBuf>,
    context: Context,
    invalid: Option<Violations>,
    clock: Clock,
    started: Instant,
}

impl Lookup<'_> {
    async fn run(&self) -> Result<Obtained, LookupError> {
        let mut found = Found::default();
        for path in &self.files {
            self.check_file(path.clone(), &mut found).await;
            if let Some((credential, expires_at)) = found.living {
                tracing::debug!(registry = %self.host, file = %clean_path(path), "the token in the file is valid");
                return Ok(Obtained { credential, life: Life::Known { expires_at } });
            }
        }
        let fetched = match &self.invalid {
            None => self.fetch_unless_cached().await.map_err(|error| error.problem()),
            Some(invalid) if found.last_resort.is_none() => return Err(invalid.clone().into()),
            Some(invalid) => Err(Problem {
                message: invalid.to_string(),
                remedy: Diagnosis::Configuration.into(),
                class: Class::Denied,
            }),
        };
        let problem = match fetched {
            Ok(token) => match Credential::of_auth(&token.auth) {
                Some(credential) => {
                    return Ok(Obtained { credential, life: Life::of(&token, self.clock.now()) });
                }
                None => TokenError::NotAws("GetAuthorizationToken").problem(),
            },
            Err(problem) => problem,
        };
        match found.last_resort {
            Some((credential, path)) => {
                log_problem!(
                    warn, problem, { registry = %self.host, file = %clean_path(&path) },
                    "cannot fetch a token; using the one on disk, which may expire soon"
                );
                Ok(Obtained { credential, life: Life::Unknown })
            }
            None => Err(LookupError::None { host: self.host.clone(), found: found.notes, problem }),
        }
    }

    async fn check_file(&self, path: PathBuf, found: &mut Found) {
        let (place, host, now) = (path.clone(), self.host.clone(), self.clock.now());
        match tasks::blocking_within(VOLUME_LIMIT, move || find(&place, &host, now)).await {
            Some(Ok(Some(held))) => found.judge(held, path, now),
            Some(Ok(None)) => found.notes.push(format!("`{}` has none", clean_path(&path))),
            Some(Err(error)) => found.notes.push(error.to_string()),
            None => found.notes.push(format!("the volume of `{}` does not respond", clean_path(&path))),
        }
    }

    /// A token of the cache, else of AWS.
    async fn fetch_unless_cached(&self) -> Result<Token, TokenError> {
        let Some(slot) = self.slot().await else { return self.fetch(FETCH_LIMIT).await };
        let cached = read(&slot, self.clock.now()).await;
        if let Some(token) = cached.clone().filter(|token| is_fresh(token, self.clock.now())) {
            tracing::debug!(token = %self.key, "the cached token is not half over");
            return Ok(token);
        }
        let living = cached.filter(|token| token.expires_at > self.clock.now() + SPARE);
        let waiting = slot.clone();
        let fetching = match &living {
            Some(token) => {
                match tasks::blocking_within(VOLUME_LIMIT, move || waiting.try_fetching()).await.flatten() {
                    Some(fetching) => Some(fetching),
                    None => return Ok(token.clone()), // another process renews it
                }
            }
            None => tasks::blocking_within(WAIT_LIMIT, move || waiting.fetching()).await.and_then(Result::ok),
        };
        if let Some(token) =
            read(&slot, self.clock.now()).await.filter(|token| is_fresh(token, self.clock.now()))
        {
            return Ok(token);
        }
        let limit = if living.is_some() { RENEWAL_LIMIT } else { FETCH_LIMIT };
        match (self.fetch(limit).await, living) {
            (Ok(token), _) => {
                self.keep(slot, token.clone()).await;
                drop(fetching);
                Ok(token)
            }
            (Err(error), Some(token)) => {
                tracing::debug!(token = %self.key, %error, "cannot fetch a newer token; using the cached one");
                Ok(token)
            }
            (Err(error), None) => Err(error),
        }
    }

    async fn slot(&self) -> Option<Slot> {
        let (key, spec, env) = (self.key.clone(), self.spec.clone(), self.context.env.clone());
        match tasks::blocking_within(VOLUME_LIMIT, move || Slot::open(&key, &spec, &env)).await? {
            Ok(slot) => Some(slot),
            Err(error) => {
                tracing::debug!(%error, "tokens are not cached");
                None
            }
        }
    }

    async fn keep(&self, slot: Slot, token: Token) {
        let now = self.clock.now();
        if let Some(Err(error)) = tasks::blocking_within(VOLUME_LIMIT, move || slot.keep(&token, now)).await {
            tracing::debug!(%error, "the token is not cached");
        }
    }

    /// Asks AWS, again after a transient failure until the time is over.
    async fn fetch(&self, limit: Duration) -> Result<Token, TokenError> {
        let deadline = (self.started + FETCH_LIMIT).min(Instant::now() + limit);
        let seconds = deadline.saturating_duration_since(Instant::now()).as_secs();
        let fetched = timeout_at(deadline, Box::pin(self.fetch_until(deadline))).await;
        fetched.unwrap_or(Err(TokenError::TimedOut { operation: "asking for a token", seconds }))
    }

    async fn fetch_until(&self, deadline: Instant) -> Result<Token, TokenError> {
        let env = &self.context.env;
        let sdk = self.context.sdk.config(http::client(env));
        let identity = Identity::new(self.spec.clone(), env.clone(), sdk.clone(), self.clock.clone());
        let source = TokenSource::new(self.key.clone(), Arc::new(identity), &sdk, self.clock.clone());
        let mut pause = PAUSE;
        loop {
            match source.fetch().await {
                Ok(fetched) => {
                    let end = rfc3339(fetched.token.expires_at);
                    tracing::debug!(token = %self.key, expires_at = end, "AWS gave a token");
                    return Ok(fetched.token);
                }
                Err(error) if error.class() != Class::Transient || Instant::now() + pause >= deadline => {
                    return Err(error);
                }
                Err(error) => tracing::debug!(token = %self.key, %error, "asking once more after a pause"),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
}

async fn read(slot: &Slot, now: SystemTime) -> Option<Token> {
    let slot = slot.clone();
    tasks::blocking_within(VOLUME_LIMIT, move || slot.token(now)).await.flatten()
}
