//! What is known at this moment: the one source of `/status`, `/metrics`, the verdicts and `once`.
//!
//! Refreshers and outputs write it, everything else reads it. It holds no secret. What another process sees of it
//! is in [`seen`], `cli/status` asks for it and shows it.

mod output_id;
pub mod seen;

pub use self::output_id::OutputId;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};
use tokio::{sync::watch, time::Instant};

use crate::{
    aws::{
        identity::Principal,
        token::{ClockFault, TokenKey},
    },
    clock::{rfc3339, whole_seconds},
    failure::{Class, Problem, diagnosis::Diagnosis},
    registry::RegistryHost,
};

#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub version: &'static str,
    #[serde(serialize_with = "as_rfc3339")]
    pub started_at: SystemTime,
    /// Whether it has been ready since.
    pub has_been_ready: bool,
    /// After this time from the start, a main container that waits for us may start whatever AWS does.
    #[serde(skip)]
    pub startup_grace: Duration,
    pub configuration: ConfigurationStatus,
    /// Every token key and what became of it.
    #[serde(serialize_with = "as_list")]
    pub tokens: BTreeMap<TokenKey, TokenStatus>,
    /// Every output and what became of it.
    #[serde(serialize_with = "as_list")]
    pub outputs: BTreeMap<OutputId, OutputStatus>,
}

/// The state of the configuration file.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConfigurationStatus {
    /// Valid changes applied since the start.
    pub reloads: u64,
    /// Changes that were refused; the configuration before them stays.
    pub refused: u64,
    /// Why the last change was refused, if it was.
    pub last_error: Option<String>,
}

/// The state of one token.
#[derive(Debug, Clone, Serialize)]
pub struct TokenStatus {
    /// What the token belongs to.
    #[serde(flatten)]
    pub key: TokenKey,
    /// The registries that it serves.
    pub registries: Vec<Served>,
    /// The registry is the caller's own, whose name AWS tells with the first token.
    pub awaits_own_registry: bool,
    pub principal: Option<Principal>,
    /// When the token in hand was obtained.
    #[serde(serialize_with = "as_optional_rfc3339")]
    pub obtained_at: Option<SystemTime>,
    /// When the token in hand ends.
    #[serde(serialize_with = "as_optional_rfc3339")]
    pub expires_at: Option<SystemTime>,
    /// When AWS is asked next.
    #[serde(serialize_with = "as_optional_rfc3339")]
    pub next_attempt: Option<SystemTime>,
    /// What is wrong with the token's dates.
    pub clock_fault: Option<ClockFault>,
    /// Tokens obtained since the start.
    pub refreshed: u64,
    /// Attempts that failed since the start.
    #[serde(serialize_with = "as_total")]
    pub failed: FailureCounts,
    /// How long attempts took, whatever came of them.
    #[serde(skip)]
    pub durations: Durations,
    /// Attempts that failed since the last success.
    pub failures_in_a_row: u32,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<Problem>,
    /// When the loop last_heartbeat last.
    #[serde(skip)]
    pub last_heartbeat: Instant,
}

/// How many attempts failed, by the class of the failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailureCounts(BTreeMap<Class, u64>);

impl FailureCounts {
    /// Counts one more.
    pub fn add(&mut self, class: Class) {
        *self.0.entry(class).or_default() += 1;
    }

    /// Those of one class.
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
    /// How long they took together.
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

    /// Counts one more.
    pub fn add(&mut self, duration: Duration) {
        self.count += 1;
        self.sum += duration;
        let bound = Self::BOUNDS.iter().position(|bound| duration <= *bound);
        if let Some(count) = bound.and_then(|place| self.within.get_mut(place)) {
            *count += 1;
        }
    }
}

/// A registry that a token serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Served {
    #[serde(serialize_with = "as_text")]
    pub host: RegistryHost,
    /// Whether readiness depends on it.
    pub required: bool,
}

