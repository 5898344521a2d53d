//! What we leave on a Secret next to its data: which credential of ours expires when.
//!
//! The annotation [`EXPIRES`] holds, for each registry, the expiry of its credential and the first 64 bits of the
//! credential's SHA-256: never the credential. With it every sidecar that keeps the same Secret, and the next process
//! of this one, knows how long what it finds there is good, and does not replace it by something that expires sooner. A
//! credential that was put there by another field manager has another hash, and is not known.

use std::{collections::BTreeMap, time::SystemTime};

use sha2::{Digest, Sha256};

use crate::{aws::token::LATEST_EXPIRY, clock::rfc3339, registry::RegistryHost};

pub(super) const EXPIRES: &str = "ecr-sidecar/expires";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ExpiryAnnotation(BTreeMap<String, String>);

impl ExpiryAnnotation {
    /// That of these annotations; empty where it does not parse.
    pub(super) fn parse(annotations: &BTreeMap<String, String>) -> Self {
        Self(annotations.get(EXPIRES).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default() // a map of texts has a JSON form
    }

    pub(super) fn set(&mut self, host: &RegistryHost, credential: &[u8], expires_at: SystemTime) {
        self.0.insert(host.to_string(), format!("{} {}", rfc3339(expires_at), hex(digest(credential))));
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether it names `host` with this credential, however long that is good.
    pub(super) fn is_of(&self, host: &str, credential: &[u8]) -> bool {
        let found = self.0.get(host).and_then(|text| text.split_once(' '));
        found.is_some_and(|(_, found)| found == hex(digest(credential)))
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|host, _| keep(host));
    }

    /// When the credential of `host` expires, if a sidecar put it there and its expiry can be true.
    pub(super) fn expiry(
        &self,
        host: &RegistryHost,
        credential: &[u8],
        now: SystemTime,
    ) -> Option<SystemTime> {
        let (time, found) = self.0.get(host.as_str())?.split_once(' ')?;
        let expires_at = SystemTime::from(time.parse::<jiff::Timestamp>().ok()?);
        (found == hex(digest(credential)) && expires_at <= now + LATEST_EXPIRY).then_some(expires_at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The first 64 bits of a credential's SHA-256.
pub(super) type ShortHash = [u8; 8];

pub(super) fn digest(credential: &[u8]) -> ShortHash {
    let mut first = ShortHash::default();
    first.iter_mut().zip(Sha256::digest(credential)).for_each(|(to, from)| *to = from);
    first
}

fn hex(digest: ShortHash) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn host() -> RegistryHost {
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com".parse().unwrap()
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_credential_is_known_by_what_it_is_and_not_beyond_what_can_be_true() {
        let mut annotation = ExpiryAnnotation::default();
        annotation.set(&host(), b"token", at(1000));
        let annotation = ExpiryAnnotation::parse(&[(EXPIRES.to_owned(), annotation.to_text())].into());
        assert_eq!(annotation.expiry(&host(), b"token", at(0)), Some(at(1000)));
        assert_eq!(annotation.expiry(&host(), b"edited", at(0)), None);
        assert_eq!(annotation.expiry(&"public.ecr.aws".parse().unwrap(), b"token", at(0)), None);
        let mut far = ExpiryAnnotation::default();
        far.set(&host(), b"token", at(0) + LATEST_EXPIRY + Duration::from_secs(1));
        assert_eq!(far.expiry(&host(), b"token", at(0)), None);
        assert!(!far.to_text().contains("token"));
    }

    #[test]
    fn garbage_is_no_expiry() {
        for text in
            ["", "null", "[]", "{\"a\":1}", "{\"123456789012.dkr.ecr.eu-west-1.amazonaws.com\":\"soon x\"}"]
        {
            let annotation = ExpiryAnnotation::parse(&[(EXPIRES.to_owned(), text.to_owned())].into());
            assert_eq!(annotation.expiry(&host(), b"token", at(0)), None, "{text}");
        }
    }
}
