//! A docker config as text whose values are kept as they are written.
//!
//! Only the three levels that matter are taken apart; each value below is a slice of the text, so that numbers,
//! escapes, order and unknown keys survive, and a document of some megabytes is not copied.
//!
//! No error shows a value of the document: `errors_show_no_value`.

use std::{borrow::Cow, collections::BTreeSet, fmt};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use zeroize::Zeroizing;

/// The key of the map from registry to credentials.
pub(super) const AUTHS: &str = "auths";
/// The key of the map from registry to credential-helper program.
pub(super) const CRED_HELPERS: &str = "credHelpers";
/// The key that names a credential-helper program for every registry.
pub(super) const CREDS_STORE: &str = "credsStore";

/// Keys and values in the order of the text; of equal keys the last value, as Go takes it.
pub(in crate::output) type Entries<'a> = IndexMap<String, &'a RawValue>;

/// A docker config, taken apart.
#[derive(Default)]
pub(in crate::output) struct Document<'a> {
    /// Every key of the top level, those of the two maps below too.
    pub(super) top: Entries<'a>,
    /// What is under `auths`.
    pub(in crate::output) auths: Entries<'a>,
    /// What is under `credHelpers`.
    pub(super) helpers: Entries<'a>,
}

impl<'a> Document<'a> {
    /// Takes the text apart. Nothing but white space is the document without entries.
    pub(in crate::output) fn parse(text: &'a str) -> Result<Self, Unfit> {
        if text.starts_with('\u{feff}') {
            return Err(Unfit::ByteOrderMark);
        }
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let top = object(text).ok_or(Unfit::NotAnObject { key: None })??;
        let inner = |key: &'static str| match top.get(key) {
            None => Ok(Entries::new()),
            Some(raw) if raw.get() == "null" => Ok(Entries::new()),
            Some(raw) => object(raw.get()).ok_or(Unfit::NotAnObject { key: Some(key) })?,
        };
        Ok(Self { auths: inner(AUTHS)?, helpers: inner(CRED_HELPERS)?, top })
    }

    /// The `auth` that a consumer finds for the host; none where a credential helper is asked instead.
    pub(in crate::output) fn auth_of(&self, host: &str) -> Option<Cow<'a, str>> {
        let helped = self.helpers.keys().any(|key| host_meant(key) == host);
        if helped { None } else { self.entry_auth(host) }
    }

    /// The hosts for which a credential helper is asked instead of an entry.
    pub(in crate::output) fn helped_hosts(&self) -> BTreeSet<String> {
        self.helpers.keys().map(|key| host_meant(key)).collect()
    }

    /// The `auth` in the entry of the host, whether or not a consumer reads it.
    pub(in crate::output) fn entry_auth(&self, host: &str) -> Option<Cow<'a, str>> {
        auth(self.auths.get(host)?).ok().flatten()
    }
}

/// Why a text cannot serve as a docker config. Displays as what is wrong with "it".
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unfit {
    /// Its bytes are not text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// It begins with a byte-order mark, which JSON does not allow.
    #[error("it begins with a byte-order mark")]
    ByteOrderMark,
    /// It is not JSON, or has something after the JSON.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// It is JSON of another shape.
    #[error("{} is not a JSON object", key.map_or("it".to_owned(), |key| format!("its `{key}`")))]
    NotAnObject {
        /// The key under which the object should be; none for the whole.
        key: Option<&'static str>,
    },
    /// It is larger than any docker config.
    #[error("it is larger than {} MiB", limit >> 20)]
    TooLarge {
        /// The most that is read, in bytes.
        limit: u64,
    },
    /// It cannot be read by this process.
    #[error("this process (uid {uid}) has no permission to read it")]
    NoPermission {
        /// Our user.
        uid: u32,
    },
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

/// The `auth` of an entry: none when it has none or an empty one.
pub(super) fn auth(entry: &RawValue) -> Result<Option<Cow<'_, str>>, BadAuth> {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow, default)]
        auth: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    if entry.get() == "null" {
        return Ok(None);
    }
    if !entry.get().starts_with('{') {
        return Err(BadAuth::NotAnEntry);
    }
    let entry: Entry<'_> = serde_json::from_str(entry.get()).map_err(|_| BadAuth::NotAnEntry)?;
    let Some(raw) = entry.auth else { return Ok(None) };
    let Text(auth) = serde_json::from_str(raw.get()).map_err(|_| BadAuth::NotText)?;
    Ok(Some(auth).filter(|auth| !auth.is_empty()))
}

