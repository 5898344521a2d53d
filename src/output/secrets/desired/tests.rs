mod arbitrary;
mod argocd;
mod takeover;

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::*;
use crate::{aws::token::Token, failure::diagnosis::Diagnosis, kubernetes::fake, secret::Secret};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn host() -> RegistryHost {
    HOST.parse().unwrap()
}

fn auth(password: &str) -> String {
    STANDARD.encode(format!("AWS:{password}"))
}

/// The one registry with this password, until then.
fn credentials(password: &str, expires: u64) -> CredentialSet {
    let token = Token { auth: Secret::new(auth(password)), obtained_at: at(0), expires_at: at(expires) };
    CredentialSet { current: [(host(), Arc::new(token))].into(), ..CredentialSet::default() }
}

fn here() -> ObjectRef {
    ObjectRef::new("flux-system", "ecr-credentials")
}

/// The Secret after an apply of `body`.
fn applied(before: Option<&Value>, body: &[u8]) -> Value {
    let mut secret = fake::applied(before, &serde_json::from_slice(body).unwrap());
    secret["metadata"]["resourceVersion"] = json!("2");
    secret
}

/// The Secret after another field manager has changed these fields of its data.
fn edited(secret: &Value, data: &[(&str, &str)]) -> Value {
    let mut secret = secret.clone();
    for (key, value) in data {
        secret["data"][key] = json!(STANDARD.encode(value));
        for entry in secret["metadata"]["managedFields"].as_array_mut().unwrap() {
            if let Some(fields) = entry["fieldsV1"]["f:data"].as_object_mut() {
                fields.remove(&format!("f:{key}"));
            }
        }
    }
    secret
}

fn object(secret: &Value) -> SecretObject {
    serde_json::from_value(secret.clone()).unwrap()
}

fn flux(adopt: bool) -> Content {
    Content::DockerConfig { adopt, base: None }
}

/// A decision of a process that knows nothing of the Secret.
fn decide(
    at: &ObjectRef,
    content: &Content,
    found: Option<&SecretObject>,
    desired: &CredentialSet,
    now: SystemTime,
) -> Result<Decision, Problem> {
    super::decide(at, content, found, &Basis { desired, memory: &Memory::default(), now })
}

fn prepared(config: &str) -> Value {
    json!({"metadata": {"resourceVersion": "1"}, "type": docker_config::TYPE, "data": {docker_config::KEY: STANDARD.encode(config)}})
}

