//! Values that are empty, padded, malformed or not UTF-8.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, process::Command};

use ecr_emulator::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use test_support::{
    Harness,
    harness::{HOST, KEYS},
};

use super::{CANARY, done, said};
use crate::BINARY;

#[test]
fn empty_variables_and_properties_are_unset() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(
        ".aws/config",
        "[default]\nendpoint_url =\nservices = s\n[services s]\necr =\n  endpoint_url =\n",
    );
    harness.once_pulls(HOST, |command| {
        for name in [
            "AWS_ENDPOINT_URL_ECR",
            "AWS_ENDPOINT_URL_STS",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
            "AWS_PROFILE",
            "AWS_USE_FIPS_ENDPOINT",
            "AWS_USE_DUALSTACK_ENDPOINT",
            "AWS_SESSION_TOKEN",
            "AWS_ROLE_ARN",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONFIG_FILE",
            "AWS_MAX_ATTEMPTS",
            "AWS_RETRY_MODE",
            "AWS_SDK_UA_APP_ID",
            "AWS_EXECUTION_ENV",
            "ECR_SIDECAR_CONFIG",
        ] {
            command.env(name, "");
        }
        command.envs(KEYS);
    });
}

#[test]
fn white_space_around_a_value_does_no_harm() {
    let keys =
        format!("aws_access_key_id = {ACCESS_KEY_ID} \naws_secret_access_key = {SECRET_ACCESS_KEY}\t\n");
    let process = format!(
        "printf '{{\"Version\":1,\"AccessKeyId\":\" {ACCESS_KEY_ID}\\\\n\",\"SecretAccessKey\":\"{SECRET_ACCESS_KEY}\\\\n\",\"SessionToken\":\"\"}}'"
    );
    let harness = Harness::new(BINARY).without_keys();
    harness.write(
        ".aws/credentials",
        &format!("\u{feff}[keys]\r\n{keys}aws_session_token =\n[process]\ncredential_process = {process}\n"),
    );
    for prepare in [
        |command: &mut Command| {
            command.envs(KEYS.map(|(name, value)| (name, format!(" {value}\r\n"))));
            command.env("AWS_REGION", "eu-west-1\n").env("AWS_USE_FIPS_ENDPOINT", " false\n");
        },
        |command: &mut Command| done(command.env("AWS_PROFILE", "keys\n")),
        |command: &mut Command| done(command.env("AWS_PROFILE", "process")),
    ] {
        harness.once_pulls(HOST, |command| {
            let endpoint = format!(" {}\n", harness.emulator.endpoint());
            prepare(command.env("AWS_ENDPOINT_URL", endpoint));
        });
    }
}

type Prepare<'a> = &'a dyn Fn(&mut Command);

#[test]
fn a_malformed_key_is_named_by_its_place_and_never_shown() {
    for bad in [
        "CANARY CANARY",                                               // a comment behind it
        "\"CANARYCANARY\"",                                            // quotes of YAML
        "{\"AccessKeyId\":\"CANARY\",\"SecretAccessKey\":\"CANARY\"}", // the whole Secret
        "CANÄRY-CANARY",
    ] {
        let harness = Harness::new(BINARY).without_keys();
        harness.write("id", ACCESS_KEY_ID);
        harness.write("bad", bad);
        let json = serde_json::json!({"Version": 1, "AccessKeyId": ACCESS_KEY_ID, "SecretAccessKey": bad});
        harness.write("printed.json", &json.to_string());
        harness.write(
            ".aws/config",
            &format!(
                "[profile keys]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = x\naws_session_token = {bad}\n\
                 [profile process]\ncredential_process = cat '{}'\n",
                harness.at("printed.json").display()
            ),
        );
        let files = harness.write(
            "static.yaml",
            "identities: {default: {source: static, accessKeyIdFile: id, secretAccessKeyFile: bad}}\n",
        );
        let places: [(Prepare<'_>, i32, &str); 5] = [
            (
                &|command| done(command.envs(KEYS).env("AWS_SECRET_ACCESS_KEY", bad)),
                64,
                "AWS_SECRET_ACCESS_KEY",
            ),
            (&|command| done(command.envs(KEYS).env("AWS_SESSION_TOKEN", bad)), 64, "AWS_SESSION_TOKEN"),
            (&|command| done(command.env("AWS_PROFILE", "keys")), 69, "session token in profile `keys`"),
            (
                &|command| done(command.env("AWS_PROFILE", "process")),
                69,
                "credential_process of profile `process`",
            ),
            (&|command| done(command.env("ECR_SIDECAR_CONFIG", &files)), 69, "the secret access key in bad"),
        ];
        for (prepare, code, place) in places {
            let mut command = harness.command("once");
            command.env("ECR_SIDECAR_LOG", "trace");
            prepare(&mut command);
            let (exit, said) = said(command);
            assert_eq!(exit, Some(code), "{place}: {said}");
            assert!(said.contains(place), "{place} is not in {said}");
            assert!(!said.contains(CANARY) && !said.contains("CANÄ"), "{said}");
        }
        assert_eq!(harness.counts(), [0; 5], "nothing is signed with it");
    }
}

#[test]
fn a_variable_that_is_not_utf_8_is_named() {
    let harness = Harness::new(BINARY).without_keys();
    for variable in ["AWS_REGION", "ECR_SIDECAR_DOCKER_CONFIG", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"] {
        let mut command = harness.command("once");
        command.envs(KEYS).env(variable, OsString::from_vec(b"CANARY\xff".to_vec()));
        let (exit, said) = said(command);
        assert_eq!(exit, Some(64), "{said}");
        assert!(said.contains(variable) && said.contains("UTF-8") && !said.contains(CANARY), "{said}");
    }
}
