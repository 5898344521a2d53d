//! Any value in any variable, and a key where something else belongs: no panic, and no secret is shown.

use std::process::Command;

use test_support::{
    Harness,
    harness::{HOST, KEYS},
};

use super::{CANARY, said};
use crate::BINARY;

/// The table of nasty samples: each in each variable that the SDK or this program reads.
#[test]
fn no_value_of_any_variable_panics_or_is_shown() {
    const VARIABLES: [&str; 25] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_PROFILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_ECR",
        "AWS_ENDPOINT_URL_STS",
        "AWS_USE_FIPS_ENDPOINT",
        "AWS_USE_DUALSTACK_ENDPOINT",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        "AWS_MAX_ATTEMPTS",
        "AWS_RETRY_MODE",
        "AWS_SDK_UA_APP_ID",
        "AWS_EXECUTION_ENV",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_EC2_METADATA_DISABLED",
        "SMITHY_CLIENT_SDK_CUSTOM_PARTITION",
        "HOME",
    ];
    const SECRET: [&str; 4] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    ];
    let harness = Harness::new(BINARY).without_keys();
    for value in [
        "",
        " \n",
        "\n",
        "CANARY\nCANARY",
        "\"CANARY\"",
        "{CANARY",
        "CANÄRY\u{202e}CANARY",
        "\u{1}CANARY\u{7f}",
        "-",
    ] {
        for variable in VARIABLES {
            let mut command = harness.command("print");
            command.arg(HOST).envs(KEYS).env(variable, value).env("ECR_SIDECAR_LOG", "trace");
            let (exit, said) = said(command);
            assert!(matches!(exit, Some(0 | 64 | 69)), "{variable}={value:?}: {exit:?} {said}");
            assert!(!SECRET.contains(&variable) || !said.contains(CANARY), "{variable}={value:?}: {said}");
        }
    }
}

/// What belongs into a file or another variable, in the place of each variable and of each key that names a file.
#[test]
fn no_key_in_the_wrong_place_is_shown() {
    const KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJlLW9mLXRoaXMtdG9rZW4";
    const VARIABLES: [&str; 12] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_REGION",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_ENDPOINT_URL",
        "AWS_CA_BUNDLE",
        "KUBECONFIG",
        "ECR_SIDECAR_DOCKER_CONFIG",
    ];
    let identities = |secret: &str| {
        [
            format!("{{source: static, accessKeyIdFile: {secret}, secretAccessKeyFile: {secret}}}"),
            format!(
                "{{source: web-identity, roleArn: 'arn:aws:iam::123456789012:role/x', tokenFile: {secret}}}"
            ),
            format!("{{source: web-identity, roleArn: {secret}}}"),
            format!("{{source: profile, profile: {secret}}}"),
        ]
    };
    let harness = Harness::new(BINARY).without_keys();
    let commands = || {
        ["once", "doctor", "config", "print"].map(|name| {
            let mut command = harness.command(name);
            if name == "print" {
                command.arg(HOST);
            }
            if name == "once" {
                command.args(["--timeout", "2s"]);
            }
            command
        })
    };
    let shows_nothing = |mut command: Command, secret: &str, place: &str| {
        command.env("ECR_SIDECAR_LOG", "trace");
        let (_, said) = said(command);
        assert!(!said.contains(secret), "{place}: {said}");
    };
    for secret in [KEY, TOKEN] {
        for variable in VARIABLES {
            for mut command in commands() {
                command.env("ECR_SIDECAR_DOCKER_CONFIG_SECRET", "x").env(variable, secret);
                shows_nothing(command, secret, variable);
            }
        }
        for identity in identities(secret) {
            let file = harness.write("config.yaml", &format!("identities: {{default: {identity}}}\n"));
            for mut command in commands() {
                command.env("ECR_SIDECAR_CONFIG", &file);
                shows_nothing(command, secret, &identity);
            }
        }
    }
}
