//! What a pod, a task or an instance is given: web identity, Pod Identity, ECS, IMDS.

use ecr_emulator::{POD_IDENTITY_TOKEN, Service};
use test_support::Harness;

use super::{ROLE, identity, pulls_as};
use crate::BINARY;

#[test]
fn a_web_identity_token_gives_a_token_and_the_session_is_named_after_us() {
    let harness = Harness::new(BINARY).without_keys();
    let token = harness.web_identity_file("system:serviceaccount:flux-system:source-controller");
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/ecr-pull/ecr-sidecar", |command| {
        command.env("AWS_ROLE_ARN", ROLE).env("AWS_WEB_IDENTITY_TOKEN_FILE", token);
    });
    let sts = harness.only_call(Service::Sts);
    assert_eq!(sts.operation, "AssumeRoleWithWebIdentity");
    assert_eq!(sts.principal.as_deref(), Some("system:serviceaccount:flux-system:source-controller"));
    assert_eq!(sts.access_key_id, None, "this call is unsigned");
}

#[test]
fn a_web_identity_that_the_configuration_names_gives_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    harness.web_identity_file("me");
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/ecr-pull/named", |command| {
        command.env("AWS_ROLE_SESSION_NAME", "named");
        identity(
            &harness,
            &format!("{{source: web-identity, roleArn: '{ROLE}', tokenFile: web-identity/token}}"),
        )(command);
    });
}

#[test]
fn eks_pod_identity_gives_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    let token = harness.write("pods/eks-pod-identity-token", POD_IDENTITY_TOKEN);
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/pod-role/eks-emulator-pod", |command| {
        let url = format!("{}/v1/credentials", harness.emulator.endpoint());
        command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
        command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token);
    });
    assert_eq!(harness.counts(), [0, 1, 0, 1, 0]);
}

/// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` means 169.254.170.2, which no test asks.
#[test]
fn ecs_with_its_token_in_the_environment_gives_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/pod-role/eks-emulator-pod", |command| {
        let url = format!("{}/v1/credentials", harness.emulator.endpoint());
        command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
        command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN", POD_IDENTITY_TOKEN);
    });
}

#[test]
fn imds_gives_a_token_when_it_is_named() {
    let harness = Harness::new(BINARY).without_keys();
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/node-role/i-0emulated0000000", |command| {
        command.env_remove("AWS_EC2_METADATA_DISABLED");
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", harness.emulator.endpoint());
        identity(&harness, "{source: imds}")(command);
    });
}
