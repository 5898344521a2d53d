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
fn run_with_key_files(world: &Harness) -> Running {
    let config = world.write(
        "config.yaml",
        "identities: {default: {source: static, accessKeyIdFile: keys/id, secretAccessKeyFile: keys/secret}}\n",
    );
    world.run(|command| {
        command.env("ECR_SIDECAR_CONFIG", config);
    })
}

fn project_keys(world: &Harness, generation: u32, id: &str, secret: &str) {
    std::fs::create_dir_all(world.at("keys")).unwrap();
    project(&world.at("keys"), generation, &[("id", id), ("secret", secret)]);
}

/// `run` with a web identity whose token is projected as kubelet does it.
fn run_with_web_identity(world: &Harness, subject: &str) -> Running {
    project_token(world, 1, subject);
    world.run(|command| {
        command
            .env("AWS_ROLE_ARN", ROLE)
            .env("AWS_WEB_IDENTITY_TOKEN_FILE", world.at("serviceaccount/token"));
    })
}

fn project_token(world: &Harness, generation: u32, subject: &str) {
    std::fs::create_dir_all(world.at("serviceaccount")).unwrap();
    let token = world.web_identity_token(subject);
    project(&world.at("serviceaccount"), generation, &[("token", &token)]);
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
    let world = Harness::with(BINARY, Settings { users, ..Settings::default() }).without_keys();
    project_keys(&world, 1, ACCESS_KEY_ID, SECRET_ACCESS_KEY);
    let running = run_with_key_files(&world);
    let first = running.wait_refreshed(1);
    assert_eq!(world.pull(HOST).principal, User::default().arn);

    project_keys(&world, 2, &new_user().access_key_id, &new_user().secret_access_key);
    let second = running.wait_refreshed(2);
    came_before(&first, &second);
    assert_eq!(world.pull(HOST).principal, new_user().arn);
    let keys: Vec<_> =
        world.calls(Service::Ecr).into_iter().map(|call| call.access_key_id.unwrap()).collect();
    assert_eq!(keys, [ACCESS_KEY_ID, &new_user().access_key_id]);
}

#[test]
fn a_deleted_key_is_tried_slowly_and_its_successor_at_once() {
    let world = Harness::new(BINARY).without_keys();
    project_keys(&world, 1, &new_user().access_key_id, &new_user().secret_access_key); // unknown to this AWS
    let running = run_with_key_files(&world);
    let failed = running.wait_token("a refusal", |token| token["failed"] == 1);
    assert_eq!(failed["last_error"]["class"], "denied");
    assert!(world.nothing_written());

    project_keys(&world, 2, ACCESS_KEY_ID, SECRET_ACCESS_KEY);
    let fixed = running.wait_refreshed(1);
    came_before(&failed, &fixed);
    assert_eq!(fixed["last_error"], Value::Null);
    assert_eq!(world.pull(HOST).principal, User::default().arn);
    assert_eq!(world.emulator.count(Service::Ecr), 2);
}

#[test]
fn a_key_file_that_goes_leaves_the_credential_and_its_return_fixes_it() {
    let world = Harness::new(BINARY).without_keys();
    world.write("keys/id", ACCESS_KEY_ID);
    world.write("keys/secret", SECRET_ACCESS_KEY);
    let running = run_with_key_files(&world);
    running.wait_refreshed(1);
    let before = world.bytes();
    std::fs::remove_file(world.at("keys/id")).unwrap();
    let failed = running.wait_token("an error", |token| !token["last_error"].is_null());
    assert!(
        failed["last_error"]["message"].as_str().unwrap().contains("access key id in keys/id"),
        "{failed}"
    );
    assert_eq!(world.bytes(), before);
    assert!(running.is_ready());
    world.write("keys/id", ACCESS_KEY_ID);
    came_before(&failed, &running.wait_refreshed(2));
}

