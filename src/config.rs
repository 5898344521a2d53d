//! What the program is to do: flags over environment over file over default, parsed into types.
//!
//! Every violation is reported at once, each with its path, what was found, what is expected and the nearest
//! known name. Nothing half-valid leaves this module. It reads the configuration file and nothing else.

mod effective;
mod file;
mod resolve;
pub mod setting;
mod sources;
mod validate;
mod yaml;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use tracing_subscriber::filter::Targets;
use zeroize::Zeroizing;

use self::{effective::Effective, resolve::Purpose};
pub use self::{
    file::{LogFormat, schema},
    sources::own_variables,
};
use crate::{
    aws::{endpoint::EndpointUrl, http::Proxies, identity::IdentitySpec, sdk::SdkSettings, token::TokenKey},
    env::Environment,
    failure::{foreign_text::clean, shown_value::clean_path},
    fs::read::read_text,
    output::OutputConfig,
    pull_probe::ProbeSettings,
    refresh::plan::Policy,
    registry::RegistryHost,
};

pub const DEFAULT_DOCKER_CONFIG: &str = "/var/run/ecr-sidecar/config.json";
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9808);
const FILE_LIMIT: usize = 1 << 20;
/// A probe has a second by default.
const PROBE_LIMIT: Duration = Duration::from_millis(500);
const LISTEN_EXPECTED: &str = "an IP address and a port such as 127.0.0.1:9808";

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub path: Option<PathBuf>,
    pub identities: BTreeMap<String, IdentitySpec>,
    pub registries: Registries,
    pub outputs: Vec<OutputConfig>,
    pub refresh: Policy,
    pub health: Health,
    pub log: Log,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registries {
    /// The caller's own, whose name AWS returns with the token of this key.
    Own(TokenKey),
    /// These; never empty.
    Listed(Vec<Registry>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    pub host: RegistryHost,
    pub key: TokenKey,
    pub required: bool,
    pub(crate) probe: Option<ProbeSettings>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub listen: SocketAddr,
    /// Names that the `Host` header may have besides IP literals and `localhost`: lower-case, without a port.
    pub hosts: Vec<String>,
    /// After this time `/startupz` answers yes whatever AWS does.
    pub startup_grace: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// `None`: text on a terminal, else JSON.
    pub format: Option<LogFormat>,
    pub filter: Targets,
}

/// The values of flags, by name ([`Setting::flag`](setting::Setting)).
#[derive(Debug, Clone, Default)]
pub struct Flags(pub BTreeMap<&'static str, String>);

#[derive(Debug, Clone, Default)]
pub struct Context {
    pub env: Environment,
    pub sdk: SdkSettings,
}

impl Context {
    /// The environment, and the settings for AWS in it and in the AWS profile. Never asks the metadata service.
    pub(crate) async fn load(env: Environment) -> Result<Self, Violations> {
        let mut invalid = Proxies::of(&env).err().unwrap_or_default();
        match SdkSettings::load(&env).await {
            Ok(sdk) if invalid.is_empty() => return Ok(Self { env, sdk }),
            Ok(_) => {}
            Err(more) => invalid.extend(more),
        }
        let violations = invalid.into_iter().map(|it| Violation::new(it.place, it.found, it.expected));
        Err(Violations(violations.collect()))
    }
}

pub async fn load(flags: &Flags, context: &Context) -> Result<Config, Violations> {
    resolve(flags, context, Purpose::Keep).await.map(|(config, _)| config)
}

pub async fn effective(flags: &Flags, context: &Context) -> Result<String, Violations> {
    resolve(flags, context, Purpose::Keep).await.map(|(_, effective)| effective.to_yaml())
}

/// [`load`] for `print` and the credential helper: when no registries are configured, `host` stands in for the caller's
/// own, and no region need be configured.
pub async fn load_to_answer(
    host: Option<&RegistryHost>,
    flags: &Flags,
    context: &Context,
) -> Result<Config, Violations> {
    resolve(flags, context, Purpose::Answer(host)).await.map(|(config, _)| config)
}

async fn resolve(
    flags: &Flags,
    context: &Context,
    purpose: Purpose<'_>,
) -> Result<(Config, Effective), Violations> {
    let file = ConfigFile::read(flags, &context.env).await?;
    resolve::load(flags, context, file.as_ref(), purpose)
}

/// Where the sidecar of this configuration listens, even when the configuration is rejected: the probes
/// of a sidecar that runs on its last good one must not fail with the file. A file that cannot be read soon enough for
/// a probe is passed over.
pub async fn health_listen(flags: &Flags, env: &Environment) -> Result<SocketAddr, Violations> {
    if let Some(address) = sources::listen_outside_the_file(flags, env)? {
        return Ok(address);
    }
    let file = tokio::time::timeout(PROBE_LIMIT, ConfigFile::read(flags, env)).await;
    let file = file.ok().and_then(Result::ok).flatten();
    Ok(file.and_then(|file| sources::listen_of(&file.text)).unwrap_or(DEFAULT_LISTEN))
}

struct ConfigFile {
    path: PathBuf,
    text: Zeroizing<String>,
}

impl ConfigFile {
    async fn read(flags: &Flags, env: &Environment) -> Result<Option<Self>, Violations> {
        let Some(path) = sources::file_path(flags, env) else { return Ok(None) };
        match read_text(&path, FILE_LIMIT).await {
            Ok(text) => Ok(Some(Self { path, text })),
            Err(error) => {
                let found = format!("a file that cannot be read: {error}");
                let expected = "a readable YAML file of at most 1 MiB";
                Err(Violations(vec![Violation::new(clean_path(&path), found, expected)]))
            }
        }
    }
}

impl Config {
    /// The endpoint of STS, if web-identity tokens are sent there over a network unencrypted.
    pub fn web_identity_in_clear<'a>(&self, context: &'a Context) -> Option<&'a EndpointUrl> {
        let sends = |spec: &IdentitySpec| spec.sends_web_identity(&context.env);
        let endpoint = context.sdk.sts_endpoint()?;
        let in_clear = endpoint.is_plain_http_beyond_loopback() && self.identities.values().any(sends);
        in_clear.then_some(endpoint)
    }

    /// The pull probes, each of another registry.
    pub(crate) fn probes(&self) -> impl Iterator<Item = &ProbeSettings> {
        let registries = match &self.registries {
            Registries::Own(_) => &[][..],
            Registries::Listed(registries) => registries,
        };
        registries.iter().filter_map(|registry| registry.probe.as_ref())
    }

    pub fn tokens(&self) -> BTreeMap<&TokenKey, Vec<&Registry>> {
        let mut tokens: BTreeMap<_, Vec<_>> = BTreeMap::new();
        match &self.registries {
            Registries::Own(key) => {
                tokens.insert(key, Vec::new());
            }
            Registries::Listed(registries) => {
                for registry in registries {
                    tokens.entry(&registry.key).or_default().push(registry);
                }
            }
        }
        tokens
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// Without its dashes.
    Flag(&'static str),
    Env(&'static str),
    File,
    Default,
    Derived(&'static str),
    /// In the place of a value that is left out.
    Implied(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::Env(variable) => write!(f, "environment {variable}"),
            Self::File => f.write_str("file"),
            Self::Default => f.write_str("default"),
            Self::Derived(from) => write!(f, "from {from}"),
            Self::Implied(what) => f.write_str(what),
        }
    }
}

/// The origin of each value by its path; what is not here is a default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Origins(BTreeMap<String, Origin>);

impl Origins {
    fn set(&mut self, path: impl Into<String>, origin: Origin) {
        self.0.insert(path.into(), origin);
    }

    /// The origin of `path`, or of the nearest place above it that has one.
    fn of(&self, path: &str) -> Origin {
        let mut place = path;
        loop {
            if let Some(origin) = self.0.get(place) {
                return origin.clone();
            }
            match place.rfind(['.', '[']) {
                Some(end) => place = &place[..end],
                None => return Origin::Default,
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where: a path in the file, a variable, or a flag.
    pub path: String,
    pub found: String,
    pub expected: String,
    pub nearest: Option<String>,
}

impl Violation {
    pub fn new(path: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        let (found, expected) = (clean(&found.into()), clean(&expected.into()));
        Self { path: path.into(), found, expected, nearest: None }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the file" } else { &clean(&self.path) };
        let found = if self.found.starts_with('`') { "invalid value" } else { "found" };
        write!(f, "{path}: {found} {}, expected {}", self.found, self.expected)?;
        match &self.nearest {
            Some(name) => write!(f, "; did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} problem{}:", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

impl std::error::Error for Violations {}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness =
        |name: &str| strsim::normalized_damerau_levenshtein(&word.to_lowercase(), &name.to_lowercase());
    let best = known.into_iter().map(|name| (likeness(name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= 0.5).map(|(_, name)| name)
}

#[cfg(test)]
mod tests;
