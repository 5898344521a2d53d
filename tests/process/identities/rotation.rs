//! What an identity rests on is replaced while the sidecar runs: it is used at once, without a restart. And
//! what AWS calls stale is read again, once.

use ecr_emulator::{ACCESS_KEY_ID, Fault, SECRET_ACCESS_KEY, Service, Settings, User};
use serde_json::Value;
use test_support::{
    Harness, Running,
    files::project,
    harness::{HOST, seconds_between},
};

use crate::BINARY;

const ROLE: &str = "arn:aws:iam::123456789012:role/irsa";

fn new_user() -> User {
    User {
        access_key_id: "AKIAI44QH8DHBEXAMPLE".into(),
        secret_access_key: "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY".into(),
        arn: "arn:aws:iam::123456789012:user/rotated".into(),
        ..User::default()
    }
}

/// `run` with keys in files that are projected as kubelet does it.
fn run_with_key_files(harness: &Harness) -> Running {
    let config = harness.write(
        "config.yaml",
        "identities: {default: {source: static, accessKeyIdFile: keys/id, secretAccessKeyFile: keys/secret}}\n",
    );
    harness.run(|command| {
        command.env("ECR_SIDECAR_CONFIG", config);
    })
}

fn project_keys(harness: &Harness, generation: u32, id: &str, secret: &str) {
    std::fs::create_dir_all(harness.at("keys")).unwrap();
    project(&harness.at("keys"), generation, &[("id", id), ("secret", secret)]);
}

/// `run` with a web identity whose token is projected as kubelet does it.
fn run_with_web_identity(harness: &Harness, subject: &str) -> Running {
    project_token(harness, 1, subject);
    harness.run(|command| {
        command
            .env("AWS_ROLE_ARN", ROLE)
            .env("AWS_WEB_IDENTITY_TOKEN_FILE", harness.at("serviceaccount/token"));
    })
}

fn project_token(harness: &Harness, generation: u32, subject: &str) {
    std::fs::create_dir_all(harness.at("serviceaccount")).unwrap();
    let token = harness.web_identity_token(subject);
    project(&harness.at("serviceaccount"), generation, &[("token", &token)]);
}

/// The attempt came before its time: something other than the plan called for it.
#[track_caller]
fn came_before(planned: &Value, token: &Value) {
    let early = seconds_between(&token["obtained_at"], &planned["next_attempt"]);
    assert!(early > 0.0, "planned {}, obtained {}", planned["next_attempt"], token["obtained_at"]);
}

#[test]
fn new_key_files_are_used_at_once() {
    let users = vec![User::default(), new_user()];
    let harness = Harness::with(BINARY, Settings { users, ..Settings::default() }).without_keys();
    project_keys(&harness, 1, ACCESS_KEY_ID, SECRET_ACCESS_KEY);
    let running = run_with_key_files(&harness);
    let first = running.wait_refreshed(1);
    assert_eq!(harness.pull(HOST).principal, User::default().arn);

    project_keys(&harness, 2, &new_user().access_key_id, &new_user().secret_access_key);
    let second = running.wait_refreshed(2);
    came_before(&first, &second);
    assert_eq!(harness.pull(HOST).principal, new_user().arn);
    let keys: Vec<_> =
        harness.calls(Service::Ecr).into_iter().map(|call| call.access_key_id.unwrap()).collect();
    assert_eq!(keys, [ACCESS_KEY_ID, &new_user().access_key_id]);
}

#[test]
fn a_deleted_key_is_tried_slowly_and_its_successor_at_once() {
    let harness = Harness::new(BINARY).without_keys();
    project_keys(&harness, 1, &new_user().access_key_id, &new_user().secret_access_key); // unknown to this AWS
    let running = run_with_key_files(&harness);
    let failed = running.wait_token("a refusal", |token| token["failed"] == 1);
    assert_eq!(failed["last_error"]["class"], "denied");
    assert!(harness.nothing_written());

    project_keys(&harness, 2, ACCESS_KEY_ID, SECRET_ACCESS_KEY);
    let fixed = running.wait_refreshed(1);
    came_before(&failed, &fixed);
    assert_eq!(fixed["last_error"], Value::Null);
    assert_eq!(harness.pull(HOST).principal, User::default().arn);
    assert_eq!(harness.emulator.count(Service::Ecr), 2);
}

