//! What was asked of the emulator, by whom, and what came of it?
//!
//! An entry is there before its answer leaves, so a client that has its answer finds its call.
//! The lists are bounded (the oldest entries go first); the counts are not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::fault::Service;
use crate::locked;

const LIMIT: usize = 100_000;

/// One request to one of the services.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// Which service.
    pub service: Service,
    /// The API's operation (`GetAuthorizationToken`), or method and path.
    pub operation: String,
    /// The `Host` that the client named.
    pub host: String,
    /// The region of the signature's scope, or the registry's.
    pub region: Option<String>,
    /// The key that signed.
    pub access_key_id: Option<String>,
    /// Whose key that is; none when the signature was refused.
    pub principal: Option<String>,
    /// The actions that policies were asked about for it, e.g. `ecr:BatchGetImage`.
    pub actions: Vec<String>,
    /// The one of them that was denied.
    pub denied: Option<String>,
    /// `registryIds` of `GetAuthorizationToken`, a deprecated parameter that changes nothing.
    pub registry_ids: Vec<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// When, by the emulator's clock.
    #[serde(serialize_with = "as_seconds")]
    pub time: SystemTime,
    /// The status of the answer; none when the call was left without one (hang, reset, garbage).
    pub status: Option<u16>,
    /// The code of the error that was answered.
    pub error: Option<String>,
}

/// A registry request that was admitted.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pull {
    /// The registry host that the client named.
    pub host: String,
    /// The region of that registry; none for ECR Public.
    pub region: Option<String>,
    /// `GET`, `HEAD` …
    pub method: String,
    /// e.g. `/v2/app/manifests/1.0`.
    pub path: String,
    /// Who was given the token.
    pub principal: String,
    /// The serial number of the token: the first one issued is 1.
    pub token: u64,
    /// When, by the emulator's clock.
    #[serde(serialize_with = "as_seconds")]
    pub time: SystemTime,
}

/// A registry request that was refused.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The registry host that the client named.
    pub host: String,
    /// `GET`, `HEAD` …
    pub method: String,
    /// e.g. `/v2/`.
    pub path: String,
    /// Why.
    pub reason: Reason,
    /// The status that said so.
    pub status: u16,
    /// When, by the emulator's clock.
    #[serde(serialize_with = "as_seconds")]
    pub time: SystemTime,
}

/// Why a registry request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No `Authorization`: how every client begins.
    NoCredentials,
    /// An `Authorization` that isn't what this registry takes.
    NotUnderstood,
    /// The user isn't `AWS`.
    NotAws,
    /// A password that was never issued.
    UnknownToken,
    /// Issued, then revoked.
    RevokedToken,
    /// Issued, and past its expiry.
    ExpiredToken,
    /// Issued for this other region.
    WrongRegion(String),
    /// A public token at a private registry, or the other way about.
    WrongKind,
    /// A policy denies this action, or none allows it.
    NotAllowed(String),
}

/// All that has happened so far.
#[derive(Default)]
pub(crate) struct Journal {
    calls: Mutex<VecDeque<Call>>,
    counts: Mutex<BTreeMap<Service, u64>>,
    pulls: Mutex<VecDeque<Pull>>,
    refusals: Mutex<VecDeque<Refusal>>,
}

impl Journal {
    pub(crate) fn call(&self, call: Call) {
        *locked(&self.counts).entry(call.service).or_default() += 1;
        push(&self.calls, call);
    }

    pub(crate) fn pull(&self, pull: Pull) {
        push(&self.pulls, pull);
    }

    pub(crate) fn refusal(&self, refusal: Refusal) {
        push(&self.refusals, refusal);
    }

    pub(crate) fn count(&self, service: Service) -> u64 {
        locked(&self.counts).get(&service).copied().unwrap_or(0)
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        locked(&self.calls).iter().cloned().collect()
    }

    pub(crate) fn pulls(&self) -> Vec<Pull> {
        locked(&self.pulls).iter().cloned().collect()
    }

    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        locked(&self.refusals).iter().cloned().collect()
    }
}

fn push<T>(list: &Mutex<VecDeque<T>>, entry: T) {
    let mut list = locked(list);
    if list.len() == LIMIT {
        list.pop_front();
    }
    list.push_back(entry);
}

fn as_seconds<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    to.serialize_f64(since.as_secs_f64())
}
