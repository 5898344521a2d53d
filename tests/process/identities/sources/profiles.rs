//! Profiles: with keys, with a role, with a `credential_process`, and where their files are.

use std::process::Command;

use ecr_emulator::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Service};
use test_support::Harness;

use super::{ROLE, USER, identity, pulls_as};
use crate::BINARY;

fn credentials_file(profile: &str) -> String {
    format!("[{profile}]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n")
}

#[test]
fn the_profile_default_gives_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(".aws/credentials", &credentials_file("default"));
    pulls_as(&harness, USER, |_| {});
}

#[test]
fn the_profile_of_aws_profile_gives_a_token_and_the_region() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(".aws/credentials", &credentials_file("me"));
    harness.write(".aws/config", "[profile me]\nregion = ap-southeast-2\n");
    let once = harness.once(|command| {
        command.env("AWS_PROFILE", "me").env_remove("ECR_SIDECAR_REGISTRIES");
    });
    assert_eq!(once.code, Some(0), "{}", once.stderr);
    assert_eq!(harness.pull("123456789012.dkr.ecr.ap-southeast-2.amazonaws.com").principal, USER);
}

#[test]
fn a_profile_that_the_configuration_names_gives_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(".aws/credentials", &credentials_file("named"));
    pulls_as(&harness, USER, identity(&harness, "{source: profile, profile: named}"));
}

#[test]
fn the_files_of_aws_config_file_and_aws_shared_credentials_file_are_read() {
    let harness = Harness::new(BINARY).without_keys();
    let credentials = harness.write("elsewhere/credentials", &credentials_file("me"));
    let config = harness.write(
        "elsewhere/config",
        &format!("[profile role]\nrole_arn = {ROLE}\nsource_profile = me\nrole_session_name = from-a-file\n"),
    );
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/ecr-pull/from-a-file", |command| {
        command.env("AWS_CONFIG_FILE", config).env("AWS_SHARED_CREDENTIALS_FILE", credentials);
        command.env("AWS_PROFILE", "role");
    });
}

#[test]
fn a_profile_with_a_source_profile_assumes_its_role() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(".aws/credentials", &credentials_file("base"));
    harness.write(
        ".aws/config",
        &format!(
            "[profile pull]\nrole_arn = {ROLE}\nsource_profile = base\nrole_session_name = by-profile\n\
             region = eu-central-1\n"
        ),
    );
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/ecr-pull/by-profile", |command| {
        command.env("AWS_PROFILE", "pull");
    });
    let sts = harness.only_call(Service::Sts);
    assert_eq!((sts.operation.as_str(), sts.principal.as_deref()), ("AssumeRole", Some(USER)));
    assert_eq!(sts.region.as_deref(), Some("eu-central-1"));
}

#[test]
fn a_profile_with_a_credential_process_gives_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    let script = harness.script(
        "give-keys",
        &format!(
            "#!/bin/sh\necho '{{\"Version\": 1, \"AccessKeyId\": \"{ACCESS_KEY_ID}\", \
             \"SecretAccessKey\": \"{SECRET_ACCESS_KEY}\"}}'\n"
        ),
    );
    harness.write(".aws/config", &format!("[profile exec]\ncredential_process = {}\n", script.display()));
    pulls_as(&harness, USER, |command| {
        command.env("AWS_PROFILE", "exec");
    });
}

/// As the AWS CLI has it: the other file is not needed.
#[test]
fn one_profile_file_is_enough_if_it_has_the_profile() {
    let harness = Harness::new(BINARY).without_keys();
    let config = harness.write(
        "config",
        &format!(
            "[profile me]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n"
        ),
    );
    let variables = |profile: &'static str| {
        let config = config.clone();
        move |command: &mut Command| {
            command.env("AWS_CONFIG_FILE", config).env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/file");
            command.env("AWS_PROFILE", profile);
        }
    };
    pulls_as(&harness, USER, variables("me"));
    harness.once(variables("another")).failed_with(&["/nonexistent/file", "AWS_SHARED_CREDENTIALS_FILE"]);
}
