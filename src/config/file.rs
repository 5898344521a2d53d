//! The configuration file as it is written: names and shapes, nothing parsed yet.
//!
//! The JSON Schema in `config.schema.json` is generated from these types, and the file is checked against
//! it (`check.rs`), so that all of a file's problems are told at once.

use std::collections::BTreeMap;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Deserialize;
use serde_json::Value;

/// Configuration of ecr-sidecar. Everything may be left out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct File {
    /// Who asks AWS, by name. Registries that name none use `default`.
    pub(super) identities: BTreeMap<String, Identity>,
    /// The registries to hold credentials for. Left out: the caller's own registry in the region of
    /// AWS_REGION.
    pub(super) registries: Vec<Registry>,
    /// Where credentials are published. Left out: a docker-config at the default path.
    pub(super) outputs: Vec<Output>,
    /// When to refresh.
    pub(super) refresh: Refresh,
    /// The local health endpoint.
    pub(super) health: Health,
    /// Logging.
    pub(super) log: Log,
}

/// An AWS principal: a credential source and the roles to assume from there.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Identity {
    /// Where the first credentials come from. `auto` takes the first configured of environment, profile,
    /// web-identity and pod-identity; `imds` is used only when named.
    pub(super) source: SourceKind,
    /// Source `profile`: the profile's name, AWS_PROFILE if left out.
    pub(super) profile: Option<String>,
    /// Source `web-identity`: the role, AWS_ROLE_ARN if left out.
    pub(super) role_arn: Option<String>,
    /// Source `web-identity`: the token's file, AWS_WEB_IDENTITY_TOKEN_FILE if left out.
    pub(super) token_file: Option<String>,
    /// Source `static`: the file that holds the access key id.
    pub(super) access_key_id_file: Option<String>,
    /// Source `static`: the file that holds the secret access key.
    pub(super) secret_access_key_file: Option<String>,
    /// Source `static`: the file that holds the session token of temporary keys.
    pub(super) session_token_file: Option<String>,
    /// Roles to assume, in order.
    pub(super) assume_roles: Vec<AssumeRole>,
    /// The region whose STS is called; AWS_REGION if left out.
    pub(super) sts_region: Option<String>,
    /// The 12-digit account that has to answer: another one is an error.
    pub(super) expect_account: Option<String>,
}

/// A credential source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SourceKind {
    #[default]
    Auto,
    Environment,
    Profile,
    WebIdentity,
    PodIdentity,
    Static,
    Imds,
}

/// A role of a chain.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AssumeRole {
    /// The role's ARN.
    pub(super) role_arn: String,
    /// The external id that the role's trust policy asks for, 2 to 1224 characters.
    pub(super) external_id: Option<String>,
    /// The session's name in CloudTrail; `ecr-sidecar` if left out.
    pub(super) session_name: Option<String>,
}

/// A registry host.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Registry {
    /// The host as it appears in image references, for example
    /// `123456789012.dkr.ecr.eu-west-1.amazonaws.com` or `public.ecr.aws`.
    pub(super) host: String,
    /// The identity that asks; `default` if left out.
    #[serde(default)]
    pub(super) identity: Option<String>,
    /// The region, for a host that doesn't tell it (VPC endpoints, proxies).
    #[serde(default)]
    pub(super) region: Option<String>,
    /// A URL in place of the region's ECR API endpoint.
    #[serde(default)]
    pub(super) endpoint: Option<String>,
    /// Readiness doesn't depend on it.
    #[serde(default)]
    pub(super) optional: bool,
}

/// A place where credentials are published.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Output {
    /// A docker config.json.
    DockerConfig {
        /// The file; its directory must be on the shared volume.
        path: String,
        /// The file's mode, an octal string; `0640` if left out.
        mode: Option<String>,
        /// The file's group id; if left out the directory's when that is setgid, else the process's.
        group: Option<u32>,
        /// A docker config.json whose entries are carried along.
        base: Option<String>,
    },
    /// Secrets of type kubernetes.io/dockerconfigjson, what Flux reads.
    DockerConfigSecret {
        /// The Secret's name.
        name: String,
        /// In which namespaces; the pod's own if left out.
        namespaces: Option<Namespaces>,
        /// A docker config.json whose entries are carried along.
        base: Option<String>,
        /// Take over a Secret that somebody else filled; `false` if left out.
        adopt: Option<bool>,
        /// Remove Secrets that are the sidecar's alone from namespaces that leave the configuration while it runs;
        /// `false` if left out.
        prune: Option<bool>,
    },
    /// Argo CD's credential templates, two a registry.
    ArgocdRepoCreds {
        /// Argo CD's namespace.
        namespace: String,
    },
    /// Repository Secrets of Argo CD that others made: those whose URL is in one of the registries get its user name
    /// and password. Either `names` or `selector`.
    ArgocdRepositories {
        /// Argo CD's namespace.
        namespace: String,
        /// These.
        #[serde(default)]
        names: Vec<String>,
        /// Those with such labels, also those to come.
        selector: Option<String>,
    },
}

/// Namespaces: one of `names`, `all` and `selector`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Namespaces {
    /// These.
    pub(super) names: Vec<String>,
    /// All of them, also those to come.
    pub(super) all: bool,
    /// With `all`: but these.
    pub(super) exclude: Vec<String>,
    /// Those with such labels, also those to come.
    pub(super) selector: Option<String>,
}

/// When to refresh.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Refresh {
    /// The part of a token's lifetime after which it is renewed; `50%` if left out.
    pub(super) at: Option<String>,
    /// How far that moment is moved at random, either way; `10%` if left out.
    pub(super) jitter: Option<String>,
}

/// The local health endpoint.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Health {
    /// Address and port; `127.0.0.1:9808` if left out.
    pub(super) listen: Option<String>,
    /// After this time /startupz says yes whatever AWS does; `60s` if left out.
    pub(super) startup_grace: Option<String>,
}

/// Logging.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Log {
    /// `json` or `text`; left out: text on a terminal, else json.
    pub(super) format: Option<LogFormat>,
    /// A level, or `target=level` pairs separated by commas; `info` if left out.
    pub(super) filter: Option<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The JSON Schema of the file.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<File>().to_value()
}
