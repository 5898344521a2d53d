//! The body of an apply.
//!
//! Server-side apply removes what its field manager has applied before and leaves out now, and all outputs, of this
//! process and of those before it, are one field manager. So a body contains everything that the field manager has applied
//! to the Secret, as it is now, and an output changes in it what it is for: no output removes what another put there.

use std::collections::BTreeMap;

use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    failure::Problem,
    kubernetes::{FieldSet, ObjectRef, SecretObject},
};

/// The label by which a Secret shows who manages it.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

pub(super) struct Body<'a> {
    at: &'a ObjectRef,
    /// Applied only if the Secret still is as it was found.
    version: Option<&'a str>,
    kind: Option<&'a str>,
    labels: BTreeMap<&'a str, &'a str>,
    annotations: BTreeMap<&'a str, &'a str>,
    /// Base64.
    data: BTreeMap<&'a str, &'a str>,
}

impl<'a> Body<'a> {
    /// Of a Secret that does not exist, of type `kind`: labels belong to whoever creates it, so this one has ours.
    pub(super) fn creating(at: &'a ObjectRef, kind: &'a str) -> Self {
        Self {
            at,
            version: None,
            kind: Some(kind),
            labels: [(MANAGED_BY, "ecr-sidecar")].into(),
            annotations: BTreeMap::new(),
            data: BTreeMap::new(),
        }
    }

    pub(super) fn carrying(at: &'a ObjectRef, found: &'a SecretObject) -> Self {
        let meta = &found.metadata;
        let of = |set, map: &'a BTreeMap<String, String>| {
            let names = meta.applied(set);
            names.filter_map(|name| Some((name, map.get(name)?.as_str()))).collect::<BTreeMap<_, _>>()
        };
        let mut labels = of(FieldSet::Labels, &meta.labels);
        if must_release_label(found) {
            labels.remove(MANAGED_BY);
        }
        let annotations = of(FieldSet::Annotations, &meta.annotations);
        let names = meta.applied(FieldSet::Data);
        let data = names.filter_map(|name| Some((name, found.encoded(name)?))).collect();
        let kind = meta.we_typed().then_some(found.kind.as_str());
        Self { at, version: Some(&meta.resource_version), kind, labels, annotations, data }
    }

    pub(super) fn of(at: &'a ObjectRef, found: Option<&'a SecretObject>, kind: &'a str) -> Self {
        found.map_or_else(|| Self::creating(at, kind), |found| Self::carrying(at, found))
    }

    pub(super) fn label(&mut self, name: &'a str, value: &'a str) {
        self.labels.insert(name, value);
    }

    pub(super) fn annotate(&mut self, name: &'a str, value: &'a str) {
        self.annotations.insert(name, value);
    }

    /// Sets a key of `data`; the value is base64.
    pub(super) fn set(&mut self, key: &'a str, value: &'a str) {
        self.data.insert(key, value);
    }

    /// Leaves out what we have applied there: it goes, unless another field manager has applied it too.
    pub(super) fn leave_out(&mut self, annotation: &str, keys: &[&str]) {
        self.annotations.remove(annotation);
        self.data.retain(|key, _| !keys.contains(key));
    }

    /// The JSON, in a buffer that never moves, so that no copy of it is left behind.
    pub(super) fn write(&self) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let Self { at, version, kind, labels, annotations, data } = self;
        let metadata = Metadata {
            name: &at.name,
            namespace: &at.namespace,
            resource_version: *version,
            labels,
            annotations,
        };
        let json = Json { api_version: "v1", kind: "Secret", type_: *kind, metadata, data };
        let failed = |error| Problem::fault(format!("cannot write the body of a request: {error}"));
        let mut size = Size(0);
        serde_json::to_writer(&mut size, &json).map_err(failed)?;
        let mut body = Zeroizing::new(Vec::with_capacity(size.0));
        serde_json::to_writer(&mut *body, &json).map_err(failed)?;
        Ok(body)
    }
}

/// Whether we hold the label of whoever manages a Secret that another field manager made, as version 0.1.0 did: it keeps
/// that one from applying its own (Helm 4 then fails at each upgrade).
pub(super) fn must_release_label(found: &SecretObject) -> bool {
    let meta = &found.metadata;
    meta.made_by_another() && meta.applied(FieldSet::Labels).any(|name| name == MANAGED_BY)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    type_: Option<&'a str>,
    metadata: Metadata<'a>,
    data: &'a BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<&'a str, &'a str>,
}

pub(super) struct Size(pub(super) usize);

impl std::io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
