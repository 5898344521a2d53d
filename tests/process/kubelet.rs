//! `kubelet-credential-provider`: the kubelet's protocol, whom it asks AWS for, and what it never gives to whom.

mod pulls;
mod requests;
mod service;
mod service_accounts;

use std::process::{Command, Output};

use base64::{Engine, engine::general_purpose::STANDARD};
use ecr_emulator::{Role, Settings, Trust};
use serde_json::{Value, json};
use test_support::{Harness, harness::HOST};

use crate::{BINARY, helper::ask};

const ROLE_A: &str = "arn:aws:iam::123456789012:role/team-a";
const ROLE_B: &str = "arn:aws:iam::123456789012:role/team-b";
const A: &str = "system:serviceaccount:team-a:puller";
const B: &str = "system:serviceaccount:team-b:puller";
const ANNOTATION: &str = "eks.amazonaws.com/role-arn";
/// Half of a token's life.
const HALF: u64 = 6 * 3600;

/// A node with the default user's keys, and roles that trust one ServiceAccount each.
fn node() -> Harness {
    let roles = [(ROLE_A, A), (ROLE_B, B)];
    let roles = roles.map(|(role, subject)| Role::new(role, [Trust::Subject(subject.to_owned())])).to_vec();
    Harness::with(BINARY, Settings { roles, ..Settings::default() })
}

fn provider(harness: &Harness) -> Command {
    let mut command = harness.command("kubelet-credential-provider");
    command.env_remove("ECR_SIDECAR_REGISTRIES").env_remove("ECR_SIDECAR_DOCKER_CONFIG");
    command
}

fn request(image: &str) -> Value {
    json!({
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "kind": "CredentialProviderRequest",
        "image": image,
    })
}

/// A request for a pod of the ServiceAccount `subject`, with these annotations of it.
fn of_pod(harness: &Harness, subject: &str, annotations: &[(&str, &str)]) -> Value {
    let mut request = request(&format!("{HOST}/app:1.0"));
    request["serviceAccountToken"] = json!(harness.web_identity_token(subject));
    for (key, value) in annotations {
        request["serviceAccountAnnotations"][*key] = json!(value);
    }
    request
}

fn answer(harness: &Harness, request: &Value) -> Output {
    ask(&mut provider(harness), &request.to_string())
}

#[track_caller]
fn response(output: &Output) -> Value {
    let (said, reported) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{reported}");
    serde_json::from_str(&said).unwrap()
}

/// The password for `registry`, which the registry lets in, whose principal it was given to, and for how many seconds the
/// kubelet may keep it.
#[track_caller]
fn credential(harness: &Harness, registry: &str, output: &Output) -> (String, String, u64) {
    let response = response(output);
    let auth = response["auth"].as_object().unwrap();
    assert_eq!((auth.len(), auth[registry]["username"].as_str()), (1, Some("AWS")), "only {registry}");
    let password = auth[registry]["password"].as_str().unwrap().to_owned();
    let pull = harness.admits(registry, &STANDARD.encode(format!("AWS:{password}")));
    let kept = response["cacheDuration"].as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap();
    (password, pull.principal, kept)
}

/// No response, and a line with all `parts`.
#[track_caller]
fn failed(output: &Output, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
    assert_eq!(said.lines().count(), 1, "one line: {said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}
