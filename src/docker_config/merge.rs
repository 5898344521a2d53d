//! What a document should contain: its entries now, those of the base, and our credentials on top.
//!
//! Pure: text in, text out. In order of precedence:
//! 1. our hosts that have a token: exactly `{"auth": …}` under the bare host, whoever else names them;
//! 2. the base: each of its entries and keys, since it is the declared source of them;
//! 3. what the document has already, except what the base once had and has no longer.
//!
//! Invariants:
//! * every unmanaged value survives as it is written and in its order: `unmanaged_values_survive`
//! * every host with a token stands there once, with no twin and no helper: `each_host_once_and_no_twin`
//! * merging what was merged changes nothing: `merging_twice_changes_nothing`
//! * no old token for a part of a host's repositories stays to be preferred: `a_stale_repository_entry_goes`
//! * a host without a token is left as it is: `a_host_without_a_token_is_left_alone`

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    sync::Arc,
};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use super::{
    base::{Base, BaseKeys},
    document::{AUTHS, CRED_HELPERS, CREDS_STORE, Document, Entries, TOP, host_meant, repository_host},
    entry, warning,
};
use crate::{aws::token::Token, credentials::CredentialSet, failure::Warning, registry::RegistryHost};

/// The most warnings of a document that are kept; the others are counted.
const WARNINGS: usize = 20;

/// A docker config as it should be, ready to be compared or written.
pub(crate) struct Merged<'a> {
    top: Entries<'a>,
    auths: Entries<'a>,
    /// These replace what `auths` has of their hosts.
    tokens: &'a BTreeMap<RegistryHost, Arc<Token>>,
    helpers: Entries<'a>,
    /// There is something of ours in it, or something that left because of us.
    pub(crate) ours: bool,
    /// Something left that clients would have taken for an entry of ours.
    pub(crate) removed: bool,
    /// What the user should know.
    pub(crate) warnings: Vec<Warning>,
}

/// What the user should know: the first [`WARNINGS`] of what one document gives rise to, and how many more.
#[derive(Default)]
struct Warnings {
    kept: Vec<Warning>,
    more: usize,
}

impl Warnings {
    fn push(&mut self, warning: impl FnOnce() -> Warning) {
        if self.kept.len() < WARNINGS { self.kept.push(warning()) } else { self.more += 1 }
    }

    fn into_all(self) -> Vec<Warning> {
        let more = (self.more > 0).then(|| warning::more(self.more));
        self.kept.into_iter().chain(more).collect()
    }
}

pub(crate) fn merge<'a>(
    existing: Document<'a>,
    base: Option<&'a Base>,
    desired: &'a CredentialSet,
) -> Merged<'a> {
    let nothing = BaseKeys::default();
    let supplied = base.map_or(&nothing, Base::supplied);
    let base = base.and_then(Base::document);
    let has_base = base.is_some();
    let base = base.unwrap_or_default();
    let retired = desired.retired.iter().map(RegistryHost::as_str);
    let retired: BTreeSet<_> = retired.filter(|host| !base.auths.contains_key(*host)).collect();
    let mut warnings = Warnings::default();
    let mut removed = false;

    let mut top = existing.top;
    let mut left = overlay(TOP, &mut top, base.top, supplied);
    // The two maps are written from what was merged; their places in the order are kept.
    if !top.contains_key(AUTHS) {
        top.shift_insert(0, Cow::Borrowed(AUTHS), RawValue::NULL);
    }
    // The first, since it concerns every entry.
    if let Some(store) = creds_store(&top).filter(|_| !desired.current.is_empty()) {
        warnings.push(|| store);
    }
    let mut auths = existing.auths;
    left |= overlay(AUTHS, &mut auths, base.auths, supplied);
    correct(&mut auths, desired, &retired, &mut warnings, &mut removed);
    let mut helpers = existing.helpers;
    left |= overlay(CRED_HELPERS, &mut helpers, base.helpers, supplied);
    helpers.retain(|key, _| {
        let host = host_meant(key);
        let ours = desired.current.contains_key(host.as_str());
        if ours {
            removed = true;
            warnings.push(|| warning::helper_removed(key, &host));
        }
        !ours
    });
    let ours = !desired.current.is_empty() || has_base || removed || left;
    Merged { top, auths, tokens: &desired.current, helpers, ours, removed, warnings: warnings.into_all() }
}

