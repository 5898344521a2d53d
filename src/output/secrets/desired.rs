//! What one Secret should say, given what it says: pure.
//!
//! Invariants:
//! * nothing is applied when nothing differs: `what_is_right_is_left_alone`
//! * a credential of ours that ends later is never replaced by one that ends sooner: `no_step_back`
//! * a Secret that holds what others put there is not taken over unasked: `what_others_filled_is_theirs`
//! * what others put beside ours stays: `foreign_entries_stay`
//! * of a template only `username` and `password` are ours, unless it is we who made it: `a_template_is_shared`

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
    time::SystemTime,
};

use base64::{Engine, engine::general_purpose::STANDARD, write::EncoderWriter};
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    super::{
        argocd_names::Flavour,
        docker_config::{
            document::Document,
            merge::{BaseKeys, merge},
            read::Base,
        },
    },
    marks::{EXPIRES, Marks, whole_seconds},
};
use crate::{
    credentials::CredentialSet,
    failure::{Class, Problem},
    kubernetes::{ObjectRef, SecretObject},
    registry::RegistryHost,
    token::Token,
};

/// The type of a Secret that holds a docker config, and its key.
const DOCKER_CONFIG_TYPE: &str = "kubernetes.io/dockerconfigjson";
const DOCKER_CONFIG_KEY: &str = ".dockerconfigjson";
/// The label by which a Secret tells who keeps it.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label by which Argo CD finds its templates.
const SECRET_TYPE: &str = "argocd.argoproj.io/secret-type";
/// The API server takes no Secret whose values are larger together.
const LARGEST: usize = 1 << 20;

/// When the credential of each registry ends that a consumer finds.
pub(super) type InPlace = BTreeMap<RegistryHost, SystemTime>;

/// What a Secret is for.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A docker config of all registries.
    DockerConfig {
        /// Take over what others filled.
        adopt: bool,
        /// Entries to carry along.
        base: Option<Arc<Base>>,
    },
    /// Argo CD's template for one registry.
    Template {
        /// The registry.
        host: RegistryHost,
        /// For which kind of source.
        flavour: Flavour,
    },
}

/// What is to be done with a Secret.
pub(super) struct Decision {
    /// What consumers find there now.
    pub(super) in_place: InPlace,
    /// What is to be applied, if anything, and what they find then.
    pub(super) apply: Option<(Zeroizing<Vec<u8>>, InPlace)>,
    /// What consumers may stumble over.
    pub(super) warnings: Vec<String>,
}

impl Content {
    /// The keys that we keep.
    pub(super) fn keys(&self) -> &'static [&'static str] {
        match self {
            Self::DockerConfig { .. } => &[DOCKER_CONFIG_KEY],
            Self::Template { .. } => &["password", "username"],
        }
    }
}

impl Decision {
    fn rest(in_place: InPlace, warnings: Vec<String>) -> Self {
        Self { in_place, apply: None, warnings }
    }
}

/// Decides for the Secret `at`, which was found as `found`.
pub(super) fn decide(
    at: &ObjectRef,
    content: &Content,
    found: Option<&SecretObject>,
    desired: &CredentialSet,
    now: SystemTime,
) -> Result<Decision, Problem> {
    match content {
        Content::DockerConfig { adopt, base } => {
            docker_config(at, *adopt, base.as_deref(), found, desired, now)
        }
        Content::Template { host, flavour } => template(at, host, *flavour, found, desired, now),
    }
}

