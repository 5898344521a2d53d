//! `once`: its exit status, and what it says.

use ecr_emulator::{Fault, Service};
use test_support::{
    Harness,
    harness::{HOST, KEYS},
};

use crate::BINARY;

#[test]
fn once_ends_with_0_when_everything_is_written() {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| {
        command.envs(KEYS);
    });
    assert_eq!(once.code, Some(0), "{}", once.stderr);
    harness.pull(HOST);
}

#[test]
fn once_ends_with_64_when_the_configuration_is_bad_and_says_what() {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| {
        command.envs(KEYS).env("ECR_SIDECAR_REGISTRIES", "https://public.ecr.aws");
        command.env("ECR_SIDECAR_FILE_MODE", "rw-r-----").env("ECR_SIDECAR_REGISTRYS", "x");
    });
    assert_eq!(once.code, Some(64), "{}", once.stderr);
    once.has(&[
        "the configuration has",
        "ECR_SIDECAR_REGISTRYS: found an unknown variable",
        "did you mean `ECR_SIDECAR_REGISTRIES`",
    ]);
    assert_eq!(harness.counts(), [0; 5]);

    let once = harness.once(|command| {
        command.arg("--registrys");
    });
    assert_eq!(once.code, Some(64), "{}", once.stderr);
}

/// Without a time limit of its own it would be 60 seconds: one call shows that nothing was waited for.
#[test]
fn once_ends_with_69_at_once_when_only_a_person_can_help() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.set_fault(Service::Ecr, Fault::AccessDenied);
    let once = harness.once(|command| {
        command.envs(KEYS).args(["--timeout", "24h"]);
    });
    once.failed_with(&[
        "not all required outputs could be written",
        HOST,
        "AccessDeniedException",
        "allow the principal ecr:GetAuthorizationToken on resource *",
    ]);
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
    assert!(harness.nothing_written());
}

#[test]
fn once_ends_with_69_after_its_timeout_when_aws_hangs() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.set_fault(Service::Ecr, Fault::Hang);
    let once = harness.once(|command| {
        command.envs(KEYS).args(["--timeout", "2s"]);
    });
    once.failed_with(&[
        "not all required outputs could be written",
        HOST,
        "no token yet: AWS is being asked",
    ]);
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
}

#[test]
fn once_rides_through_what_is_transient() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.push_fault(Service::Ecr, Fault::Status(503), 1);
    harness.emulator.push_fault(Service::Ecr, Fault::Reset, 1);
    harness.once_pulls(HOST, |command| {
        command.envs(KEYS);
    });
    assert_eq!(harness.emulator.count(Service::Ecr), 3);
}
