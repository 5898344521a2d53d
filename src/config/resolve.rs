//! From layers of text to the types of [`Config`]. On the way it fills in what the file leaves out.

mod outputs;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use super::{
    Config, ConfigFile, Context, DEFAULT_LISTEN, Flags, Health, LISTEN_ACCEPTED, Log, Origin, Origins,
    Registries, Registry, Violation, Violations, effective::Effective, file, nearest, sources::Layers,
    validate,
};
use crate::{
    aws::{
        endpoint::EndpointUrl,
        identity::{AssumeRole, IdentitySpec, Source, StaticFiles},
        profile_file::ProfileFiles,
        token::{Service, TokenKey},
        variables::{Form, InvalidSetting},
    },
    failure::shown_value::{may_be_secret, quoted},
    refresh::plan::Policy,
    registry::{Partition, Region, RegistryHost},
    units::{LogFilter, Percent, parse_duration},
};

/// In place of an error that quotes a value which is not shown.
const NOT_SHOWN: &str = "a value without a user, a password, a key or a token in it";

pub(super) fn load(
    flags: &Flags,
    context: &Context,
    file: Option<&ConfigFile>,
    purpose: Purpose<'_>,
) -> Result<(Config, Effective), Violations> {
    let Layers { path, value, origins, mut violations } = Layers::of(flags, context, file)?;
    let mut file = serde_json::from_value(value).unwrap_or_else(|_| {
        // The error's text would quote the file.
        violations.push(Violation::new("", "another shape", "what config.schema.json describes"));
        file::File::default()
    });
    let unfit = violations.iter().map(|violation| violation.path.clone()).collect();
    let mut resolver = Resolver { context, purpose, origins, unfit, violations };
    let config = resolver.config(path.clone(), &mut file);
    if resolver.violations.is_empty() {
        Ok((config, Effective { path, file, origins: resolver.origins }))
    } else {
        Err(Violations(resolver.violations))
    }
}

/// What the configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose<'a> {
    /// Keeping outputs fresh: which registries has to be known.
    Keep,
    /// Answering a question, most often about one registry.
    Answer(Option<&'a RegistryHost>),
}

/// Parses values, and gathers what does not parse.
struct Resolver<'a> {
    context: &'a Context,
    purpose: Purpose<'a>,
    origins: Origins,
    /// Where something was taken out already.
    unfit: Vec<String>,
    violations: Vec<Violation>,
}

