//! Endpoints of AWS that are no URL, or not encrypted.

use std::{fs, path::PathBuf, process::Command};

use test_support::{
    Harness,
    harness::{HOST, KEYS},
    install,
};

use super::{done, said};
use crate::BINARY;

const ROLE: &str = "arn:aws:iam::123456789012:role/irsa";

/// `once`, `doctor`, `print`, `config` and the credential helper, each with its exit status when the configuration
/// cannot be used.
fn commands(harness: &Harness, prepare: impl Fn(&mut Command)) -> Vec<(Command, i32)> {
    let helper = harness.at("docker-credential-ecr-sidecar");
    if !helper.exists() {
        install(PathBuf::from(BINARY), &helper);
    }
    let mut commands: Vec<_> =
        [("once", 64), ("doctor", 1), ("print", 64), ("config", 64), ("manifests", 64)]
            .into_iter()
            .map(|(name, code)| {
                let mut command = harness.command(name);
                match name {
                    "print" => done(command.arg(HOST)),
                    "manifests" => done(command.args(["--service-account", "a", "--namespace", "n"])),
                    _ => {}
                }
                (command, code)
            })
            .collect();
    let mut command = Command::new("sh");
    command.args(["-c", "echo \"$1\" | exec \"$0\" get"]).arg(helper).arg(HOST).env_clear();
    command.env("HOME", harness.at(".")).env("PATH", "/usr/bin:/bin");
    command.env("ECR_SIDECAR_REGISTRIES", HOST).env("AWS_ENDPOINT_URL", harness.emulator.endpoint());
    commands.push((command, 1));
    commands.iter_mut().for_each(|(command, _)| prepare(command));
    commands
}

fn irsa(harness: &Harness, command: &mut Command) {
    command.env("AWS_ROLE_ARN", ROLE).env("AWS_WEB_IDENTITY_TOKEN_FILE", harness.at("web-identity/token"));
}

#[test]
fn an_endpoint_that_is_no_url_is_named_and_no_token_is_shown() {
    let harness = Harness::new(BINARY).without_keys();
    harness.web_identity_file("system:serviceaccount:flux-system:me");
    let token = fs::read_to_string(harness.at("web-identity/token")).unwrap();
    for (variable, value) in [
        ("AWS_ENDPOINT_URL", "localhost:4566"), // as for a test cloud, without the scheme
        ("AWS_ENDPOINT_URL_STS", "vpce-0abc-sts.eu-west-1.vpce.amazonaws.com"), // copied from the console
        ("AWS_ENDPOINT_URL_ECR", "\"https://api.ecr.eu-west-1.amazonaws.com\""), // quoted twice
        ("AWS_ENDPOINT_URL_STS", "http://me:hunter2@sts.example"), // a proxy's form
        ("AWS_ENDPOINT_URL_ECR_PUBLIC", "https://a b"),
    ] {
        for (command, code) in commands(&harness, |command| {
            irsa(&harness, command);
            command.env(variable, value);
        }) {
            let (exit, said) = said(command);
            assert_eq!(exit, Some(code), "{variable}={value}: {said}");
            assert!(said.contains(variable) && said.contains("a URL such as"), "{said}");
            assert!(!said.contains(&token[..40]) && !said.contains("hunter2"), "{said}");
        }
    }
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn an_endpoint_of_a_profile_is_held_to_the_same() {
    let harness = Harness::new(BINARY).without_keys();
    for (config, place) in [
        ("[default]\nendpoint_url = localhost:4566\n", "`endpoint_url` of the AWS profile `default`"),
        ("[default]\nregion = Ireland\n", "`region` of the AWS profile `default`"),
        ("[default]\nuse_fips_endpoint = yes\n", "`use_fips_endpoint`"),
        ("[default]\nservices = s\n[services s]\nsts =\n  endpoint_url = x\n", "`sts: endpoint_url`"),
    ] {
        harness.write(".aws/config", config);
        let mut command = harness.command("once");
        command.env_remove("AWS_ENDPOINT_URL").envs(KEYS);
        let (exit, said) = said(command);
        assert_eq!(exit, Some(64), "{said}");
        assert!(said.contains(place), "{said}");
    }
}

#[test]
fn a_web_identity_token_in_clear_is_worth_a_warning() {
    let harness = Harness::new(BINARY).without_keys();
    harness.web_identity_file("system:serviceaccount:flux-system:me");
    let endpoint = "http://sts.internal.example";
    let warned = |prepare: fn(&Harness, &mut Command)| {
        let mut command = harness.command("once");
        command.args(["--timeout", "1s"]).env("AWS_ENDPOINT_URL_STS", endpoint);
        prepare(&harness, &mut command);
        said(command).1.contains("sts-in-clear")
    };
    assert!(warned(irsa));
    assert!(!warned(|_, command| done(command.envs(KEYS))), "keys are never sent");
    assert!(!warned(|harness, command| {
        irsa(harness, command);
        command.env("AWS_ENDPOINT_URL_STS", harness.emulator.endpoint()); // loopback
    }));
}
