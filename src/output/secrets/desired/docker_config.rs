//! The Secret that Flux and kubelet read: a docker config of all registries.

use std::{collections::BTreeMap, time::SystemTime};

use base64::{engine::general_purpose::STANDARD, write::EncoderWriter};
use zeroize::Zeroizing;

use super::{
    super::{
        expiry_annotation::{EXPIRES, ExpiryAnnotation},
        ownership::Ownership,
    },
    Basis, Body, Coverage, Decision, InPlace,
    body::{Size, must_release_label},
    reject_size, reject_type,
};
use crate::{
    clock::whole_seconds,
    credentials::CredentialSet,
    docker_config::{Base, Document, Merged, merge},
    failure::{Problem, diagnosis::Diagnosis},
    kubernetes::{ObjectRef, SecretObject},
    registry::RegistryHost,
};

/// The type of a Secret that holds a docker config, and its key.
pub(super) const TYPE: &str = "kubernetes.io/dockerconfigjson";
pub(in crate::output::secrets) const KEY: &str = ".dockerconfigjson";

pub(super) fn decide(
    at: &ObjectRef,
    adopt: bool,
    base: Option<&Base>,
    found: Option<&SecretObject>,
    basis: &Basis<'_>,
) -> Result<Decision, Problem> {
    reject_type(at, found, TYPE)?;
    let ownership = Ownership::of(found, KEY, basis.memory);
    let bytes = found.and_then(|found| found.value(KEY)).unwrap_or_default();
    let text = std::str::from_utf8(&bytes).unwrap_or("?");
    let parsed = Document::parse(text);
    let is_filled = parsed.as_ref().map_or(true, |document| !document.auths.is_empty());
    if found.is_some() && is_filled && !ownership.is_managed() && !adopt {
        let message = format!("the Secret {at} holds unmanaged credentials and is left as it is");
        return Err(Problem::denied(message, Diagnosis::SecretUnmanaged));
    }
    let existing = parsed.unwrap_or_default();
    let known = classify(&existing, &ownership, basis);
    let plan = plan(&existing, &ownership, &known, basis.desired);

    let mut merged = merge(existing, base, &plan.merged);
    let mut warnings = std::mem::take(&mut merged.warnings);
    warnings.iter_mut().for_each(|warning| warning.message.insert_str(0, &format!("the Secret {at}: ")));
    let mut decision = Decision::unchanged(Coverage::All, expiries(&known), warnings);
    let is_as_desired =
        merged.is(text) && plan.annotation == ownership.annotation && !found.is_some_and(must_release_label);
    if merged.ours && !is_as_desired {
        let content = encode(at, &merged)?;
        let annotation = plan.annotation.to_text();
        let mut body = Body::of(at, found, TYPE);
        body.annotate(EXPIRES, &annotation);
        body.set(KEY, std::str::from_utf8(&content).unwrap_or_default());
        decision.apply = Some((body.write()?, plan.in_place));
        decision.removes = merged.removed;
    }
    Ok(decision)
}

/// A credential that a sidecar put there.
struct Known {
    expires_at: SystemTime,
    /// It is another than the desired one and expires no sooner: it stays.
    stays: bool,
}

/// The registries whose credential in `document` a sidecar put there.
fn classify(
    document: &Document<'_>,
    ownership: &Ownership<'_>,
    basis: &Basis<'_>,
) -> BTreeMap<RegistryHost, Known> {
    let current = &basis.desired.current;
    // Before our first token: what the process before us, or another sidecar, left. Of no other registry than ours: a
    // tenant may annotate thousands.
    let annotated = ownership.annotation.hosts().filter_map(|host| host.parse::<RegistryHost>().ok());
    let annotated =
        annotated.filter(|host| !current.contains_key(host) && basis.desired.may_be_configured(host));
    let known = current.keys().cloned().chain(annotated).filter_map(|host| {
        let auth = document.auth_of(host.as_str())?;
        let token = current.get(&host);
        if let Some(token) = token.filter(|token| auth == token.auth.expose().as_str()) {
            return Some((host, Known { expires_at: token.expires_at, stays: false }));
        }
        let expires_at = ownership.expiry(&host, auth.as_bytes(), basis.now)?;
        let stays = token.is_some_and(|token| expires_at >= whole_seconds(token.expires_at));
        Some((host, Known { expires_at, stays }))
    });
    known.collect()
}

fn expiries(known: &BTreeMap<RegistryHost, Known>) -> InPlace {
    known.iter().map(|(host, it)| (host.clone(), it.expires_at)).collect()
}

