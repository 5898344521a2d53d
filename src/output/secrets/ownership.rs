//! Whether a Secret is managed by us, and how long a credential in it is good: by its `managedFields` and by what this
//! process has recorded, never by an annotation alone. Pure.
//!
//! Invariants:
//! * an expiry annotation counts only while we own it and the data key by Apply: `a_forged_annotation_counts_for_nothing`
//! * what this process has recorded counts before any annotation: `what_was_recorded_counts_first`
//! * what this process has kept stays managed after it was replaced: `what_was_kept_stays_managed`

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use super::expiry_annotation::{EXPIRES, ExpiryAnnotation, ShortHash, digest};
use crate::{
    aws::token::Token, credentials::CredentialSet, kubernetes::SecretObject, registry::RegistryHost,
};

/// Credentials that are remembered: more than a process of a thousand token keys holds at a time.
const LARGEST: usize = 4096;

/// The expiry of each credential that this process has held, whatever a Secret's annotation has, and its registries.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorded(BTreeMap<ShortHash, Held>);

#[derive(Debug, Clone)]
struct Held {
    expires_at: SystemTime,
    /// Under any other it is as good as none.
    hosts: BTreeSet<RegistryHost>,
}

impl Recorded {
    /// Records the tokens of `credentials`, in both forms in which Secrets hold them.
    pub(super) fn record(&mut self, credentials: &CredentialSet) {
        let mut last: Option<&Arc<Token>> = None;
        let mut digests = Vec::new();
        for (host, token) in &credentials.current {
            // Hosts of one key share their token.
            if !last.replace(token).is_some_and(|last| Arc::ptr_eq(last, token)) {
                digests = vec![digest(token.auth.expose().as_bytes())];
                digests.extend(token.password().map(|password| digest(&password)));
            }
            for digest in &digests {
                let expires_at = token.expires_at;
                let held =
                    self.0.entry(*digest).or_insert_with(|| Held { expires_at, hosts: BTreeSet::new() });
                held.expires_at = expires_at;
                held.hosts.insert(host.clone());
            }
        }
        while self.0.len() > LARGEST {
            let Some(oldest) =
                self.0.iter().min_by_key(|(_, held)| held.expires_at).map(|(digest, _)| *digest)
            else {
                return;
            };
            self.0.remove(&oldest);
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// It has had the Secret in sync.
    pub(super) kept: bool,
    pub(super) recorded: Arc<Recorded>,
}

pub(super) struct Ownership<'a> {
    memory: &'a Memory,
    /// The annotation as far as it counts.
    pub(super) annotation: ExpiryAnnotation,
    managed: bool,
}

impl<'a> Ownership<'a> {
    /// Of the Secret that holds its credentials under `key`.
    pub(super) fn of(found: Option<&SecretObject>, key: &str, memory: &'a Memory) -> Self {
        let annotated =
            found.map(|found| ExpiryAnnotation::parse(&found.metadata.annotations)).unwrap_or_default();
        let is_ours = found.is_some_and(|it| it.metadata.we_own(key) && it.metadata.we_annotated(EXPIRES));
        // An annotation that was copied or forged makes the Secret ours to correct, and no more than that.
        let managed =
            memory.kept || !annotated.is_empty() || found.is_some_and(|found| found.metadata.we_applied());
        let annotation = if is_ours { annotated } else { ExpiryAnnotation::default() };
        Self { memory, annotation, managed }
    }

    pub(super) fn is_managed(&self) -> bool {
        self.managed
    }

