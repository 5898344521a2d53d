//! From layers of text to the types of [`Config`]. On the way it fills in what the file leaves out.

mod identities;
mod outputs;
mod registries;

use std::{path::PathBuf, str::FromStr, time::Duration};

use tracing_subscriber::filter::{ParseError, Targets};

use self::identities::registries_region;
use super::{
    Config, ConfigFile, Context, DEFAULT_LISTEN, Flags, Health, LISTEN_EXPECTED, Log, Origins, Violation,
    Violations, effective::Effective, file, sources::Layers, validate,
};
use crate::{
    failure::shown_value::{may_be_secret, quoted},
    refresh::plan::Policy,
    registry::RegistryHost,
    units::{Percent, parse_duration},
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose<'a> {
    /// Keeping outputs fresh: which registries has to be known.
    Keep,
    /// Answering a question, most often about one registry.
    Answer(Option<&'a RegistryHost>),
}

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
            self.reject("health.listen", quoted(text), LISTEN_EXPECTED);
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
        let filter = text.parse().unwrap_or_else(|error: ParseError| {
            self.reject("log.filter", quoted(text), format!("a level, or target=level pairs ({error})"));
            Targets::default()
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
