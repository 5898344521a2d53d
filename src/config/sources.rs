//! File, environment and flags laid over each other, with the origin of each value.

use std::{net::SocketAddr, path::PathBuf};

use serde_json::{Map, Value, json};

use super::{
    ConfigFile, Context, DEFAULT_DOCKER_CONFIG, Environment, Flags, LISTEN_EXPECTED, Origin, Origins,
    Violation, Violations, file, join, nearest,
    setting::{self, Setting},
    validate,
    yaml::{self, Document},
};
use crate::failure::shown_value::{clean_path, quoted};

impl Flags {
    /// The value of the flag, else of the variable: without white space around it, and empty is unset.
    fn get<'a>(&'a self, setting: &'static Setting, env: &'a Environment) -> Option<(&'a str, Origin)> {
        let flag = self.0.get(setting.flag).map(|value| value.trim()).filter(|value| !value.is_empty());
        let flag = flag.map(|value| (value, Origin::Flag(setting.flag)));
        flag.or_else(|| Some((env.get(setting.variable)?, Origin::Env(setting.variable))))
    }
}

impl Origin {
    pub(super) fn name(&self) -> Option<String> {
        match self {
            Self::Flag(name) => Some(format!("--{name}")),
            Self::Env(variable) => Some((*variable).to_owned()),
            _ => None,
        }
    }
}

#[derive(Default)]
pub(super) struct Layers {
    pub(super) path: Option<PathBuf>,
    pub(super) value: Value,
    pub(super) origins: Origins,
    /// What was wrong so far, and is in `value` no more.
    pub(super) violations: Vec<Violation>,
}

impl Layers {
    /// Checks the file's shape, and lays environment and flags over it. An error if it is no YAML.
    pub(super) fn of(
        flags: &Flags,
        context: &Context,
        file: Option<&ConfigFile>,
    ) -> Result<Self, Violations> {
        let mut document = Document { value: json!({}), ..Document::default() };
        let mut violations = Vec::new();
        if let Some(file) = file {
            let place = || clean_path(&file.path);
            let invalid = |error: yaml::YamlError| Violation::new(place(), error.to_string(), "YAML");
            document = yaml::parse(&file.text).map_err(|error| Violations(vec![invalid(error)]))?;
            violations = validate::check(&mut document, &file::schema());
        }
        let path = file.map(|file| file.path.clone());
        let mut layers = Self { path, value: document.value, violations, ..Self::default() };
        layers.note_file_origins();
        layers.reject_unknown_variables(context);
        layers.overlay(flags, context);
        Ok(layers)
    }

