//! The configuration file as it is written: names and shapes, nothing parsed yet. `resolve` fills in what is left out,
//! and `effective` prints it.
//!
//! The JSON Schema in `config.schema.json` is generated from these types, and the file is checked against
//! it (`validate.rs`), so that all of a file's violations are reported at once. `docs/configuration.md` is generated from
//! the schema (`tests/docs/configuration.rs`): a key's doc comment is its meaning, and behind "Left out:" what
//! holds without it.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::failure::shown_value::clean_path;

/// Configuration of ecr-sidecar. Everything may be left out.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct File {
    /// Who asks AWS, by a name of your choice. Registries that name none use `default`. Left out: `default`, with
    /// `source: auto`.
    pub(super) identities: BTreeMap<String, Identity>,
    /// The registries to hold credentials for, each host once. Left out: the caller's own registry in the region of
    /// `AWS_REGION`.
    #[schemars(with = "Vec<Registry>")]
    pub(super) registries: Vec<Option<Registry>>, // `None` in the place of what `check` has taken out

    /// Where credentials are published. Left out: a `docker-config` at `/var/run/ecr-sidecar/config.json`.
    #[schemars(with = "Vec<Output>")]
    pub(super) outputs: Vec<Option<Output>>, // the same
    /// When to refresh.
    pub(super) refresh: Refresh,
    /// The local health endpoint.
    pub(super) health: Health,
    /// Logging.
    pub(super) log: Log,
}

