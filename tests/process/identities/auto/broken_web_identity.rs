//! A web identity that is broken.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
};

use ecr_emulator::{Fault, Service};
use test_support::{Harness, install};

use super::{ROLE, is_never_passed_over, pod_identity};
use crate::BINARY;

/// A user without rights.
const NOBODY: u32 = 65534;

#[test]
fn a_web_identity_token_that_is_not_there_is_an_error_that_names_the_file() {
    let harness = is_never_passed_over(
        |_, command| {
            command.env("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token");
        },
        &["web-identity token in /nowhere/token", "No such file", "volume mount"],
    );
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn an_empty_web_identity_token_is_an_error_that_names_the_file() {
    let harness = is_never_passed_over(
        |harness, command| {
            command.env("AWS_WEB_IDENTITY_TOKEN_FILE", harness.write("empty", "\n"));
        },
        &["web-identity token in ", "empty is empty"],
    );
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_web_identity_without_a_role_is_an_error_that_names_the_variable() {
    let harness = is_never_passed_over(
        |_, command| {
            command.env_remove("AWS_ROLE_ARN");
        },
        &["`web identity` is incomplete", "AWS_ROLE_ARN is unset"],
    );
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_web_identity_token_that_may_not_be_read_is_an_error_that_names_the_remedy() {
    let harness = Harness::new(BINARY).without_keys();
    let token = harness.web_identity_file("me");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read anything: the program runs as another user, from where that user may reach it.
    let is_root = rustix::process::geteuid().is_root();
    let binary = harness.at("ecr-sidecar");
    install(BINARY, &binary);
    for open in [harness.at("."), harness.at("out"), harness.at("web-identity")] {
        fs::create_dir_all(&open).unwrap();
        fs::set_permissions(open, fs::Permissions::from_mode(if is_root { 0o777 } else { 0o700 })).unwrap();
    }
    let mut command = harness.command("once");
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let variables: Vec<_> =
        command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    command = Command::new(binary);
    command.args(arguments).env_clear().envs(variables).current_dir(harness.at("."));
    pod_identity(&harness, &mut command);
    command.env("AWS_ROLE_ARN", ROLE).env("AWS_WEB_IDENTITY_TOKEN_FILE", token);
    if is_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    harness.run_once(&mut command).failed_with(&["web-identity token", "Permission denied", "fsGroup"]);
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_rejected_web_identity_is_an_error_with_the_remedy_of_its_cause() {
    for (code, parts) in [
        ("AccessDenied", ["AccessDenied", "trust policy", "system:serviceaccount:NAMESPACE:NAME"]),
        ("InvalidIdentityToken", ["InvalidIdentityToken", "OIDC provider", "issuer"]),
        ("IDPRejectedClaim", ["IDPRejectedClaim", "audience", "sts.amazonaws.com"]),
    ] {
        is_never_passed_over(
            |harness, _| {
                let message = "no".to_owned();
                harness
                    .emulator
                    .set_fault(Service::Sts, Fault::Error { status: 403, code: code.into(), message });
            },
            &parts,
        );
    }
}
