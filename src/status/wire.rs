//! The JSON of `/status`: what the server writes, and `ecr-sidecar status` reads.
//!
//! The reader does not trust the answer: it may come from another version, or from another program that has the port.
//! Unknown fields are ignored, a missing one is empty, an unreadable time is none (`another_version_is_understood_and_another_program_is_not`).
//! Control characters are removed where text is shown (`cli/status/table.rs`).

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    aws::identity::Principal,
    clock::rfc3339,
    failure,
    registry::RegistryHost,
    status::{self, ConfigurationStatus, OutputStatus, ProbeStatus, TokenStatus},
};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    #[serde(default)]
    pub started_at: Moment,
    /// Whether it has been ready since.
    #[serde(default)]
    pub has_been_ready: bool,
    #[serde(default)]
    pub configuration: ConfigurationStatus,
    pub tokens: Vec<Token>,
    pub outputs: Vec<Output>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Token {
    pub identity: String,
    /// `ecr` or `ecr-public`.
    pub service: String,
    pub region: String,
    /// A URL in place of the region's usual endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fips: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual_stack: Option<bool>,
    pub registries: Vec<Served>,
    pub awaits_own_registry: bool,
    pub principal: Option<Principal>,
    pub obtained_at: Moment,
    pub expires_at: Moment,
    pub next_attempt: Moment,
    pub clock_fault: Option<String>,
    pub refreshed: u64,
    pub failed: u64,
    pub failures_in_a_row: u64,
    pub last_error: Option<Problem>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Served {
    pub host: String,
    pub required: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    pub message: String,
    pub diagnosis: String,
    pub remedy: String,
    pub class: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Warning {
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Output {
    #[serde(rename = "type")]
    pub kind: String,
    pub target: String,
    /// For each registry whose credential is really there: when that credential expires.
    pub in_place: BTreeMap<String, Moment>,
    pub written_at: Moment,
    pub writes: u64,
    pub failed: u64,
    /// The messages of `warning_details`.
    pub warnings: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warning_details: Vec<Warning>,
    pub last_error: Option<Problem>,
    /// Of an output that writes Secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<Targets>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Targets {
    pub total: usize,
    pub in_sync: usize,
    pub discovered: bool,
    pub failing: Vec<Target>,
    pub more_failing: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Target {
    /// Namespace and name.
    pub name: String,
    pub last_error: Problem,
}

/// The pull probe of a registry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    pub registry: String,
    /// With the registry's host.
    pub image: String,
    /// When the last probe finished.
    pub checked_at: Moment,
    pub succeeded_at: Moment,
    pub next_attempt: Moment,
    pub failures_in_a_row: u64,
    /// What the last probe found, if it succeeded.
    pub found: Option<String>,
    pub last_error: Option<Problem>,
}

impl From<&status::Status> for Status {
    fn from(status: &status::Status) -> Self {
        Self {
            version: status.version.to_owned(),
            started_at: status.started_at.into(),
            has_been_ready: status.has_been_ready,
            configuration: status.configuration.clone(),
            tokens: status.tokens.values().map(Token::from).collect(),
            outputs: status.outputs.values().map(Output::from).collect(),
            probes: status.probes.iter().map(Probe::from).collect(),
        }
    }
}

impl From<&TokenStatus> for Token {
    fn from(token: &TokenStatus) -> Self {
        let registries = token.registries.iter();
        Self {
            identity: token.key.identity.clone(),
            service: token.key.service.as_str().to_owned(),
            region: token.key.region.to_string(),
            endpoint: token.key.endpoint.as_ref().map(ToString::to_string),
            fips: token.key.fips,
            dual_stack: token.key.dual_stack,
            registries: registries
                .map(|served| Served { host: served.host.to_string(), required: served.required })
                .collect(),
            awaits_own_registry: token.awaits_own_registry(),
            principal: token.principal.clone(),
            obtained_at: Moment(token.obtained_at),
            expires_at: Moment(token.expires_at),
            next_attempt: Moment(token.next_attempt),
            clock_fault: token.clock_fault.map(|fault| fault.as_str().to_owned()),
            refreshed: token.refreshed,
            failed: token.failed.total(),
            failures_in_a_row: token.failures_in_a_row.into(),
            last_error: token.last_error.as_ref().map(Problem::from),
        }
    }
}

impl From<&failure::Problem> for Problem {
    fn from(problem: &failure::Problem) -> Self {
        Self {
            message: problem.message.clone(),
            diagnosis: problem.remedy.diagnosis.id().to_owned(),
            remedy: problem.remedy.to_string(),
            class: problem.class.to_string(),
        }
    }
}

impl From<&failure::Warning> for Warning {
    fn from(failure::Warning { message, remedy }: &failure::Warning) -> Self {
        Self {
            message: message.clone(),
            diagnosis: remedy.as_ref().map(|remedy| remedy.diagnosis.id().to_owned()),
            remedy: remedy.as_ref().map(ToString::to_string),
        }
    }
}

impl From<&OutputStatus> for Output {
    fn from(output: &OutputStatus) -> Self {
        let in_place = output.in_place.iter();
        Self {
            kind: output.id.kind.clone(),
            target: output.id.target.clone(),
            in_place: in_place.map(|(host, expiry)| (host.to_string(), (*expiry).into())).collect(),
            written_at: Moment(output.written_at),
            writes: output.writes,
            failed: output.failed,
            warnings: output.warnings.iter().map(|warning| warning.message.clone()).collect(),
            warning_details: output.warnings.iter().map(Warning::from).collect(),
            last_error: output.last_error.as_ref().map(Problem::from),
            targets: output.targets.as_ref().map(Targets::from),
        }
    }
}

impl From<(&RegistryHost, &ProbeStatus)> for Probe {
    fn from((registry, probe): (&RegistryHost, &ProbeStatus)) -> Self {
        Self {
            registry: registry.to_string(),
            image: probe.image.clone(),
            checked_at: Moment(probe.checked_at),
            succeeded_at: Moment(probe.succeeded_at),
            next_attempt: Moment(probe.next_attempt),
            failures_in_a_row: probe.failures_in_a_row.into(),
            found: probe.found.clone(),
            last_error: probe.last_error.as_ref().map(Problem::from),
        }
    }
}

impl From<&status::Targets> for Targets {
    fn from(targets: &status::Targets) -> Self {
        let failing = targets.failing.iter();
        Self {
            total: targets.total,
            in_sync: targets.in_sync,
            discovered: targets.discovered,
            failing: failing
                .map(|target| Target { name: target.name.clone(), last_error: (&target.last_error).into() })
                .collect(),
            more_failing: targets.more_failing,
        }
    }
}

/// A time, if there is one: in RFC 3339, whole seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Option<SystemTime>);

impl Moment {
    /// How long until then; nothing when it is past.
    pub fn after(self, now: SystemTime) -> Option<Duration> {
        self.0?.duration_since(now).ok().filter(|left| !left.is_zero())
    }

    /// How long since then; nothing when it is still to come.
    pub fn before(self, now: SystemTime) -> Option<Duration> {
        now.duration_since(self.0?).ok()
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        Self(Some(time))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.map(rfc3339).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let time = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Ok(Self(time.map(SystemTime::from)))
    }
}

#[cfg(test)]
mod tests;