fn docker_config(
    at: &ObjectRef,
    adopt: bool,
    base: Option<&Base>,
    found: Option<&SecretObject>,
    desired: &CredentialSet,
    now: SystemTime,
) -> Result<Decision, Problem> {
    refuse_type(at, found, DOCKER_CONFIG_TYPE)?;
    let marks = found.map(|found| Marks::parse(&found.metadata.annotations)).unwrap_or_default();
    let bytes = found.and_then(|found| found.value(DOCKER_CONFIG_KEY)).unwrap_or_default();
    let text = std::str::from_utf8(&bytes).unwrap_or("?");
    let parsed = Document::parse(text);
    let is_filled = parsed.as_ref().map_or(true, |document| !document.auths.is_empty());
    let is_ours = found.is_some_and(|found| !marks.is_empty() || found.metadata.we_own(DOCKER_CONFIG_KEY));
    if found.is_some() && is_filled && !is_ours && !adopt {
        return Err(Problem {
            message: format!(
                "the Secret {at} holds credentials that somebody else put there: it is left as it is"
            ),
            remedy: "choose another name, or set `adopt: true` on this output to keep it from now on".into(),
            class: Class::Denied,
        });
    }
    let existing = parsed.unwrap_or_default();
    let known = known(&existing, &marks, desired, now);
    let mut wanted = desired.clone();
    wanted.current.retain(|host, token| {
        !known.get(host).is_some_and(|(expiry, same)| *same || *expiry >= whole_seconds(token.expires_at))
    });
    let mut after: InPlace = known.iter().map(|(host, (expiry, _))| (host.clone(), *expiry)).collect();
    let in_place = after.clone();
    let current = wanted.current.clone();
    after.retain(|host, _| !desired.retired.contains(host));
    after.extend(current.iter().map(|(host, token)| (host.clone(), token.expires_at)));
    // Those that stay are merged too, so that their twins and helpers go.
    for (host, token) in &desired.current {
        if known.get(host).is_some_and(|(_, same)| *same) {
            wanted.current.insert(host.clone(), Arc::clone(token));
        }
    }

    let nothing = BaseKeys::default();
    let supplied = base.map_or(&nothing, Base::supplied);
    let merged = merge(existing, base.and_then(Base::document), supplied, &wanted);
    let warnings: Vec<_> = merged.warnings.iter().map(ToString::to_string).collect();
    if !merged.ours {
        return Ok(Decision::rest(in_place, warnings));
    }
    let mut marks_after = marks.clone();
    marks_after.retain(|host| !desired.retired.contains(host));
    for (host, token) in &current {
        marks_after.set(host, token.auth.expose().as_bytes(), token.expires_at);
    }
    let is_labelled = found
        .is_some_and(|found| found.metadata.labels.get(MANAGED_BY).is_some_and(|by| by == "ecr-sidecar"));
    if merged.is(text) && marks_after == marks && is_labelled {
        return Ok(Decision::rest(in_place, warnings));
    }
    let failed = |error: io::Error| Problem {
        message: format!("cannot write the content of {at}: {error}"),
        remedy: "please report it".into(),
        class: Class::Transient,
    };
    let mut size = Size(0);
    merged.write_to(&mut size).map_err(failed)?;
    refuse_size(at, size.0)?;
    // Of the right size at once: a buffer that grows leaves copies behind.
    let mut encoded = Zeroizing::new(Vec::with_capacity(size.0.div_ceil(3) * 4));
    let mut encoder = EncoderWriter::new(&mut *encoded, &STANDARD);
    merged.write_to(&mut encoder).and_then(|()| encoder.finish().map(drop)).map_err(failed)?;
    drop(encoder);
    let metadata = json!({
        "name": at.name, "namespace": at.namespace,
        "labels": {MANAGED_BY: "ecr-sidecar"},
        "annotations": {EXPIRES: marks_after.to_text()},
    });
    let body = Body {
        metadata: with_version(metadata, found),
        kind: Some(DOCKER_CONFIG_TYPE),
        data: [(DOCKER_CONFIG_KEY, std::str::from_utf8(&encoded).unwrap_or_default())].into(),
    };
    Ok(Decision { in_place, apply: Some((body.write()?, after)), warnings })
}

/// Counts what is written.
struct Size(usize);

