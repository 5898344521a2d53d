//! What the doctor found, as text and as JSON.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use crate::failure::{
    Problem, Warning,
    diagnosis::{Diagnosis, Remedy},
};

/// So many findings of a step that are `ok` are listed; the JSON has them all.
const LISTED: usize = 10;

/// What is checked, in this order: whatever fails is a reason for what comes after it to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    Configuration,
    Files,
    Network,
    Clock,
    Identity,
    Sts,
    Ecr,
    Registry,
    Output,
    Kubernetes,
    Pull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Ok,
    /// It works, and may not for every consumer or for ever.
    Warn,
    Fail,
    /// It was not checked: something before it failed.
    Skip,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub step: Step,
    pub subject: String,
    pub outcome: Outcome,
    pub saw: String,
    /// What has gone wrong, and what to do about it; none when nothing is to be done.
    #[serde(flatten)]
    pub remedy: Option<Remedy>,
}

impl Step {
    fn finding(self, subject: impl Into<String>, outcome: Outcome, saw: impl Into<String>) -> Finding {
        Finding { step: self, subject: subject.into(), outcome, saw: saw.into(), remedy: None }
    }

    pub(crate) fn ok(self, subject: impl Into<String>, saw: impl Into<String>) -> Finding {
        self.finding(subject, Outcome::Ok, saw)
    }

    pub(crate) fn skip(self, subject: impl Into<String>, why: impl Into<String>) -> Finding {
        self.finding(subject, Outcome::Skip, why)
    }

    pub(crate) fn warning(self, subject: impl Into<String>, warning: Warning) -> Finding {
        Finding { remedy: warning.remedy, ..self.finding(subject, Outcome::Warn, warning.message) }
    }

    pub(crate) fn warn(
        self,
        subject: impl Into<String>,
        saw: impl Into<String>,
        remedy: impl Into<Remedy>,
    ) -> Finding {
        Finding { remedy: Some(remedy.into()), ..self.finding(subject, Outcome::Warn, saw) }
    }

    pub(crate) fn fail(
        self,
        subject: impl Into<String>,
        saw: impl Into<String>,
        remedy: impl Into<Remedy>,
    ) -> Finding {
        Finding { outcome: Outcome::Fail, ..self.warn(subject, saw, remedy) }
    }

    pub(crate) fn problem(self, subject: impl Into<String>, problem: Problem) -> Finding {
        self.fail(subject, problem.message, problem.remedy)
    }

    pub(crate) fn timed_out(
        self,
        subject: impl Into<String>,
        what: &str,
        limit: Duration,
        diagnosis: Diagnosis,
    ) -> Finding {
        self.fail(subject, format!("{what} within {} s", limit.as_secs_f32()), diagnosis)
    }
}

/// The name of a step or outcome, as in JSON.
fn name(of: impl fmt::Debug) -> String {
    format!("{of:?}").to_lowercase()
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    version: &'static str,
    healthy: bool,
    findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.step);
        let healthy = findings.iter().all(|finding| finding.outcome != Outcome::Fail);
        Self { version: env!("CARGO_PKG_VERSION"), healthy, findings }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy
    }

    pub(crate) fn to_json(&self) -> String {
        // Nothing in it can fail to be JSON.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.findings.iter().filter(|finding| finding.outcome == outcome).count()
    }

    /// What has failed first, by name: what comes after it may be its consequence.
    fn first_failure(&self) -> Option<Diagnosis> {
        let failed = self.findings.iter().find(|finding| finding.outcome == Outcome::Fail)?;
        failed.remedy.as_ref().map(|remedy| remedy.diagnosis)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut well: BTreeMap<Step, usize> = BTreeMap::new();
        for Finding { step, subject, outcome, saw, remedy } in &self.findings {
            if *outcome == Outcome::Ok {
                let count = well.entry(*step).or_default();
                *count += 1;
                if *count > LISTED {
                    continue;
                }
            }
            let saw = saw.replace('\n', "\n                      ");
            writeln!(f, "{:<4}  {:<14}  {subject}: {saw}", name(outcome), name(step))?;
            if let Some(remedy) = remedy {
                writeln!(f, "                      → {remedy} [{}]", remedy.diagnosis.id())?;
            }
        }
        for (step, count) in well.into_iter().filter(|(_, count)| *count > LISTED) {
            writeln!(f, "ok    {:<14}  and {} more", name(step), count - LISTED)?;
        }
        match self.first_failure() {
            None if self.count(Outcome::Warn) == 0 => writeln!(f, "all is well"),
            None => writeln!(f, "all works; warnings: {}", self.count(Outcome::Warn)),
            Some(first) => {
                let failed = self.count(Outcome::Fail);
                writeln!(f, "failed: {failed}; begin with {}: {}", first.id(), first.cause())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_by_the_order_of_the_steps_is_named() {
        let report = Report::new(vec![
            Step::Output.fail("docker-config /c", "full", Diagnosis::VolumeFull),
            Step::Ecr.skip("ecr eu-west-1", "no credentials"),
            Step::Identity.fail("default", "no", Diagnosis::NoCredentials),
            Step::Configuration.ok("environment", "1 registry"),
        ]);
        assert!(!report.is_healthy());
        let text = report.to_string();
        let places: Vec<_> =
            ["configuration", "identity", "ecr", "output"].map(|step| text.find(step)).into();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{text}");
        assert!(text.contains("failed: 2; begin with no-credentials: "), "{text}");
        assert!(text.contains("→ free space") && text.contains("[volume-full]"), "{text}");
    }

    #[test]
    fn a_thousand_that_are_well_are_counted_and_each_that_is_not_is_listed() {
        let mut findings: Vec<_> =
            (0..1000).map(|n| Step::Registry.ok(format!("r{n}"), "HTTP 200")).collect();
        findings[500] = Step::Registry.fail("r500", "HTTP 403", Diagnosis::RegistryForbidden);
        let text = Report::new(findings).to_string();
        assert_eq!(text.lines().count(), 10 + 2 + 1 + 1, "{text}");
        assert!(text.contains("r500: HTTP 403") && text.contains("and 989 more"), "{text}");
    }

    #[test]
    fn the_json_tells_the_same() {
        let findings = vec![
            Step::Configuration.ok("environment", "1 registry"),
            Step::Sts.fail("default", "no", Diagnosis::WrongAccount),
        ];
        let json: serde_json::Value = serde_json::from_str(&Report::new(findings).to_json()).unwrap();
        assert_eq!(json["healthy"], false);
        assert_eq!(json["findings"][0]["outcome"], "ok");
        assert_eq!(json["findings"][1]["step"], "sts");
        assert_eq!(json["findings"][1]["diagnosis"], "wrong-account");
        assert_eq!(json["findings"][1]["remedy"], Diagnosis::WrongAccount.remedy());
    }
}
