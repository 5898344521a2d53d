//! Which action of ECR does a request of the registry API take, on which repository?
//!
//! By AWS's "Required IAM permissions for pushing (pulling) an image", and for the list of tags by what ECR's own
//! 403 names.

use hyper::Method;

use crate::hosts::without_port;
use crate::settings::ACCOUNT;

/// A repository and what is to be done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) repository: &'a str,
    /// The tag or digest of a manifest.
    pub(crate) manifest: Option<&'a str>,
    pub(crate) action: &'static str,
}

impl<'a> Target<'a> {
    /// None of `/v2/`, which asks for no right.
    pub(crate) fn of(method: &Method, path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/v2/")?;
        if let Some(repository) = rest.strip_suffix("/tags/list") {
            return Some(Self { repository, manifest: None, action: "ecr:ListImages" });
        }
        if let Some((repository, reference)) = rest.rsplit_once("/manifests/") {
            let action = match *method {
                Method::GET | Method::HEAD => "ecr:BatchGetImage",
                Method::DELETE => "ecr:BatchDeleteImage",
                _ => "ecr:PutImage",
            };
            return Some(Self { repository, manifest: Some(reference), action });
        }
        let (repository, _) = rest.split_once("/blobs/")?;
        let action = match *method {
            Method::HEAD => "ecr:BatchCheckLayerAvailability",
            Method::GET => "ecr:GetDownloadUrlForLayer",
            Method::POST => "ecr:InitiateLayerUpload",
            Method::PATCH => "ecr:UploadLayerPart",
            _ => "ecr:CompleteLayerUpload",
        };
        Some(Self { repository, manifest: None, action })
    }
}

/// The repository as policies name it. A host that isn't AWS's own is a registry of the default account.
pub(crate) fn arn(host: &str, region: &str, repository: &str) -> String {
    let first = without_port(host).split('.').next().unwrap_or_default();
    let is_account = first.len() == 12 && first.bytes().all(|byte| byte.is_ascii_digit());
    let account = if is_account { first } else { ACCOUNT };
    let partition = match region.split('-').next() {
        Some("cn") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    };
    format!("arn:{partition}:ecr:{region}:{account}:repository/{repository}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_takes_its_action() {
        for (method, path, expected) in [
            ("GET", "/v2/", None),
            ("GET", "/v2/a/b/tags/list", Some(("a/b", "ecr:ListImages"))),
            ("GET", "/v2/a/b/manifests/1.0", Some(("a/b", "ecr:BatchGetImage"))),
            ("HEAD", "/v2/manifests/manifests/1.0", Some(("manifests", "ecr:BatchGetImage"))),
            ("HEAD", "/v2/a/blobs/sha256:0", Some(("a", "ecr:BatchCheckLayerAvailability"))),
            ("GET", "/v2/a/blobs/sha256:0", Some(("a", "ecr:GetDownloadUrlForLayer"))),
            ("POST", "/v2/a/blobs/uploads/", Some(("a", "ecr:InitiateLayerUpload"))),
            ("PATCH", "/v2/a/blobs/uploads/1", Some(("a", "ecr:UploadLayerPart"))),
            ("PUT", "/v2/a/blobs/uploads/1", Some(("a", "ecr:CompleteLayerUpload"))),
            ("PUT", "/v2/a/manifests/1.0", Some(("a", "ecr:PutImage"))),
            ("DELETE", "/v2/a/manifests/1.0", Some(("a", "ecr:BatchDeleteImage"))),
        ] {
            let target = Target::of(&method.parse().unwrap(), path);
            assert_eq!(target.map(|target| (target.repository, target.action)), expected, "{method} {path}");
        }
    }

    #[test]
    fn repositories_are_named_as_policies_name_them() {
        for (host, region, expected) in [
            (
                "999999999999.dkr.ecr.eu-west-1.amazonaws.com:443",
                "eu-west-1",
                "aws:ecr:eu-west-1:999999999999",
            ),
            ("127.0.0.1:5000", "cn-north-1", "aws-cn:ecr:cn-north-1:123456789012"),
            ("registry.internal", "us-gov-west-1", "aws-us-gov:ecr:us-gov-west-1:123456789012"),
        ] {
            assert_eq!(arn(host, region, "a/b"), format!("arn:{expected}:repository/a/b"));
        }
    }
}
