//! What the file should say: what it says now, what the base says, and our credentials on top.
//!
//! Pure: text in, text out. In order of precedence:
//! 1. our hosts that have a token: exactly `{"auth": …}` under the bare host, whoever else names them;
//! 2. the base: each of its entries and keys, since it is the declared source of them;
//! 3. what the file says already, except what the base once said and says no longer.
//!
//! Invariants:
//! * everything foreign survives, value for value and in its order: `foreign_values_survive`
//! * every host with a token stands there once, with no twin and no helper: `each_host_once_and_no_twin`
//! * merging what was merged changes nothing: `merging_twice_changes_nothing`
//! * no old token for a part of a host's repositories stays to be preferred: `a_stale_repository_entry_goes`
//! * a host without a token is left as it is: `a_host_without_a_token_is_left_alone`

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use indexmap::IndexMap;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use super::{
    document::{self, AUTHS, CRED_HELPERS, CREDS_STORE, Document, Entries, host_meant},
    error::Warning,
};
use crate::credentials::CredentialSet;

/// The keys that a base has supplied.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::output) struct BaseKeys {
    top: BTreeSet<String>,
    auths: BTreeSet<String>,
    helpers: BTreeSet<String>,
}

impl BaseKeys {
    /// Those of one base.
    pub(super) fn of(base: &Document<'_>) -> Self {
        let keys = |entries: &Entries<'_>| entries.keys().cloned().collect();
        Self { top: keys(&base.top), auths: keys(&base.auths), helpers: keys(&base.helpers) }
    }
}

/// A docker config as it should be, ready to be compared or written.
pub(in crate::output) struct Merged<'a> {
    top: Entries<'a>,
    auths: IndexMap<String, Entry<'a>>,
    helpers: Entries<'a>,
    /// There is something of ours in it, or something that left because of us.
    pub(in crate::output) ours: bool,
    /// What the user should know.
    pub(in crate::output) warnings: Vec<Warning>,
}

#[derive(Clone, Copy)]
enum Entry<'a> {
    Foreign(&'a RawValue),
    Token(&'a str),
}

/// Merges; `base_before` are the keys that the base of this process has supplied up to now.
pub(in crate::output) fn merge<'a>(
    existing: Document<'a>,
    base: Option<Document<'a>>,
    base_before: &BaseKeys,
    desired: &'a CredentialSet,
) -> Merged<'a> {
    let has_base = base.is_some();
    let base = base.unwrap_or_default();
    let mut warnings = Vec::new();
    let mut removed = false;

    let auths = merge_auths(existing.auths, &base, base_before, desired, &mut warnings, &mut removed);
    let mut helpers = existing.helpers;
    overlay(&mut helpers, base.helpers, &base_before.helpers);
    helpers.retain(|key, _| {
        let host = host_meant(key);
        let ours = desired.current.contains_key(host.as_str());
        if ours {
            removed = true;
            warnings.push(Warning::helper_removed(key, &host));
        }
        !ours
    });
    let mut top = existing.top;
    overlay(&mut top, base.top, &base_before.top);
    // The two maps are written from what was merged; their places in the order are kept.
    if !top.contains_key(AUTHS) {
        top.shift_insert(0, AUTHS.to_owned(), RawValue::NULL);
    }
    warnings.extend(creds_store(&top).filter(|_| !desired.current.is_empty()));
    Merged { top, auths, helpers, ours: !desired.current.is_empty() || has_base || removed, warnings }
}

/// The store that docker would ask before it reads an entry.
pub(super) fn creds_store(top: &Entries<'_>) -> Option<Warning> {
    let store = serde_json::from_str::<String>(top.get(CREDS_STORE)?.get()).ok()?;
    (!store.is_empty()).then(|| Warning::creds_store(&store))
}

impl Merged<'_> {
    /// Writes the document, in one line.
    pub(in crate::output) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        Ok(serde_json::to_writer(out, self)?)
    }

    /// Whether the text is what [`Self::write_to`] would write, byte for byte; without writing it out.
    pub(in crate::output) fn is(&self, text: &str) -> bool {
        let mut rest = Rest(text.as_bytes());
        self.write_to(&mut rest).is_ok() && rest.0.is_empty()
    }
}

impl Serialize for Merged<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.top.len()))?;
        for (key, value) in &self.top {
            match key.as_str() {
                AUTHS => map.serialize_entry(key, &self.auths)?,
                CRED_HELPERS => map.serialize_entry(key, &self.helpers)?,
                _ => map.serialize_entry(key, value)?,
            }
        }
        map.end()
    }
}

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Foreign(value) => value.serialize(serializer),
            Self::Token(auth) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("auth", auth)?;
                map.end()
            }
        }
    }
}

fn merge_auths<'a>(
    existing: Entries<'a>,
    base: &Document<'a>,
    base_before: &BaseKeys,
    desired: &'a CredentialSet,
    warnings: &mut Vec<Warning>,
    removed: &mut bool,
) -> IndexMap<String, Entry<'a>> {
    let mut foreign = existing;
    overlay(&mut foreign, base.auths.clone(), &base_before.auths);
    foreign.retain(|key, entry| {
        if desired.current.contains_key(key.as_str()) {
            return true;
        }
        let host = host_meant(key);
        if desired.current.contains_key(host.as_str()) {
            *removed = true;
            warnings.push(Warning::twin_removed(key, &host));
            return false;
        }
        if let Some(host) = document::repository_host(key)
            && desired.current.contains_key(host.as_str())
        {
            if document::is_of_aws(entry) {
                *removed = true;
                warnings.push(Warning::twin_removed(key, &host));
                return false;
            }
            warnings.push(Warning::repository_entry(key, &host));
        }
        let retired = desired.retired.contains(key.as_str()) && !base.auths.contains_key(key);
        if retired && document::is_ecr_token(entry) {
            *removed = true;
            return false;
        }
        if let Err(reason) = document::check(entry) {
            warnings.push(Warning::foreign_auth(key, reason));
        }
        true
    });
    let mut auths: IndexMap<String, Entry<'a>> =
        foreign.into_iter().map(|(key, entry)| (key, Entry::Foreign(entry))).collect();
    for (host, token) in &desired.current {
        auths.insert(host.to_string(), Entry::Token(token.auth.expose()));
    }
    auths
}

/// Puts the base over the entries, and takes away what an earlier base had and this one has not.
fn overlay<'a>(entries: &mut Entries<'a>, base: Entries<'a>, base_before: &BTreeSet<String>) {
    let keep = |key: &str| base.contains_key(key) || !base_before.contains(key);
    entries.retain(|key, _| keep(key) || key == AUTHS || key == CRED_HELPERS);
    entries.extend(base);
}

/// What is still to come of the text that is being compared; a difference is an error.
struct Rest<'a>(&'a [u8]);

impl Write for Rest<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
