//! The Secret that Flux and kubelet read: a docker config of all registries.

use std::{collections::BTreeMap, io, sync::Arc, time::SystemTime};

use base64::{engine::general_purpose::STANDARD, write::EncoderWriter};
use zeroize::Zeroizing;

use super::{
    super::{
        expiry_annotation::{EXPIRES, ExpiryAnnotation},
        ownership::Ownership,
    },
    Basis, Body, Concern, Decision, InPlace,
    body::{Size, must_release_label},
    refuse_size, refuse_type,
};
use crate::{
    clock::whole_seconds,
    docker_config::{Base, BaseKeys, Document, Merged, merge},
    failure::{Class, Problem, diagnosis::Diagnosis},
    kubernetes::{ObjectRef, SecretObject},
    registry::RegistryHost,
};

/// The type of a Secret that holds a docker config, and its key.
pub(super) const TYPE: &str = "kubernetes.io/dockerconfigjson";
pub(super) const KEY: &str = ".dockerconfigjson";

pub(super) fn decide(
    at: &ObjectRef,
    adopt: bool,
    base: Option<&Base>,
    found: Option<&SecretObject>,
    basis: &Basis<'_>,
) -> Result<Decision, Problem> {
    refuse_type(at, found, TYPE)?;
    let desired = basis.desired;
    let ownership = Ownership::of(found, KEY, basis.memory);
    let bytes = found.and_then(|found| found.value(KEY)).unwrap_or_default();
    let text = std::str::from_utf8(&bytes).unwrap_or("?");
    let parsed = Document::parse(text);
    let is_filled = parsed.as_ref().map_or(true, |document| !document.auths.is_empty());
    if found.is_some() && is_filled && !ownership.is_managed() && !adopt {
        return Err(Problem {
            message: format!("the Secret {at} holds unmanaged credentials and is left as it is"),
            remedy: Diagnosis::SecretForeign.into(),
            class: Class::Denied,
        });
    }
    let existing = parsed.unwrap_or_default();
    let known = known(&existing, &ownership, basis);
    let marks = marks_after(&existing, &ownership, &known, basis);
    let mut wanted = desired.clone();
    wanted.current.retain(|host, token| {
        !known.get(host).is_some_and(|it| it.is_desired || it.expiry >= whole_seconds(token.expires_at))
    });
    let in_place: InPlace = known.iter().map(|(host, it)| (host.clone(), it.expiry)).collect();
    let mut after = in_place.clone();
    after.retain(|host, _| !desired.retired.contains(host));
    after.extend(wanted.current.iter().map(|(host, token)| (host.clone(), token.expires_at)));
    // Those that stay are merged too, so that their twins and helpers go.
    for (host, token) in &desired.current {
        if known.get(host).is_some_and(|it| it.is_desired) {
            wanted.current.insert(host.clone(), Arc::clone(token));
        }
    }

    let nothing = BaseKeys::default();
    let supplied = base.map_or(&nothing, Base::supplied);
    let merged = merge(existing, base.and_then(Base::document), supplied, &wanted);
    let warnings: Vec<_> = merged.warnings.iter().map(ToString::to_string).collect();
    let mut decision = Decision::removing(Concern::All, in_place, warnings);
    let is_as_desired = merged.is(text) && marks == ownership.marks && !found.is_some_and(must_release_label);
    if merged.ours && !is_as_desired {
        let encoded = encode(at, &merged)?;
        let marks = marks.to_text();
        let mut body = Body::of(at, found, TYPE);
        body.annotate(EXPIRES, &marks);
        body.set(KEY, std::str::from_utf8(&encoded).unwrap_or_default());
        decision.apply = Some((body.write()?, after));
        decision.removes = merged.removed;
    }
    Ok(decision)
}

/// The content in base64.
fn encode(at: &ObjectRef, merged: &Merged<'_>) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let failed = |error: io::Error| Problem {
        message: format!("cannot write the content of {at}: {error}"),
        remedy: Diagnosis::Fault.into(),
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
    Ok(encoded)
}

/// A credential that a sidecar put there.
struct Known {
    expiry: SystemTime,
    /// It is the one that is desired.
    is_desired: bool,
}

/// The registries whose credential in `document` a sidecar put there.
fn known(
    document: &Document<'_>,
    ownership: &Ownership<'_>,
    basis: &Basis<'_>,
) -> BTreeMap<RegistryHost, Known> {
    let current = &basis.desired.current;
    // Before our first token: what the process before us, or another sidecar, left.
    let marked = ownership.marks.hosts().filter_map(|host| host.parse::<RegistryHost>().ok());
    let marked = marked.filter(|host| !current.contains_key(host));
    let mut known = BTreeMap::new();
    for host in current.keys().cloned().chain(marked) {
        let Some(auth) = document.auth_of(host.as_str()) else { continue };
        let desired = current.get(&host).filter(|token| auth == token.auth.expose().as_str());
        let expiry = match desired {
            Some(token) => Some(token.expires_at),
            None => ownership.expiry(&host, auth.as_bytes(), basis.now),
        };
        if let Some(expiry) = expiry {
            known.insert(host, Known { expiry, is_desired: desired.is_some() });
        }
    }
    known
}

/// The annotation as it should be. What it says of registries of other sidecars that keep the same Secret stays, as long
/// as their credential is there.
fn marks_after(
    document: &Document<'_>,
    ownership: &Ownership<'_>,
    known: &BTreeMap<RegistryHost, Known>,
    basis: &Basis<'_>,
) -> ExpiryAnnotation {
    let desired = basis.desired;
    let mut marks = ownership.marks.clone();
    marks.retain(|host| {
        let auth = document.entry_auth(host).unwrap_or_default();
        !desired.retired.contains(host) && ownership.marks.is_of(host, auth.as_bytes())
    });
    for (host, token) in &desired.current {
        match known.get(host) {
            Some(it) if !it.is_desired && it.expiry >= whole_seconds(token.expires_at) => {
                let auth = document.entry_auth(host.as_str()).unwrap_or_default();
                marks.set(host, auth.as_bytes(), it.expiry);
            }
            _ => marks.set(host, token.auth.expose().as_bytes(), token.expires_at),
        }
    }
    marks
}