#[test]
fn a_key_file_that_goes_leaves_the_credential_and_its_return_fixes_it() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write("keys/id", ACCESS_KEY_ID);
    harness.write("keys/secret", SECRET_ACCESS_KEY);
    let running = run_with_key_files(&harness);
    running.wait_refreshed(1);
    let before = harness.bytes();
    std::fs::remove_file(harness.at("keys/id")).unwrap();
    let failed = running.wait_token("an error", |token| !token["last_error"].is_null());
    assert!(
        failed["last_error"]["message"].as_str().unwrap().contains("access key id in keys/id"),
        "{failed}"
    );
    assert_eq!(harness.bytes(), before);
    assert!(running.is_ready());
    harness.write("keys/id", ACCESS_KEY_ID);
    came_before(&failed, &running.wait_refreshed(2));
}

#[test]
fn a_web_identity_token_that_kubelet_replaces_is_used_at_once() {
    let harness = Harness::new(BINARY).without_keys();
    let running = run_with_web_identity(&harness, "old");
    let first = running.wait_refreshed(1);
    project_token(&harness, 2, "new");
    let second = running.wait_refreshed(2);
    came_before(&first, &second);
    let subjects: Vec<_> =
        harness.calls(Service::Sts).into_iter().map(|call| call.principal.unwrap()).collect();
    assert_eq!(subjects, ["old", "new"]);
    assert_eq!(harness.emulator.count(Service::Ecr), 2);
}

fn expired_token(harness: &Harness, times: u32) {
    let fault = Fault::Error {
        status: 400,
        code: "ExpiredTokenException".into(),
        message: "Token expired: current date/time must be before the expiration date/time".into(),
    };
    harness.emulator.push_fault(Service::Sts, fault, times);
}

#[test]
fn a_web_identity_token_that_sts_calls_expired_is_read_again_and_asked_with_once_more() {
    let harness = Harness::new(BINARY).without_keys();
    expired_token(&harness, 1);
    let running = run_with_web_identity(&harness, "me");
    let token = running.wait_refreshed(1);
    assert_eq!((&token["refreshed"], &token["failed"]), (&1.into(), &0.into()));
    assert_eq!(harness.counts(), [2, 1, 0, 0, 0]);
}

#[test]
fn a_web_identity_token_that_stays_expired_is_asked_with_twice_and_then_slowly_until_it_is_replaced() {
    let harness = Harness::new(BINARY).without_keys();
    expired_token(&harness, 2);
    let running = run_with_web_identity(&harness, "old");
    let failed = running.wait_token("a refusal", |token| token["failed"] == 1);
    assert_eq!(failed["last_error"]["class"], "stale-input");
    assert!(failed["last_error"]["remedy"].as_str().unwrap().contains("kubelet"), "{failed}");
    assert_eq!(harness.counts(), [2, 0, 0, 0, 0]);
    project_token(&harness, 2, "new");
    came_before(&failed, &running.wait_refreshed(1));
    assert_eq!(harness.counts(), [3, 1, 0, 0, 0]);
}

#[test]
fn aws_credentials_that_ecr_calls_expired_are_resolved_again_and_asked_with_once_more() {
    let harness = Harness::new(BINARY).without_keys();
    let running = run_with_web_identity(&harness, "me");
    running.wait_refreshed(1);
    assert_eq!(harness.counts(), [1, 1, 0, 0, 0]);

    running.refresh();
    running.wait_refreshed(2);
    assert_eq!(harness.counts(), [1, 2, 0, 0, 0], "credentials that live are kept");

    harness.emulator.expire_credentials();
    running.refresh();
    let token = running.wait_refreshed(3);
    assert_eq!(token["failed"], 0);
    assert_eq!(harness.counts(), [2, 4, 0, 0, 0]);
    let answers: Vec<_> = harness.calls(Service::Ecr).into_iter().map(|call| call.error).collect();
    assert_eq!(answers, [None, None, Some("ExpiredTokenException".into()), None]);
    harness.pull(HOST);
}

#[test]
fn expired_keys_of_a_person_are_asked_with_twice_and_then_reported() {
    let harness = Harness::new(BINARY).without_keys();
    let [id, secret, token] = harness.session();
    harness.emulator.expire_credentials();
    let once = harness.once(|command| {
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
        command.env("AWS_SESSION_TOKEN", token);
    });
    once.failed_with(&["ExpiredTokenException", "renew the AWS credentials"]);
    assert_eq!(harness.emulator.count(Service::Ecr), 2);
}

#[test]
fn pod_identity_credentials_that_expired_are_fetched_again() {
    let harness = Harness::new(BINARY).without_keys();
    let token = harness.write("pod-token", ecr_emulator::POD_IDENTITY_TOKEN);
    let running = harness.run(|command| {
        let url = format!("{}/v1/credentials", harness.emulator.endpoint());
        command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
        command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token);
    });
    running.wait_refreshed(1);
    harness.emulator.expire_credentials();
    running.refresh();
    running.wait_refreshed(2);
    assert_eq!(harness.counts(), [0, 3, 0, 2, 0]);
}