/// An AWS principal: a credential source and the roles to assume from there.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Identity {
    /// Where the first credentials come from. `auto` takes the first that is configured, broken or not: `environment`,
    /// the `profile` of `AWS_PROFILE`, `web-identity`, `pod-identity`, the `profile` `default`. `imds` is used only when
    /// named. Left out: `auto`.
    pub(super) source: SourceKind,
    /// With `source: profile`: the profile's name. Left out: that of `AWS_PROFILE`, else `default`.
    pub(super) profile: Option<String>,
    /// With `source: web-identity`: the ARN of the role. Left out: that of `AWS_ROLE_ARN`.
    pub(super) role_arn: Option<String>,
    /// With `source: web-identity`: the token's file, which is watched and read again each time. Left out: that of
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`.
    pub(super) token_file: Option<FilePath>,
    /// With `source: static`, and required there: the file that holds the access key id and nothing else. It is
    /// watched and read again each time, so keys may be rotated.
    pub(super) access_key_id_file: Option<FilePath>,
    /// With `source: static`, and required there: the file that holds the secret access key and nothing else.
    pub(super) secret_access_key_file: Option<FilePath>,
    /// With `source: static`: the file that holds the session token of temporary keys. Left out: the keys are not
    /// temporary.
    pub(super) session_token_file: Option<FilePath>,
    /// Roles to assume from there, in order, each with the credentials of the previous one. Left out: none.
    pub(super) assume_roles: Vec<AssumeRole>,
    /// The region whose STS is called, never guessed from the registry. Left out: that of `AWS_REGION` or the profile,
    /// else the first region of the registries' partition.
    pub(super) sts_region: Option<String>,
    /// The account that the credentials must belong to, 12 digits in quotes. Those of another account are an error, and
    /// no token is requested with them. Left out: any account.
    pub(super) expect_account: Option<String>,
}

/// A credential source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AssumeRole {
    /// The ARN of the role.
    pub(super) role_arn: String,
    /// The external id that the role's trust policy asks for, 2 to 1224 characters. Left out: none.
    pub(super) external_id: Option<String>,
    /// The session's name, as CloudTrail shows it. Left out: `ecr-sidecar`.
    pub(super) session_name: Option<String>,
}

/// A registry host.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Registry {
    /// The host as it appears in image references, for example
    /// `123456789012.dkr.ecr.eu-west-1.amazonaws.com` or `public.ecr.aws`.
    pub(super) host: String,
    /// The name of the identity that asks. Left out: `default`.
    #[serde(default)]
    pub(super) identity: Option<String>,
    /// The AWS region, required for a host that doesn't name it (a VPC endpoint, a proxy, a port). Left out: that of
    /// the host.
    #[serde(default)]
    pub(super) region: Option<String>,
    /// A URL in place of the region's ECR API endpoint. Left out: the region's own, or that of `AWS_ENDPOINT_URL_ECR`
    /// or `AWS_ENDPOINT_URL`.
    #[serde(default)]
    pub(super) endpoint: Option<String>,
    /// Whether `/readyz`, `/startupz` and `once` succeed without a credential for it; its failures are only reported.
    /// Left out: `false`.
    #[serde(default)]
    pub(super) optional: bool,
    /// Requests a manifest from this registry from time to time, with the published credential, while the sidecar runs.
    /// The result is reported and affects nothing else. Left out: none.
    #[serde(default)]
    pub(super) probe: Option<Probe>,
}

/// A pull that is begun from time to time.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Probe {
    /// The repository to pull from, without the host: one that the consumers pull from.
    pub(super) repository: String,
    /// The tag of an image that has to exist. Left out: `latest`; on an ECR host the probe also succeeds if the pull is
    /// allowed and the repository has no such tag.
    #[serde(default)]
    pub(super) tag: Option<String>,
    /// The interval, from `1m` to `24h`; each probe is one manifest request. A failing probe is retried after one, two,
    /// then every four intervals. Left out: `15m`.
    #[serde(default)]
    pub(super) every: Option<String>,
}

/// A place where credentials are published.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Output {
    /// A docker config.json.
    DockerConfig {
        /// The file. Its directory is on the volume that the main container mounts: as a directory, never by
        /// `subPath`.
        path: FilePath,
        /// The file's mode, octal, in quotes. Left out: `0640`.
        mode: Option<String>,
        /// The file's group id. Left out: the directory's if that is setgid (as with `fsGroup`), else the process's.
        group: Option<u32>,
        /// A docker config.json whose entries of other registries are carried along; it is watched. Left out: none.
        base: Option<FilePath>,
    },
    /// Secrets of type kubernetes.io/dockerconfigjson, what Flux reads.
    DockerConfigSecret {
        /// The Secret's name.
        name: String,
        /// In which namespaces. Left out: the pod's own.
        namespaces: Option<Namespaces>,
        /// A docker config.json whose entries of other registries are carried along; it is watched. Left out: none.
        base: Option<FilePath>,
        /// Whether a Secret with unmanaged credentials in it is taken over. Left out: `false`.
        adopt: Option<bool>,
        /// Whether the Secret is deleted from a namespace that is no longer selected, if only the sidecar manages it.
        /// That happens while the sidecar runs. Left out: `false`.
        prune: Option<bool>,
    },
    /// Argo CD's credential templates, two per registry: one for `type: helm`, one for `type: oci`.
    ArgocdRepoCreds {
        /// Argo CD's namespace.
        namespace: String,
    },
    /// Existing repository Secrets of Argo CD: those whose URL is in one of the registries get its user name
    /// and password. Either `names` or `selector`.
    ArgocdRepositories {
        /// Argo CD's namespace.
        namespace: String,
        /// The names of these Secrets. Left out: those of `selector`.
        #[serde(default)]
        names: Vec<String>,
        /// A label selector of these Secrets, existing and future: whoever may label one of them gets the token of the
        /// registry in its `url`. Left out: those of `names`.
        selector: Option<String>,
    },
}

/// Namespaces: one of `names`, `all` and `selector`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Namespaces {
    /// The names of the namespaces. Left out: none.
    pub(super) names: Vec<String>,
    /// Whether it is every namespace, existing and future: whoever may create a namespace gets the pull token of every
    /// registry. Left out: `false`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) all: bool,
    /// With `all: true`: the namespaces to leave out. Left out: none.
    pub(super) exclude: Vec<String>,
    /// A label selector of namespaces, existing and future: whoever may label or create a namespace that it matches
    /// gets the pull token of every registry. Left out: none.
    pub(super) selector: Option<String>,
}

/// When to refresh.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Refresh {
    /// The part of a token's lifetime after which it is renewed, a whole percentage. With the jitter it stays between
    /// 5% and 95%. Left out: `50%`.
    pub(super) at: Option<String>,
    /// How far that moment is moved at random, earlier or later, as a part of the lifetime. Left out: `10%`.
    pub(super) jitter: Option<String>,
}

/// The local health endpoint.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Health {
    /// IP address and port. Left out: `127.0.0.1:9808`.
    pub(super) listen: Option<String>,
    /// DNS names that the `Host` header of a request may have, such as a Service's, besides IP addresses and `localhost`.
    /// Left out: none.
    pub(super) hosts: Vec<String>,
    /// After this time `/startupz` returns 200 even without credentials: `500ms`, `60s`, `5m`, `1h`. Left out: `60s`.
    pub(super) startup_grace: Option<String>,
}

/// Logging.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Log {
    /// The format of log lines. A change needs a restart. Left out: `text` on a terminal, else `json`.
    pub(super) format: Option<LogFormat>,
    /// A level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or `target=level` pairs separated by commas. Left
    /// out: `info`.
    pub(super) filter: Option<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

// A path that `config` shows, unless it may be a key in the wrong place.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct FilePath(pub(super) PathBuf);

impl Serialize for FilePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&clean_path(&self.0))
    }
}

/// The JSON Schema of the file.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<File>().to_value()
}
