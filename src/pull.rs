//! What a consumer does with a credential: it lists the tags of a repository, gets a manifest, and the first layer.
//!
//! The least that shows whether each of these is allowed: one page of tags, the manifest of one platform, and of a layer
//! one byte at most. Nothing is written anywhere. [`begin`] is the manifest alone.
//!
//! Invariants:
//! * A credential is sent to its registry only, and shown nowhere (`session`).
//! * The first step that fails names the action of IAM that it needs, and whose policy has to allow it (`denial`).
//! * What a registry answers is not trusted: digests of a manifest go into a path only if they are digests
//!   (`a_manifest_names_its_first_layer_or_the_manifest_of_this_platform`), and of its errors only the first is kept
//!   (`an_error_of_a_registry_is_its_first`).

mod answer;
mod denial;
mod image;
mod session;

use std::{fmt, time::Duration};

use aws_config::SdkConfig;
use tokio::time::{Instant, timeout_at};

pub(crate) use self::answer::{login_refused, unreachable};
use self::{
    answer::{Manifest, RegistryError, Tags, is_good, is_manifest, meaning, no_manifest},
    denial::Denial,
    image::is_digest,
};
pub(crate) use self::{
    image::{ImageRef, Repository, Tag},
    session::{NoAnswer, Session},
};
use crate::{
    aws::http::Answer,
    failure::{
        Class, Problem,
        diagnosis::{Diagnosis, Remedy},
        foreign_text::clean_of,
    },
    registry::Location,
    secret::Secret,
};

/// The tag of an image that names none.
const LATEST: &str = "latest";
/// How long one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(4);
/// What containerd, helm and crane accept.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// A step of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// `GET /v2/`.
    Login,
    Tags,
    Manifest,
    /// HEAD of the first layer.
    LayerExists,
    /// GET of the first layer; ECR redirects to its content, which is not followed.
    Layer,
}

impl Step {
    /// The action that ECR asks IAM for
    /// (<https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html>); none at `/v2/`, which any token
    /// opens.
    pub(crate) fn action(self) -> Option<&'static str> {
        Some(match self {
            Self::Login => return None,
            Self::Tags => "ecr:ListImages",
            Self::Manifest => "ecr:BatchGetImage",
            Self::LayerExists => "ecr:BatchCheckLayerAvailability",
            Self::Layer => "ecr:GetDownloadUrlForLayer",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Login => "login",
            Self::Tags => "list of tags",
            Self::Manifest => "manifest",
            Self::LayerExists => "first layer, HEAD",
            Self::Layer => "first layer, GET",
        })
    }
}

/// What became of a step: what was found, or why it failed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) step: Step,
    pub(crate) result: Result<String, Problem>,
}

impl Outcome {
    /// The outcome as it is reported, of the credential in `place`.
    pub(crate) fn with(self, place: &str) -> Result<String, Problem> {
        let step = self.step;
        match self.result {
            Ok(found) => Ok(format!("{step}: {found}")),
            Err(problem) => {
                let action = step.action().map_or_else(String::new, |action| format!("{action}, "));
                let message = format!("{step} ({action}credential of {place}): {}", problem.message);
                Err(Problem { message, ..problem })
            }
        }
    }
}

/// Asks for the manifest of `image` and nothing else, as a pull begins; `auth` as for [`pull`].
///
/// An image without a tag stands for the right to pull from the repository: `latest` is asked for, and need not be
/// there. ECR asks IAM for `ecr:BatchGetImage` before it looks for the image, so its answer that there is none is given
/// to those only who may pull. Of a host that is not ECR's own that is not known.
pub(crate) async fn begin(image: &ImageRef, auth: &Secret<String>, sdk: &SdkConfig) -> Outcome {
    let until = Instant::now() + REQUEST_LIMIT;
    let mut pull = Pull { image, session: Session::new(sdk, &image.host, auth), until, outcomes: Vec::new() };
    Outcome { step: Step::Manifest, result: pull.begin().await }
}

