//! Who manages which fields, as server-side apply keeps it.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::kubernetes::FIELD_MANAGER;

/// The maps whose fields have managers of their own, and where `managedFields` lists them.
const PLACES: [(&str, &str); 3] = [
    ("/metadata/labels", "/fieldsV1/f:metadata/f:labels"),
    ("/metadata/annotations", "/fieldsV1/f:metadata/f:annotations"),
    ("/data", "/fieldsV1/f:data"),
];

fn fields_of(object: &Value, place: &str) -> Map<String, Value> {
    object.pointer(place).and_then(Value::as_object).cloned().unwrap_or_default()
}

fn is_held(entries: &[Value], fields: &str, name: &str) -> bool {
    entries.iter().any(|it| it.pointer(fields).is_some_and(|it| it.get(format!("f:{name}")).is_some()))
}

fn release(entries: &mut [Value], fields: &str, name: &str) {
    for fields in entries.iter_mut().filter_map(|it| it.pointer_mut(fields)?.as_object_mut()) {
        fields.remove(&format!("f:{name}"));
    }
}

fn is_ours(entry: &Value) -> bool {
    entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply"
}

/// The Secret as the API server keeps it after an apply of `body` over `before` by our field manager: what that applied
/// before and leaves out now goes, unless another field manager has it too, and what `body` has becomes its own.
pub(crate) fn applied(before: Option<&Value>, body: &Value) -> Value {
    let created = || {
        let metadata = json!({"name": body["metadata"]["name"], "namespace": body["metadata"]["namespace"]});
        json!({"metadata": metadata, "type": "Opaque", "data": {}})
    };
    let mut secret = before.cloned().unwrap_or_else(created);
    for (place, key) in [("metadata", "labels"), ("metadata", "annotations")] {
        secret[place].as_object_mut().unwrap().entry(key).or_insert(json!({}));
    }
    let entries = secret["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let (ours, mut others): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_ours);
    let mut managed = json!({"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:metadata": {}}});
    for (place, fields) in PLACES {
        let wanted = fields_of(body, place);
        let map = secret.pointer_mut(place).unwrap().as_object_mut().unwrap();
        map.retain(|name, _| {
            wanted.contains_key(name) || !is_held(&ours, fields, name) || is_held(&others, fields, name)
        });
        let mut names = Map::new();
        for (name, value) in wanted {
            if map.insert(name.clone(), value.clone()) != Some(value) {
                release(&mut others, fields, &name);
            }
            names.insert(format!("f:{name}"), json!({}));
        }
        let (parent, name) = fields.rsplit_once('/').unwrap();
        managed.pointer_mut(parent).unwrap()[name] = names.into();
    }
    if let Some(kind) = body.get("type") {
        secret["type"] = kind.clone();
        managed["fieldsV1"]["f:type"] = json!({});
    }
    others.push(managed);
    secret["metadata"]["managedFields"] = others.into();
    secret
}

/// Whether `body` changes a field that another field manager holds.
pub(super) fn conflicts(before: Option<&Value>, body: &Value) -> bool {
    let Some(before) = before else { return false };
    let entries = before["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let others: Vec<_> = entries.into_iter().filter(|entry| !is_ours(entry)).collect();
    PLACES.into_iter().any(|(place, fields)| {
        let held = fields_of(before, place);
        let mut wanted = fields_of(body, place).into_iter();
        wanted.any(|(name, value)| held.get(&name) != Some(&value) && is_held(&others, fields, &name))
    })
}

/// Another field manager sets a key of `data`, by an update.
pub(super) fn edit(secret: &mut Value, manager: &str, key: &str, value: &str) {
    secret["data"][key] = json!(STANDARD.encode(value));
    let entries = &mut secret["metadata"]["managedFields"];
    if entries.is_null() {
        *entries = json!([]);
    }
    let entries = entries.as_array_mut().unwrap();
    release(entries, "/fieldsV1/f:data", key);
    match entries.iter_mut().find(|entry| entry["manager"] == manager) {
        Some(entry) => entry["fieldsV1"]["f:data"][format!("f:{key}")] = json!({}),
        None => entries.push(json!({
            "manager": manager, "operation": "Update", "fieldsV1": {"f:data": {format!("f:{key}"): {}}},
        })),
    }
}