/// What is wrong with an entry, such that docker and go-containerregistry reject the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadAuth {
    /// The entry is not an object.
    NotAnEntry,
    /// `auth` is not a string.
    NotText,
    /// `auth` is not padded base64.
    NotBase64,
    /// `auth` decodes to something without a user name and a colon.
    NoUser,
}

impl fmt::Display for BadAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnEntry => "it is not an object",
            Self::NotText => "its `auth` is not a string",
            Self::NotBase64 => "its `auth` is not padded base64",
            Self::NoUser => "its `auth` does not decode to USER:PASSWORD",
        })
    }
}

/// Whether docker and go-containerregistry can take the entry.
pub(super) fn check(entry: &RawValue) -> Result<(), BadAuth> {
    auth(entry)?.map_or(Ok(()), |auth| user(&auth).map(drop))
}

/// Whether the entry is a token of ECR, ours or another's.
pub(super) fn is_ecr_token(entry: &RawValue) -> bool {
    auth(entry).ok().flatten().is_some_and(|auth| user(&auth).is_ok_and(|user| user.as_slice() == b"AWS"))
}

/// Whether the entry is one of the user `AWS`, however it is written: as `auth`, or as `username` without it.
pub(super) fn is_of_aws(entry: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow, default)]
        username: Option<Cow<'a, str>>,
    }
    match auth(entry) {
        Ok(Some(auth)) => user(&auth).is_ok_and(|user| user.as_slice() == b"AWS"),
        Ok(None) => serde_json::from_str::<Entry<'_>>(entry.get())
            .is_ok_and(|entry| entry.username.as_deref() == Some("AWS")),
        Err(_) => false,
    }
}

/// The user in an `auth` value, as docker decodes it: line breaks are skipped, padding is not optional.
fn user(auth: &str) -> Result<Zeroizing<Vec<u8>>, BadAuth> {
    const AS_GO: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
    );
    let decoded = if auth.contains(['\r', '\n']) {
        AS_GO.decode(Zeroizing::new(auth.replace(['\r', '\n'], "")).as_bytes())
    } else {
        AS_GO.decode(auth)
    };
    let mut decoded = Zeroizing::new(decoded.map_err(|_| BadAuth::NotBase64)?);
    match decoded.iter().position(|&b| b == b':') {
        None | Some(0) => Err(BadAuth::NoUser),
        Some(colon) => {
            zeroize::Zeroize::zeroize(&mut decoded[colon..]);
            decoded.truncate(colon);
            Ok(decoded)
        }
    }
}

/// The entries of an object; nothing when the text begins as something else.
fn object(text: &str) -> Option<Result<Entries<'_>, Unfit>> {
    text.trim_ascii_start().starts_with('{').then(|| {
        serde_json::from_str(text).map_err(|error| {
            // Only errors of syntax: those of data quote the data.
            let said = if error.is_data() {
                format!("unexpected data at line {} column {}", error.line(), error.column())
            } else {
                error.to_string()
            };
            Unfit::NotJson(said)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

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

    #[test]
    fn an_auth_is_judged_as_docker_judges_it() {
        let cases = [
            ("{\"auth\":\"QVdTOng=\"}", Ok(())), // AWS:x
            ("{\"auth\":\"QVdT\\u004fng=\"}", Ok(())),
            ("{\"auth\":\"QVdT\\nOng=\"}", Ok(())),
            ("{\"auth\":\"\"}", Ok(())),
            ("{\"auth\":null}", Ok(())),
            ("{}", Ok(())),
            ("null", Ok(())),
            ("{\"username\":\"u\",\"password\":\"p\"}", Ok(())),
            ("{\"auth\":\"QVdTOng\"}", Err(BadAuth::NotBase64)),
            ("{\"auth\":\"QVdTO_g=\"}", Err(BadAuth::NotBase64)),
            ("{\"auth\":\"!\"}", Err(BadAuth::NotBase64)),
            ("{\"auth\":\"QVdT\"}", Err(BadAuth::NoUser)), // AWS
            ("{\"auth\":\"Ong=\"}", Err(BadAuth::NoUser)), // :x
            ("{\"auth\":7}", Err(BadAuth::NotText)),
            ("[]", Err(BadAuth::NotAnEntry)),
            ("\"QVdTOng=\"", Err(BadAuth::NotAnEntry)),
        ];
        for (entry, verdict) in cases {
            assert_eq!(check(raw(entry)), verdict, "{entry}");
        }
        assert!(is_ecr_token(raw("{\"auth\":\"QVdTOng=\"}")));
        assert!(!is_ecr_token(raw("{\"auth\":\"QVdTQTp4\"}"))); // AWSA:x
        assert!(!is_ecr_token(raw("{}")));
    }
}
