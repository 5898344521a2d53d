//! `source: auto`: environment → profile of AWS_PROFILE → web identity → container → profile `default`, never IMDS, and
//! never past a source that is configured but broken.

mod broken_container;
mod broken_keys;
mod broken_web_identity;
mod nothing_found;

use std::process::Command;

use ecr_emulator::{POD_IDENTITY_TOKEN, Service, Settings, User};
use test_support::{
    Harness,
    harness::{HOST, KEYS},
};

use crate::BINARY;

const ROLE: &str = "arn:aws:iam::123456789012:role/irsa";

fn profile(harness: &Harness, command: &mut Command) {
    let user = profile_user();
    harness.write(
        ".aws/credentials",
        &format!(
            "[mine]\naws_access_key_id={}\naws_secret_access_key={}\n",
            user.access_key_id, user.secret_access_key
        ),
    );
    command.env("AWS_PROFILE", "mine");
}

fn profile_user() -> User {
    User {
        access_key_id: "AKIAI44QH8DHBEXAMPLE".into(),
        secret_access_key: "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY".into(),
        arn: "arn:aws:iam::123456789012:user/of-the-profile".into(),
        ..User::default()
    }
}

/// No variable names it.
fn default_profile(harness: &Harness, _: &mut Command) {
    let user = default_user();
    let keys = format!(
        "[default]\naws_access_key_id={}\naws_secret_access_key={}\n",
        user.access_key_id, user.secret_access_key
    );
    harness.write(".aws/config", &keys);
}

fn default_user() -> User {
    User {
        access_key_id: "AKIAI44QH8DHBDEFAULT".into(),
        arn: "arn:aws:iam::123456789012:user/of-the-profile-default".into(),
        ..profile_user()
    }
}

fn web_identity(harness: &Harness, command: &mut Command) {
    let token = harness.web_identity_file("system:serviceaccount:argocd:argocd-repo-server");
    command.env("AWS_ROLE_ARN", ROLE).env("AWS_WEB_IDENTITY_TOKEN_FILE", token);
}

fn pod_identity(harness: &Harness, command: &mut Command) {
    let token = harness.write("pod-identity", POD_IDENTITY_TOKEN);
    let url = format!("{}/v1/credentials", harness.emulator.endpoint());
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
    command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token);
}

/// The metadata service is there and would answer.
fn imds(harness: &Harness, command: &mut Command) {
    command.env_remove("AWS_EC2_METADATA_DISABLED");
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", harness.emulator.endpoint());
}

#[test]
fn the_order_is_environment_profile_web_identity_container() {
    type Source = fn(&Harness, &mut Command);
    let keys: Source = |_, command| {
        command.envs(KEYS);
    };
    let in_order: [(Source, &str); 5] = [
        (keys, "arn:aws:iam::123456789012:user/emulated"),
        (profile, "arn:aws:iam::123456789012:user/of-the-profile"),
        (web_identity, "arn:aws:sts::123456789012:assumed-role/irsa/ecr-sidecar"),
        (pod_identity, "arn:aws:sts::123456789012:assumed-role/pod-role/eks-emulator-pod"),
        (default_profile, "arn:aws:iam::123456789012:user/of-the-profile-default"),
    ];
    for first in 0..in_order.len() {
        let users = vec![User::default(), profile_user(), default_user()];
        let harness = Harness::with(BINARY, Settings { users, ..Settings::default() }).without_keys();
        let pull = harness.once_pulls(HOST, |command| {
            imds(&harness, command);
            in_order[first..].iter().for_each(|(source, _)| source(&harness, command));
        });
        assert_eq!(pull.principal, in_order[first].1);
        assert_eq!(harness.emulator.count(Service::Imds), 0);
    }
}

/// The source that `breaks` and every one behind it are configured: `once` fails at once, saying all of
/// `parts`, and sends no request for a token.
#[track_caller]
fn is_never_passed_over(breaks: impl FnOnce(&Harness, &mut Command), parts: &[&str]) -> Harness {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| {
        pod_identity(&harness, command);
        web_identity(&harness, command);
        imds(&harness, command);
        breaks(&harness, command);
    });
    once.failed_with(parts);
    assert!(harness.nothing_written());
    assert_eq!(harness.counts()[1..3], [0, 0], "no token was asked for");
    assert_eq!(harness.emulator.count(Service::Imds), 0);
    harness
}
