//! The Secrets that Argo CD reads: a user name and the bare password, for one registry.
//!
//! A template (`repo-creds`) serves every repository whose URL begins with its own; the Secret of a repository that
//! has as much as a user name goes before it (Argo CD, `util/db/repository_secrets.go`).

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    super::{
        super::argocd_names::Flavour,
        marks::{EXPIRES, Marks},
    },
    Body, Concern, Decision, InPlace, MANAGED_BY, refuse_size, refuse_type, with_version,
};
use crate::{
    clock::whole_seconds,
    credentials::CredentialSet,
    diagnosis::Diagnosis,
    failure::{Class, Problem},
    kubernetes::{ObjectRef, SecretObject},
    registry::RegistryHost,
    token::Token,
};

/// The label by which Argo CD finds its Secrets.
const SECRET_TYPE: &str = "argocd.argoproj.io/secret-type";

/// Decides for the template of a registry.
pub(super) fn of_template(
    at: &ObjectRef,
    host: &RegistryHost,
    flavour: Flavour,
    found: Option<&SecretObject>,
    desired: &CredentialSet,
    now: SystemTime,
) -> Result<Decision, Problem> {
    refuse_type(at, found, "Opaque")?;
    let flaws = found.map_or_else(Vec::new, |found| template_flaws(at, host, flavour, found));
    decide(at, host, Some(flavour), found, desired, now, flaws)
}

/// Decides for a repository's Secret, which has to be there: what it is for, nobody but its owner knows.
pub(super) fn of_repository(
    at: &ObjectRef,
    found: Option<&SecretObject>,
    desired: &CredentialSet,
    now: SystemTime,
) -> Result<Decision, Problem> {
    let found = found.ok_or_else(|| Problem {
        message: format!("there is no Secret {at}"),
        remedy: Diagnosis::SecretMissing.into(),
        class: Class::Denied,
    })?;
    let Some(host) = registry_of(found, desired) else {
        return Ok(Decision {
            concern: Concern::None,
            in_place: InPlace::new(),
            apply: None,
            warnings: vec![format!(
                "the Secret {at} is left as it is: its `url` is in none of the configured registries"
            )],
        });
    };
    let mut flaws = Vec::new();
    if found.metadata.labels.get(SECRET_TYPE).is_none_or(|label| label != "repository") {
        flaws.push(format!(
            "Argo CD does not see the Secret {at}: it lacks the label {SECRET_TYPE}: repository"
        ));
    }
    decide(at, &host, None, Some(found), desired, now, flaws)
}

/// The registry that a repository's URL is in, if it is one of ours.
fn registry_of(found: &SecretObject, desired: &CredentialSet) -> Option<RegistryHost> {
    let url = found.value("url")?;
    let url = std::str::from_utf8(&url).ok()?.trim().to_ascii_lowercase();
    let rest = ["oci://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme)).unwrap_or(&url);
    let host: RegistryHost = rest.split('/').next()?.parse().ok()?;
    let is_ours = desired.current.contains_key(&host)
        || desired.awaited.contains(&host)
        || desired.retired.contains(&host);
    is_ours.then_some(host)
}

/// `flavour` is that of a template, whose other fields are ours too where nobody else has set them.
fn decide(
    at: &ObjectRef,
    host: &RegistryHost,
    flavour: Option<Flavour>,
    found: Option<&SecretObject>,
    desired: &CredentialSet,
    now: SystemTime,
    warnings: Vec<String>,
) -> Result<Decision, Problem> {
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
    let concern = Concern::One(host.clone());
    let rest =
        |in_place| Decision { concern: concern.clone(), in_place, apply: None, warnings: warnings.clone() };
    if desired.retired.contains(host) {
        // What we applied goes when we apply nothing of it.
        let ours = found.filter(|found| found.metadata.we_own("password"));
        let body = ours.map(|found| Body::bare(at, found).write()).transpose()?;
        return Ok(Decision { apply: body.map(|body| (body, InPlace::new())), ..rest(in_place) });
    }
    let (Some(token), Some(bare)) = (token, bare) else { return Ok(rest(in_place)) };
    if in_place.get(host).is_some_and(|expiry| is_same || *expiry >= whole_seconds(token.expires_at)) {
        return Ok(rest(in_place));
    }
    refuse_size(at, bare.len())?;
    let body = body(at, host, flavour, found, token, &bare)?;
    let after = [(host.clone(), token.expires_at)].into();
    Ok(Decision { apply: Some((body, after)), ..rest(in_place) })
}

fn body(
    at: &ObjectRef,
    host: &RegistryHost,
    flavour: Option<Flavour>,
    found: Option<&SecretObject>,
    token: &Arc<Token>,
    bare: &Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let mut marks = Marks::default();
    marks.set(host, bare, token.expires_at);
    let mut metadata = json!({
        "name": at.name, "namespace": at.namespace, "annotations": {EXPIRES: marks.to_text()},
    });
    let password = Zeroizing::new(STANDARD.encode(&**bare));
    let username = STANDARD.encode("AWS");
    // Nobody else says what it is for.
    let described = flavour.filter(|_| found.is_none_or(|found| found.metadata.we_own("url")));
    let fields: Vec<_> = described.map_or_else(Vec::new, |flavour| flavour.fields(host));
    let fields: Vec<_> = fields.into_iter().map(|(key, value)| (key, STANDARD.encode(value))).collect();
    let mut data: BTreeMap<&str, &str> =
        [("username", username.as_str()), ("password", password.as_str())].into();
    data.extend(fields.iter().map(|(key, value)| (*key, value.as_str())));
    if described.is_some() {
        metadata["labels"] = json!({SECRET_TYPE: "repo-creds", MANAGED_BY: "ecr-sidecar"});
    }
    Body { metadata: with_version(metadata, found), kind: found.is_none().then_some("Opaque"), data }.write()
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
