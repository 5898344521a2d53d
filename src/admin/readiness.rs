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

/// The outcome of some checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    pub checks: Vec<Check>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    /// Why it failed, if it did.
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
    /// Whether every required check passed.
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

/// Whether every required registry has an unexpired credential in every output.
pub fn ready(status: &Status, now: SystemTime) -> ProbeResult {
    let mut checks = Vec::new();
    for token in status.tokens.values() {
        if token.awaits_own_registry {
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

/// Whether a main container that waits for us may start.
pub fn started(status: &Status, now: SystemTime) -> ProbeResult {
    let mut result = ready(status, now);
    let age = now.duration_since(status.started_at).unwrap_or_default();
    if status.has_been_ready || age >= status.startup_grace {
        let required = result.checks.iter_mut().filter(|check| check.weight == Weight::Required);
        required.for_each(|check| check.weight = Weight::Optional);
    }
    result
}

/// How many Secrets of an output are in sync, and the first of those that fail: a line each.
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
mod tests {
    use super::*;
    use crate::{
        aws::token::{Service, TokenKey},
        failure::{Class, Problem, diagnosis::Diagnosis},
        status::{Served, StatusBoard, TargetStatus, Targets},
    };

    const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// One token until 1,000 s, one registry, and one output that holds its credential.
    fn well(required: bool) -> Status {
        let key = TokenKey {
            identity: "default".into(),
            service: Service::Ecr,
            region: "eu-west-1".parse().unwrap(),
            endpoint: None,
            fips: None,
            dual_stack: None,
        };
        let host: RegistryHost = HOST.parse().unwrap();
        let mut token = TokenStatus::new(key.clone(), vec![Served { host: host.clone(), required }], false);
        token.expires_at = Some(at(1000));
        let mut output = OutputStatus::new(OutputId::new("docker-config", "/c"));
        output.in_place.insert(host, at(1000));
        let board = StatusBoard::new(at(0));
        board.update(|status| {
            status.tokens.insert(key, token);
            status.outputs.insert(output.id.clone(), output);
        });
        board.read(Clone::clone)
    }

    fn with_output(status: &Status, change: impl FnOnce(&mut OutputStatus)) -> Status {
        let mut status = status.clone();
        status.outputs.values_mut().next().map(change);
        status
    }

    #[tokio::test]
    async fn ready_is_true_exactly_while_what_is_in_the_file_is_good() {
        let status = well(true);
        assert!(ready(&status, at(999)).is_good());
        assert!(!ready(&status, at(1000)).is_good());
        // a newer token that could not be written doesn't count, an older one in the file does
        assert!(
            ready(
                &with_output(&status, |output| *output.in_place.values_mut().next().unwrap() = at(500)),
                at(499)
            )
            .is_good()
        );
        assert!(
            !ready(
                &with_output(&status, |output| *output.in_place.values_mut().next().unwrap() = at(500)),
                at(501)
            )
            .is_good()
        );
        assert!(!ready(&with_output(&status, |output| output.in_place.clear()), at(0)).is_good());
    }

    #[tokio::test]
    async fn not_ready_before_there_is_anything_to_check() {
        let mut status = well(true);
        status.outputs.clear();
        assert_eq!(ready(&status, at(0)).text(false), "[-]configuration is being applied\nnot ok\n");
        status.tokens.clear();
        assert!(!ready(&status, at(0)).is_good());
        status.startup_grace = Duration::from_secs(60);
        assert!(!started(&status, at(0)).is_good());
    }

    #[tokio::test]
    async fn a_503_names_the_registry_the_reason_and_the_remedy() {
        let problem = Problem {
            message: "disk full".into(),
            remedy: Diagnosis::VolumeFull.into(),
            class: Class::Transient,
        };
        let status = with_output(&well(true), |output| {
            output.in_place.clear();
            output.last_error = Some(problem);
        });
        let text = ready(&status, at(0)).text(false);
        assert_eq!(
            text,
            format!(
                "[-]registry {HOST} in docker-config /c its credential is not there: disk full ({})\nnot ok\n",
                Diagnosis::VolumeFull.remedy()
            )
        );
    }

    /// The credential of the output is that of its other Secrets: `everywhere_but_where_it_fails` (`output/secrets`).
    #[tokio::test]
    async fn a_failing_target_is_reported_and_does_not_count() {
        let failing = |count: usize| {
            let problem = Problem {
                message: "the API server refused: exceeded quota: q (HTTP 403)".into(),
                remedy: Diagnosis::QuotaExceeded.into(),
                class: Class::Denied,
            };
            let named = (0..count.min(20)).map(|number| TargetStatus {
                name: format!("tenant-{number}/ecr"),
                last_error: problem.clone(),
            });
            with_output(&well(true), |output| {
                output.targets = Some(Targets {
                    total: 1000,
                    in_sync: 1000 - count,
                    discovered: true,
                    failing: named.collect(),
                    more_failing: count.saturating_sub(20),
                    ..Targets::default()
                });
            })
        };
        let verdict = ready(&failing(1), at(0));
        assert!(verdict.is_good());
        let text = verdict.text(false);
        let expected = format!(
            "[-]Secrets of docker-config /c 999 of 1000 in sync, 1 failing\n\
             [-]Secret tenant-0/ecr the API server refused: exceeded quota: q (HTTP 403) ({})\nok\n",
            Diagnosis::QuotaExceeded.remedy()
        );
        assert_eq!(text, expected);
        // However many a tenant makes: a bounded text.
        let text = ready(&failing(999), at(0)).text(true);
        assert_eq!(text.lines().count(), 1 + 1 + 20 + 1 + 1, "{text}");
        assert!(text.contains("[-]979 more Secrets of docker-config /c failing\n"), "{text}");
        assert!(ready(&failing(0), at(0)).text(false) == "ok\n");
        // What counts is the credential: without one in any Secret it is not ready.
        let mut none = failing(1000);
        none.outputs.values_mut().for_each(|output| output.in_place.clear());
        assert!(!ready(&none, at(0)).is_good());
    }

    #[tokio::test]
    async fn an_optional_registry_is_told_and_does_not_count() {
        let status = with_output(&well(false), |output| output.in_place.clear());
        let verdict = ready(&status, at(0));
        assert!(verdict.is_good());
        assert_eq!(verdict.text(false), "ok\n");
        assert!(verdict.text(true).contains("(optional)"));
    }

    #[tokio::test]
    async fn started_after_the_grace_period_whatever_aws_does() {
        let mut status = with_output(&well(true), |output| output.in_place.clear());
        status.startup_grace = Duration::from_secs(60);
        assert!(!started(&status, at(59)).is_good());
        assert!(started(&status, at(60)).is_good());
        status.has_been_ready = true;
        assert!(started(&status, at(1)).is_good());
    }

    #[tokio::test(start_paused = true)]
    async fn live_until_a_loop_is_stuck() {
        let status = well(true);
        tokio::time::advance(HEARTBEAT_DEADLINE).await;
        assert!(live(&status, Instant::now()).is_good());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!live(&status, Instant::now()).is_good());
    }
}