fn config(secret: &Value) -> Value {
    let text = STANDARD.decode(secret["data"][docker_config::KEY].as_str().unwrap()).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Decides, applies, and gives the Secret after that and what is in it then; `None` when nothing is applied.
#[track_caller]
fn step(
    content: &Content,
    secret: Option<&Value>,
    desired: &CredentialSet,
    now: u64,
) -> Option<(Value, InPlace)> {
    let found = secret.map(object);
    let decision = decide(&here(), content, found.as_ref(), desired, at(now)).unwrap();
    let (body, after) = decision.apply?;
    let version = serde_json::from_slice::<Value>(&body).unwrap()["metadata"]["resourceVersion"].clone();
    assert_eq!(version.as_str(), secret.and_then(|secret| secret["metadata"]["resourceVersion"].as_str()));
    Some((applied(secret, &body), after))
}

#[test]
fn what_is_right_is_left_alone() {
    let desired = credentials("one", 1000);
    for before in [None, Some(prepared("{\"auths\":{}}"))] {
        let (secret, after) = step(&flux(false), before.as_ref(), &desired, 0).unwrap();
        assert_eq!(config(&secret), json!({"auths": {HOST: {"auth": auth("one")}}}));
        assert_eq!(secret["type"], docker_config::TYPE);
        assert_eq!(after, [(host(), at(1000))].into());
        assert_eq!(step(&flux(false), Some(&secret), &desired, 0), None);
        let found = object(&secret);
        let rest = decide(&here(), &flux(false), Some(&found), &desired, at(0)).unwrap();
        assert_eq!(rest.in_place, after);
    }
}

#[test]
fn no_step_back() {
    let (secret, _) = step(&flux(false), None, &credentials("theirs", 2000), 0).unwrap();
    let older = credentials("ours", 1990);
    assert_eq!(step(&flux(false), Some(&secret), &older, 0), None);
    let found = object(&secret);
    let decision = decide(&here(), &flux(false), Some(&found), &older, at(0)).unwrap();
    assert_eq!(decision.in_place, [(host(), at(2000))].into(), "theirs counts");
    // before our first token, too
    let none = decide(&here(), &flux(false), Some(&found), &CredentialSet::default(), at(0)).unwrap();
    assert_eq!(none.in_place, [(host(), at(2000))].into());

    // nor forth and back between two that end in the same second: the annotation has no fractions
    let mut same_second = credentials("ours", 2000);
    let token = same_second.current.values_mut().next().unwrap();
    *token = Arc::new(Token { expires_at: at(2000) + Duration::from_millis(900), ..Token::clone(token) });
    assert_eq!(step(&flux(false), Some(&secret), &same_second, 0), None);

    let (newer, after) = step(&flux(false), Some(&secret), &credentials("newer", 2001), 0).unwrap();
    assert_eq!(
        (&config(&newer)["auths"][HOST]["auth"], after),
        (&json!(auth("newer")), [(host(), at(2001))].into())
    );
}

#[test]
fn what_was_edited_counts_for_nothing() {
    let (mut secret, _) = step(&flux(false), None, &credentials("one", 2000), 0).unwrap();
    for edited in
        [json!({"auths": {HOST: {"auth": auth("evil")}}}), json!({"auths": {}}), json!("no docker config")]
    {
        secret["data"][docker_config::KEY] = json!(STANDARD.encode(edited.to_string()));
        let (fixed, _) = step(&flux(false), Some(&secret), &credentials("ours", 1000), 0).unwrap();
        assert_eq!(config(&fixed)["auths"][HOST]["auth"], auth("ours"), "{edited}");
    }
    secret["data"] = json!({});
    assert!(step(&flux(false), Some(&secret), &credentials("ours", 1000), 0).is_some());
}

#[test]
fn what_others_filled_is_theirs() {
    let theirs = prepared(&format!("{{\"auths\":{{\"{HOST}\":{{\"auth\":\"{}\"}}}}}}", auth("cronjob")));
    let found = object(&theirs);
    let problem =
        decide(&here(), &flux(false), Some(&found), &credentials("ours", 1000), at(0)).err().unwrap();
    assert!(
        problem.message.contains("unmanaged") && problem.remedy.diagnosis == Diagnosis::SecretUnmanaged,
        "{problem}"
    );
    let (adopted, _) = step(&flux(true), Some(&theirs), &credentials("ours", 1000), 0).unwrap();
    assert_eq!(step(&flux(false), Some(&adopted), &credentials("ours", 1000), 0), None, "ours from now on");
}

#[test]
fn unmanaged_entries_stay() {
    let others = "{\"auths\":{\"ghcr.io\":{\"auth\":\"bWU6c2VjcmV0\"}},\"x\":1}";
    let (secret, _) = step(&flux(true), Some(&prepared(others)), &credentials("ours", 1000), 0).unwrap();
    let content = config(&secret);
    assert_eq!((&content["auths"]["ghcr.io"]["auth"], &content["x"]), (&json!("bWU6c2VjcmV0"), &json!(1)));
    let retired = CredentialSet { retired: [host()].into(), ..CredentialSet::default() };
    let (left, after) = step(&flux(true), Some(&secret), &retired, 0).unwrap();
    assert_eq!(config(&left)["auths"], json!({"ghcr.io": {"auth": "bWU6c2VjcmV0"}}));
    assert_eq!(after, InPlace::new());
}

#[test]
fn a_warning_names_the_secret() {
    let secret = prepared(r#"{"credsStore": "desktop"}"#);
    let decision = decide(&here(), &flux(true), Some(&object(&secret)), &credentials("a", 1), at(0)).unwrap();
    let [warning] = decision.warnings.as_slice() else { panic!("{:?}", decision.warnings) };
    let beginning = format!("the Secret {}: `credsStore` names `desktop`", here());
    assert!(warning.message.starts_with(&beginning), "{warning:?}");
}

#[test]
fn a_secret_of_another_type_is_rejected_with_the_remedy() {
    let opaque = json!({"metadata": {}, "type": "Opaque", "data": {}});
    let problem = decide(&here(), &flux(true), Some(&object(&opaque)), &credentials("ours", 1000), at(0))
        .err()
        .unwrap();
    assert!(
        problem.message.contains("Opaque") && problem.remedy.diagnosis == Diagnosis::SecretType,
        "{problem}"
    );
}

#[test]
fn no_secret_is_larger_than_is_possible() {
    assert!(reject_size(&here(), LARGEST).is_ok());
    let problem = reject_size(&here(), LARGEST + 1).unwrap_err();
    assert_eq!(problem.remedy.diagnosis, Diagnosis::SecretTooLarge);
    assert!(problem.message.contains("flux-system/ecr-credentials"), "{problem}");
}