/// The store that docker would ask before it reads an entry.
pub(crate) fn creds_store(top: &Entries<'_>) -> Option<Warning> {
    let store = serde_json::from_str::<String>(top.get(CREDS_STORE)?.get()).ok()?;
    (!store.is_empty()).then(|| warning::creds_store(&store))
}

impl Merged<'_> {
    /// Writes the document, in one line.
    pub(crate) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        Ok(serde_json::to_writer(out, self)?)
    }

    /// Whether the text is what [`Self::write_to`] would write, byte for byte; without writing it out.
    pub(crate) fn is(&self, text: &str) -> bool {
        let mut rest = Rest(text.as_bytes());
        self.write_to(&mut rest).is_ok() && rest.0.is_empty()
    }
}

impl Serialize for Merged<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.top.len()))?;
        for (key, value) in &self.top {
            match key.as_ref() {
                AUTHS => map.serialize_entry(key, &Auths { entries: &self.auths, tokens: self.tokens })?,
                CRED_HELPERS => map.serialize_entry(key, &self.helpers)?,
                _ => map.serialize_entry(key, value)?,
            }
        }
        map.end()
    }
}

/// The entries with the tokens in their places, and the tokens that have none behind them.
struct Auths<'m> {
    entries: &'m Entries<'m>,
    tokens: &'m BTreeMap<RegistryHost, Arc<Token>>,
}

impl Serialize for Auths<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Entry<'t> {
            auth: &'t str,
        }
        fn entry(token: &Token) -> Entry<'_> {
            Entry { auth: token.auth.expose() }
        }
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.entries {
            match self.tokens.get(key.as_ref()) {
                Some(token) => map.serialize_entry(key, &entry(token))?,
                None => map.serialize_entry(key, value)?,
            }
        }
        for (host, token) in self.tokens.iter().filter(|(host, _)| !self.entries.contains_key(host.as_str()))
        {
            map.serialize_entry(host.as_str(), &entry(token))?;
        }
        map.end()
    }
}

/// Takes away what clients would take for an entry of ours, and what is left of `retired` hosts.
fn correct(
    auths: &mut Entries<'_>,
    desired: &CredentialSet,
    retired: &BTreeSet<&str>,
    warnings: &mut Warnings,
    removed: &mut bool,
) {
    auths.retain(|key, entry| {
        if desired.current.contains_key(key.as_ref()) {
            return true;
        }
        let host = host_meant(key);
        if desired.current.contains_key(host.as_str()) {
            *removed = true;
            warnings.push(|| warning::twin_removed(key, &host));
            return false;
        }
        if let Some(host) = repository_host(key)
            && desired.current.contains_key(host.as_str())
        {
            if entry::is_of_aws(entry) {
                *removed = true;
                warnings.push(|| warning::twin_removed(key, &host));
                return false;
            }
            warnings.push(|| warning::repository_entry(key, &host));
        }
        if retired.contains(key.as_ref()) && entry::is_ecr_token(entry) {
            *removed = true;
            return false;
        }
        if let Err(reason) = entry::check(entry) {
            warnings.push(|| warning::invalid_entry(key, reason));
        }
        true
    });
}

/// Puts the base over the entries, and takes away what an earlier base had and this one has not; whether there was any.
fn overlay<'a>(map: &str, entries: &mut Entries<'a>, base: Entries<'a>, supplied: &BaseKeys) -> bool {
    let count = entries.len();
    if !supplied.is_empty() {
        let keep = |key: &str| base.contains_key(key) || !supplied.contains(map, key);
        entries.retain(|key, _| keep(key) || key == AUTHS || key == CRED_HELPERS);
    }
    let has_left = entries.len() < count;
    // One by one: `extend` makes room for as many again, and most are there already.
    for (key, value) in base {
        entries.insert(key, value);
    }
    has_left
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
mod tests;
