//! Keys: in the environment, and in files.

use ecr_emulator::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Service};
use test_support::{Harness, harness::KEYS};

use super::{USER, identity, pulls_as};
use crate::BINARY;

#[test]
fn keys_in_the_environment_give_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    pulls_as(&harness, USER, |command| {
        command.envs(KEYS);
    });
    assert_eq!(harness.only_call(Service::Ecr).access_key_id.as_deref(), Some(ACCESS_KEY_ID));
}

#[test]
fn keys_with_a_session_token_in_the_environment_give_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    let [id, secret, token] = harness.session();
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/pod-role/eks-emulator-pod", |command| {
        command.env("AWS_ACCESS_KEY_ID", &id).env("AWS_SECRET_ACCESS_KEY", secret);
        command.env("AWS_SESSION_TOKEN", token);
    });
    assert_eq!(harness.only_call(Service::Ecr).access_key_id, Some(id));
}

#[test]
fn key_files_give_a_token_whatever_white_space_ends_them() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write("keys/id", &format!("{ACCESS_KEY_ID}\n"));
    harness.write("keys/secret", &format!(" {SECRET_ACCESS_KEY}\r\n"));
    pulls_as(
        &harness,
        USER,
        identity(&harness, "{source: static, accessKeyIdFile: keys/id, secretAccessKeyFile: keys/secret}"),
    );
}

#[test]
fn key_files_with_a_session_token_give_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    for (name, value) in ["id", "secret", "token"].into_iter().zip(harness.session()) {
        harness.write(name, &value);
    }
    let yaml = "{source: static, accessKeyIdFile: id, secretAccessKeyFile: secret, sessionTokenFile: token}";
    pulls_as(
        &harness,
        "arn:aws:sts::123456789012:assumed-role/pod-role/eks-emulator-pod",
        identity(&harness, yaml),
    );
}
