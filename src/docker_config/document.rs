//! A docker config as text whose values are kept as they are written.
//!
//! Only the three levels that matter are taken apart; each value below is a slice of the text, so that numbers,
//! escapes, order and unknown keys survive, and a document of some megabytes is not copied.
//!
//! No error shows a value of the document: `errors_show_no_value`. What a document costs is bounded, whoever wrote it:
//! it has at most [`MOST_ENTRIES`] (`a_document_has_a_bounded_number_of_entries`), and depth takes no stack
//! (`deep_nesting_is_no_stack`).

use std::{
    borrow::Cow,
    collections::HashSet,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use indexmap::IndexMap;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use thiserror::Error;

use super::entry::auth;

/// More bytes than this are no docker config.
pub(crate) const LARGEST: usize = 8 << 20;

/// Stands for the top level where the maps are named by their keys.
pub(super) const TOP: &str = "";
/// The key of the map from registry to credentials.
pub(super) const AUTHS: &str = "auths";
/// The key of the map from registry to credential-helper program.
pub(super) const CRED_HELPERS: &str = "credHelpers";
/// The key that names a credential-helper program for every registry.
pub(super) const CREDS_STORE: &str = "credsStore";

/// The most entries of a document, those of its top level and its two maps together. With [`LARGEST`] it bounds what
/// a document takes in memory: some 80 bytes an entry on top of its text, so that a file and its base of the largest kind
/// fit into the 64 MiB that the patches allow.
pub(super) const MOST_ENTRIES: usize = 1 << 17;

/// Keys and values in the order of the text; of equal keys the last value, as Go takes it.
pub(crate) type Entries<'a> = IndexMap<Cow<'a, str>, &'a RawValue>;

/// A docker config, taken apart.
#[derive(Default)]
pub(crate) struct Document<'a> {
    /// Every key of the top level, with those of the two maps below.
    pub(crate) top: Entries<'a>,
    pub(crate) auths: Entries<'a>,
    pub(super) helpers: Entries<'a>,
    /// The hosts for which a credential helper is asked, by their hashes: there may be a hundred thousand.
    helped: HashSet<u64>,
}

impl<'a> Document<'a> {
    /// Takes the text apart. Nothing but white space is the document without entries.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Unfit> {
        if text.starts_with('\u{feff}') {
            return Err(Unfit::ByteOrderMark);
        }
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let mut left = MOST_ENTRIES;
        let top = object(text, &mut left).ok_or(Unfit::NotAnObject { key: None })??;
        let mut inner = |key: &'static str| match top.get(key) {
            None => Ok(Entries::new()),
            Some(raw) if raw.get() == "null" => Ok(Entries::new()),
            Some(raw) => object(raw.get(), &mut left).ok_or(Unfit::NotAnObject { key: Some(key) })?,
        };
        let (auths, helpers) = (inner(AUTHS)?, inner(CRED_HELPERS)?);
        let helped = helpers.keys().map(|key| hash(host_meant(key))).collect();
        Ok(Self { auths, helpers, helped, top })
    }

    /// How many entries it has, those of its top level among them.
    pub(super) fn count(&self) -> usize {
        self.top.len() + self.auths.len() + self.helpers.len()
    }

    /// The `auth` that a consumer finds for the host; none where a credential helper is asked instead.
    pub(crate) fn auth_of(&self, host: &str) -> Option<Cow<'a, str>> {
        if self.helped.contains(&hash(host)) { None } else { self.entry_auth(host) }
    }

    /// The `auth` in the entry of the host, whether or not a consumer reads it.
    pub(crate) fn entry_auth(&self, host: &str) -> Option<Cow<'a, str>> {
        auth(self.auths.get(host)?).ok().flatten()
    }
}

/// The entry of the host in a docker config, if it has one. The same as in a [`Document`] (`a_lookup_finds_what_a_document_has`),
/// and however many entries there are, they take no memory.
pub(crate) fn entry_of<'a>(text: &'a str, host: &str) -> Result<Option<&'a RawValue>, Unfit> {
    if text.starts_with('\u{feff}') {
        return Err(Unfit::ByteOrderMark);
    }
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    let mut left = MOST_ENTRIES;
    let (mut auths, mut helpers, mut found) = (None, None, None);
    each(text, None, &mut left, |key, value| match &*key {
        AUTHS => auths = Some(value),
        CRED_HELPERS => helpers = Some(value),
        _ => {}
    })?;
    let is_there = |value: &&RawValue| value.get() != "null";
    if let Some(auths) = auths.filter(is_there) {
        each(auths.get(), Some(AUTHS), &mut left, |key, value| {
            if key == host {
                found = Some(value);
            }
        })?;
    }
    if let Some(helpers) = helpers.filter(is_there) {
        each(helpers.get(), Some(CRED_HELPERS), &mut left, |_, _| {})?;
    }
    Ok(found)
}

