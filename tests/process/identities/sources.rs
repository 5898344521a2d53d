//! Every source gives a token: the emulator records who signed, where, and whether a pull is admitted.

mod accounts;
mod keys;
mod profiles;
mod sso;
mod workloads;

use std::process::Command;

use ecr_emulator::Service;
use test_support::{Harness, harness::HOST};

const USER: &str = "arn:aws:iam::123456789012:user/emulated";
const ROLE: &str = "arn:aws:iam::123456789012:role/ecr-pull";

/// One call of ECR in eu-west-1 by `principal`, and a pull by the same.
#[track_caller]
fn pulls_as(harness: &Harness, principal: &str, prepare: impl FnOnce(&mut Command)) {
    let pull = harness.once_pulls(HOST, prepare);
    let call = harness.only_call(Service::Ecr);
    assert_eq!(call.principal.as_deref(), Some(principal));
    assert_eq!(call.region.as_deref(), Some("eu-west-1"));
    assert_eq!((pull.principal.as_str(), pull.region.as_deref()), (principal, Some("eu-west-1")));
    assert!(call.registry_ids.is_empty(), "registryIds is deprecated and changes nothing");
}

/// `config.yaml` with one identity.
fn identity(harness: &Harness, yaml: &str) -> impl FnOnce(&mut Command) {
    let path = harness.write("config.yaml", &format!("identities: {{default: {yaml}}}\n"));
    move |command| {
        command.env("ECR_SIDECAR_CONFIG", path);
    }
}
