//! The effective configuration as YAML, each value with its origin as a comment.

use std::{collections::BTreeSet, fmt::Write, path::Path, time::Duration};

use super::{Config, Registries, Registry};
use crate::{
    aws::identity::{AssumeRole, IdentitySpec, Source},
    failure::shown_value::clean_path,
    output::{
        OutputConfig,
        secret_settings::{NamespaceName, Namespaces, ObjectName, Which},
    },
};

/// `config` as a file that would give it again.
pub(super) fn yaml(config: &Config) -> String {
    let mut yaml = Yaml { config, text: String::new() };
    if let Some(path) = &config.path {
        yaml.line(0, &format!("# file: {}", clean_path(path)));
    }
    yaml.line(0, "identities:");
    config.identities.values().for_each(|identity| yaml.identity(identity));
    match &config.registries {
        Registries::Own(key) => yaml
            .line(0, &format!("# registries: the caller's own in {} (from AWS_REGION)", key.region.as_str())),
        Registries::Listed(registries) => {
            yaml.line(0, "registries:");
            registries.iter().enumerate().for_each(|(index, registry)| yaml.registry(index, registry));
        }
    }
    yaml.line(0, "outputs:");
    config.outputs.iter().enumerate().for_each(|(index, output)| yaml.output(index, output));
    yaml.settings();
    yaml.text
}

struct Yaml<'a> {
    config: &'a Config,
    text: String,
}

