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

mod denial;
mod image;
mod session;

use std::{fmt, marker::PhantomData, time::Duration};

use aws_config::SdkConfig;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use tokio::time::{Instant, timeout_at};

use self::{denial::Denial, image::is_digest};
pub(crate) use self::{
    image::{ImageRef, Repository, Tag},
    session::{NoAnswer, Session},
};
use crate::{
    aws::http::Answer,
    failure::{
        Class, Problem, classify_transport,
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

/// Whether an answer of this status is the one that was asked for. Of a layer it may be where its content is.
fn is_good(step: Step, status: u16) -> bool {
    match step {
        Step::LayerExists | Step::Layer => (200..400).contains(&status),
        Step::Login | Step::Tags | Step::Manifest => (200..300).contains(&status),
    }
}

fn no_manifest(status: u16) -> Problem {
    let message = format!("HTTP {status}, and what it answers is no manifest");
    Problem { message, remedy: Diagnosis::NotAws.into(), class: Class::BadAnswer }
}

/// What an answer other than the one that was asked for means.
fn meaning(step: Step, status: u16, error: &RegistryError) -> (Class, Diagnosis) {
    let is_of_upstream = error.is_of_upstream();
    match status {
        300..400 => (Class::BadAnswer, Diagnosis::NotAws),
        400 if step == Step::Login => (Class::Denied, Diagnosis::OtherRegion),
        401 => (Class::Denied, Diagnosis::TokenRefused),
        403 if step == Step::Login => (Class::Denied, Diagnosis::RegistryForbidden),
        403 if !is_of_upstream => (Class::Denied, Diagnosis::PullDenied),
        429 => (Class::Throttled, Diagnosis::Throttled),
        _ if is_of_upstream => (Class::Denied, Diagnosis::UpstreamRefused),
        404 if error.code == "NAME_UNKNOWN" => (Class::Denied, Diagnosis::RepositoryMissing),
        // Only the answer to HEAD has no body.
        404 if error.code.is_empty() && step != Step::LayerExists => (Class::BadAnswer, Diagnosis::NotAws),
        404 => (Class::Denied, Diagnosis::ImageMissing),
        _ => (Class::Transient, Diagnosis::RegistryUnreachable),
    }
}

/// What keeps a request from a registry, by the causes of the HTTP client.
pub(crate) fn unreachable(why: &str) -> Diagnosis {
    match classify_transport(why) {
        Diagnosis::Unreachable => Diagnosis::RegistryUnreachable,
        known => known,
    }
}

#[derive(Default, Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Manifest {
    layers: Vec<Descriptor>,
    manifests: Vec<Descriptor>,
}

/// Whether it is an image's or an index, of which nothing else is kept.
fn is_manifest(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        #[expect(dead_code, reason = "it has to be there")]
        schema_version: u64,
    }
    serde_json::from_slice::<Version>(body).is_ok()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Descriptor {
    digest: String,
    platform: Platform,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Platform {
    os: String,
    architecture: String,
}

impl Manifest {
    /// Of an index: the manifest of this machine's platform, else the first.
    fn of_platform(&self) -> Option<&str> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let is_ours =
            |it: &&Descriptor| it.platform.os == "linux" && it.platform.architecture == architecture;
        let mut valid = self.manifests.iter().filter(|it| is_digest(&it.digest));
        let first = valid.clone().next();
        valid.find(is_ours).or(first).map(|it| it.digest.as_str())
    }
}

/// The first error of an answer, as the distribution specification has it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RegistryError {
    code: String,
    message: String,
}

impl RegistryError {
    fn of(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Errors {
            #[serde(deserialize_with = "first")]
            errors: Option<RegistryError>,
        }
        match serde_json::from_slice::<Errors>(body) {
            Ok(Errors { errors }) => errors.unwrap_or_default(),
            Err(_) => Self { code: String::new(), message: String::from_utf8_lossy(body).into_owned() },
        }
    }

    /// Of a pull-through cache, about the registry behind it.
    fn is_of_upstream(&self) -> bool {
        ["pull through cache", "upstream"].iter().any(|word| self.message.contains(word))
    }
}

