//! The answers to probes: a pure function of (status, now).
//!
//! * live: the loops run; never depends on AWS or Kubernetes.
//! * ready: every required registry has an unexpired credential in every output, now. False again at expiry. Of an
//!   output that discovers its Secrets, one that cannot be written is reported and does not count
//!   (`a_failing_target_is_reported_and_does_not_count`); the output's own credential is what its other Secrets hold.
//! * started: ready once, or the grace period is over, so that an AWS outage cannot keep a GitOps controller
//!   down for ever.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    clock::rfc3339,
    registry::RegistryHost,
    status::{OutputId, OutputStatus, Status, Targets, TokenStatus},
};

/// A loop without a heartbeat for this long is stuck. Every loop has one at least once a minute, but for an attempt
/// that runs into its limit.
pub const HEARTBEAT_DEADLINE: Duration = Duration::from_secs(180);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    pub checks: Vec<Check>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    pub failure: Option<String>,
    pub weight: Weight,
}

/// What a failed check means for the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    Required,
    /// Nothing, and it is always shown.
    Reported,
    /// Nothing, and it is shown on request.
    Optional,
}

impl ProbeResult {
    pub fn is_good(&self) -> bool {
        self.checks.iter().all(|check| check.failure.is_none() || check.weight != Weight::Required)
    }

    /// One `[+]name ok` or `[-]name reason` line a check; without `verbose` only failures that count or are reported.
    pub fn text(&self, verbose: bool) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let optional = if check.weight == Weight::Optional { " (optional)" } else { "" };
            let _ = match &check.failure {
                Some(reason) if verbose || check.weight != Weight::Optional => {
                    writeln!(text, "[-]{}{optional} {reason}", check.name)
                }
                None if verbose => writeln!(text, "[+]{}{optional} ok", check.name),
                _ => Ok(()),
            }; // a String takes any text
        }
        text.push_str(if self.is_good() { "ok\n" } else { "not ok\n" });
        text
    }
}

pub fn live(status: &Status, now: Instant) -> ProbeResult {
    let tokens =
        status.tokens.values().map(|token| (format!("refresher {}", token.key), token.last_heartbeat));
    let outputs = status.outputs.iter().map(|(id, output)| (format!("output {id}"), output.last_heartbeat));
    let check = |(name, last_heartbeat): (String, Instant)| {
        let age = now.saturating_duration_since(last_heartbeat);
        let failure = (age > HEARTBEAT_DEADLINE).then(|| format!("no heartbeat for {} s", age.as_secs()));
        Check { name, failure, weight: Weight::Required }
    };
    ProbeResult { checks: tokens.chain(outputs).map(check).collect() }
}

pub fn ready(status: &Status, now: SystemTime) -> ProbeResult {
    let mut checks = Vec::new();
    for token in status.tokens.values() {
        if token.awaits_own_registry() {
            let name = format!("own registry in {}", token.key.region.as_str());
            checks.push(Check { name, failure: Some(no_token(token)), weight: Weight::Required });
        }
        for served in &token.registries {
            for (id, output) in &status.outputs {
                let failure = lacks(token, output, &served.host, now);
                let name = format!("registry {} in {id}", served.host);
                let weight = if served.required { Weight::Required } else { Weight::Optional };
                checks.push(Check { name, failure, weight });
            }
        }
    }
    if checks.is_empty() {
        let failure = Some("is being applied".into());
        checks.push(Check { name: "configuration".into(), failure, weight: Weight::Required });
    }
    for (id, output) in &status.outputs {
        checks.extend(output.targets.iter().flat_map(|targets| failing(id, targets)));
    }
    ProbeResult { checks }
}

pub fn started(status: &Status, now: SystemTime) -> ProbeResult {
    let mut result = ready(status, now);
    let age = now.duration_since(status.started_at).unwrap_or_default();
    if status.has_been_ready || age >= status.startup_grace {
        let required = result.checks.iter_mut().filter(|check| check.weight == Weight::Required);
        required.for_each(|check| check.weight = Weight::Optional);
    }
    result
}

fn failing(id: &OutputId, targets: &Targets) -> Vec<Check> {
    let reported = |name, failure| Check { name, failure: Some(failure), weight: Weight::Reported };
    let count = targets.failing();
    if count == 0 {
        return Vec::new();
    }
    let summary = format!("{} of {} in sync, {count} failing", targets.in_sync, targets.total);
    let mut checks = vec![reported(format!("Secrets of {id}"), summary)];
    let named = targets.failing.iter();
    checks.extend(named.map(|it| reported(format!("Secret {}", it.name), it.last_error.to_string())));
    if targets.more_failing > 0 {
        checks.push(reported(format!("{} more Secrets of {id}", targets.more_failing), "failing".into()));
    }
    checks
}

/// Why `host` would reject a consumer of `output`, if it would.
fn lacks(token: &TokenStatus, output: &OutputStatus, host: &RegistryHost, now: SystemTime) -> Option<String> {
    match output.in_place.get(host) {
        Some(expiry) if *expiry > now => None,
        Some(expiry) => {
            Some(format!("its credential expired at {}: {}", rfc3339(*expiry), why(token, output)))
        }
        None if token.expires_at.is_none() => Some(no_token(token)),
        None => Some(format!("its credential is not there: {}", why(token, output))),
    }
}

fn why(token: &TokenStatus, output: &OutputStatus) -> String {
    match (&output.last_error, &token.last_error) {
        (Some(problem), _) | (None, Some(problem)) => problem.to_string(),
        (None, None) if token.clock_fault.is_some() => {
            "AWS's dates and this machine's clock disagree (set the clock)".into()
        }
        (None, None) => "being written".into(),
    }
}

fn no_token(token: &TokenStatus) -> String {
    match &token.last_error {
        Some(problem) => format!("no token yet: {problem}"),
        None => "no token yet: AWS is being asked".into(),
    }
}

#[cfg(test)]
mod tests;
