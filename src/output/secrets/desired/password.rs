//! The Secrets that Argo CD reads: a user name and the bare password, for one registry.
//!
//! A template (`repo-creds`) serves every repository whose URL begins with its own; the Secret of a repository that
//! has as much as a user name goes before it (Argo CD, `util/db/repository_secrets.go`). Whoever writes the other fields
//! decides where Argo CD sends the password, so it is there only as long as they name our registry and no other place.

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{
    super::{
        super::argocd_names::Flavour,
        expiry_annotation::{EXPIRES, ExpiryAnnotation},
        ownership::Ownership,
    },
    Apply, Basis, Body, Coverage, Decision, InPlace, reject_size, reject_type,
};
use crate::{
    aws::token::Token,
    clock::whole_seconds,
    credentials::CredentialSet,
    failure::{Problem, Warning, diagnosis::Diagnosis},
    kubernetes::{FieldSet, ObjectRef, SecretObject},
    registry::RegistryHost,
};

/// The label by which Argo CD finds its Secrets, and its values for those that hold credentials.
const SECRET_TYPE: &str = "argocd.argoproj.io/secret-type";
const TEMPLATE: &str = "repo-creds";
const WITH_CREDENTIALS: [&str; 4] = ["repository", TEMPLATE, "repository-write", "repo-write-creds"];
const TYPE: &str = "Opaque";
const USER: &str = "AWS";
const KEYS: [&str; 2] = ["username", "password"];
/// The keys by which Argo CD sends a password to whoever answers, or in clear.
const INSECURE: [&str; 3] = ["insecure", "insecureIgnoreHostKey", "insecureOCIForceHttp"];

pub(super) fn of_template(
    at: &ObjectRef,
    host: &RegistryHost,
    flavour: Flavour,
    found: Option<&SecretObject>,
    basis: &Basis<'_>,
) -> Result<Decision, Problem> {
    reject_type(at, found, TYPE)?;
    let place = Place { at, host, basis };
    let Some(found) = found else { return place.create_template(flavour) };
    let fields = flavour.fields(host);
    let url = fields.iter().find(|(key, _)| *key == "url").map(|(_, url)| url.as_bytes());
    if found.value("url").as_deref().map(Vec::as_slice) != url {
        return place.withhold(found, "its `url` is not the registry's");
    }
    let user = found.value("username").unwrap_or_default();
    let is_managed = Ownership::of(Some(found), "password", basis.memory).is_managed();
    if !is_managed && !user.is_empty() && user.as_slice() != USER.as_bytes() {
        return place.withhold(found, "it holds the credentials of another user");
    }
    place.decide(found, template_warnings(at, &fields, found))
}

/// Decides for a repository's Secret, which has to be there: only its owner knows what it is for.
pub(super) fn of_repository(
    at: &ObjectRef,
    found: Option<&SecretObject>,
    basis: &Basis<'_>,
) -> Result<Decision, Problem> {
    let missing = || Problem::denied(format!("there is no Secret {at}"), Diagnosis::SecretMissing);
    let found = found.ok_or_else(missing)?;
    let Some(host) = registry_of(found, basis.desired) else {
        // Before the first token of the caller's own registry there is nothing to judge a `url` by.
        let (coverage, warnings) = match knows_no_registry(basis.desired) {
            true => (Coverage::All, Vec::new()),
            false => (Coverage::None, vec![not_configured(at)]),
        };
        let decision = Decision::unchanged(coverage, InPlace::new(), warnings);
        // A registry that this process does not know yet, or another sidecar's.
        let apply = if is_where_it_was_put(found, basis) { None } else { without_ours(at, found)? };
        return Ok(Decision { apply, ..decision });
    };
    let label = found.metadata.labels.get(SECRET_TYPE);
    let mut warnings = Vec::new();
    if label.is_none_or(|label| !WITH_CREDENTIALS.contains(&label.as_str())) {
        warnings.push(unlabelled(at, "repository"));
    }
    Place { at, host: &host, basis }.decide(found, warnings)
}

