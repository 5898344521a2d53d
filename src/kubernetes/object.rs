//! What is read of an object, and no more.

mod fields;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use self::fields::Fields;
use super::{FIELD_MANAGER, Wanted};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectRef {
    pub namespace: String,
    pub name: String,
}

impl ObjectRef {
    /// A Secret of this namespace and name, both valid ones: they go into paths as they are.
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn wanted(&self, verb: &'static str) -> Wanted<'_> {
        Wanted { verb, resource: "secrets", namespace: &self.namespace, name: &self.name }
    }

    pub(super) fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets/{}", self.namespace, self.name)
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub name: String,
    /// Its namespace; empty for what has none.
    pub namespace: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    /// Its annotations. One may hold a Secret's data (`last-applied-configuration`): not to be shown.
    pub annotations: BTreeMap<String, String>,
    managed_fields: Vec<ManagedFields>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ManagedFields {
    manager: String,
    operation: String,
    /// To the second, and of one form: it sorts as text.
    time: String,
    fields_v1: Fields,
}

impl Meta {
    /// Which other field manager holds one of these keys of `data`, or else wrote last: keys that were removed have none.
    pub(crate) fn other_manager(&self, keys: &[&str]) -> Option<&str> {
        let foreign = self.managed_fields.iter().filter(|fields| !fields.is_ours());
        let holds = |fields: &ManagedFields| keys.iter().any(|key| fields.has(key));
        foreign
            .max_by_key(|fields| (holds(fields), fields.time.as_str()))
            .map(|fields| fields.manager.as_str())
    }

    /// Whether no other field manager has written a field that is still there: it is we who made it.
    pub(crate) fn we_own_alone(&self) -> bool {
        !self.managed_fields.is_empty() && self.managed_fields.iter().all(ManagedFields::is_ours)
    }

    pub(crate) fn we_own(&self, key: &str) -> bool {
        self.managed_fields.iter().any(|fields| fields.is_ours() && fields.has(key))
    }

    pub(crate) fn we_annotated(&self, key: &str) -> bool {
        self.applied(FieldSet::Annotations).any(|name| name == key)
    }

    pub(crate) fn we_applied(&self) -> bool {
        self.managed_fields.iter().any(ManagedFields::is_ours)
    }

    pub(crate) fn applied(&self, set: FieldSet) -> impl Iterator<Item = &str> {
        let ours = self.managed_fields.iter().filter(|fields| fields.is_ours());
        ours.flat_map(move |fields| fields.names(set))
    }

    /// Whether another field manager has given the Secret its type, as each one that creates it does.
    pub(crate) fn made_by_another(&self) -> bool {
        self.managed_fields.iter().any(|fields| !fields.is_ours() && fields.fields_v1.has_type)
    }

    pub(crate) fn we_typed(&self) -> bool {
        self.managed_fields.iter().any(|fields| fields.is_ours() && fields.fields_v1.has_type)
    }
}

/// A map of a Secret whose fields have their own managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldSet {
    Labels,
    Annotations,
    Data,
}

impl ManagedFields {
    fn is_ours(&self) -> bool {
        self.manager == FIELD_MANAGER && self.operation == "Apply"
    }

    fn has(&self, key: &str) -> bool {
        self.names(FieldSet::Data).any(|name| name == key)
    }

    fn names(&self, set: FieldSet) -> impl Iterator<Item = &str> {
        let names = match set {
            FieldSet::Labels => &self.fields_v1.labels,
            FieldSet::Annotations => &self.fields_v1.annotations,
            FieldSet::Data => &self.fields_v1.data,
        };
        names.iter()
    }
}

/// What is kept of an object in a list or watch: there may be thousands.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ObjectState {
    pub name: String,
    /// Its namespace; empty for what has none.
    pub namespace: String,
    pub resource_version: String,
    pub deletion_timestamp: Option<String>,
}

/// An object of which only the metadata was asked for.
#[derive(Deserialize)]
pub(super) struct Partial<M> {
    pub(super) metadata: M,
}

#[derive(Deserialize)]
#[serde(bound = "M: Deserialize<'de>")]
pub(super) struct Page<M> {
    pub(super) metadata: PageMeta,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(super) items: Vec<Partial<M>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMeta {
    pub(super) resource_version: String,
    /// The token that asks for the next page; empty on the last.
    #[serde(rename = "continue", default)]
    pub(super) next: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SecretObject {
    pub metadata: Meta,
    /// Its type, which can never change.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "null_is_empty")]
    data: BTreeMap<String, Encoded>,
}

impl SecretObject {
    /// The bytes of its values, as base64.
    pub(crate) fn size(&self) -> usize {
        self.data.values().map(|value| value.0.len()).sum()
    }

    /// The value of a key; empty when it is no base64, which an API server does not send.
    pub(crate) fn value(&self, key: &str) -> Option<Zeroizing<Vec<u8>>> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let encoded = self.data.get(key)?;
        Some(Zeroizing::new(STANDARD.decode(encoded.0.as_bytes()).unwrap_or_default()))
    }

    /// The value of a key as the API server has it: base64.
    pub(crate) fn encoded(&self, key: &str) -> Option<&str> {
        self.data.get(key).map(|encoded| encoded.0.as_str())
    }
}

/// Base64, overwritten on drop.
struct Encoded(Zeroizing<String>);

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Zeroizing::new(Option::deserialize(deserializer)?.unwrap_or_default())))
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoded(..)")
    }
}