/// The state of one output.
#[derive(Debug, Clone, Serialize)]
pub struct OutputStatus {
    #[serde(flatten)]
    pub id: OutputId,
    /// For each registry whose credential is really there: when that credential ends.
    #[serde(serialize_with = "as_expiries")]
    pub in_place: BTreeMap<RegistryHost, SystemTime>,
    /// When it was written last.
    #[serde(serialize_with = "as_optional_rfc3339")]
    pub written_at: Option<SystemTime>,
    /// Writes since the start.
    pub writes: u64,
    /// Reconciliations that failed since the start.
    pub failed: u64,
    /// What a consumer may stumble over.
    pub warnings: Vec<String>,
    /// Why the last reconciliation failed, if it did.
    pub last_error: Option<Problem>,
    /// The Secrets of an output that keeps Secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<Targets>,
    /// Whether it has been reconciled at least once.
    #[serde(skip)]
    pub reconciled: bool,
    /// When the loop last_heartbeat last.
    #[serde(skip)]
    pub last_heartbeat: Instant,
}

/// The Secrets of an output.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Targets {
    pub total: usize,
    /// How many are as desired.
    pub in_sync: usize,
    /// They are found by namespace or label: one that fails does not count for readiness as long as others work.
    pub discovered: bool,
    /// The first of those that are not, for a reason.
    pub failing: Vec<TargetStatus>,
    /// How many more of them there are.
    pub more_failing: usize,
    /// How many fail, by diagnosis.
    #[serde(skip)]
    pub failures: BTreeMap<Diagnosis, usize>,
    /// How many of them have failed so often that `once` waits for them no longer.
    #[serde(skip)]
    pub given_up: usize,
    /// When the credential of each registry ends that they are, or were not, in sync with.
    #[serde(skip)]
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
#[derive(Debug, Clone, Serialize)]
pub struct TargetStatus {
    /// Namespace and name.
    pub name: String,
    /// Why its last reconciliation failed.
    pub last_error: Problem,
}

impl TokenStatus {
    /// A token that nobody has asked for yet.
    pub fn new(key: TokenKey, registries: Vec<Served>, awaits_own_registry: bool) -> Self {
        Self {
            key,
            registries,
            awaits_own_registry,
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
}

impl OutputStatus {
    /// Whether each registry of the token has that token there, or one that ends no earlier: another sidecar's.
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

    /// Whether all is there that should be by what is known of the tokens.
    pub fn is_in_sync<'a>(&self, tokens: impl IntoIterator<Item = &'a TokenStatus>) -> bool {
        let mut obtained = tokens.into_iter().filter(|token| token.expires_at.is_some());
        let targets_are = self.targets.as_ref().is_none_or(|targets| targets.in_sync == targets.total);
        self.reconciled && self.last_error.is_none() && targets_are && obtained.all(|token| self.holds(token))
    }
}

/// Where the status is kept.
#[derive(Debug, Clone)]
pub struct StatusBoard(watch::Sender<Status>);

impl StatusBoard {
    /// A board for a process that starts at `started_at`.
    pub fn new(started_at: SystemTime) -> Self {
        Self(watch::Sender::new(Status {
            version: env!("CARGO_PKG_VERSION"),
            started_at,
            has_been_ready: false,
            startup_grace: Duration::ZERO,
            configuration: ConfigurationStatus::default(),
            tokens: BTreeMap::new(),
            outputs: BTreeMap::new(),
        }))
    }

    /// The status as it is now.
    pub fn read<T>(&self, look: impl FnOnce(&Status) -> T) -> T {
        look(&self.0.borrow())
    }

    /// Tells of each change.
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    /// Changes anything.
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
}

fn as_rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

fn as_optional_rfc3339<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(rfc3339).serialize(serializer)
}

fn as_text<S: Serializer>(host: &RegistryHost, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(host.as_str())
}

fn as_total<S: Serializer>(failed: &FailureCounts, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(failed.total())
}

fn as_list<K, V: Serialize, S: Serializer>(map: &BTreeMap<K, V>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(map.values())
}

fn as_expiries<S: Serializer>(
    map: &BTreeMap<RegistryHost, SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(map.iter().map(|(host, expiry)| (host.as_str(), rfc3339(*expiry))))
}
