//! The effective configuration as YAML, each value with its origin as a comment.
//!
//! It walks the file's own type as `resolve` completed it, so no key is forgotten
//! (`every_key_of_the_file_is_printed_with_its_value`).

use std::{fmt::Write, path::PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use super::{Origin, Origins, file::File, join};
use crate::failure::shown_value::clean_path;

pub(super) struct Effective {
    pub(super) path: Option<PathBuf>,
    pub(super) file: File,
    pub(super) origins: Origins,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Tree {
    Mapping(IndexMap<String, Tree>),
    List(Vec<Tree>),
    Scalar(Value),
}

impl Tree {
    /// The value in one line, unless it is or holds a mapping.
    fn inline(&self) -> Option<String> {
        match self {
            Self::Mapping(_) => None,
            Self::List(items) => {
                Some(format!("[{}]", items.iter().map(Self::inline).collect::<Option<Vec<_>>>()?.join(", ")))
            }
            Self::Scalar(Value::String(text)) => Some(scalar(text)),
            Self::Scalar(other) => Some(other.to_string()),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Mapping(entries) => entries.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Scalar(value) => value.is_null(),
        }
    }
}

impl Effective {
    pub(super) fn to_yaml(&self) -> String {
        let mut yaml = Yaml { origins: &self.origins, text: String::new() };
        if let Some(path) = &self.path {
            yaml.line(0, &format!("# file: {}", clean_path(path)));
        }
        // Through text: a `Value` would lose the order of the keys.
        let tree = serde_json::to_string(&self.file).and_then(|json| serde_json::from_str(&json));
        match tree {
            Ok(tree) => yaml.entries(0, "", &tree),
            Err(error) => yaml.line(0, &format!("# {error}")),
        }
        yaml.text
    }
}

struct Yaml<'a> {
    origins: &'a Origins,
    text: String,
}

impl Yaml<'_> {
    fn line(&mut self, indent: usize, line: &str) {
        let _ = writeln!(self.text, "{:indent$}{line}", ""); // a String takes any text
    }

    fn entries(&mut self, indent: usize, path: &str, entries: &IndexMap<String, Tree>) {
        for (key, value) in entries {
            let place = join(path, key);
            let key = scalar(key);
            if value.is_empty() {
                if let Some(Origin::Implied(what)) = self.origins.0.get(&place) {
                    self.line(indent, &format!("# {key}: {what}"));
                }
            } else if let Some(text) = value.inline() {
                let of_list = matches!(value, Tree::List(_)).then(|| format!("{place}[0]"));
                let origin = self.origins.of(&of_list.unwrap_or(place));
                self.line(indent, &format!("{key}: {text} # {origin}"));
            } else {
                self.line(indent, &format!("{key}:"));
                self.nested(indent + 2, &place, value);
            }
        }
    }

    fn nested(&mut self, indent: usize, path: &str, value: &Tree) {
        match value {
            Tree::Mapping(entries) => self.entries(indent, path, entries),
            Tree::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let start = self.text.len() + indent;
                    self.nested(indent + 2, &format!("{path}[{index}]"), item);
                    self.text.replace_range(start..=start, "-");
                }
            }
            Tree::Scalar(_) => {}
        }
    }
}

/// Plain where YAML reads it back as the same text; quoted, as JSON is valid YAML, elsewhere.
fn scalar(text: &str) -> String {
    let is_plain = !text.starts_with('0')
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./@%".contains(c))
        && text.contains(|c: char| !c.is_ascii_digit() && c != '.' && c != 'e' && c != '_')
        && !["null", "true", "false", "yes", "no", "on", "off"].contains(&text.to_lowercase().as_str());
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}