    fn note_file_origins(&mut self) {
        fn leaves(value: &Value, path: String, origins: &mut Origins) {
            match value {
                Value::Object(object) => {
                    for (key, value) in object {
                        leaves(value, join(&path, key), origins);
                    }
                }
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        leaves(item, format!("{path}[{index}]"), origins);
                    }
                }
                _ => origins.set(path, Origin::File),
            }
        }
        leaves(&self.value, String::new(), &mut self.origins);
    }

    fn reject_unknown_variables(&mut self, context: &Context) {
        for name in own_variables(&context.env).filter(|name| !is_known(name)) {
            let known = setting::ALL.map(|setting| setting.variable);
            let expected = format!("one of {}", known.join(", "));
            let mut violation = Violation::new(name, "an unknown variable", expected);
            violation.nearest = nearest(name, known).map(str::to_owned);
            self.violations.push(violation);
        }
    }

    fn overlay(&mut self, flags: &Flags, context: &Context) {
        let given = |setting| flags.get(setting, &context.env);
        if let Some((hosts, origin)) = given(setting::REGISTRIES) {
            let hosts = hosts.split(',').map(str::trim).filter(|host| !host.is_empty());
            let hosts: Vec<_> = hosts.map(|host| json!({ "host": host })).collect();
            self.put("registries", Value::from(hosts), origin);
        }
        if let Some((path, origin)) = given(setting::DOCKER_CONFIG) {
            self.put_docker_config("path", path, origin);
        }
        if let Some((mode, origin)) = given(setting::FILE_MODE) {
            self.put_docker_config("mode", mode, origin);
        }
        if let Some((secrets, origin)) = given(setting::DOCKER_CONFIG_SECRET) {
            for secret in secrets.split(',').map(str::trim).filter(|secret| !secret.is_empty()) {
                let output = match secret.split_once('/') {
                    Some((namespace, name)) => {
                        json!({"type": "docker-config-secret", "name": name, "namespaces": {"names": [namespace]}})
                    }
                    None => json!({"type": "docker-config-secret", "name": secret}),
                };
                self.push_output(output, &origin);
            }
        }
        if let Some((namespace, origin)) = given(setting::ARGOCD_NAMESPACE) {
            self.push_output(json!({"type": "argocd-repo-creds", "namespace": namespace}), &origin);
        }
        for (setting, section, key) in [
            (setting::HEALTH_LISTEN, "health", "listen"),
            (setting::LOG_FORMAT, "log", "format"),
            (setting::LOG, "log", "filter"),
        ] {
            if let Some((text, origin)) = given(setting) {
                if key == "format" && !["json", "text"].contains(&text) {
                    self.violations.push(Violation::new(origin.to_string(), quoted(text), "json or text"));
                    continue;
                }
                let path = format!("{section}.{key}");
                if let Some(object) = self.section(section) {
                    object.insert(key.to_owned(), Value::from(text));
                    self.origins.set(path, origin);
                }
            }
        }
    }

    fn put(&mut self, key: &str, value: Value, origin: Origin) {
        self.origins.0.retain(|path, _| !path.starts_with(key));
        self.origins.set(key, origin);
        if let Some(object) = self.value.as_object_mut() {
            object.insert(key.to_owned(), value);
        }
    }

    fn section(&mut self, key: &str) -> Option<&mut Map<String, Value>> {
        self.value.as_object_mut()?.entry(key).or_insert_with(|| json!({})).as_object_mut()
    }

    fn outputs(&mut self) -> Option<&mut Vec<Value>> {
        self.value.as_object_mut()?.entry("outputs").or_insert_with(|| json!([])).as_array_mut()
    }

    fn push_output(&mut self, output: Value, origin: &Origin) {
        let Some(outputs) = self.outputs() else { return };
        outputs.push(output);
        let index = outputs.len() - 1;
        self.origins.set(format!("outputs[{index}]"), origin.clone());
    }

    /// Sets `key` of the one docker-config output, which is made if there is none.
    fn put_docker_config(&mut self, key: &str, text: &str, origin: Origin) {
        let Some(outputs) = self.outputs() else { return };
        let is_docker_config = |output: &Value| output["type"] == "docker-config";
        match outputs.iter().filter(|output| is_docker_config(output)).count() {
            0 => outputs.push(json!({"type": "docker-config", "path": DEFAULT_DOCKER_CONFIG})),
            1 => {}
            several => {
                let expected = "one docker-config output, or this value in the file";
                self.violations.push(Violation::new(
                    origin.to_string(),
                    format!("{several} docker-config outputs in the file"),
                    expected,
                ));
                return;
            }
        }
        if let Some(index) = outputs.iter().position(is_docker_config) {
            outputs[index][key] = Value::from(text);
            self.origins.set(format!("outputs[{index}].{key}"), origin);
        }
    }
}

pub(super) fn file_path(flags: &Flags, env: &Environment) -> Option<PathBuf> {
    flags.get(setting::CONFIG, env).map(|(path, _)| path.into())
}

pub(super) fn listen_outside_the_file(
    flags: &Flags,
    env: &Environment,
) -> Result<Option<SocketAddr>, Violations> {
    let Some((text, origin)) = flags.get(setting::HEALTH_LISTEN, env) else { return Ok(None) };
    let violation = || Violation::new(origin.name().unwrap_or_default(), quoted(text), LISTEN_EXPECTED);
    text.parse().map(Some).map_err(|_| Violations(vec![violation()]))
}

/// `health.listen` of a file; in a file that is no YAML, the first line with `listen:`.
pub(super) fn listen_of(text: &str) -> Option<SocketAddr> {
    if let Ok(Document { value, .. }) = yaml::parse(text) {
        return value["health"]["listen"].as_str()?.parse().ok();
    }
    let listen = text.lines().find_map(|line| line.split_once("listen:"))?.1;
    listen.split(['"', '\'', ' ', ',', '}']).find_map(|word| word.parse().ok())
}

/// Whether Kubernetes sets it for a Service whose name begins with `ecr-sidecar`: `…_SERVICE_HOST`, `…_SERVICE_PORT`,
/// `…_SERVICE_PORT_<NAME>`, `…_PORT` (a URL), `…_PORT_<N>_<PROTOCOL>` and that with `_PROTO`, `_PORT` or `_ADDR`.
fn is_of_a_service(name: &str, value: &str) -> bool {
    let is_of_a_port = |port: &str| {
        let mut parts = port.split('_');
        let number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
        let protocol = parts.next().is_some_and(|part| ["TCP", "UDP", "SCTP"].contains(&part));
        let property = parts.next().is_none_or(|part| ["PROTO", "PORT", "ADDR"].contains(&part));
        number && protocol && property && parts.next().is_none()
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name.rsplit_once("_PORT_").is_some_and(|(_, port)| is_of_a_port(port))
}

fn is_known(variable: &str) -> bool {
    setting::ALL.iter().any(|setting| setting.variable == variable)
}

/// The variables of ours that are set, known or not; those that Kubernetes sets for a Service are not ours.
pub fn own_variables(env: &Environment) -> impl Iterator<Item = &str> {
    env.names_with_prefix(setting::PREFIX)
        .filter(|name| is_known(name) || env.get(name).is_some_and(|value| !is_of_a_service(name, value)))
}
