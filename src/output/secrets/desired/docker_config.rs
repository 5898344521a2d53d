//! The Secret that Flux and kubelet read: a docker config of all registries.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
    time::SystemTime,
};

use base64::{engine::general_purpose::STANDARD, write::EncoderWriter};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    super::{
        super::docker_config::{
            document::Document,
            merge::{BaseKeys, merge},
            read::Base,
        },
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
};

/// The type of a Secret that holds a docker config, and its key.
pub(super) const TYPE: &str = "kubernetes.io/dockerconfigjson";
pub(super) const KEY: &str = ".dockerconfigjson";

pub(super) fn decide(
    at: &ObjectRef,
    adopt: bool,
    base: Option<&Base>,
    found: Option<&SecretObject>,
    desired: &CredentialSet,
    now: SystemTime,
) -> Result<Decision, Problem> {
    refuse_type(at, found, TYPE)?;
    let marks = found.map(|found| Marks::parse(&found.metadata.annotations)).unwrap_or_default();
    let bytes = found.and_then(|found| found.value(KEY)).unwrap_or_default();
    let text = std::str::from_utf8(&bytes).unwrap_or("?");
    let parsed = Document::parse(text);
    let is_filled = parsed.as_ref().map_or(true, |document| !document.auths.is_empty());
    let is_ours = found.is_some_and(|found| !marks.is_empty() || found.metadata.we_own(KEY));
    if found.is_some() && is_filled && !is_ours && !adopt {
        return Err(Problem {
            message: format!(
                "the Secret {at} holds credentials that somebody else put there: it is left as it is"
            ),
            remedy: Diagnosis::SecretForeign.into(),
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
        return Ok(Decision { concern: Concern::All, in_place, apply: None, warnings });
    }
    let mut marks_after = marks.clone();
    marks_after.retain(|host| !desired.retired.contains(host));
    for (host, token) in &current {
        marks_after.set(host, token.auth.expose().as_bytes(), token.expires_at);
    }
    let is_labelled = found
        .is_some_and(|found| found.metadata.labels.get(MANAGED_BY).is_some_and(|by| by == "ecr-sidecar"));
    if merged.is(text) && marks_after == marks && is_labelled {
        return Ok(Decision { concern: Concern::All, in_place, apply: None, warnings });
    }
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
    let metadata = json!({
        "name": at.name, "namespace": at.namespace,
        "labels": {MANAGED_BY: "ecr-sidecar"},
        "annotations": {EXPIRES: marks_after.to_text()},
    });
    let body = Body {
        metadata: with_version(metadata, found),
        kind: Some(TYPE),
        data: [(KEY, std::str::from_utf8(&encoded).unwrap_or_default())].into(),
    };
    Ok(Decision { concern: Concern::All, in_place, apply: Some((body.write()?, after)), warnings })
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