struct Plan {
    /// What is merged into the document. The token that is there already is merged too, so that its twins and helpers go.
    merged: CredentialSet,
    annotation: ExpiryAnnotation,
    in_place: InPlace,
}

fn plan(
    document: &Document<'_>,
    ownership: &Ownership<'_>,
    known: &BTreeMap<RegistryHost, Known>,
    desired: &CredentialSet,
) -> Plan {
    let auth = |host: &str| document.entry_auth(host).unwrap_or_default();
    let mut annotation = ownership.annotation.clone();
    // Registries of other sidecars that keep the same Secret stay in it as long as their credential is there.
    annotation.retain(|host| {
        !desired.retired.contains(host) && ownership.annotation.is_of(host, auth(host).as_bytes())
    });
    let mut in_place = expiries(known);
    in_place.retain(|host, _| !desired.retired.contains(host));
    let mut merged = desired.clone();
    merged.current.retain(|host, token| match known.get(host).filter(|it| it.stays) {
        Some(other) => {
            annotation.set(host, auth(host.as_str()).as_bytes(), other.expires_at);
            false
        }
        None => {
            annotation.set(host, token.auth.expose().as_bytes(), token.expires_at);
            in_place.insert(host.clone(), token.expires_at);
            true
        }
    });
    Plan { merged, annotation, in_place }
}

fn encode(at: &ObjectRef, merged: &Merged<'_>) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let failed = |error| Problem::fault(format!("cannot write the content of {at}: {error}"));
    let mut size = Size(0);
    merged.write_to(&mut size).map_err(failed)?;
    reject_size(at, size.0)?;
    // Of the right size at once: a buffer that grows leaves copies behind.
    let mut encoded = Zeroizing::new(Vec::with_capacity(size.0.div_ceil(3) * 4));
    let mut encoder = EncoderWriter::new(&mut *encoded, &STANDARD);
    merged.write_to(&mut encoder).and_then(|()| encoder.finish().map(drop)).map_err(failed)?;
    drop(encoder);
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use serde_json::json;

    use super::{super::super::ownership::Memory, *};
    use crate::{aws::token::Token, secret::Secret};

    const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn of_two_credentials_the_one_that_expires_later_is_there_then() {
        let host: RegistryHost = HOST.parse().unwrap();
        let token = Token { auth: Secret::new("ours".into()), obtained_at: at(0), expires_at: at(1000) };
        let desired =
            CredentialSet { current: [(host.clone(), Arc::new(token))].into(), ..CredentialSet::default() };
        // What is there and when it expires; when that of a consumer expires before and after, and whether ours is merged.
        for (auth, expires, before, after, merges) in [
            ("ours", 2000, Some(1000), 1000, true),
            ("theirs", 999, Some(999), 1000, true),
            ("theirs", 1000, Some(1000), 1000, false),
            ("theirs", 2000, Some(2000), 2000, false),
            ("forged", 2000, None, 1000, true),
        ] {
            let mut annotation = ExpiryAnnotation::default();
            annotation.set(&host, auth.replace("forged", "theirs").as_bytes(), at(expires));
            let found: SecretObject = serde_json::from_value(json!({"metadata": {
                "annotations": {EXPIRES: annotation.to_text()},
                "managedFields": [{"manager": "ecr-sidecar", "operation": "Apply", "fieldsV1": {
                    "f:data": {format!("f:{KEY}"): {}}, "f:metadata": {"f:annotations": {format!("f:{EXPIRES}"): {}}},
                }}],
            }}))
            .unwrap();
            let memory = Memory::default();
            let ownership = Ownership::of(Some(&found), KEY, &memory);
            let text = json!({"auths": {HOST: {"auth": auth}}}).to_string();
            let document = Document::parse(&text).unwrap();
            let known =
                classify(&document, &ownership, &Basis { desired: &desired, memory: &memory, now: at(0) });
            let plan = plan(&document, &ownership, &known, &desired);
            assert_eq!(expiries(&known).get(&host).copied(), before.map(at), "{auth} until {expires}");
            assert_eq!(plan.in_place, [(host.clone(), at(after))].into(), "{auth} until {expires}");
            assert_eq!(!plan.merged.current.is_empty(), merges, "{auth} until {expires}");
            let expected = if merges { "ours" } else { "theirs" };
            assert!(plan.annotation.is_of(HOST, expected.as_bytes()), "{auth} until {expires}");
        }
    }
}