/// Go writes `null` for what is empty.
fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_other_writer_is_named_and_ours_known_by_manager_and_operation() {
        let meta: Meta = serde_json::from_value(serde_json::json!({
            "name": "s", "namespace": "n", "resourceVersion": "7",
            "managedFields": [
                {"manager": "ecr-sidecar", "operation": "Apply", "time": "2026-11-23T10:00:03Z",
                 "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:password": {}}}},
                {"manager": "kubectl-edit", "operation": "Update", "time": "2026-11-23T10:00:02Z"},
                {"manager": "argocd", "operation": "Apply", "time": "2026-11-23T09:00:00Z"},
                {"manager": "ecr-sidecar", "operation": "Update", "time": "2026-11-23T10:00:01Z",
                 "fieldsV1": {"f:data": {"f:url": {}}}},
            ],
        }))
        .unwrap();
        assert_eq!(meta.other_manager(&["password"]), Some("kubectl-edit"));
        assert_eq!(meta.other_manager(&["url"]), Some("ecr-sidecar")); // not by apply: another client uses our name
        assert!(meta.we_own("password") && !meta.we_own("url"));
        assert!(meta.we_applied() && !meta.we_annotated("a") && !meta.we_typed() && !meta.made_by_another());
    }

    /// As the API server writes it (1.36): maps have their own entry `.`, and keys may hold dots and slashes.
    #[test]
    fn what_we_applied_is_listed_by_map() {
        let meta: Meta = serde_json::from_value(serde_json::json!({
            "managedFields": [
                {"manager": "ecr-sidecar", "operation": "Apply", "fieldsV1": {
                    "f:data": {"f:.dockerconfigjson": {}},
                    "f:metadata": {"f:annotations": {"f:ecr-sidecar/expires": {}}, "f:labels": {"f:a/b": {}}},
                    "f:type": {},
                }},
                {"manager": "helm", "operation": "Update", "fieldsV1": {
                    "f:data": {".": {}, "f:url": {}}, "f:metadata": {"f:labels": {".": {}, "f:c": {}}}, "f:type": {},
                }},
                {"manager": "odd", "operation": "Update", "fieldsV1": {"f:data": [], "f:metadata": "x"}},
            ],
        }))
        .unwrap();
        let names = |set| meta.applied(set).collect::<Vec<_>>();
        assert_eq!(names(FieldSet::Data), [".dockerconfigjson"]);
        assert_eq!(names(FieldSet::Annotations), ["ecr-sidecar/expires"]);
        assert_eq!(names(FieldSet::Labels), ["a/b"]);
        assert!(meta.we_annotated("ecr-sidecar/expires") && !meta.we_annotated("c"));
        assert!(meta.we_typed() && meta.made_by_another());
    }

    /// One object that is not read would keep every other one of its list from being known.
    #[test]
    fn managed_fields_of_any_depth_and_form_are_read() {
        let deep = |open: &str, close: &str| open.repeat(100_000) + "1" + &close.repeat(100_000);
        for odd in [
            deep(r#"{"f:metadata":"#, "}"),
            deep(r#"{"f:data":"#, "}"),
            deep("[", "]"),
            deep(r#"{"x":["#, "]}"),
            "1".to_owned(),
            "-1.5".to_owned(),
            "null".to_owned(),
            "true".to_owned(),
            r#""text""#.to_owned(),
        ] {
            let ours =
                r#"{"manager":"ecr-sidecar","operation":"Apply","fieldsV1":{"f:data":{"f:password":{}}}}"#;
            let fields = format!(
                r#"[{{"manager":"m","fieldsV1":{odd}}},{ours},{{"fieldsV1":{{"f:metadata":{odd}}}}}]"#
            );
            let object = format!(r#"{{"metadata":{{"managedFields":{fields},"name":"s"}},"type":"Opaque"}}"#);
            let shown = &odd[..odd.len().min(20)];
            let secret: SecretObject = serde_json::from_str(&object).expect(shown);
            assert!(secret.metadata.we_own("password") && secret.kind == "Opaque", "{shown}");
            let page = format!(r#"{{"metadata":{{"resourceVersion":"5"}},"items":[{object},{object}]}}"#);
            let page: Page<ObjectState> = serde_json::from_str(&page).expect(shown);
            assert_eq!(page.items[1].metadata.name, "s");
        }
    }

    #[test]
    fn a_page_of_nothing_is_a_page() {
        let text = r#"{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"5"},"items":null}"#;
        let page: Page<ObjectState> = serde_json::from_str(text).unwrap();
        assert!(page.items.is_empty() && page.metadata.next.is_empty());
    }

    #[test]
    fn a_secret_shows_no_value() {
        let text =
            r#"{"metadata":{"name":"s"},"type":"Opaque","data":{"password":"aHVudGVyMg==","empty":null}}"#;
        let secret: SecretObject = serde_json::from_str(text).unwrap();
        assert_eq!(secret.value("password").unwrap().as_slice(), b"hunter2");
        assert_eq!(secret.value("empty").unwrap().as_slice(), b"");
        let shown = format!("{secret:?}");
        assert!(!shown.contains("aHVudGVyMg") && !shown.contains("hunter2"), "{shown}");
        assert!(serde_json::from_str::<SecretObject>(r#"{"metadata":{"name":"s"},"data":null}"#).is_ok());
    }
}
