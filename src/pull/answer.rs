//! What a registry's answers mean: manifests, errors, and the diagnosis of each. Nothing in them is trusted.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};

use super::{Step, image::is_digest};
use crate::{
    aws::http::Answer,
    failure::{Class, Problem, classify_transport, diagnosis::Diagnosis},
};

/// Whether an answer of this status is the one that was asked for. Of a layer it may be where its content is.
pub(super) fn is_good(step: Step, status: u16) -> bool {
    match step {
        Step::LayerExists | Step::Layer => (200..400).contains(&status),
        Step::Login | Step::Tags | Step::Manifest => (200..300).contains(&status),
    }
}

pub(super) fn no_manifest(status: u16) -> Problem {
    let message = format!("HTTP {status}, and the response is not a manifest");
    Problem { message, remedy: Diagnosis::NotAws.into(), class: Class::BadAnswer }
}

/// What an answer other than the one that was asked for means.
pub(super) fn meaning(step: Step, status: u16, error: &RegistryError) -> (Class, Diagnosis) {
    let is_of_upstream = error.is_of_upstream();
    match status {
        300..400 => (Class::BadAnswer, Diagnosis::NotAws),
        400 if step == Step::Login => (Class::Denied, Diagnosis::OtherRegion),
        401 => (Class::Denied, Diagnosis::TokenRefused),
        403 if error.message.contains("token has expired") => (Class::Denied, Diagnosis::TokenRefused),
        // The words of somebody else; without any, as in the answer to HEAD, it may be the registry's.
        403 if error.code.is_empty() && !error.message.is_empty() => (Class::BadAnswer, Diagnosis::NotAws),
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

/// What an answer to `GET /v2/` means that is not the one that was asked for.
pub(crate) fn login_refused(answer: &Answer) -> Diagnosis {
    meaning(Step::Login, answer.status, &RegistryError::of(&answer.body)).1
}

/// What keeps a request from a registry, by the causes of the HTTP client.
pub(crate) fn unreachable(why: &str) -> Diagnosis {
    match classify_transport(why) {
        Diagnosis::Unreachable => Diagnosis::RegistryUnreachable,
        known => known,
    }
}

#[derive(Default, Deserialize)]
pub(super) struct Tags {
    pub(super) tags: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Manifest {
    pub(super) layers: Vec<Descriptor>,
    manifests: Vec<Descriptor>,
}

/// Whether it is an image's or an index, of which nothing else is kept.
pub(super) fn is_manifest(body: &[u8]) -> bool {
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
pub(super) struct Descriptor {
    pub(super) digest: String,
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
    pub(super) fn of_platform(&self) -> Option<&str> {
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
pub(super) struct RegistryError {
    pub(super) code: String,
    pub(super) message: String,
}

impl RegistryError {
    pub(super) fn of(body: &[u8]) -> Self {
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

    /// Of a pull-through cache, about the registry behind it. A proxy, which has no code, has upstreams of its own.
    pub(super) fn is_of_upstream(&self) -> bool {
        !self.code.is_empty()
            && ["pull through cache", "upstream"].iter().any(|word| self.message.contains(word))
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
            // A proxy's words are none of ECR's.
            (
                Step::Manifest,
                503,
                "",
                "upstream connect error or disconnect/reset",
                Diagnosis::RegistryUnreachable,
            ),
            (Step::Login, 403, "", "RBAC: access denied", Diagnosis::NotAws),
            (Step::Login, 403, "", "", Diagnosis::RegistryForbidden),
            (Step::Manifest, 403, "", "", Diagnosis::PullDenied),
            (Step::Manifest, 403, "", "<html>blocked</html>", Diagnosis::NotAws),
            (Step::Manifest, 403, "DENIED", "Your authorization token has expired.", Diagnosis::TokenRefused),
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
