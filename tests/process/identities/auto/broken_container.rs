//! A container's credentials that are broken: those of EKS Pod Identity.

use std::process::Command;

use ecr_emulator::{Fault, Service};
use test_support::Harness;

use super::{imds, pod_identity};
use crate::BINARY;

/// Only the container is configured, and it `breaks`.
#[track_caller]
fn container_fails(breaks: impl FnOnce(&Harness, &mut Command), parts: &[&str]) -> Harness {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| {
        imds(&harness, command);
        pod_identity(&harness, command);
        breaks(&harness, command);
    });
    once.failed_with(parts);
    assert!(harness.nothing_written());
    assert_eq!(harness.counts()[..3], [0; 3]);
    assert_eq!(harness.emulator.count(Service::Imds), 0);
    harness
}

#[test]
fn a_pod_identity_agent_that_refuses_is_an_error_with_its_own_words_and_the_remedy() {
    // 404: no association.
    let harness = container_fails(
        |harness, command| {
            command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", harness.write("another", "another-pod"));
        },
        &["credentials agent", "HTTP 404", "No association found", "create the pod identity association"],
    );
    assert_eq!(harness.emulator.count(Service::PodIdentity), 1);

    // 400
    let fault = |harness: &Harness, status, code: &str| {
        let message = "as the agent says it".into();
        harness.emulator.set_fault(Service::PodIdentity, Fault::Error { status, code: code.into(), message });
    };
    let harness = container_fails(
        |harness, _| fault(harness, 400, "InvalidTokenException"),
        &["credentials agent", "HTTP 400", "InvalidTokenException", "as the agent says it"],
    );
    assert_eq!(harness.emulator.count(Service::PodIdentity), 1);
}

#[test]
fn a_missing_pod_identity_token_is_an_error_that_names_the_file() {
    let harness = container_fails(
        |_, command| {
            command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nowhere/eks-pod-identity-token");
        },
        &["container authorization token in /nowhere/eks-pod-identity-token", "No such file"],
    );
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn the_pod_identity_token_is_not_sent_to_another_host() {
    let harness = container_fails(
        |_, command| {
            command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://other.example/v1/credentials");
        },
        &["AWS_CONTAINER_CREDENTIALS_FULL_URI is `http://other.example/v1/credentials`", "loopback"],
    );
    assert_eq!(harness.counts(), [0; 5]);
}