/// Does with `image` what a consumer does, until `until`. `auth` is padded base64 of `AWS:<password>`. Steps for which an
/// earlier one failed are left out.
pub(crate) async fn pull(
    image: &ImageRef,
    auth: &Secret<String>,
    lists_tags: bool,
    sdk: &SdkConfig,
    until: Instant,
) -> Vec<Outcome> {
    let mut pull = Pull { image, session: Session::new(sdk, &image.host, auth), until, outcomes: Vec::new() };
    pull.run(lists_tags).await;
    pull.outcomes
}

struct Pull<'a> {
    image: &'a ImageRef,
    session: Session<'a>,
    until: Instant,
    outcomes: Vec<Outcome>,
}

impl Pull<'_> {
    async fn begin(&mut self) -> Result<String, Problem> {
        let ImageRef { host, repository, reference } = self.image;
        let asked = reference.as_deref().unwrap_or(LATEST);
        let path = format!("/v2/{repository}/manifests/{asked}");
        let answer = self.exchange("GET", &path, &[("accept", MANIFESTS)]).await?;
        if answer.status == 404 && reference.is_none() {
            let error = RegistryError::of(&answer.body);
            let is_of_ecr = host.location() != Location::Other;
            if is_of_ecr && error.code == "MANIFEST_UNKNOWN" && !error.is_of_upstream() {
                return Ok(format!("allowed; the repository has no tag {asked}"));
            }
        }
        if !is_good(Step::Manifest, answer.status) {
            return Err(self.problem(Step::Manifest, &answer));
        }
        if is_manifest(&answer.body) { Ok(asked.to_owned()) } else { Err(no_manifest(answer.status)) }
    }

    /// `None` when the steps after a failed one make no sense.
    async fn run(&mut self, lists_tags: bool) -> Option<()> {
        self.ask(Step::Login, "GET", "/v2/", &[]).await?;
        self.succeeded(Step::Login, "the registry accepts the credential");
        let repository = format!("/v2/{}", self.image.repository);
        let tags = if lists_tags { self.tags(&repository).await } else { None };
        let reference = self.reference(tags.as_deref(), lists_tags)?;
        let manifest = self.manifest(&repository, &reference).await?;
        let Some(layer) = manifest.layers.iter().find(|layer| is_digest(&layer.digest)) else {
            self.succeeded(Step::Manifest, format!("{reference}; it has no layer"));
            return None;
        };
        self.succeeded(Step::Manifest, reference);
        let blob = format!("{repository}/blobs/{}", layer.digest);
        for (step, method, headers) in
            [(Step::LayerExists, "HEAD", &[][..]), (Step::Layer, "GET", &[("range", "bytes=0-0")][..])]
        {
            if self.ask(step, method, &blob, headers).await.is_some() {
                self.succeeded(step, layer.digest.clone());
            }
        }
        Some(())
    }

    async fn tags(&mut self, repository: &str) -> Option<Vec<String>> {
        let answer = self.ask(Step::Tags, "GET", &format!("{repository}/tags/list?n=100"), &[]).await?;
        let tags = serde_json::from_slice::<Tags>(&answer.body).unwrap_or_default().tags.unwrap_or_default();
        self.succeeded(Step::Tags, format!("{} on the first page", tags.len()));
        Some(tags)
    }

    /// The tag or digest to get: the one of the image, else `latest` or the first of the list.
    fn reference(&mut self, tags: Option<&[String]>, lists_tags: bool) -> Option<String> {
        let latest = || LATEST.to_owned();
        match (&self.image.reference, tags) {
            (Some(reference), _) => Some(reference.clone()),
            (None, Some(tags)) if tags.iter().any(|tag| tag == LATEST) => Some(latest()),
            (None, Some([])) => {
                let message = format!("no image of {} has a tag", self.image.repository);
                self.failed(Step::Manifest, message, Diagnosis::ImageMissing.into(), Class::Denied);
                None
            }
            (None, Some(tags)) => tags.iter().find(|tag| image::is_tag(tag)).cloned(),
            (None, None) => (!lists_tags).then(latest),
        }
    }

    /// The manifest of `reference`, or, where that is an index, of the platform.
    async fn manifest(&mut self, repository: &str, reference: &str) -> Option<Manifest> {
        let mut path = format!("{repository}/manifests/{reference}");
        for _ in 0..2 {
            let answer = self.ask(Step::Manifest, "GET", &path, &[("accept", MANIFESTS)]).await?;
            if !is_manifest(&answer.body) {
                let result = Err(no_manifest(answer.status));
                self.outcomes.push(Outcome { step: Step::Manifest, result });
                return None;
            }
            let manifest: Manifest = serde_json::from_slice(&answer.body).unwrap_or_default();
            match manifest.of_platform() {
                Some(digest) => path = format!("{repository}/manifests/{digest}"),
                None => return Some(manifest),
            }
        }
        Some(Manifest::default()) // an index in an index
    }

    /// The answer, if it is a good one; what it is otherwise is the outcome of the step.
    async fn ask(
        &mut self,
        step: Step,
        method: &'static str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Option<Answer> {
        let problem = match self.exchange(method, path, headers).await {
            Ok(answer) if is_good(step, answer.status) => return Some(answer),
            Ok(answer) => self.problem(step, &answer),
            Err(problem) => problem,
        };
        self.outcomes.push(Outcome { step, result: Err(problem) });
        None
    }

    /// The answer, whatever its status.
    async fn exchange(
        &mut self,
        method: &'static str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Answer, Problem> {
        let until = self.until.min(Instant::now() + REQUEST_LIMIT);
        let (message, diagnosis, class) =
            match timeout_at(until, self.session.ask(method, path, headers)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(NoAnswer::Transport(why))) => {
                    (format!("cannot be reached: {why}"), unreachable(&why), Class::Transient)
                }
                Ok(Err(NoAnswer::OtherHost(host))) => {
                    let message = format!("it asks for the credential at {host}, which is another host");
                    (message, Diagnosis::TokenRefused, Class::Denied)
                }
                Err(_) => {
                    let message = format!("no answer within {} s", REQUEST_LIMIT.as_secs());
                    (message, Diagnosis::RegistryUnreachable, Class::Transient)
                }
            };
        Err(Problem { message, remedy: diagnosis.into(), class })
    }

    fn problem(&self, step: Step, answer: &Answer) -> Problem {
        let secrets = self.session.secrets();
        let error = RegistryError::of(&answer.body);
        let (class, diagnosis) = meaning(step, answer.status, &error);
        let remedy = match (diagnosis, step.action()) {
            (Diagnosis::PullDenied, Some(action)) => {
                let denial = Denial::of(&error.message, action, &secrets);
                Remedy::with(diagnosis, self.remedy(&denial))
            }
            _ => diagnosis.into(),
        };
        let text = match answer.status {
            300..400 => "a redirect, which is not followed with a credential".to_owned(),
            _ => clean_of(if error.message.is_empty() { &error.code } else { &error.message }, &secrets),
        };
        let separator = if text.is_empty() { "" } else { ": " };
        Problem { message: format!("HTTP {}{separator}{text}", answer.status), remedy, class }
    }

    fn remedy(&self, denial: &Denial) -> String {
        let ImageRef { host, repository, .. } = self.image;
        match host.location() {
            Location::Private(registry) => {
                let partition = registry.partition.as_str();
                let (region, account) = (registry.region.as_str(), registry.account.as_str());
                let arn = format!("arn:{partition}:ecr:{region}:{account}:repository/{repository}");
                denial.remedy(Some(&registry.account), &arn)
            }
            Location::Public | Location::Other => {
                denial.remedy(None, &format!("arn:aws:ecr:*:*:repository/{repository}"))
            }
        }
    }

    fn succeeded(&mut self, step: Step, found: impl Into<String>) {
        self.outcomes.push(Outcome { step, result: Ok(found.into()) });
    }

    fn failed(&mut self, step: Step, message: String, remedy: Remedy, class: Class) {
        self.outcomes.push(Outcome { step, result: Err(Problem { message, remedy, class }) });
    }
}