impl Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The registries whose credential in `document` sidecars put there: when it ends, and whether it is the desired one.
fn known(
    document: &Document<'_>,
    marks: &Marks,
    desired: &CredentialSet,
    now: SystemTime,
) -> BTreeMap<RegistryHost, (SystemTime, bool)> {
    let mut known = BTreeMap::new();
    for (host, token) in &desired.current {
        let Some(auth) = document.auth_of(host.as_str()) else { continue };
        if auth == token.auth.expose().as_str() {
            known.insert(host.clone(), (token.expires_at, true));
        } else if let Some(expiry) = marks.expiry(host, auth.as_bytes(), now) {
            known.insert(host.clone(), (expiry, false));
        }
    }
    for key in document.auths.keys() {
        // Before our first token: what the process before us, or another sidecar, left.
        let Ok(host) = key.parse::<RegistryHost>() else { continue };
        let Some(auth) = document.auth_of(key) else { continue };
        if let Some(expiry) = marks.expiry(&host, auth.as_bytes(), now) {
            known.entry(host).or_insert((expiry, false));
        }
    }
    known
}

fn template(
    at: &ObjectRef,
    host: &RegistryHost,
    flavour: Flavour,
    found: Option<&SecretObject>,
    desired: &CredentialSet,
    now: SystemTime,
) -> Result<Decision, Problem> {
    refuse_type(at, found, "Opaque")?;
    let marks = found.map(|found| Marks::parse(&found.metadata.annotations)).unwrap_or_default();
    let value = |key| found.and_then(|found| found.value(key)).unwrap_or_default();
    let (username, password) = (value("username"), value("password"));
    let mut in_place = InPlace::new();
    let token = desired.current.get(host);
    let bare = token.and_then(|token| bare_password(token));
    let is_same = bare.as_ref().is_some_and(|bare| !password.is_empty() && **bare == *password);
    if username.as_slice() == b"AWS" {
        let expiry = token.filter(|_| is_same).map(|token| token.expires_at);
        in_place.extend(
            expiry.or_else(|| marks.expiry(host, &password, now)).map(|expiry| (host.clone(), expiry)),
        );
    }
    let warnings = found.map_or_else(Vec::new, |found| template_flaws(at, host, flavour, found));
    if desired.retired.contains(host) {
        // What we applied goes when we apply nothing of it.
        let ours = found.filter(|found| found.metadata.we_own("password"));
        let body = ours.map(|found| Body::<'_>::bare(at, found).write()).transpose()?;
        return Ok(Decision { in_place, apply: body.map(|body| (body, InPlace::new())), warnings });
    }
    let (Some(token), Some(bare)) = (token, bare) else { return Ok(Decision::rest(in_place, warnings)) };
    if in_place.get(host).is_some_and(|expiry| is_same || *expiry >= whole_seconds(token.expires_at)) {
        return Ok(Decision::rest(in_place, warnings));
    }
    refuse_size(at, bare.len())?;
    let mut marks = Marks::default();
    marks.set(host, &bare, token.expires_at);
    let mut metadata = json!({
        "name": at.name, "namespace": at.namespace, "annotations": {EXPIRES: marks.to_text()},
    });
    let password = Zeroizing::new(STANDARD.encode(&*bare));
    let username = STANDARD.encode("AWS");
    let fields: Vec<_> =
        flavour.fields(host).into_iter().map(|(key, value)| (key, STANDARD.encode(value))).collect();
    let mut data: BTreeMap<&str, &str> =
        [("username", username.as_str()), ("password", password.as_str())].into();
    // Nobody else says what it is for.
    if found.is_none_or(|found| found.metadata.we_own("url")) {
        data.extend(fields.iter().map(|(key, value)| (*key, value.as_str())));
        metadata["labels"] = json!({SECRET_TYPE: "repo-creds", MANAGED_BY: "ecr-sidecar"});
    }
    let body =
        Body { metadata: with_version(metadata, found), kind: found.is_none().then_some("Opaque"), data };
    let after = [(host.clone(), token.expires_at)].into();
    Ok(Decision { in_place, apply: Some((body.write()?, after)), warnings })
}

/// What keeps Argo CD from using a template.
fn template_flaws(
    at: &ObjectRef,
    host: &RegistryHost,
    flavour: Flavour,
    found: &SecretObject,
) -> Vec<String> {
    let mut flaws = Vec::new();
    if found.metadata.labels.get(SECRET_TYPE).is_none_or(|label| label != "repo-creds") {
        flaws.push(format!(
            "Argo CD does not see the Secret {at}: it lacks the label {SECRET_TYPE}: repo-creds"
        ));
    }
    for (key, wanted) in flavour.fields(host) {
        if found.value(key).is_none_or(|value| value.as_slice() != wanted.as_bytes()) {
            flaws.push(format!(
                "Argo CD does not match the Secret {at} as meant: its `{key}` should be `{wanted}`"
            ));
        }
    }
    if !flaws.is_empty() {
        flaws.push(format!("apply what `ecr-sidecar manifests` prints for {at}"));
    }
    flaws
}

/// The password of a token, as `docker login` takes it.
fn bare_password(token: &Token) -> Option<Zeroizing<Vec<u8>>> {
    let mut decoded = Zeroizing::new(STANDARD.decode(token.auth.expose()).ok()?);
    decoded.starts_with(b"AWS:").then(|| {
        decoded.drain(..4);
        decoded
    })
}

fn refuse_type(at: &ObjectRef, found: Option<&SecretObject>, wanted: &str) -> Result<(), Problem> {
    let Some(found) = found.filter(|found| found.kind != wanted) else { return Ok(()) };
    Err(Problem {
        message: format!("the Secret {at} is of type {}: consumers read {wanted}", found.kind),
        remedy: format!(
            "a Secret's type can't be changed: delete it and apply what `ecr-sidecar manifests` prints (kubectl -n {} delete secret {})",
            at.namespace, at.name
        ),
        class: Class::Denied,
    })
}

fn refuse_size(at: &ObjectRef, size: usize) -> Result<(), Problem> {
    if size <= LARGEST {
        return Ok(());
    }
    Err(Problem {
        message: format!("the Secret {at} would hold {size} bytes: no more than 1 MiB is possible"),
        remedy: "spread the registries over several sidecars with a Secret each".into(),
        class: Class::Denied,
    })
}

/// Applied only if the Secret still is as it was found.
fn with_version(mut metadata: serde_json::Value, found: Option<&SecretObject>) -> serde_json::Value {
    if let Some(found) = found {
        metadata["resourceVersion"] = json!(found.metadata.resource_version);
    }
    metadata
}

/// The body of an apply.
struct Body<'a> {
    metadata: serde_json::Value,
    kind: Option<&'static str>,
    /// Base64.
    data: BTreeMap<&'a str, &'a str>,
}

