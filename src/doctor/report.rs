//! What the doctor found, as text and as JSON.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::failure::{
    Problem,
    diagnosis::{Diagnosis, Remedy},
};

/// Of one step, so many that are well are listed one by one; the JSON has them all.
const LISTED: usize = 10;

/// What is looked at, in this order: whatever fails is a reason for what comes after it to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    Configuration,
    /// The files of keys and tokens.
    Files,
    /// The way to AWS: names, proxy, TLS.
    Network,
    /// This machine's clock against AWS's.
    Clock,
    Identity,
    /// Who AWS takes us for.
    Sts,
    Ecr,
    /// Each registry, with its token.
    Registry,
    Output,
    /// What the API server allows, and what is there.
    Kubernetes,
    /// What a consumer does with what is published.
    Pull,
}

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Files => "files",
            Self::Network => "network",
            Self::Clock => "clock",
            Self::Identity => "identity",
            Self::Sts => "sts",
            Self::Ecr => "ecr",
            Self::Registry => "registry",
            Self::Output => "output",
            Self::Kubernetes => "kubernetes",
            Self::Pull => "pull",
        }
    }
}

/// How it is with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// Well.
    Ok,
    /// It works, and may not for everybody or for ever.
    Warn,
    Fail,
    /// It was not looked at: something before it failed.
    Skip,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub step: Step,
    /// Which one: a file, a host, an identity, an output.
    pub subject: String,
    pub outcome: Outcome,
    pub saw: String,
    /// What has gone wrong, and what to do about it; none when nothing is to be done.
    #[serde(flatten)]
    pub remedy: Option<Remedy>,
}

impl Finding {
    fn new(step: Step, subject: impl Into<String>, outcome: Outcome, saw: impl Into<String>) -> Self {
        Self { step, subject: subject.into(), outcome, saw: saw.into(), remedy: None }
    }

    /// All is well with it.
    pub(crate) fn ok(step: Step, subject: impl Into<String>, saw: impl Into<String>) -> Self {
        Self::new(step, subject, Outcome::Ok, saw)
    }

    /// It was not looked at, for that reason.
    pub(crate) fn skip(step: Step, subject: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(step, subject, Outcome::Skip, why)
    }

    /// It works, but.
    pub(crate) fn warn(
        step: Step,
        subject: impl Into<String>,
        saw: impl Into<String>,
        remedy: impl Into<Option<Remedy>>,
    ) -> Self {
        Self { remedy: remedy.into(), ..Self::new(step, subject, Outcome::Warn, saw) }
    }

    pub(crate) fn fail(
        step: Step,
        subject: impl Into<String>,
        saw: impl Into<String>,
        remedy: impl Into<Remedy>,
    ) -> Self {
        Self { remedy: Some(remedy.into()), ..Self::new(step, subject, Outcome::Fail, saw) }
    }

    /// It does not work, as the engine would tell it.
    pub(crate) fn problem(step: Step, subject: impl Into<String>, problem: Problem) -> Self {
        Self::fail(step, subject, problem.message, problem.remedy)
    }
}

/// Everything that was looked at, in the order of the steps.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    version: &'static str,
    healthy: bool,
    findings: Vec<Finding>,
}

impl Report {
    /// Brings the findings into the order of the steps.
    pub(crate) fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.step);
        let healthy = findings.iter().all(|finding| finding.outcome != Outcome::Fail);
        Self { version: env!("CARGO_PKG_VERSION"), healthy, findings }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy
    }

    pub(crate) fn to_json(&self) -> String {
        // Nothing in it can fail to be JSON; an empty text would be told apart from one.
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
            writeln!(f, "{:<4}  {:<14}  {subject}: {saw}", outcome.as_str(), step.as_str())?;
            if let Some(remedy) = remedy {
                writeln!(f, "                      → {remedy} [{}]", remedy.diagnosis.id())?;
            }
        }
        for (step, count) in well.into_iter().filter(|(_, count)| *count > LISTED) {
            writeln!(f, "ok    {:<14}  and {} more", step.as_str(), count - LISTED)?;
        }
        match self.first_failure() {
            None if self.count(Outcome::Warn) == 0 => writeln!(f, "all is well"),
            None => writeln!(f, "all works; warnings: {}", self.count(Outcome::Warn)),
            Some(first) => {
                writeln!(
                    f,
                    "failed: {}; begin with {}: {}",
                    self.count(Outcome::Fail),
                    first.id(),
                    first.cause()
                )
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
            Finding::fail(Step::Output, "docker-config /c", "full", Diagnosis::VolumeFull),
            Finding::skip(Step::Ecr, "ecr eu-west-1", "no credentials"),
            Finding::fail(Step::Identity, "default", "no", Diagnosis::NoCredentials),
            Finding::ok(Step::Configuration, "environment", "1 registry"),
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
            (0..1000).map(|n| Finding::ok(Step::Registry, format!("r{n}"), "HTTP 200")).collect();
        findings[500] = Finding::fail(Step::Registry, "r500", "HTTP 403", Diagnosis::RegistryForbidden);
        let text = Report::new(findings).to_string();
        assert_eq!(text.lines().count(), 10 + 2 + 1 + 1, "{text}");
        assert!(text.contains("r500: HTTP 403") && text.contains("and 989 more"), "{text}");
    }

    #[test]
    fn the_json_tells_the_same() {
        let findings = vec![
            Finding::ok(Step::Configuration, "environment", "1 registry"),
            Finding::fail(Step::Sts, "default", "no", Diagnosis::WrongAccount),
        ];
        let json: serde_json::Value = serde_json::from_str(&Report::new(findings).to_json()).unwrap();
        assert_eq!(json["healthy"], false);
        assert_eq!(json["findings"][0]["outcome"], "ok");
        assert_eq!(json["findings"][1]["step"], "sts");
        assert_eq!(json["findings"][1]["diagnosis"], "wrong-account");
        assert_eq!(json["findings"][1]["remedy"], Diagnosis::WrongAccount.remedy());
    }
}