impl Yaml<'_> {
    fn line(&mut self, indent: usize, line: &str) {
        let _ = writeln!(self.text, "{:indent$}{line}", ""); // a String takes any text
    }

    /// `key: value # origin of path`; `first` opens an item of a list.
    fn value(&mut self, indent: usize, first: bool, path: &str, value: impl ToString) {
        self.literal(indent, first, path, &scalar(&value.to_string()));
    }

    /// A value that is YAML already: a number, `true`, `false`.
    fn literal(&mut self, indent: usize, first: bool, path: &str, value: &str) {
        let key = path.rsplit('.').next().unwrap_or(path);
        let dash = if first { "- " } else { "" };
        let origin = self.config.origins.of(path);
        self.line(indent, &format!("{dash}{key}: {value} # {origin}"));
    }

    fn path(&mut self, indent: usize, first: bool, path: &str, value: Option<&Path>) {
        if let Some(value) = value {
            self.value(indent, first, path, clean_path(value));
        }
    }

    fn identity(&mut self, identity: &IdentitySpec) {
        let path = format!("identities.{}", identity.name);
        let place = |key: &str| format!("{path}.{key}");
        self.line(2, &format!("{}:", scalar(&identity.name)));
        self.value(4, false, &place("source"), source_name(&identity.source));
        match &identity.source {
            Source::Profile { name: Some(name) } => self.value(4, false, &place("profile"), name),
            Source::WebIdentity { role_arn, token_file } => {
                if let Some(role_arn) = role_arn {
                    self.value(4, false, &place("roleArn"), role_arn);
                }
                self.path(4, false, &place("tokenFile"), token_file.as_deref());
            }
            Source::Static(files) => {
                self.path(4, false, &place("accessKeyIdFile"), Some(&files.access_key_id));
                self.path(4, false, &place("secretAccessKeyFile"), Some(&files.secret_access_key));
                self.path(4, false, &place("sessionTokenFile"), files.session_token.as_deref());
            }
            _ => {}
        }
        if !identity.assume_roles.is_empty() {
            self.line(4, "assumeRoles:");
        }
        for (index, role) in identity.assume_roles.iter().enumerate() {
            self.role(&format!("{path}.assumeRoles[{index}]"), role);
        }
        self.value(4, false, &place("stsRegion"), identity.sts_region.as_str());
        if let Some(account) = &identity.expect_account {
            self.value(4, false, &place("expectAccount"), account.as_str());
        }
    }

    fn role(&mut self, path: &str, role: &AssumeRole) {
        self.value(6, true, &format!("{path}.roleArn"), &role.role_arn);
        if let Some(id) = &role.external_id {
            self.value(8, false, &format!("{path}.externalId"), id);
        }
        self.value(8, false, &format!("{path}.sessionName"), &role.session_name);
    }

    fn registry(&mut self, index: usize, registry: &Registry) {
        let place = |key: &str| format!("registries[{index}].{key}");
        self.value(2, true, &place("host"), &registry.host);
        self.value(4, false, &place("identity"), &registry.key.identity);
        self.value(4, false, &place("region"), registry.key.region.as_str());
        if let Some(endpoint) = &registry.key.endpoint {
            self.value(4, false, &place("endpoint"), endpoint.as_str());
        }
        self.literal(4, false, &place("optional"), if registry.required { "false" } else { "true" });
    }

    fn output(&mut self, index: usize, output: &OutputConfig) {
        let place = |key: &str| format!("outputs[{index}].{key}");
        match output {
            OutputConfig::DockerConfig(settings) => {
                self.value(2, true, &place("type"), "docker-config");
                self.path(4, false, &place("path"), Some(&settings.path));
                self.value(4, false, &place("mode"), settings.mode);
                if let Some(group) = settings.group {
                    self.literal(4, false, &place("group"), &group.to_string());
                }
                self.path(4, false, &place("base"), settings.base.as_deref());
            }
            OutputConfig::DockerConfigSecret(settings) => {
                self.value(2, true, &place("type"), "docker-config-secret");
                self.value(4, false, &place("name"), settings.name.as_str());
                self.namespaces(&place("namespaces"), &settings.namespaces);
                self.path(4, false, &place("base"), settings.base.as_deref());
                self.literal(4, false, &place("adopt"), &settings.adopt.to_string());
                self.literal(4, false, &place("prune"), &settings.prune.to_string());
            }
            OutputConfig::ArgocdRepoCreds(settings) => {
                self.value(2, true, &place("type"), "argocd-repo-creds");
                self.value(4, false, &place("namespace"), settings.namespace.as_str());
            }
            OutputConfig::ArgocdRepositories(settings) => {
                self.value(2, true, &place("type"), "argocd-repositories");
                self.value(4, false, &place("namespace"), settings.namespace.as_str());
                match &settings.which {
                    Which::Names(names) => {
                        self.literal(4, false, &place("names"), &list(names.iter().map(ObjectName::as_str)));
                    }
                    Which::Selector(selector) => {
                        let selector = serde_json::Value::from(selector.as_str()).to_string();
                        self.literal(4, false, &place("selector"), &selector);
                    }
                }
            }
        }
    }

    fn namespaces(&mut self, path: &str, namespaces: &Namespaces) {
        let list = |names: &BTreeSet<NamespaceName>| list(names.iter().map(NamespaceName::as_str));
        let value = match namespaces {
            Namespaces::Own => return self.line(4, "# namespaces: the pod's own"),
            Namespaces::Names(names) => format!("{{names: {}}}", list(names)),
            Namespaces::All { exclude } if exclude.is_empty() => "{all: true}".to_owned(),
            Namespaces::All { exclude } => format!("{{all: true, exclude: {}}}", list(exclude)),
            Namespaces::Selector(selector) => {
                format!("{{selector: {}}}", serde_json::Value::from(selector.as_str()))
            }
        };
        self.literal(4, false, path, &value);
    }

    fn settings(&mut self) {
        let config = self.config;
        self.line(0, "refresh:");
        self.value(2, false, "refresh.at", config.refresh.at);
        self.value(2, false, "refresh.jitter", config.refresh.jitter);
        self.line(0, "health:");
        self.value(2, false, "health.listen", config.health.listen);
        if !config.health.hosts.is_empty() {
            let hosts = list(config.health.hosts.iter().map(String::as_str));
            self.literal(2, false, "health.hosts", &hosts);
        }
        self.value(2, false, "health.startupGrace", duration(config.health.startup_grace));
        self.line(0, "log:");
        if let Some(format) = config.log.format {
            self.value(2, false, "log.format", format!("{format:?}").to_lowercase());
        }
        self.value(2, false, "log.filter", &config.log.filter);
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", names.map(scalar).collect::<Vec<_>>().join(", "))
}

fn source_name(source: &Source) -> &'static str {
    match source {
        Source::Auto => "auto",
        Source::Environment => "environment",
        Source::Profile { .. } => "profile",
        Source::WebIdentity { .. } => "web-identity",
        Source::PodIdentity => "pod-identity",
        Source::Static(_) => "static",
        Source::Imds => "imds",
    }
}

/// In whole seconds where they say it all.
fn duration(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// Plain where YAML reads it back as the same text; quoted, as JSON is valid YAML, elsewhere.
fn scalar(text: &str) -> String {
    let is_plain = !text.starts_with('0')
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./@%".contains(c))
        && text.contains(|c: char| !c.is_ascii_digit() && c != '.' && c != 'e' && c != '_')
        && !["null", "true", "false", "yes", "no", "on", "off"].contains(&text.to_lowercase().as_str());
    if is_plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