fn knows_no_registry(CredentialSet { current, awaited, retired }: &CredentialSet) -> bool {
    current.is_empty() && awaited.is_empty() && retired.is_empty()
}

fn registry_in_url(found: &SecretObject) -> Option<RegistryHost> {
    let url = found.value("url")?;
    let url = std::str::from_utf8(&url).ok()?.trim().to_ascii_lowercase();
    let rest = ["oci://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme)).unwrap_or(&url);
    rest.split('/').next()?.parse().ok()
}

/// Whether a sidecar put the password there for the registry that the URL is in, and Argo CD verifies that it is sent
/// there.
fn is_where_it_was_put(found: &SecretObject, basis: &Basis<'_>) -> bool {
    let Some(host) = registry_in_url(found) else { return false };
    let ownership = Ownership::of(Some(found), "password", basis.memory);
    let is_annotated = ownership.annotation.hosts().any(|annotated| annotated == host.as_str());
    is_annotated && INSECURE.iter().all(|key| is_false(found, key))
}

fn registry_of(found: &SecretObject, desired: &CredentialSet) -> Option<RegistryHost> {
    let host = registry_in_url(found)?;
    let is_ours = desired.current.contains_key(&host)
        || desired.awaited.contains(&host)
        || desired.retired.contains(&host);
    is_ours.then_some(host)
}

#[derive(Clone, Copy)]
struct Place<'a> {
    at: &'a ObjectRef,
    host: &'a RegistryHost,
    basis: &'a Basis<'a>,
}

impl Place<'_> {
    /// The token of the registry and its password, once there is one.
    fn desired(&self) -> Option<(&Token, Zeroizing<Vec<u8>>)> {
        let token = self.basis.desired.current.get(self.host)?;
        Some((token, token.password()?))
    }

    fn unchanged(&self, in_place: InPlace, warnings: Vec<Warning>) -> Decision {
        Decision::unchanged(Coverage::One(self.host.clone()), in_place, warnings)
    }

    /// A template that does not exist: created where the rights allow it.
    fn create_template(&self, flavour: Flavour) -> Result<Decision, Problem> {
        let Self { at, host, basis } = *self;
        let decision = self.unchanged(InPlace::new(), Vec::new());
        if basis.desired.retired.contains(host) {
            return Ok(decision);
        }
        let fields = flavour.fields(host).into_iter().map(|(key, value)| (key, STANDARD.encode(value)));
        let fields: Vec<_> = fields.collect();
        let mut body = Body::creating(at, TYPE);
        body.label(SECRET_TYPE, TEMPLATE);
        fields.iter().for_each(|(key, value)| body.set(key, value));
        self.with_credential(body, decision)
    }

    fn decide(&self, found: &SecretObject, warnings: Vec<Warning>) -> Result<Decision, Problem> {
        let Self { at, host, basis } = *self;
        if let Some(key) = INSECURE.into_iter().find(|key| !is_false(found, key)) {
            let reason = format!("by its `{key}` Argo CD does not verify who gets the password");
            return self.withhold(found, &reason);
        }
        let ownership = Ownership::of(Some(found), "password", basis.memory);
        let value = |key| found.value(key).unwrap_or_default();
        let (username, password) = (value("username"), value("password"));
        let desired = self.desired();
        let desired_one = desired.as_ref().filter(|(_, bare)| **bare == *password);
        let expiry = match desired_one {
            Some((token, _)) => Some(token.expires_at),
            None => ownership.expiry(host, &password, basis.now),
        };
        let expiry = expiry.filter(|_| username.as_slice() == USER.as_bytes());
        let in_place = expiry.map(|expiry| (host.clone(), expiry)).into_iter().collect();
        let decision = self.unchanged(in_place, warnings);
        if basis.desired.retired.contains(host) {
            return Ok(Decision { apply: without_ours(at, found)?, ..decision });
        }
        let Some((token, bare)) = &desired else { return Ok(decision) };
        let is_as_desired = match (expiry, desired_one) {
            (None, _) => false,
            (Some(_), Some(_)) => ownership.annotation == annotation(host, bare, token.expires_at),
            (Some(expiry), None) => expiry >= whole_seconds(token.expires_at),
        };
        if is_as_desired {
            return Ok(decision);
        }
        self.with_credential(Body::carrying(at, found), decision)
    }

    fn with_credential(&self, body: Body<'_>, decision: Decision) -> Result<Decision, Problem> {
        let Self { at, host, .. } = *self;
        let Some((token, bare)) = self.desired() else { return Ok(decision) };
        reject_size(at, bare.len())?;
        let annotation = annotation(host, &bare, token.expires_at).to_text();
        let (username, password) = (STANDARD.encode(USER), Zeroizing::new(STANDARD.encode(&**bare)));
        let mut body = body;
        body.annotate(EXPIRES, &annotation);
        body.set("username", &username);
        body.set("password", &password);
        let after = [(host.clone(), token.expires_at)].into();
        Ok(Decision { apply: Some((body.write()?, after)), ..decision })
    }

    /// No password goes there, and the one that we put there leaves.
    fn withhold(&self, found: &SecretObject, reason: &str) -> Result<Decision, Problem> {
        let Self { at, host, basis } = *self;
        let decision = self.unchanged(InPlace::new(), Vec::new());
        // Of a registry that is no longer configured, none is wanted there.
        let message = format!("the Secret {at} gets no credentials: {reason}");
        let is_configured = !basis.desired.retired.contains(host);
        let problem = is_configured.then(|| Problem::denied(message, Diagnosis::CredentialWithheld));
        Ok(Decision { apply: without_ours(at, found)?, problem, ..decision })
    }
}

