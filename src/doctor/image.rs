//! A pull of one image, with the credential that is published now: what a consumer would do.
//!
//! A new token says nothing about what a consumer reads, so none is asked for: the credential is that of the first output
//! that holds one for the registry.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use clap::ValueEnum;
use tokio::time::{Instant, timeout_at};

use super::report::{Finding, Step};
use crate::{
    clock::{Clock, rfc3339},
    config::Config,
    failure::{Class, Diagnose, Problem, diagnosis::Diagnosis},
    kubernetes::Connection,
    output::{
        OutputConfig,
        file::lookup::{End, find},
        secrets,
    },
    pull::{ImageRef, Outcome, pull},
    registry::RegistryHost,
    secret::Secret,
    tasks,
};

/// How long all of it may take.
pub(super) const LIMIT: Duration = Duration::from_secs(13);
/// How long it may take to read what is published.
const READ_LIMIT: Duration = Duration::from_secs(4);

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

/// A credential that a consumer finds.
struct Published {
    /// The output that holds it.
    output: String,
    auth: Secret<String>,
    expires_at: Option<SystemTime>,
}

/// Pulls the image, or reports once that no pull was tried.
pub(super) async fn check(
    asked: Option<&PullCheck>,
    config: &Config,
    sdk: &SdkConfig,
    clock: &Clock,
) -> Vec<Finding> {
    let Some(PullCheck { image, puller }) = asked else {
        let why = "not tried: name an image by --image HOST/REPOSITORY[:TAG]";
        return vec![Step::Pull.skip("image", why)];
    };
    let until = Instant::now() + LIMIT;
    let subject = format!("{}/{}", image.host, image.repository);
    let mut findings = Vec::new();
    let Some(published) = published(image, config, clock, &mut findings).await else {
        if findings.is_empty() {
            let saw = format!("no output holds a credential for {}", image.host);
            findings.push(Step::Pull.fail(subject, saw, Diagnosis::NothingPublished));
        }
        return findings;
    };
    let Published { output, auth, expires_at } = published;
    let expired = expires_at.filter(|end| *end <= clock.now());
    if let Some(end) = expired {
        let saw = format!("the credential in {output} expired at {}", rfc3339(end));
        findings.push(Step::Pull.fail(&subject, saw, Diagnosis::PublishedExpired));
        return findings;
    }
    let lists_tags = puller.is_none_or(Puller::lists_tags);
    for Outcome { step, result } in pull(image, &auth, lists_tags, sdk, until).await {
        findings.push(match result {
            Ok(found) => Step::Pull.ok(&subject, format!("{step}: {found}")),
            Err(problem) => {
                let action = step.action().map_or_else(String::new, |action| format!("{action}, "));
                let saw = format!("{step} ({action}credential of {output}): {}", problem.message);
                Step::Pull.fail(&subject, saw, problem.remedy)
            }
        });
    }
    findings
}

/// The credential of the first output that has one; outputs that cannot be read are findings.
async fn published(
    image: &ImageRef,
    config: &Config,
    clock: &Clock,
    findings: &mut Vec<Finding>,
) -> Option<Published> {
    let until = Instant::now() + READ_LIMIT;
    for output in &config.outputs {
        let read = match output {
            OutputConfig::DockerConfig(settings) => {
                timeout_at(until, in_file(&settings.path, &image.host, clock)).await
            }
            _ => timeout_at(until, in_secrets(output, &image.host, clock)).await,
        };
        let id = output.id().to_string();
        match read {
            Ok(Ok(Some((place, auth, expires_at)))) => {
                let output = place.map_or_else(|| id.clone(), |place| format!("{id} ({place})"));
                return Some(Published { output, auth, expires_at });
            }
            Ok(Ok(None)) => {}
            Ok(Err(problem)) => findings.push(Step::Pull.fail(id, problem.message, problem.remedy)),
            Err(_) => {
                let diagnosis = match output {
                    OutputConfig::DockerConfig(_) => Diagnosis::VolumeHangs,
                    _ => Diagnosis::ApiServerUnreachable,
                };
                findings.push(Step::Pull.fail(
                    id,
                    format!("no answer within {} s", READ_LIMIT.as_secs()),
                    diagnosis,
                ));
            }
        }
    }
    None
}

/// Where it is, if the output's name does not say that; the credential; its expiry.
type Held = (Option<String>, Secret<String>, Option<SystemTime>);

async fn in_file(path: &Path, host: &RegistryHost, clock: &Clock) -> Result<Option<Held>, Problem> {
    let (path, host, now) = (path.to_owned(), host.clone(), clock.now());
    let found = tasks::blocking(move || find(&path, &host, now)).await.map_err(|error| Problem {
        message: error.to_string(),
        remedy: Diagnosis::NothingPublished.into(),
        class: Class::Denied,
    })?;
    Ok(found.map(|held| match held.end {
        End::Known(end) => (None, held.auth, Some(end)),
        End::Unknown { .. } => (None, held.auth, None),
    }))
}

async fn in_secrets(
    output: &OutputConfig,
    host: &RegistryHost,
    clock: &Clock,
) -> Result<Option<Held>, Problem> {
    let connection = Connection::default();
    let cluster = connection.cluster().await.map_err(|error| error.problem())?;
    let found = secrets::published(output, cluster, host, clock.now()).await?;
    Ok(found.map(|it| (Some(format!("Secret {}", it.at)), it.auth, it.expires_at)))
}
