//! A pull of one image, with the credential that is published now: what a consumer would do.
//!
//! A new token says nothing about what a consumer reads, so none is asked for: the credential is that of the first output
//! that holds one for the registry.

use std::time::Duration;

use aws_config::SdkConfig;
use clap::ValueEnum;
use tokio::time::{Instant, timeout_at};

use super::report::{Finding, Step};
use crate::{
    clock::Clock,
    config::Config,
    failure::Problem,
    kubernetes::Connection,
    output::published::{Discovered, Reading, published},
    pull::{ImageRef, pull},
    pull_probe::{ProbeSettings, begin},
};

/// How long all of it may take.
pub(super) const LIMIT: Duration = Duration::from_secs(13);

/// A program that pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Puller {
    /// Flux's image-reflector-controller and source-controller
    Flux,
    /// Argo CD's repo-server
    Argocd,
    /// helm, with a range of versions
    Helm,
    /// kubelet and its container runtime
    Kubelet,
    Docker,
}

impl Puller {
    /// A range of versions, or an image policy, begins with the list of tags; a runtime is given a tag.
    fn lists_tags(self) -> bool {
        matches!(self, Self::Flux | Self::Argocd | Self::Helm)
    }
}

/// What to pull, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct PullCheck {
    pub(crate) image: ImageRef,
    /// `None`: every step that any of them does.
    pub(crate) puller: Option<Puller>,
}

/// Pulls the image; without one, tries the pull probes, and reports once that nothing else was tried.
pub(super) async fn check(
    asked: Option<&PullCheck>,
    config: &Config,
    sdk: &SdkConfig,
    clock: &Clock,
) -> Vec<Finding> {
    let Some(PullCheck { image, puller }) = asked else {
        return probe(config, sdk, clock).await;
    };
    let until = Instant::now() + LIMIT;
    let subject = format!("{}/{}", image.host, image.repository);
    let connection = Connection::default();
    let reading = published(&config.outputs, &image.host, &Discovered::Listed, &connection, clock).await;
    let mut findings = unread(&reading);
    if reading.found.is_none() && !findings.is_empty() {
        return findings;
    }
    let found = match reading.into_credential(&image.host, clock.now()) {
        Ok(found) => found,
        Err(problem) => {
            findings.push(Step::Pull.problem(subject, problem));
            return findings;
        }
    };
    let lists_tags = puller.is_none_or(Puller::lists_tags);
    for outcome in pull(image, &found.auth, lists_tags, sdk, until).await {
        findings.push(finding(&subject, outcome.with(&found.place)));
    }
    findings
}

/// Tries each pull probe once, as the sidecar does.
async fn probe(config: &Config, sdk: &SdkConfig, clock: &Clock) -> Vec<Finding> {
    let until = Instant::now() + LIMIT;
    let connection = Connection::default();
    let mut findings = Vec::new();
    for ProbeSettings { image, .. } in config.probes() {
        let subject = image.to_string();
        let tried = timeout_at(until, async {
            let reading =
                published(&config.outputs, &image.host, &Discovered::Listed, &connection, clock).await;
            let result = match reading.into_credential(&image.host, clock.now()) {
                Ok(found) => begin(image, &found, sdk).await,
                Err(problem) => Err(problem),
            };
            finding(&subject, result)
        });
        let left_out = || format!("not tried: the pull probes before it took {} s", LIMIT.as_secs());
        findings.push(tried.await.unwrap_or_else(|_| Step::Pull.skip(&subject, left_out())));
    }
    let why = "name an image by --image HOST/REPOSITORY[:TAG]";
    findings.push(match findings.len() {
        0 => Step::Pull.skip("image", format!("not tried: {why}")),
        _ => Step::Pull.skip("image", format!("the pull probes were tried; for a whole pull {why}")),
    });
    findings
}

/// Outputs that cannot be read.
fn unread(reading: &Reading) -> Vec<Finding> {
    let problems = reading.problems.iter();
    problems.map(|(id, problem)| Step::Pull.problem(id.to_string(), problem.clone())).collect()
}

fn finding(subject: &str, result: Result<String, Problem>) -> Finding {
    match result {
        Ok(found) => Step::Pull.ok(subject, found),
        Err(problem) => Step::Pull.problem(subject, problem),
    }
}
