//! File, environment and flags laid over each other, with the origin of each value.

use std::{
    fs::File,
    io::{self, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{
    DEFAULT_DOCKER_CONFIG, DEFAULT_LISTEN, Environment, Flags, LISTEN_ACCEPTED, Origin, Origins, Problem,
    Problems, Surroundings, check, file, nearest,
};

const CONFIG: &str = "ECR_SIDECAR_CONFIG";
const REGISTRIES: &str = "ECR_SIDECAR_REGISTRIES";
const DOCKER_CONFIG: &str = "ECR_SIDECAR_DOCKER_CONFIG";
const FILE_MODE: &str = "ECR_SIDECAR_FILE_MODE";
const DOCKER_CONFIG_SECRET: &str = "ECR_SIDECAR_DOCKER_CONFIG_SECRET";
const ARGOCD_NAMESPACE: &str = "ECR_SIDECAR_ARGOCD_NAMESPACE";
const HEALTH_LISTEN: &str = "ECR_SIDECAR_HEALTH_LISTEN";
const LOG_FORMAT: &str = "ECR_SIDECAR_LOG_FORMAT";
const LOG: &str = "ECR_SIDECAR_LOG";
const KNOWN: [&str; 9] = [
    CONFIG,
    REGISTRIES,
    DOCKER_CONFIG,
    FILE_MODE,
    DOCKER_CONFIG_SECRET,
    ARGOCD_NAMESPACE,
    HEALTH_LISTEN,
    LOG_FORMAT,
    LOG,
];

/// No configuration is larger than this.
const FILE_LIMIT: u64 = 4 << 20;

/// What the layers amount to, in the shape of the file.
#[derive(Default)]
pub(super) struct Layers {
    pub(super) path: Option<PathBuf>,
    pub(super) value: Value,
    pub(super) origins: Origins,
    /// What was wrong so far, and is in `value` no more.
    pub(super) problems: Vec<Problem>,
}

impl Layers {
    /// Reads the file, checks its shape, and lays environment and flags over it. An error if nothing can be read.
    pub(super) fn read(flags: &Flags, surroundings: &Surroundings) -> Result<Self, Problems> {
        let path = flags.config.as_deref().or(surroundings.env.get(CONFIG)).map(PathBuf::from);
        let mut layers = Self { value: read_file(path.as_ref())?, path, ..Self::default() };
        if layers.path.is_some() {
            layers.problems = check::check(&mut layers.value, &file::schema());
        }
        layers.note_file_origins();
        layers.refuse_unknown_variables(surroundings);
        layers.overlay(flags, surroundings);
        Ok(layers)
    }

    fn note_file_origins(&mut self) {
        fn leaves(value: &Value, path: String, origins: &mut Origins) {
            match value {
                Value::Object(object) => {
                    for (key, value) in object {
                        let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                        leaves(value, place, origins);
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

    fn refuse_unknown_variables(&mut self, surroundings: &Surroundings) {
        for name in surroundings.env.names_with_prefix("ECR_SIDECAR_") {
            // Kubernetes sets these for a Service that is called ecr-sidecar.
            let of_a_service =
                name.starts_with("ECR_SIDECAR_SERVICE_") || name.starts_with("ECR_SIDECAR_PORT");
            if !KNOWN.contains(&name) && !of_a_service {
                let mut problem =
                    Problem::new(name, "an unknown variable", format!("one of {}", KNOWN.join(", ")));
                problem.nearest = nearest(name, KNOWN).map(str::to_owned);
                self.problems.push(problem);
            }
        }
    }

    fn overlay(&mut self, flags: &Flags, surroundings: &Surroundings) {
        let given = |variable: &'static str| {
            let by_flag = flags.values.get(variable).map(|(flag, value)| (value.clone(), Origin::Flag(flag)));
            by_flag.or_else(|| {
                Some((surroundings.env.get(variable)?.to_owned(), Origin::Env(variable.to_owned())))
            })
        };
        if let Some((hosts, origin)) = given(REGISTRIES) {
            let hosts = hosts.split(',').map(str::trim).filter(|host| !host.is_empty());
            let hosts: Vec<_> = hosts.map(|host| json!({ "host": host })).collect();
            self.put("registries", Value::from(hosts), origin);
        }
        if let Some((path, origin)) = given(DOCKER_CONFIG) {
            self.put_docker_config("path", path, origin);
        }
        if let Some((mode, origin)) = given(FILE_MODE) {
            self.put_docker_config("mode", mode, origin);
        }
        if let Some((secrets, origin)) = given(DOCKER_CONFIG_SECRET) {
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
        if let Some((namespace, origin)) = given(ARGOCD_NAMESPACE) {
            self.push_output(json!({"type": "argocd-repo-creds", "namespace": namespace}), &origin);
        }
        for (variable, section, key) in
            [(HEALTH_LISTEN, "health", "listen"), (LOG_FORMAT, "log", "format"), (LOG, "log", "filter")]
        {
            if let Some((text, origin)) = given(variable) {
                if key == "format" && !["json", "text"].contains(&text.as_str()) {
                    self.problems.push(Problem::new(origin.to_string(), format!("`{text}`"), "json or text"));
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

    fn push_output(&mut self, output: Value, origin: &Origin) {
        let Some(object) = self.value.as_object_mut() else { return };
        let Some(outputs) = object.entry("outputs").or_insert_with(|| json!([])).as_array_mut() else {
            return;
        };
        self.origins.set(format!("outputs[{}]", outputs.len()), origin.clone());
        outputs.push(output);
    }

    /// Sets `key` of the one docker-config output, which is made if there is none.
    fn put_docker_config(&mut self, key: &str, text: String, origin: Origin) {
        let Some(object) = self.value.as_object_mut() else { return };
        let Some(outputs) = object.entry("outputs").or_insert_with(|| json!([])).as_array_mut() else {
            return;
        };
        let is_docker_config = |output: &Value| output["type"] == "docker-config";
        match outputs.iter().filter(|output| is_docker_config(output)).count() {
            0 => outputs.push(json!({"type": "docker-config", "path": DEFAULT_DOCKER_CONFIG})),
            1 => {}
            several => {
                let accepted = "one docker-config output, or this value in the file";
                self.problems.push(Problem::new(
                    origin.to_string(),
                    format!("{several} docker-config outputs in the file"),
                    accepted,
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

/// Where a running sidecar listens. A configuration that is refused as a whole still tells it: the probes of a
/// sidecar that runs on its last good one must not fail with the file.
pub(super) fn health_listen(flags: &Flags, env: &Environment) -> Result<SocketAddr, Problems> {
    let flag = flags.values.get(HEALTH_LISTEN).map(|(flag, value)| (*flag, value.clone()));
    if let Some((name, text)) = flag.or_else(|| Some((HEALTH_LISTEN, env.get(HEALTH_LISTEN)?.to_owned()))) {
        let problem = || Problem::new(name, format!("`{text}`"), LISTEN_ACCEPTED);
        return text.parse().map_err(|_| Problems(vec![problem()]));
    }
    let file = flags.config.as_deref().or(env.get(CONFIG));
    let text = file.and_then(|path| read_text(Path::new(path)).ok()).unwrap_or_default();
    Ok(listen_of(&text).unwrap_or(DEFAULT_LISTEN))
}

/// `health.listen` of a file; in a file that is no YAML, the first line that says `listen:`.
fn listen_of(text: &str) -> Option<SocketAddr> {
    if let Ok(value) = serde_saphyr::from_str::<Value>(text) {
        return value["health"]["listen"].as_str()?.parse().ok();
    }
    let said = text.lines().find_map(|line| line.split_once("listen:"))?.1;
    said.split(['"', '\'', ' ', ',', '}']).find_map(|word| word.parse().ok())
}

fn read_file(path: Option<&PathBuf>) -> Result<Value, Problems> {
    let Some(path) = path else { return Ok(json!({})) };
    let place = path.display().to_string();
    let refuse = |found: String, accepted: &str| Problems(vec![Problem::new(&place, found, accepted)]);
    let text = read_text(path).map_err(|error| refuse(error.to_string(), "a readable YAML file"))?;
    if text.trim().is_empty() {
        return Ok(json!({}));
    }
    match serde_saphyr::from_str::<Value>(&text) {
        Ok(Value::Null) => Ok(json!({})), // nothing but comments
        Ok(value) => Ok(value),
        Err(error) => Err(refuse(error.to_string(), "YAML")),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_LIMIT).read_to_string(&mut text)?;
    Ok(text)
}