impl Body<'_> {
    /// Nothing but the name.
    fn bare(at: &ObjectRef, found: &SecretObject) -> Self {
        let metadata = json!({"name": at.name, "namespace": at.namespace});
        Self { metadata: with_version(metadata, Some(found)), kind: None, data: BTreeMap::new() }
    }

    /// The JSON, in a buffer that never moves, so that no copy of it is left behind.
    fn write(&self) -> Result<Zeroizing<Vec<u8>>, Problem> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Json<'a> {
            api_version: &'static str,
            kind: &'static str,
            #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
            type_: Option<&'static str>,
            metadata: &'a serde_json::Value,
            data: &'a BTreeMap<&'a str, &'a str>,
        }
        let metadata = self.metadata.to_string();
        let size: usize = self.data.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
        let mut body = Zeroizing::new(Vec::with_capacity(metadata.len() + size + 256));
        let json = Json {
            api_version: "v1",
            kind: "Secret",
            type_: self.kind,
            metadata: &self.metadata,
            data: &self.data,
        };
        let written = serde_json::to_writer(&mut *body, &json);
        written.map_err(|error| Problem {
            message: format!("cannot write the body of a request: {error}"),
            remedy: "please report it".into(),
            class: Class::Transient,
        })?;
        Ok(body)
    }
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
