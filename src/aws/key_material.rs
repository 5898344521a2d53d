//! The one constructor of AWS credentials, whatever source they come from.
//!
//! Keys end up in a signature and in HTTP headers. A value that no header can hold panics the SDK, and one that is not
//! the key alone (a JSON document, quotes, a comment behind it) is signed with and then echoed by AWS.
//!
//! Invariants:
//! * White space around a value does not belong to it, and an empty session token is none (`values_are_trimmed`).
//! * Anything else that cannot be a key is an error which names the source and never the value
//!   (`what_cannot_be_a_key_is_named_and_not_shown`).

use std::{fmt, time::SystemTime};

use aws_credential_types::Credentials;

use crate::secret::Secret;

/// Ids have up to 128 characters (`accessKeyIdType` of the STS API).
const LONGEST_ID: usize = 128;

/// What is wrong with a value; completes "the session token in FILE is malformed: …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it is empty")]
    Empty,
    #[error("it has white space in it")]
    WhiteSpace,
    #[error("it has quotes, braces or backslashes in it")]
    Punctuation,
    #[error("it has characters that are not printable ASCII")]
    NotAscii,
    #[error("it does not have the form of an access key id")]
    NotAnId,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {what} in {place} is malformed: {why}")]
pub struct MalformedKey {
    pub what: &'static str,
    pub place: String,
    pub why: Malformed,
}

pub(crate) struct KeyMaterial(Secret<String>);

impl KeyMaterial {
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Malformed::Empty);
        }
        if text.contains(char::is_whitespace) {
            return Err(Malformed::WhiteSpace);
        }
        if text.contains(['"', '\'', '`', '\\', '{', '}']) {
            return Err(Malformed::Punctuation);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Malformed::NotAscii);
        }
        Ok(Self(Secret::new(text.to_owned())))
    }

    pub(crate) fn into_secret(self) -> Secret<String> {
        self.0
    }
}

/// `text` without the white space around it. Test clouds have ids that are shorter than AWS's.
pub(crate) fn access_key_id(text: &str) -> Result<String, Malformed> {
    let id = KeyMaterial::parse(text)?.0.expose().clone();
    let is_id = id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_id { Ok(id) } else { Err(Malformed::NotAnId) }
}

/// Where keys come from, as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) provider: &'static str,
    /// Of each value: completes "the session token in …".
    pub(crate) places: [String; 3],
}

impl Origin {
    pub(crate) fn of(provider: &'static str, place: impl fmt::Display) -> Self {
        Self { provider, places: std::array::from_fn(|_| place.to_string()) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundKeys<'a> {
    pub(crate) access_key_id: &'a str,
    pub(crate) secret_access_key: &'a str,
    pub(crate) session_token: Option<&'a str>,
    pub(crate) expiry: Option<SystemTime>,
}

impl fmt::Debug for FoundKeys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FoundKeys(..)")
    }
}

impl FoundKeys<'_> {
    pub(crate) fn into_credentials(self, origin: &Origin) -> Result<Credentials, MalformedKey> {
        let malformed = |what: &'static str, place: usize| {
            move |why| MalformedKey { what, place: origin.places[place].clone(), why }
        };
        let id = access_key_id(self.access_key_id).map_err(malformed("access key id", 0))?;
        let secret = KeyMaterial::parse(self.secret_access_key).map_err(malformed("secret access key", 1))?;
        let session = self.session_token.filter(|token| !token.trim().is_empty()).map(KeyMaterial::parse);
        let session = session.transpose().map_err(malformed("session token", 2))?;
        Ok(Credentials::new(
            id,
            secret.0.expose().as_str(),
            session.map(|token| token.0.expose().clone()),
            self.expiry,
            origin.provider,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AKIAIOSFODNN7EXAMPLE";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY=";

    fn credentials(id: &str, secret: &str, token: Option<&str>) -> Result<Credentials, MalformedKey> {
        let found =
            FoundKeys { access_key_id: id, secret_access_key: secret, session_token: token, expiry: None };
        found.into_credentials(&Origin::of("test", "/keys"))
    }

    #[test]
    fn values_are_trimmed() {
        for token in [None, Some(""), Some(" \r\n")] {
            let found = credentials(&format!("{ID}\n"), &format!(" {SECRET}\r\n"), token).unwrap();
            assert_eq!((found.access_key_id(), found.secret_access_key()), (ID, SECRET));
            assert_eq!(found.session_token(), None);
        }
        assert_eq!(credentials("test", "test", Some("t\n")).unwrap().session_token(), Some("t"));
    }

    #[test]
    fn what_cannot_be_a_key_is_named_and_not_shown() {
        for bad in [
            "",
            "CANARY CANARY",  // a comment behind the value
            "CANARY\nCANARY", // id and secret in one file
            "\"CANARY\"",     // quotes of YAML or a shell
            "'CANARY'",
            "{\"AccessKeyId\":\"CANARY\"}", // the answer of STS
            "CANARY\u{0}",                  // padding
            "CANARY\u{7f}",
            "CANÄRY",
            "\u{feff}CANARY", // a byte order mark
            "CANARY\u{200b}", // pasted from a web page
        ] {
            for (what, outcome) in [
                ("access key id", credentials(bad, SECRET, None)),
                ("secret access key", credentials(ID, bad, None)),
                ("session token", credentials(ID, SECRET, Some(&format!("x{bad}x ")))),
            ] {
                if what == "session token" && bad.is_empty() {
                    continue;
                }
                let text = outcome.expect_err(bad).to_string();
                assert!(text.contains(what) && text.contains("/keys") && !text.contains("CAN"), "{text}");
            }
        }
        // The two swapped: a secret is no id.
        assert!(credentials(SECRET, ID, None).unwrap_err().to_string().contains("access key id"));
        assert!(credentials(&"A".repeat(129), SECRET, None).is_err());
    }

    proptest::proptest! {
        /// A value that passes fits into a header.
        #[test]
        fn no_content_panics(id in "\\PC{0,20}", secret in "[\\x00-\u{ff}]{0,40}", token in "[ -~\n\u{ff}]{0,80}") {
            if let Ok(found) = credentials(&id, &secret, Some(&token)) {
                for value in [Some(found.access_key_id()), found.session_token()].into_iter().flatten() {
                    proptest::prop_assert!(http::HeaderValue::from_str(value).is_ok());
                }
            }
        }
    }
}
