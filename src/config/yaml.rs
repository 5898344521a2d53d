//! The configuration file's text as a value. Errors give a place and never an excerpt: by mistake the file may be
//! a token, a key or a kubeconfig.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use serde_saphyr::{Error, Spanned};

use super::join;

/// A value, and how each number and boolean in it is written, by its path: `0x1F` is not `31` to who wrote it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Document {
    pub(super) value: Value,
    pub(super) written: Written,
}

pub(super) type Written = BTreeMap<String, String>;

/// Why a text is no configuration; completes "found …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("text that is not valid YAML at line {line}, column {column}: {reason}")]
pub(super) struct YamlError {
    line: u64,
    column: u64,
    reason: &'static str,
}

/// Parses `text`; nothing but comments is an empty mapping.
pub(super) fn parse(text: &str) -> Result<Document, YamlError> {
    if text.trim().is_empty() {
        return Ok(Document { value: Value::Object(Map::new()), ..Document::default() });
    }
    let options = serde_saphyr::options! { with_snippet: false };
    let node: Spanned<Node> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |place| (place.line(), place.column()));
        YamlError { line, column, reason: reason(&error) }
    })?;
    let mut written = Written::new();
    let value = into_value(node, String::new(), text, &mut written);
    let value = if value.is_null() { Value::Object(Map::new()) } else { value };
    Ok(Document { value, written })
}

/// Without the words of the error, which quote the file.
fn reason(error: &Error) -> &'static str {
    match error.without_snippet() {
        Error::DuplicateMappingKey { .. } => "a key is given twice",
        Error::MultipleDocuments { .. } => "a second document begins",
        Error::UnknownAnchor { .. } => "an alias has no anchor",
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } => {
            "it is nested too deeply or too large"
        }
        Error::AliasExpansionLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } => {
            "aliases expand too far"
        }
        Error::NonFiniteFloat { .. } => "a number is not finite",
        _ => "the syntax is wrong",
    }
}

fn into_value(node: Spanned<Node>, path: String, text: &str, written: &mut Written) -> Value {
    let span = node.defined.span();
    match node.value {
        Node::Scalar(value) => {
            if value.is_number() || value.is_boolean() {
                let start = span.byte_offset().and_then(|start| usize::try_from(start).ok());
                let raw = start.zip(span.byte_len()).and_then(|(start, length)| {
                    text.get(start..start.checked_add(usize::try_from(length).ok()?)?)
                });
                written.extend(raw.map(|raw| (path, raw.trim().to_owned())));
            }
            value
        }
        Node::List(items) => {
            let items = items.into_iter().enumerate();
            items.map(|(index, item)| into_value(item, format!("{path}[{index}]"), text, written)).collect()
        }
        Node::Mapping(entries) => {
            let entries = entries.into_iter().map(|(key, node)| {
                let place = join(&path, &key);
                (key, into_value(node, place, text, written))
            });
            Value::Object(entries.collect())
        }
    }
}

enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Mapping(Vec<(String, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Scalar(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut mapping = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            mapping.push(entry);
        }
        Ok(Node::Mapping(mapping))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_booleans_are_kept_as_they_are_written() {
        let text = "registries: [12345678901, 0x1F]\nä: {mode: 0640, on: yes, f: 1e3}\nu: 5 # six\nt: '7'\n";
        let written = parse(text).unwrap().written;
        let written: Vec<_> = written.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        assert_eq!(
            written,
            [
                ("registries[0]", "12345678901"),
                ("registries[1]", "0x1F"),
                ("u", "5"),
                ("ä.f", "1e3"),
                ("ä.mode", "0640"),
                ("ä.on", "yes"),
            ]
        );
    }

    #[test]
    fn what_is_no_yaml_gives_a_place_and_no_excerpt() {
        for (text, place) in [
            ("a: 1\nb: [SECRET", "line 2"),
            ("SECRET: 1\nSECRET: 2", "line 2, column 1: a key is given twice"),
            ("a: *SECRET", "line 1, column 4: an alias has no anchor"),
            ("a: .inf", "line 1, column 4: a number is not finite"),
            ("a: 1\n---\nSECRET: 2", "a second document begins"),
            ("a: \"SECRET", "line 1"),
            ("a:\n\tb: SECRET", "line 2"),
            (&format!("{}SECRET", "[".repeat(10_000)), "line 1"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(place) && !error.contains("SECRET"), "{text:.80}: {error}");
        }
    }

    #[test]
    fn nothing_but_comments_is_empty() {
        for text in ["", " \n", "# comment", "---\n", "null", "~"] {
            assert_eq!(parse(text).unwrap().value, Value::Object(Map::new()), "{text:?}");
        }
    }

    /// Aliases that double with each line.
    #[test]
    fn aliases_do_not_fill_the_memory() {
        let lines = (1..40).map(|n| format!("a{n}: &a{n} [*a{m}, *a{m}]\n", m = n - 1));
        let bomb: String = std::iter::once("a0: &a0 [x, x]\n".to_owned()).chain(lines).collect();
        assert!(parse(&bomb).is_err());
    }
}
