//! No source is configured: what is reported, and that IMDS is not asked.

use test_support::{Harness, harness::KEYS};

use super::{ROLE, imds};
use crate::BINARY;

#[test]
fn when_nothing_is_found_every_source_is_listed_with_what_was_seen_and_imds_is_not_asked() {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| imds(&harness, command));
    once.failed_with(&[
        "no AWS credentials found",
        "environment: looked for AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, neither is set",
        "profile: looked for profile default in ",
        "/.aws/config and ",
        "/.aws/credentials, neither file exists",
        "web identity: looked for AWS_WEB_IDENTITY_TOKEN_FILE, unset",
        "container: looked for AWS_CONTAINER_CREDENTIALS_FULL_URI, unset",
        "imds: looked for nothing, only used when named by `source: imds`",
        "set AWS_PROFILE to one of your profiles",
    ]);
    assert!(!once.stderr.contains("IRSA"), "{}", once.stderr);
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn when_nothing_is_found_inside_a_cluster_the_remedy_is_irsa_or_pod_identity() {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| {
        imds(&harness, command);
        command.env("KUBERNETES_SERVICE_HOST", "10.96.0.1").env("AWS_ROLE_ARN", ROLE);
    });
    once.failed_with(&[
        "AWS_WEB_IDENTITY_TOKEN_FILE, unset, though AWS_ROLE_ARN is set",
        "IRSA is not active: `AWS_WEB_IDENTITY_TOKEN_FILE` is unset; annotate the service account with \
         `eks.amazonaws.com/role-arn` and restart the pod",
        "EKS Pod Identity: create the association",
    ]);
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn imds_is_not_asked_for_a_region_either() {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| {
        imds(&harness, command);
        command.envs(KEYS).env_remove("ECR_SIDECAR_REGISTRIES");
    });
    assert_eq!(once.code, Some(64));
    once.has(&["AWS_REGION", "ECR_SIDECAR_REGISTRIES"]);
    assert_eq!(harness.counts(), [0; 5]);
}