fn annotation(host: &RegistryHost, bare: &[u8], expires_at: std::time::SystemTime) -> ExpiryAnnotation {
    let mut annotation = ExpiryAnnotation::default();
    annotation.set(host, bare, expires_at);
    annotation
}

fn without_ours(at: &ObjectRef, found: &SecretObject) -> Result<Option<Apply>, Problem> {
    let meta = &found.metadata;
    if !meta.applied(FieldSet::Data).any(|key| KEYS.contains(&key)) && !meta.we_annotated(EXPIRES) {
        return Ok(None);
    }
    let mut body = Body::carrying(at, found);
    body.leave_out(EXPIRES, &KEYS);
    Ok(Some((body.write()?, InPlace::new())))
}

/// Whether Argo CD takes the value of a key for false, which it does where there is none. What is no boolean keeps it
/// from using the Secret.
fn is_false(found: &SecretObject, key: &str) -> bool {
    let value = found.value(key).unwrap_or_default();
    ["", "0", "f", "F", "false", "False", "FALSE"].iter().any(|text| text.as_bytes() == value.as_slice())
}

fn template_warnings(at: &ObjectRef, fields: &[(&str, String)], found: &SecretObject) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if found.metadata.labels.get(SECRET_TYPE).is_none_or(|label| label != TEMPLATE) {
        warnings.push(unlabelled(at, TEMPLATE));
    }
    for (key, wanted) in fields {
        if found.value(key).is_none_or(|value| value.as_slice() != wanted.as_bytes()) {
            let message =
                format!("Argo CD does not match the Secret {at} as meant: its `{key}` should be `{wanted}`");
            warnings.push(Warning::new(message, Diagnosis::ArgocdSecretIgnored));
        }
    }
    warnings
}

fn unlabelled(at: &ObjectRef, label: &str) -> Warning {
    let message = format!("Argo CD ignores the Secret {at}: it lacks the label {SECRET_TYPE}: {label}");
    Warning::new(message, Diagnosis::ArgocdSecretIgnored)
}

fn not_configured(at: &ObjectRef) -> Warning {
    let message =
        format!("the Secret {at} gets no credentials: its `url` is in none of the configured registries");
    Warning::new(message, Diagnosis::RegistryNotConfigured)
}