impl Resolver<'_> {
    fn config(&mut self, path: Option<PathBuf>, file: &mut file::File) -> Config {
        let registries = self.registries(&mut file.registries, &file.identities);
        let fallback_region = registries_region(&registries);
        file.identities.entry("default".into()).or_default();
        let identities = file
            .identities
            .iter_mut()
            .map(|(name, identity)| (name.clone(), self.identity(name, identity, fallback_region.as_ref())));
        Config {
            path,
            identities: identities.collect(),
            outputs: self.outputs(&mut file.outputs, &registries),
            registries,
            refresh: self.refresh(&mut file.refresh),
            health: self.health(&mut file.health),
            log: self.log(&mut file.log),
        }
    }

    fn registries(
        &mut self,
        configured: &mut [Option<file::Registry>],
        identities: &BTreeMap<String, file::Identity>,
    ) -> Registries {
        if configured.is_empty() {
            let asked = match self.purpose {
                Purpose::Keep | Purpose::Answer(None) => None,
                Purpose::Answer(Some(host)) => Some(host).zip(TokenKey::from_host(host, "default")),
            };
            return match asked {
                Some((host, key)) => {
                    Registries::Listed(vec![Registry { host: host.clone(), key, required: true }])
                }
                None => self.own_registry(),
            };
        }
        let mut hosts = BTreeSet::new();
        let mut registries = Vec::new();
        for (index, registry) in configured.iter_mut().enumerate() {
            let path = format!("registries[{index}]");
            let Some(registry) = registry else { continue };
            let Some(registry) = self.registry(&path, registry, identities) else { continue };
            if hosts.insert(registry.host.clone()) {
                registries.push(registry);
            } else {
                self.reject(
                    &format!("{path}.host"),
                    format!("a second `{}`", registry.host),
                    "each host once",
                );
            }
        }
        Registries::Listed(registries)
    }

    /// Nothing configured: the registry of the caller, in the surrounding region.
    fn own_registry(&mut self) -> Registries {
        let region = self.context.sdk.region.clone().unwrap_or_else(|| {
            if self.purpose == Purpose::Keep {
                let found = "nothing, and no region in AWS_REGION or the profile";
                let found = match &self.context.sdk.profile_files {
                    ProfileFiles::Unusable { why, .. } => format!("{found}: {why}"),
                    _ => found.to_owned(),
                };
                self.reject_unless_reported(
                    "registries",
                    found,
                    "registry hosts in ECR_SIDECAR_REGISTRIES, or AWS_REGION for your own registry",
                );
            }
            Region::us_east_1()
        });
        let implied = format!("the caller's own in {region} (from AWS_REGION)");
        self.origins.set("registries", Origin::Implied(implied));
        Registries::Own(private_key("default", region))
    }

    fn registry(
        &mut self,
        path: &str,
        registry: &mut file::Registry,
        identities: &BTreeMap<String, file::Identity>,
    ) -> Option<Registry> {
        let host: RegistryHost = self.parse(&format!("{path}.host"), &registry.host)?;
        registry.host = host.to_string();
        let identity = or_default(&mut registry.identity, "default");
        if identity != "default" && !identities.contains_key(identity) {
            let known: Vec<_> = identities.keys().map(String::as_str).chain(["default"]).collect();
            let mut violation = Violation::new(
                format!("{path}.identity"),
                quoted(identity),
                format!("one of {}", known.join(", ")),
            );
            violation.nearest = nearest(identity, known).map(str::to_owned);
            if self.is_complete(path) {
                self.violations.push(violation);
            }
        }
        let configured = match &registry.region {
            Some(region) => Some(self.parse::<Region>(&format!("{path}.region"), region)?),
            None => None,
        };
        let key = self.key(path, &host, configured, identity)?;
        registry.region = Some(key.region.to_string());
        let endpoint = registry.endpoint.as_deref().and_then(|url| self.endpoint(path, url));
        Some(Registry { host, key: TokenKey { endpoint, ..key }, required: !registry.optional })
    }

    /// Which API to ask, and where.
    fn key(
        &mut self,
        path: &str,
        host: &RegistryHost,
        configured: Option<Region>,
        identity: &str,
    ) -> Option<TokenKey> {
        let place = format!("{path}.region");
        let Some(key) = TokenKey::from_host(host, identity) else {
            let Some(region) = configured else {
                let expected = match host.looks_like_ecr() {
                    Some(lookalike) => {
                        format!("{lookalike}; if it is meant, the AWS region of this registry")
                    }
                    None => {
                        "the AWS region of this registry, such as eu-west-1: its host doesn't name it".into()
                    }
                };
                self.reject_unless_reported(&place, "nothing", expected);
                return None;
            };
            return Some(private_key(identity, region));
        };
        if let Some(configured) = configured.filter(|configured| *configured != key.region) {
            self.reject(
                &place,
                format!("`{}`", configured.as_str()),
                format!("`{}`, as the host says, or nothing", key.region.as_str()),
            );
        }
        self.origins.set(place, Origin::Derived("the host"));
        Some(key)
    }

    fn endpoint(&mut self, path: &str, url: &str) -> Option<EndpointUrl> {
        match url.parse() {
            Ok(url) => Some(url),
            Err(error) => {
                self.reject(&format!("{path}.endpoint"), error.to_string(), EndpointUrl::EXPECTED);
                None
            }
        }
    }

    fn identity(
        &mut self,
        name: &str,
        identity: &mut file::Identity,
        fallback: Option<&Region>,
    ) -> IdentitySpec {
        let path = format!("identities.{name}");
        self.reject_foreign_keys(&path, identity);
        let source = self.source(&path, identity);
        let assume_roles = identity.assume_roles.iter_mut().enumerate();
        let assume_roles = assume_roles
            .map(|(index, role)| self.assume_role(&format!("{path}.assumeRoles[{index}]"), role))
            .collect();
        let sts_region = self.sts_region(&path, identity.sts_region.as_deref(), fallback);
        identity.sts_region = Some(sts_region.to_string());
        let expect_account = identity.expect_account.as_deref();
        let expect_account =
            expect_account.and_then(|account| self.parse(&format!("{path}.expectAccount"), account));
        IdentitySpec { name: name.to_owned(), source, assume_roles, sts_region, expect_account }
    }

    fn sts_region(&mut self, path: &str, configured: Option<&str>, fallback: Option<&Region>) -> Region {
        let place = format!("{path}.stsRegion");
        if let Some(region) = configured.and_then(|region| self.parse(&place, region)) {
            return region;
        }
        let (region, from) = match &self.context.sdk.region {
            Some(region) => (region.clone(), "AWS_REGION"),
            None => (default_sts_region(fallback), "the registries' partition"),
        };
        self.origins.set(place, Origin::Derived(from));
        region
    }

    /// Keys that belong to another source are mistakes, not decoration.
    fn reject_foreign_keys(&mut self, path: &str, identity: &file::Identity) {
        use file::SourceKind::{Profile, Static, WebIdentity};
        let owned = [
            ("profile", identity.profile.is_some(), Profile, "profile"),
            ("roleArn", identity.role_arn.is_some(), WebIdentity, "web-identity"),
            ("tokenFile", identity.token_file.is_some(), WebIdentity, "web-identity"),
            ("accessKeyIdFile", identity.access_key_id_file.is_some(), Static, "static"),
            ("secretAccessKeyFile", identity.secret_access_key_file.is_some(), Static, "static"),
            ("sessionTokenFile", identity.session_token_file.is_some(), Static, "static"),
        ];
        for (key, is_set, owner, name) in owned {
            if is_set && identity.source != owner {
                self.reject_unless_reported(
                    &format!("{path}.{key}"),
                    "a value",
                    format!("this key only with `source: {name}`"),
                );
            }
        }
    }

    /// A violation unless `value` has the form.
    fn check(&mut self, path: &str, value: Option<&str>, form: Form) {
        if let Some(Err(InvalidSetting { found, expected, .. })) = value.map(|value| form.check(path, value))
        {
            self.reject(path, found, expected);
        }
    }

    fn source(&mut self, path: &str, identity: &file::Identity) -> Source {
        use file::SourceKind;
        self.check(&format!("{path}.roleArn"), identity.role_arn.as_deref(), Form::RoleArn);
        self.check(&format!("{path}.profile"), identity.profile.as_deref(), Form::Name);
        match identity.source {
            SourceKind::Auto => Source::Auto,
            SourceKind::Environment => Source::Environment,
            SourceKind::Profile => Source::Profile { name: identity.profile.clone() },
            SourceKind::WebIdentity => Source::WebIdentity {
                role_arn: identity.role_arn.clone(),
                token_file: identity.token_file.as_ref().map(|file| file.0.clone()),
            },
            SourceKind::PodIdentity => Source::PodIdentity,
            SourceKind::Imds => Source::Imds,
            SourceKind::Static => {
                let mut required = |key: &str, file: &Option<file::FilePath>| {
                    self.required_path(&format!("{path}.{key}"), file.as_ref())
                };
                Source::Static(StaticFiles {
                    access_key_id: required("accessKeyIdFile", &identity.access_key_id_file),
                    secret_access_key: required("secretAccessKeyFile", &identity.secret_access_key_file),
                    session_token: identity.session_token_file.as_ref().map(|file| file.0.clone()),
                })
            }
        }
    }

    fn required_path(&mut self, place: &str, file: Option<&file::FilePath>) -> PathBuf {
        let path = file.map(|file| file.0.clone()).unwrap_or_default();
        if path.as_os_str().is_empty() {
            self.reject_unless_reported(place, "nothing", "a file's path: `source: static` needs it");
        }
        path
    }

    fn assume_role(&mut self, path: &str, role: &mut file::AssumeRole) -> AssumeRole {
        let session_name = or_default(&mut role.session_name, "ecr-sidecar");
        self.check(&format!("{path}.roleArn"), Some(&role.role_arn), Form::RoleArn);
        self.check(&format!("{path}.externalId"), role.external_id.as_deref(), Form::ExternalId);
        self.check(&format!("{path}.sessionName"), Some(session_name), Form::SessionName);
        AssumeRole {
            role_arn: role.role_arn.clone(),
            external_id: role.external_id.clone(),
            session_name: session_name.to_owned(),
        }
    }

    fn refresh(&mut self, refresh: &mut file::Refresh) -> Policy {
        let at: Option<Percent> = self.parse("refresh.at", or_default(&mut refresh.at, "50%"));
        let jitter: Option<Percent> = self.parse("refresh.jitter", or_default(&mut refresh.jitter, "10%"));
        let usual = |text: &str| text.parse::<Percent>().unwrap_or_default();
        let policy = Policy { at: at.unwrap_or(usual("50%")), jitter: jitter.unwrap_or(usual("10%")) };
        let (at, jitter) = (policy.at.as_fraction(), policy.jitter.as_fraction());
        if at - jitter < 0.05 || at + jitter > 0.95 {
            self.reject_unless_reported(
                "refresh",
                format!("at {} ± {}", policy.at, policy.jitter),
                "a moment between 5% and 95% of the lifetime, jitter included",
            );
        }
        policy
    }

    fn health(&mut self, health: &mut file::Health) -> Health {
        let text = or_default(&mut health.listen, &DEFAULT_LISTEN.to_string());
        let listen = text.parse().unwrap_or_else(|_| {
            self.reject("health.listen", quoted(text), LISTEN_ACCEPTED);
            DEFAULT_LISTEN
        });
        let grace = or_default(&mut health.startup_grace, "60s");
        let startup_grace = parse_duration(grace).unwrap_or_else(|error| {
            self.reject("health.startupGrace", quoted(grace), error.to_string());
            Duration::ZERO
        });
        Health { listen, hosts: self.health_hosts(&health.hosts), startup_grace }
    }

    fn health_hosts(&mut self, hosts: &[String]) -> Vec<String> {
        let mut names = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            if is_dns_name(host) {
                names.push(host.to_ascii_lowercase());
            } else {
                self.reject(&format!("health.hosts[{index}]"), quoted(host), "a DNS name, without a port");
            }
        }
        names
    }

    fn log(&mut self, log: &mut file::Log) -> Log {
        let text = or_default(&mut log.filter, "info");
        let filter = text.parse().unwrap_or_else(|error| {
            self.reject("log.filter", quoted(text), format!("a level, or target=level pairs ({error})"));
            LogFilter::default()
        });
        Log { format: log.format, filter }
    }

    fn parse<T: FromStr<Err: std::fmt::Display>>(&mut self, path: &str, text: &str) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let expected = if may_be_secret(text) { NOT_SHOWN.into() } else { error.to_string() };
                self.reject(path, quoted(text), expected);
                None
            }
        }
    }

    /// For what is missing, or depends on another key: if anything was taken out there, that was reported as the cause.
    fn reject_unless_reported(&mut self, path: &str, found: impl Into<String>, expected: impl Into<String>) {
        if self.is_complete(path) {
            self.reject(path, found, expected);
        }
    }

    /// Whether nothing was taken out of the file itself, nor of the part of it that `path` is in.
    fn is_complete(&self, path: &str) -> bool {
        !self.unfit.iter().any(|unfit| !unfit.contains(['.', '[']) || part(unfit) == part(path))
    }

    fn reject(&mut self, path: &str, found: impl Into<String>, expected: impl Into<String>) {
        let path = self.origins.of(path).name().unwrap_or_else(|| path.to_owned());
        if self.violations.len() < validate::MOST {
            self.violations.push(Violation::new(path, found, expected));
        }
    }
}

