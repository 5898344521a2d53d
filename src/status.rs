//! The current state: the one source of `/status`, `/metrics`, the probes and `once`.
//!
//! Refreshers and outputs write it, everything else reads it. It holds no secret. Its JSON is in [`wire`].

mod output_id;
pub mod wire;

pub use self::output_id::OutputId;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use crate::{
    aws::{
        identity::Principal,
        token::{ClockFault, TokenKey},
    },
    clock::whole_seconds,
    failure::{Class, Problem, Warning, diagnosis::Diagnosis},
    kubernetes::ObjectRef,
    registry::RegistryHost,
};

#[derive(Debug, Clone)]
pub struct Status {
    pub version: &'static str,
    pub started_at: SystemTime,
    /// Whether it has been ready since.
    pub has_been_ready: bool,
    /// After this time from the start, a main container that waits for us may start whatever AWS does.
    pub startup_grace: Duration,
    pub configuration: ConfigurationStatus,
    pub tokens: BTreeMap<TokenKey, TokenStatus>,
    pub outputs: BTreeMap<OutputId, OutputStatus>,
    /// Of the registries with a pull probe. Nothing else depends on them.
    pub probes: BTreeMap<RegistryHost, ProbeStatus>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigurationStatus {
    /// Valid changes applied since the start.
    pub reloads: u64,
    /// Changes that were rejected; the configuration before them stays.
    pub rejected: u64,
    /// Why the last change was rejected, if it was.
    pub last_error: Option<String>,
}

#[derive(Debug, Clone)]
pub struct TokenStatus {
    pub key: TokenKey,
    pub registries: Vec<Served>,
    /// The registry is the caller's own: AWS returns its name with each token.
    pub serves_own_registry: bool,
    pub principal: Option<Principal>,
    /// When the token in hand was obtained.
    pub obtained_at: Option<SystemTime>,
    /// When the token in hand expires.
    pub expires_at: Option<SystemTime>,
    pub next_attempt: Option<SystemTime>,
    /// What is wrong with the token's dates.
    pub clock_fault: Option<ClockFault>,
    /// Tokens obtained since the start.
    pub refreshed: u64,
    /// Attempts that failed since the start.
    pub failed: FailureCounts,
    /// How long attempts took, failed or not.
    pub durations: Durations,
    /// Attempts that failed since the last success.
    pub failures_in_a_row: u32,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<Problem>,
    pub last_heartbeat: Instant,
}

/// How many attempts failed, by the class of the failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailureCounts(BTreeMap<Class, u64>);

impl FailureCounts {
    pub fn add(&mut self, class: Class) {
        *self.0.entry(class).or_default() += 1;
    }

    pub fn of(&self, class: Class) -> u64 {
        self.0.get(&class).copied().unwrap_or_default()
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// How long something took: a histogram.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many took at most as long as the bound of the same place, and longer than the one before it.
    pub within: [u64; Self::BOUNDS.len()],
    pub count: u64,
    pub sum: Duration,
}

impl Durations {
    /// A call within a region, one over an ocean, one with roles to assume before it, one that was tried twice, and
    /// what a call may take at most.
    pub const BOUNDS: [Duration; 5] = [
        Duration::from_millis(100),
        Duration::from_millis(500),
        Duration::from_secs(1),
        Duration::from_secs(5),
        Duration::from_secs(15),
    ];