    /// When the credential of `host` expires, if a sidecar put it there.
    pub(super) fn expiry(
        &self,
        host: &RegistryHost,
        credential: &[u8],
        now: SystemTime,
    ) -> Option<SystemTime> {
        match self.memory.recorded.0.get(&digest(credential)) {
            Some(held) => held.hosts.contains(host).then_some(held.expires_at),
            None => self.annotation.expiry(host, credential, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::secret::Secret;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn host() -> RegistryHost {
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com".parse().unwrap()
    }

    /// A Secret with `credential` until 1000, by its annotation.
    fn secret(credential: &[u8], managed_fields: &Value) -> SecretObject {
        let mut annotation = ExpiryAnnotation::default();
        annotation.set(&host(), credential, at(1000));
        serde_json::from_value(json!({
            "metadata": {"annotations": {EXPIRES: annotation.to_text()}, "managedFields": managed_fields},
            "data": {"password": "eA=="},
        }))
        .unwrap()
    }

    fn entry(manager: &str, operation: &str, keys: &[&str], annotations: &[&str]) -> Value {
        let fields = |names: &[&str]| -> Value {
            names
                .iter()
                .map(|name| (format!("f:{name}"), json!({})))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        json!({"manager": manager, "operation": operation, "fieldsV1": {
            "f:data": fields(keys), "f:metadata": {"f:annotations": fields(annotations)},
        }})
    }

    #[test]
    fn a_forged_annotation_counts_for_nothing() {
        let memory = Memory::default();
        let expiry = |managed_fields: Value| {
            let secret = secret(b"x", &managed_fields);
            Ownership::of(Some(&secret), "password", &memory).expiry(&host(), b"x", at(0))
        };
        let ours = |keys: &[&str], annotations: &[&str]| entry("ecr-sidecar", "Apply", keys, annotations);
        assert_eq!(expiry(json!([ours(&["password"], &[EXPIRES])])), Some(at(1000)));
        for (forged, reason) in [
            (json!([]), "no field manager at all, as in a restored backup"),
            (json!([entry("hand", "Update", &["password"], &[EXPIRES])]), "edited"),
            (json!([entry("hand", "Apply", &["password"], &[EXPIRES])]), "applied by another"),
            (json!([entry("ecr-sidecar", "Update", &["password"], &[EXPIRES])]), "an edit under our name"),
            (
                json!([ours(&[], &[EXPIRES]), entry("hand", "Update", &["password"], &[])]),
                "the data is another's, the annotation forged over ours before",
            ),
            (
                json!([ours(&["password"], &[]), entry("hand", "Update", &[], &[EXPIRES])]),
                "our data with a longer life",
            ),
            (json!([ours(&["username"], &[EXPIRES])]), "another key of ours"),
        ] {
            assert_eq!(expiry(forged), None, "{reason}");
        }
    }

    #[test]
    fn what_was_recorded_counts_first() {
        let token =
            Token { auth: Secret::new("QVdTOnNlY3JldA==".into()), obtained_at: at(0), expires_at: at(10) };
        let set = CredentialSet { current: [(host(), Arc::new(token))].into(), ..CredentialSet::default() };
        let mut recorded = Recorded::default();
        recorded.record(&set);
        let memory = Memory { kept: false, recorded: Arc::new(recorded) };
        // Under our very name an annotation has a token that we once held expire later than it does.
        let forged = secret(b"secret", &json!([entry("ecr-sidecar", "Apply", &["password"], &[EXPIRES])]));
        let ownership = Ownership::of(Some(&forged), "password", &memory);
        assert_eq!(ownership.expiry(&host(), b"secret", at(0)), Some(at(10)));
        assert_eq!(ownership.expiry(&host(), b"QVdTOnNlY3JldA==", at(0)), Some(at(10)));
        assert_eq!(ownership.expiry(&host(), b"other", at(0)), None);
    }

    #[test]
    fn a_credential_counts_for_its_own_registries_only() {
        let hosts: Vec<RegistryHost> =
            ["a.example", "b.example", "c.example"].map(|host| host.parse().unwrap()).into();
        let token = |auth: &str| {
            Arc::new(Token { auth: Secret::new(auth.into()), obtained_at: at(0), expires_at: at(10) })
        };
        let (first, second) = (token("QVdTOm9uZQ=="), token("QVdTOnR3bw=="));
        // The first and the last of them share a token, with another between.
        let tokens = [Arc::clone(&first), second, first];
        let current = hosts.iter().cloned().zip(tokens).collect();
        let mut recorded = Recorded::default();
        recorded.record(&CredentialSet { current, ..CredentialSet::default() });
        let memory = Memory { kept: true, recorded: Arc::new(recorded) };
        for (credential, known) in [
            ("QVdTOm9uZQ==", [true, false, true]),
            ("one", [true, false, true]),
            ("QVdTOnR3bw==", [false, true, false]),
            ("two", [false, true, false]),
        ] {
            // Whatever an annotation under our name has of it.
            for (host, known) in hosts.iter().zip(known) {
                let mut annotation = ExpiryAnnotation::default();
                annotation.set(host, credential.as_bytes(), at(1000));
                let found = serde_json::from_value(json!({
                    "metadata": {
                        "annotations": {EXPIRES: annotation.to_text()},
                        "managedFields": [entry("ecr-sidecar", "Apply", &["password"], &[EXPIRES])],
                    },
                    "data": {"password": "eA=="},
                }));
                let found: SecretObject = found.unwrap();
                let ownership = Ownership::of(Some(&found), "password", &memory);
                let expiry = ownership.expiry(host, credential.as_bytes(), at(0));
                assert_eq!(expiry, known.then_some(at(10)), "{credential} under {host}");
            }
        }
    }

    #[test]
    fn what_was_kept_stays_managed() {
        let replaced: SecretObject = serde_json::from_value(json!({"data": {"password": "eA=="}})).unwrap();
        let managed = |kept: bool, found: &SecretObject| {
            let memory = Memory { kept, ..Memory::default() };
            Ownership::of(Some(found), "password", &memory).is_managed()
        };
        assert!(managed(true, &replaced));
        assert!(!managed(false, &replaced));
        // Any field that we applied is enough, also where another took the data.
        let taken: SecretObject = serde_json::from_value(json!({
            "metadata": {"managedFields": [
                entry("ecr-sidecar", "Apply", &["username"], &[]), entry("hand", "Update", &["password"], &[]),
            ]},
        }))
        .unwrap();
        assert!(managed(false, &taken));
    }

    #[test]
    fn the_record_is_bounded() {
        let mut recorded = Recorded::default();
        for number in 0..LARGEST as u64 + 10 {
            let auth = Secret::new(format!("QVdTOn{number:08}=="));
            let token = Token { auth, obtained_at: at(0), expires_at: at(number) };
            recorded.record(&CredentialSet {
                current: [(host(), Arc::new(token))].into(),
                ..CredentialSet::default()
            });
        }
        assert!(recorded.0.len() <= LARGEST);
        assert!(recorded.0.values().all(|held| held.expires_at > at(0)), "the earliest leave first");
    }
}