/// The first of a list: what comes after it takes no memory.
fn first<'de, T: Deserialize<'de>, D: Deserializer<'de>>(list: D) -> Result<Option<T>, D::Error> {
    struct First<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for First<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<T>, A::Error> {
            let first = list.next_element()?;
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(first)
        }
    }

    list.deserialize_seq(First(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_its_first_layer_or_the_manifest_of_this_platform() {
        let digest = |n: u8| format!("sha256:{}", format!("{n:02x}").repeat(32));
        let parse = |text: String| serde_json::from_str::<Manifest>(&text).unwrap();
        let platform = |architecture: &str, digest: &str| {
            format!(
                r#"{{"digest": "{digest}", "platform": {{"os": "linux", "architecture": "{architecture}"}}}}"#
            )
        };
        let both = format!(
            r#"{{"manifests": [{}, {}, {}]}}"#,
            platform("s390x", &digest(1)),
            platform("amd64", &digest(2)),
            platform("arm64", &digest(3))
        );
        let expected = if cfg!(target_arch = "aarch64") { 3 } else { 2 };
        assert_eq!(parse(both).of_platform(), Some(&*digest(expected)));
        let other = format!(r#"{{"manifests": [{}]}}"#, platform("s390x", &digest(1)));
        assert_eq!(parse(other).of_platform(), Some(&*digest(1)));
        let hostile = r#"{"manifests": [{"digest": "../../../v2/other/manifests/latest"}]}"#;
        assert_eq!(parse(hostile.to_owned()).of_platform(), None);
        let manifest = parse(format!(r#"{{"layers": [{{"digest": "{}", "size": 5}}]}}"#, digest(4)));
        assert_eq!((manifest.of_platform(), &*manifest.layers[0].digest), (None, &*digest(4)));
    }

    #[test]
    fn each_answer_has_its_diagnosis() {
        let cache = "The image could not be pulled using the pull through cache rule";
        for (step, status, code, message, diagnosis) in [
            (Step::Login, 400, "UNKNOWN", "", Diagnosis::OtherRegion),
            (Step::Login, 401, "", "", Diagnosis::TokenRefused),
            (Step::Login, 403, "DENIED", "", Diagnosis::RegistryForbidden),
            (Step::Tags, 403, "DENIED", "", Diagnosis::PullDenied),
            (Step::LayerExists, 403, "", "", Diagnosis::PullDenied),
            (Step::Tags, 404, "NAME_UNKNOWN", "", Diagnosis::RepositoryMissing),
            (Step::Manifest, 404, "MANIFEST_UNKNOWN", "", Diagnosis::ImageMissing),
            (Step::Layer, 404, "BLOB_UNKNOWN", "", Diagnosis::ImageMissing),
            (Step::LayerExists, 404, "", "", Diagnosis::ImageMissing),
            (Step::Manifest, 404, "", "<html>404 page not found</html>", Diagnosis::NotAws),
            (Step::Manifest, 302, "", "", Diagnosis::NotAws),
            (Step::Manifest, 400, "UNKNOWN", cache, Diagnosis::UpstreamRefused),
            (Step::Manifest, 403, "DENIED", cache, Diagnosis::UpstreamRefused),
            (Step::Manifest, 404, "UNKNOWN", "the upstream registry has none", Diagnosis::UpstreamRefused),
            (Step::Tags, 429, "TOOMANYREQUESTS", "", Diagnosis::Throttled),
            (Step::Layer, 503, "", "", Diagnosis::RegistryUnreachable),
        ] {
            let error = RegistryError { code: code.to_owned(), message: message.to_owned() };
            assert_eq!(meaning(step, status, &error).1, diagnosis, "{step} {status} {code} {message}");
        }
    }

    #[test]
    fn an_error_of_a_registry_is_its_first() {
        let body = br#"{"errors": [{"code": "DENIED", "message": "no", "detail": {}}, {"code": "X"}, 5]}"#;
        let RegistryError { code, message } = RegistryError::of(body);
        assert_eq!((&*code, &*message), ("DENIED", "no"));
        assert_eq!(RegistryError::of(b"Not Authorized\n").message, "Not Authorized\n");
    }
}