    pub fn add(&mut self, duration: Duration) {
        self.count += 1;
        self.sum += duration;
        let bound = Self::BOUNDS.iter().position(|bound| duration <= *bound);
        if let Some(count) = bound.and_then(|place| self.within.get_mut(place)) {
            *count += 1;
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    pub host: RegistryHost,
    pub required: bool,
}

#[derive(Debug, Clone)]
pub struct OutputStatus {
    pub id: OutputId,
    /// For each registry whose credential is really there: when that credential expires.
    pub in_place: BTreeMap<RegistryHost, SystemTime>,
    pub written_at: Option<SystemTime>,
    /// Writes since the start.
    pub writes: u64,
    /// Reconciliations that failed since the start.
    pub failed: u64,
    /// What may keep a consumer from working.
    pub warnings: Vec<Warning>,
    /// Why the last reconciliation failed, if it did.
    pub last_error: Option<Problem>,
    /// Of an output that writes Secrets.
    pub targets: Option<Targets>,
    /// Whether it has been reconciled at least once.
    pub reconciled: bool,
    pub last_heartbeat: Instant,
}

#[derive(Debug, Clone, Default)]
pub struct Targets {
    pub total: usize,
    /// How many are as desired.
    pub in_sync: usize,
    /// Where they are discovered: of each registry one that holds its credential.
    pub(crate) known: BTreeMap<RegistryHost, ObjectRef>,
    /// They are found by namespace or label: one that fails does not count for readiness as long as others work.
    pub discovered: bool,
    /// The first of those that are not, for a reason.
    pub failing: Vec<TargetStatus>,
    /// How many more of them there are.
    pub more_failing: usize,
    pub failures: BTreeMap<Diagnosis, usize>,
    /// How many of them have failed so often that `once` waits for them no longer.
    pub given_up: usize,
    /// When the credential of each registry expires that they are, or were not, in sync with.
    pub aimed_at: BTreeMap<RegistryHost, SystemTime>,
}

impl Targets {
    /// How many are not as desired, for a reason.
    pub fn failing(&self) -> usize {
        self.failing.len() + self.more_failing
    }

    /// Whether each of them has been tried with a credential of that registry that expires then or later.
    pub fn have_been_tried(&self, host: &RegistryHost, expires_at: SystemTime) -> bool {
        let aimed = self.aimed_at.get(host).is_some_and(|end| *end >= expires_at);
        aimed && self.in_sync + self.failing() == self.total
    }

    /// Whether each of them is as desired, or has failed so often that waiting is not worth it.
    pub fn are_settled(&self) -> bool {
        self.in_sync + self.given_up == self.total
    }
}

/// A Secret that is not as desired.
#[derive(Debug, Clone)]
pub struct TargetStatus {
    /// Namespace and name.
    pub name: String,
    pub last_error: Problem,
}

/// What became of the pull probe of a registry.
#[derive(Debug, Clone, Default)]
pub struct ProbeStatus {
    /// With the registry's host.
    pub image: String,
    /// When the last probe finished.
    pub checked_at: Option<SystemTime>,
    pub succeeded_at: Option<SystemTime>,
    pub next_attempt: Option<SystemTime>,
    /// Probes that failed since the last success.
    pub failures_in_a_row: u32,
    /// What the last probe found, if it succeeded.
    pub found: Option<String>,
    /// Why the last probe failed, if it did.
    pub last_error: Option<Problem>,
}

impl TokenStatus {
    /// A token that has not been requested yet.
    pub fn new(key: TokenKey, registries: Vec<Served>, serves_own_registry: bool) -> Self {
        Self {
            key,
            registries,
            serves_own_registry,
            principal: None,
            obtained_at: None,
            expires_at: None,
            next_attempt: None,
            clock_fault: None,
            refreshed: 0,
            failed: FailureCounts::default(),
            durations: Durations::default(),
            failures_in_a_row: 0,
            last_error: None,
            last_heartbeat: Instant::now(),
        }
    }

    pub fn awaits_own_registry(&self) -> bool {
        self.serves_own_registry && self.registries.is_empty()
    }
}

impl OutputStatus {
    /// An output that has not been reconciled yet.
    pub fn new(id: OutputId) -> Self {
        Self {
            id,
            in_place: BTreeMap::new(),
            written_at: None,
            writes: 0,
            failed: 0,
            warnings: Vec::new(),
            last_error: None,
            targets: None,
            reconciled: false,
            last_heartbeat: Instant::now(),
        }
    }

    /// Whether each registry of the token has that token there, or one that expires no earlier: another sidecar's.
    pub fn holds(&self, token: &TokenStatus) -> bool {
        let wanted = token.expires_at.map(whole_seconds);
        token.registries.iter().all(|served| {
            self.in_place.get(&served.host).is_some_and(|expiry| Some(whole_seconds(*expiry)) >= wanted)
        })
    }

    /// How many of its Secrets are not as desired, for a reason.
    pub fn failing_targets(&self) -> usize {
        self.targets.as_ref().map_or(0, Targets::failing)
    }

    /// Whether every token that was obtained is in place.
    pub fn is_in_sync<'a>(&self, tokens: impl IntoIterator<Item = &'a TokenStatus>) -> bool {
        let mut obtained = tokens.into_iter().filter(|token| token.expires_at.is_some());
        let targets_are = self.targets.as_ref().is_none_or(|targets| targets.in_sync == targets.total);
        self.reconciled && self.last_error.is_none() && targets_are && obtained.all(|token| self.holds(token))
    }
}

#[derive(Debug, Clone)]
pub struct StatusBoard(watch::Sender<Status>);

impl StatusBoard {
    pub fn new(started_at: SystemTime) -> Self {
        Self(watch::Sender::new(Status {
            version: env!("CARGO_PKG_VERSION"),
            started_at,
            has_been_ready: false,
            startup_grace: Duration::ZERO,
            configuration: ConfigurationStatus::default(),
            tokens: BTreeMap::new(),
            outputs: BTreeMap::new(),
            probes: BTreeMap::new(),
        }))
    }

    pub fn read<T>(&self, read: impl FnOnce(&Status) -> T) -> T {
        read(&self.0.borrow())
    }

    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        self.0.send_modify(change);
    }

    /// Changes the entry of a token, if it is still configured.
    pub fn update_token(&self, key: &TokenKey, change: impl FnOnce(&mut TokenStatus)) {
        self.0.send_if_modified(|status| status.tokens.get_mut(key).map(change).is_some());
    }

    /// Changes the entry of an output, if it is still configured.
    pub fn update_output(&self, id: &OutputId, change: impl FnOnce(&mut OutputStatus)) {
        self.0.send_if_modified(|status| status.outputs.get_mut(id).map(change).is_some());
    }

    /// Changes the entry of a pull probe, if it is still configured.
    pub fn update_probe(&self, host: &RegistryHost, change: impl FnOnce(&mut ProbeStatus)) {
        self.0.send_if_modified(|status| status.probes.get_mut(host).map(change).is_some());
    }
}