#[test]
fn a_web_identity_token_that_kubelet_replaces_is_used_at_once() {
    let world = Harness::new(BINARY).without_keys();
    let running = run_with_web_identity(&world, "old");
    let first = running.wait_refreshed(1);
    project_token(&world, 2, "new");
    let second = running.wait_refreshed(2);
    came_before(&first, &second);
    let subjects: Vec<_> =
        world.calls(Service::Sts).into_iter().map(|call| call.principal.unwrap()).collect();
    assert_eq!(subjects, ["old", "new"]);
    assert_eq!(world.emulator.count(Service::Ecr), 2);
}

fn expired_token(world: &Harness, times: u32) {
    let fault = Fault::Error {
        status: 400,
        code: "ExpiredTokenException".into(),
        message: "Token expired: current date/time must be before the expiration date/time".into(),
    };
    world.emulator.push_fault(Service::Sts, fault, times);
}

#[test]
fn a_web_identity_token_that_sts_calls_expired_is_read_again_and_asked_with_once_more() {
    let world = Harness::new(BINARY).without_keys();
    expired_token(&world, 1);
    let running = run_with_web_identity(&world, "me");
    let token = running.wait_refreshed(1);
    assert_eq!((&token["refreshed"], &token["failed"]), (&1.into(), &0.into()));
    assert_eq!(world.counts(), [2, 1, 0, 0, 0]);
}

#[test]
fn a_web_identity_token_that_stays_expired_is_asked_with_twice_and_then_slowly_until_it_is_replaced() {
    let world = Harness::new(BINARY).without_keys();
    expired_token(&world, 2);
    let running = run_with_web_identity(&world, "old");
    let failed = running.wait_token("a refusal", |token| token["failed"] == 1);
    assert_eq!(failed["last_error"]["class"], "stale-input");
    assert!(failed["last_error"]["remedy"].as_str().unwrap().contains("kubelet"), "{failed}");
    assert_eq!(world.counts(), [2, 0, 0, 0, 0]);
    project_token(&world, 2, "new");
    came_before(&failed, &running.wait_refreshed(1));
    assert_eq!(world.counts(), [3, 1, 0, 0, 0]);
}

#[test]
fn aws_credentials_that_ecr_calls_expired_are_resolved_again_and_asked_with_once_more() {
    let world = Harness::new(BINARY).without_keys();
    let running = run_with_web_identity(&world, "me");
    running.wait_refreshed(1);
    assert_eq!(world.counts(), [1, 1, 0, 0, 0]);

    running.refresh();
    running.wait_refreshed(2);
    assert_eq!(world.counts(), [1, 2, 0, 0, 0], "credentials that live are kept");

    world.emulator.expire_credentials();
    running.refresh();
    let token = running.wait_refreshed(3);
    assert_eq!(token["failed"], 0);
    assert_eq!(world.counts(), [2, 4, 0, 0, 0]);
    let answers: Vec<_> = world.calls(Service::Ecr).into_iter().map(|call| call.error).collect();
    assert_eq!(answers, [None, None, Some("ExpiredTokenException".into()), None]);
    world.pull(HOST);
}

#[test]
fn expired_keys_of_a_person_are_asked_with_twice_and_then_reported() {
    let world = Harness::new(BINARY).without_keys();
    let [id, secret, token] = world.session();
    world.emulator.expire_credentials();
    let once = world.once(|command| {
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
        command.env("AWS_SESSION_TOKEN", token);
    });
    once.failed_with(&["ExpiredTokenException", "renew the AWS credentials"]);
    assert_eq!(world.emulator.count(Service::Ecr), 2);
}

#[test]
fn pod_identity_credentials_that_expired_are_fetched_again() {
    let world = Harness::new(BINARY).without_keys();
    let token = world.write("pod-token", ecr_emulator::POD_IDENTITY_TOKEN);
    let running = world.run(|command| {
        let url = format!("{}/v1/credentials", world.emulator.endpoint());
        command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
        command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token);
    });
    running.wait_refreshed(1);
    world.emulator.expire_credentials();
    running.refresh();
    running.wait_refreshed(2);
    assert_eq!(world.counts(), [0, 3, 0, 2, 0]);
}
