//! Validates a value against the JSON Schema of its type, reports every violation with its path, and leaves what fits.
//!
//! Only what schemas of our own types use is understood: `type`, `properties`, `required`,
//! `additionalProperties`, `items`, `enum`, `anyOf` with null, and `oneOf` distinguished by a `const`.

use serde_json::{Map, Value};

use super::{
    Violation, join, nearest,
    yaml::{Document, Written},
};
use crate::failure::shown_value;

pub(super) const MOST: usize = 100;

/// Every place where the document does not fit `schema`. What does not fit is taken out, so that the rest can be read on:
/// an item of one of the file's own lists leaves a null, lest the others change their places.
pub(super) fn check(document: &mut Document, schema: &Value) -> Vec<Violation> {
    let mut violations = Found { written: &document.written, violations: Vec::new() };
    if !fits(&mut document.value, schema, "", &mut violations) {
        document.value = Value::Object(Map::new());
    }
    violations.violations
}

struct Found<'a> {
    written: &'a Written,
    violations: Vec<Violation>,
}

impl Found<'_> {
    fn push(&mut self, violation: Violation) {
        if self.violations.len() < MOST {
            self.violations.push(violation);
        }
    }

    /// The value at `path` as it is written. A file that is a single value is none of ours: it may be a token.
    fn show(&self, value: &Value, path: &str) -> String {
        match (self.written.get(path), value) {
            (_, Value::Null) => "nothing".into(),
            (_, Value::Object(_)) => "a mapping".into(),
            (_, Value::Array(_)) => "a list".into(),
            _ if path.is_empty() => "a single value".into(),
            (Some(text), _) | (None, Value::String(text)) => shown_value::quoted(text),
            (None, other) => shown_value::quoted(&other.to_string()),
        }
    }
}

/// Whether what is left of `value` can be read.
fn fits(value: &mut Value, schema: &Value, path: &str, violations: &mut Found<'_>) -> bool {
    if let Some(optional) = schema["anyOf"].as_array() {
        // an `Option`: the type, or null
        let inner = optional.iter().find(|schema| schema["type"] != "null").unwrap_or(&Value::Null);
        return value.is_null() || fits(value, inner, path, violations);
    }
    if let Some(variants) = schema["oneOf"].as_array() {
        return variant_fits(value, variants, path, violations);
    }
    if !has_type(value, &schema["type"]) {
        violations.push(wrong_type(violations.show(value, path), value, schema, path));
        let may_be_empty = schema["type"] == "object" && schema["required"].as_array().is_none();
        if may_be_empty {
            *value = Value::Object(Map::new());
        }
        return may_be_empty;
    }
    match value {
        Value::Object(object) => object_fits(object, schema, path, violations),
        Value::Array(items) => items_fit(items, schema, path, violations),
        Value::String(text) => text_fits(text, schema, path, violations),
        _ => true,
    }
}

fn object_fits(
    object: &mut Map<String, Value>,
    schema: &Value,
    path: &str,
    violations: &mut Found<'_>,
) -> bool {
    let no_properties = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&no_properties);
    let required = || schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for key in required().filter(|key| !object.contains_key(*key)) {
        violations.push(Violation::new(join(path, key), "nothing", "a value: this key is required"));
    }
    object.retain(|key, value| {
        let place = join(path, key);
        match (properties.get(key), &schema["additionalProperties"]) {
            (Some(schema), _) | (None, schema @ Value::Object(_)) => fits(value, schema, &place, violations),
            (None, _) => {
                violations.push(unknown_key(key, path, properties.keys().map(String::as_str)));
                false
            }
        }
    });
    required().all(|key| object.contains_key(key))
}

fn items_fit(items: &mut [Value], schema: &Value, path: &str, violations: &mut Found<'_>) -> bool {
    let is_of_the_file = !path.contains('.');
    let mut all_fit = true;
    for (index, item) in items.iter_mut().enumerate() {
        if !fits(item, &schema["items"], &format!("{path}[{index}]"), violations) {
            *item = Value::Null;
            all_fit = false;
        }
    }
    all_fit || is_of_the_file
}