fn or_default<'a>(value: &'a mut Option<String>, default: &str) -> &'a str {
    value.get_or_insert_with(|| default.to_owned())
}

/// The key of a private registry whose host doesn't name it.
fn private_key(identity: &str, region: Region) -> TokenKey {
    let identity = identity.to_owned();
    TokenKey { identity, service: Service::Ecr, region, endpoint: None, fips: None, dual_stack: None }
}

/// Whether a `Host` header can have it: letters, digits, hyphens and dots, no empty label.
fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// The identity, registry, output or section that `path` is in.
fn part(path: &str) -> &str {
    let keys = if path.starts_with("identities.") { 2 } else { 1 };
    path.match_indices('.').nth(keys - 1).map_or(path, |(end, _)| &path[..end])
}

fn registries_region(registries: &Registries) -> Option<Region> {
    match registries {
        Registries::Own(key) => Some(key.region.clone()),
        Registries::Listed(registries) => registries.first().map(|registry| registry.key.region.clone()),
    }
}

/// Where a partition's STS is called when no region is configured: not in the registry's region, which may
/// be closed to STS, but in the partition's first one.
fn default_sts_region(registry: Option<&Region>) -> Region {
    registry.and_then(Region::partition).map_or_else(Region::us_east_1, Partition::first_region)
}