/// Why a text cannot serve as a docker config. Displays as what is wrong with "it".
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Unfit {
    #[error("it is not UTF-8 text")]
    NotText,
    #[error("it begins with a byte-order mark")]
    ByteOrderMark,
    #[error("it is not JSON: {0}")]
    NotJson(String),
    #[error("{} is not a JSON object", key.map_or("it".to_owned(), |key| format!("its `{key}`")))]
    NotAnObject {
        /// The key under which the object should be; none for the whole.
        key: Option<&'static str>,
    },
    #[error("it is larger than {} MiB", limit >> 20)]
    TooLarge { limit: usize },
    #[error("it has more than {limit} entries")]
    TooManyEntries { limit: usize },
    #[error("this process (uid {uid}) has no permission to read it")]
    NoPermission { uid: u32 },
}

/// Stands for a key where there may be too many to keep them.
pub(super) fn hash(key: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// The host that clients take an `auths` or `credHelpers` key for: no scheme, no API path, lower case.
///
/// A key with any other path (`HOST/team/app`, as podman writes) stays what it is.
pub(super) fn host_meant(key: &str) -> String {
    let lower = key.to_ascii_lowercase();
    let bare = ["https://", "http://"].iter().find_map(|scheme| lower.strip_prefix(scheme)).unwrap_or(&lower);
    match bare.split_once('/') {
        Some((host, "" | "v1" | "v1/" | "v2" | "v2/")) => host.to_owned(),
        _ => bare.to_owned(),
    }
}

/// The host of a key for a part of its repositories (`HOST/team/app`, as podman writes it), which containers/image and
/// go-containerregistry prefer to the key of the host.
pub(super) fn repository_host(key: &str) -> Option<String> {
    let meant = host_meant(key);
    meant.split_once('/').map(|(host, _)| host.to_owned())
}

/// The entries of an object, which are taken off what is `left`; nothing when the text begins as something else.
fn object<'a>(text: &'a str, left: &mut usize) -> Option<Result<Entries<'a>, Unfit>> {
    text.trim_ascii_start().starts_with('{').then(|| {
        // Counted first: then the map has its size from the start, and one that is too large is never made.
        let mut count = 0;
        parse(text, |_, _| count += 1)?;
        *left = left.checked_sub(count).ok_or(Unfit::TooManyEntries { limit: MOST_ENTRIES })?;
        let mut entries = Entries::with_capacity(count);
        parse(text, |key, value| {
            entries.insert(key, value);
        })?;
        Ok(entries)
    })
}

/// Hands each entry of the object under `name` to `take`, and takes them off what is `left`.
fn each<'a>(
    text: &'a str,
    name: Option<&'static str>,
    left: &mut usize,
    mut take: impl FnMut(Cow<'a, str>, &'a RawValue),
) -> Result<(), Unfit> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err(Unfit::NotAnObject { key: name });
    }
    let mut count = 0;
    parse(text, |key, value| {
        count += 1;
        take(key, value);
    })?;
    *left = left.checked_sub(count).ok_or(Unfit::TooManyEntries { limit: MOST_ENTRIES })?;
    Ok(())
}

/// Hands each entry of the object to `take`.
fn parse<'a>(text: &'a str, take: impl FnMut(Cow<'a, str>, &'a RawValue)) -> Result<(), Unfit> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(Taker(take)).and_then(|()| deserializer.end()).map_err(|error| {
        // Only errors of syntax: those of data quote the data.
        Unfit::NotJson(if error.is_data() {
            format!("unexpected data at line {} column {}", error.line(), error.column())
        } else {
            error.to_string()
        })
    })
}

struct Taker<F>(F);

impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for Taker<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<(), M::Error> {
        /// A key without escapes is a slice of the text.
        #[derive(Deserialize)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

        while let Some((Key(key), value)) = map.next_entry()? {
            (self.0)(key, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unfit_says_why() {
        let cases = [
            ("\u{feff}{}", "it begins with a byte-order mark"),
            ("[]", "it is not a JSON object"),
            ("null", "it is not a JSON object"),
            ("\"hunter2\"", "it is not a JSON object"),
            ("hunter2", "it is not a JSON object"),
            ("{", "it is not JSON: EOF while parsing an object at line 1 column 1"),
            ("{} x", "it is not JSON: trailing characters at line 1 column 4"),
            ("{}\0", "it is not JSON: trailing characters at line 1 column 3"),
            ("{\"a\":1,}", "it is not JSON: trailing comma at line 1 column 8"),
            ("{\"auths\":[]}", "its `auths` is not a JSON object"),
            ("{\"auths\":\"hunter2\"}", "its `auths` is not a JSON object"),
            ("{\"credHelpers\":3}", "its `credHelpers` is not a JSON object"),
        ];
        for (text, sentence) in cases {
            assert_eq!(
                Document::parse(text).err().map(|e| e.to_string()).as_deref(),
                Some(sentence),
                "{text}"
            );
        }
        for text in ["", " \n", "{}", "{\"auths\":null}", "{\"auths\":{}, \"credHelpers\": {} }\n"] {
            assert!(Document::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_lookup_finds_what_a_document_has() {
        let many = (0..=MOST_ENTRIES).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(",");
        let helped = format!("{{\"auths\":{{\"h\":1}},\"credHelpers\":{{{many}}}}}");
        let too_many = format!("{{\"auths\":{{{many}}}}}");
        for text in [
            "",
            " \n",
            "{}",
            "\u{feff}{}",
            "[]",
            "null",
            "hunter2",
            "{",
            "{} x",
            "{\"a\":1,}",
            "{\"auths\":null,\"credHelpers\":null}",
            "{\"auths\":[]}",
            "{\"auths\":\"hunter2\"}",
            "{\"credHelpers\":3,\"auths\":{\"h\":1}}",
            "{\"auths\":{\"h\":{\"auth\":\"1\"},\"other\":2,\"h\":{\"auth\":\"3\"}}}",
            "{\"auths\":{\"h\":1},\"auths\":{\"h\":2}}",
            "{\"auths\":{\"\\u0068\":1,\"H\":2,\"https://h\":3}}",
            "{\"auths\":{\"h\":}}",
            &helped,
            &too_many,
        ] {
            let of_document = Document::parse(text).map(|it| it.auths.get("h").map(|raw| raw.get()));
            let start = &text[..text.len().min(60)];
            assert_eq!(entry_of(text, "h").map(|raw| raw.map(RawValue::get)), of_document, "{start}");
        }
    }

    #[test]
    fn errors_show_no_value() {
        for text in [
            "{\"auths\":\"hunter2\"}",
            "{\"hunter2\"",
            "{\"a\":hunter2}",
            "{\"\\ud800\":\"hunter2\"}",
            "{hunter2}",
        ] {
            let error = Document::parse(text).err().unwrap();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn deep_nesting_is_no_stack() {
        let deep = format!("{{\"x\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Document::parse(&deep).is_ok());
    }

    #[test]
    fn a_document_has_a_bounded_number_of_entries() {
        let entries = |count: usize| (0..count).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(",");
        let too_many = Some(Unfit::TooManyEntries { limit: MOST_ENTRIES });
        // `auths` itself is one.
        let of_auths = |count| format!("{{\"auths\":{{{}}}}}", entries(count));
        assert!(Document::parse(&of_auths(MOST_ENTRIES - 1)).is_ok());
        assert_eq!(Document::parse(&of_auths(MOST_ENTRIES)).err(), too_many);
        assert_eq!(Document::parse(&format!("{{{}}}", entries(MOST_ENTRIES + 1))).err(), too_many);
        let half = entries(MOST_ENTRIES / 2);
        let both = format!("{{\"auths\":{{{half}}},\"credHelpers\":{{{half}}}}}");
        assert_eq!(Document::parse(&both).err(), too_many);
        let equal = format!("{{{}\"x\":1}}", "\"x\":0,".repeat(MOST_ENTRIES - 1));
        assert_eq!(Document::parse(&equal).unwrap().top.len(), 1);
    }

    #[test]
    fn a_helper_is_asked_whatever_its_key_looks_like() {
        let text = format!(
            "{{\"auths\":{{\"h.example\":{{\"auth\":\"QVdTOng=\"}}}},\"credHelpers\":{{{}}}}}",
            "\"HTTPS://H.example/v2/\":\"x\""
        );
        assert_eq!(Document::parse(&text).unwrap().auth_of("h.example"), None);
        let document =
            Document::parse(&text.replace("v2/", "v2/app")).map(|it| it.auth_of("h.example").is_some());
        assert_eq!(document, Ok(true));
    }

    #[test]
    fn twins_mean_the_host() {
        for twin in [
            "h.example",
            "H.Example",
            "https://h.example",
            "HTTP://h.example",
            "h.example/",
            "https://h.example/v1/",
            "https://h.example/v2",
            "http://h.example/v2/",
            "h.example/v2/",
        ] {
            assert_eq!(host_meant(twin), "h.example", "{twin}");
        }
        for other in [
            "h.example/team/app",
            "https://h.example/team",
            "h.example/v2/app",
            "h.example:443",
            "x.h.example",
        ] {
            assert_ne!(host_meant(other), "h.example", "{other}");
        }
    }
}