/// Variants of an enum: of texts, or of objects distinguished by a key with a constant value.
fn variant_fits(value: &mut Value, variants: &[Value], path: &str, violations: &mut Found<'_>) -> bool {
    let tag_of = |variant: &Value| -> Option<(String, String)> {
        let properties = variant["properties"].as_object()?;
        properties.iter().find_map(|(key, schema)| Some((key.clone(), schema["const"].as_str()?.to_owned())))
    };
    let Some((tag, _)) = variants.iter().find_map(tag_of) else {
        let texts = variants.iter().flat_map(|v| v["const"].as_str().into_iter().chain(texts(&v["enum"])));
        return choice_fits(value, texts.collect(), path, violations);
    };
    let Value::Object(object) = value else {
        let shown = violations.show(value, path);
        violations.push(wrong_type(shown, value, &serde_json::json!({"type": "object"}), path));
        return false;
    };
    let chosen_tag = object.get(&tag).unwrap_or(&Value::Null);
    let chosen =
        variants.iter().find(|variant| tag_of(variant).is_some_and(|(_, text)| *chosen_tag == text.as_str()));
    if let Some(variant) = chosen {
        return object_fits(object, variant, path, violations);
    }
    let names: Vec<_> = variants.iter().filter_map(tag_of).map(|(_, text)| text).collect();
    choice_fits(chosen_tag, names.iter().map(String::as_str).collect(), &join(path, &tag), violations)
}

fn text_fits(text: &str, schema: &Value, path: &str, violations: &mut Found<'_>) -> bool {
    let expected: Vec<_> = texts(&schema["enum"]).collect();
    expected.is_empty() || choice_fits(&Value::from(text), expected, path, violations)
}

fn choice_fits(value: &Value, expected: Vec<&str>, path: &str, violations: &mut Found<'_>) -> bool {
    let text = value.as_str().unwrap_or_default();
    if expected.contains(&text) {
        return true;
    }
    let found = violations.show(value, path);
    let mut violation = Violation::new(path, found, format!("one of {}", expected.join(", ")));
    violation.nearest = nearest(text, expected).map(str::to_owned);
    violations.push(violation);
    false
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn has_type(value: &Value, expected: &Value) -> bool {
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_u64().is_some(),
        "null" => value.is_null(),
        _ => true,
    };
    match expected {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

fn wrong_type(shown: String, value: &Value, schema: &Value, path: &str) -> Violation {
    let names: Vec<_> = match &schema["type"] {
        Value::String(name) => vec![name.as_str()],
        other => texts(other).filter(|name| *name != "null").collect(),
    };
    let expected = match names.first() {
        Some(&"object") => "a mapping",
        Some(&"array") => "a list",
        Some(&"string") if value.is_number() || value.is_boolean() => "a text: put it in quotes",
        Some(&"string") => "a text",
        Some(&"boolean") => "true or false",
        Some(&"integer") => "a whole number",
        _ => "another type",
    };
    Violation::new(path, shown, expected)
}

fn unknown_key<'a>(key: &str, path: &str, known: impl Iterator<Item = &'a str> + Clone) -> Violation {
    let expected: Vec<_> = known.clone().collect();
    let mut violation = Violation::new(
        join(path, &shown_value::key(key)),
        "an unknown key",
        format!("one of {}", expected.join(", ")),
    );
    violation.nearest = nearest(key, known).map(str::to_owned);
    violation
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::file::schema, *};

    fn violations(value: Value) -> Vec<String> {
        let mut document = Document { value, ..Document::default() };
        check(&mut document, &schema()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_file_has_none() {
        let good = json!({
            "identities": {"default": {"source": "auto"}, "b": {"source": "static", "accessKeyIdFile": "/a", "assumeRoles": [{"roleArn": "r"}]}},
            "registries": [{"host": "public.ecr.aws", "optional": true}],
            "outputs": [{"type": "docker-config", "path": "/x", "group": 5}],
            "refresh": {"at": "50%"}, "health": {"listen": "127.0.0.1:1"}, "log": {"format": "json"},
        });
        assert_eq!(violations(good), Vec::<String>::new());
    }

    #[test]
    fn all_violations_are_reported_with_path_found_expected_and_nearest() {
        let bad = json!({
            "registrys": [],
            "identities": {"b": {"source": "statik", "expectAccount": 999_999_999_999_u64}},
            "registries": [{"hots": "x"}, 5],
            "outputs": [{"type": "docker-confg", "path": "/x"}, {"type": "docker-config", "mode": 640}, {}],
            "health": "yes",
            "log": {"format": "jsn"},
        });
        let report = violations(bad).join("\n");
        for part in [
            "registrys: found an unknown key",
            "did you mean `registries`?",
            "identities.b.source: invalid value `statik`",
            "did you mean `static`?",
            "identities.b.expectAccount: invalid value `999999999999`, expected a text: put it in quotes",
            "registries[0].hots: found an unknown key",
            "did you mean `host`?",
            "registries[0].host: found nothing",
            "registries[1]: invalid value `5`, expected a mapping",
            "outputs[0].type: invalid value `docker-confg`",
            "did you mean `docker-config`?",
            "outputs[1].path: found nothing",
            "outputs[1].mode: invalid value `640`, expected a text: put it in quotes",
            "outputs[2].type: found nothing",
            "health: invalid value `yes`, expected a mapping",
            "log.format: invalid value `jsn`",
        ] {
            assert!(report.contains(part), "{part} is not in:\n{report}");
        }
    }
}
