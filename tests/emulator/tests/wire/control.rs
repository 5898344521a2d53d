//! The emulator as a process of its own, scripted over HTTP; and what happens when something inside it panics.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use ecr_emulator::{Emulator, Settings};
use serde_json::{Value, json};
use test_support::files::replace;

use crate::common::{Ask, ECR, Signer, shipped};

struct Process {
    child: Child,
    lines: Vec<(String, String)>,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ecr-emulator"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let (name, value) =
                line.unwrap().split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
            let last = name == "ca-file";
            lines.push((name, value));
            if last {
                break;
            }
        }
        Self { child, lines }
    }

    fn line(&self, name: &str) -> &str {
        &self
            .lines
            .iter()
            .find(|(key, _)| key == name)
            .unwrap_or_else(|| panic!("no {name}: {:?}", self.lines))
            .1
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already where the test did its work.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn control(endpoint: &str, method: &'static str, path: &str, body: &str) -> (u16, serde_json::Value) {
    let answer = Ask::new(method, &format!("/_emulator/{path}")).body(body).send(endpoint).unwrap();
    (answer.status, answer.json())
}

fn token_status(endpoint: &str) -> u16 {
    Signer::new("ecr").send(Ask::token(ECR), endpoint).status
}

#[test]
fn the_binary_prints_where_it_listens_obeys_and_ends_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("ca.pem");
    let arguments = [
        "--registry",
        "us-east-1=127.0.0.1:0",
        "--token-lifetime",
        "60",
        "--ca-file",
        copy.to_str().unwrap(),
    ];
    let mut process = Process::start(&arguments);
    let endpoint = process.line("endpoint").to_owned();
    assert!(std::fs::read_to_string(&copy).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(process.line("registry").starts_with("us-east-1 127.0.0.1:"));
    let order = r#"{"service": "ecr", "fault": {"status": 503}, "times": 1}"#;
    assert_eq!(control(&endpoint, "PUT", "faults", order).0, 200);
    assert_eq!((token_status(&endpoint), token_status(&endpoint)), (503, 200));
    let order = r#"{"tokenLifetimeSeconds": 1.5, "clockOffsetSeconds": 3600}"#;
    assert_eq!(control(&endpoint, "PUT", "settings", order).0, 200);
    assert_eq!(token_status(&endpoint), 400);
    let (_, calls) = control(&endpoint, "GET", "calls", "");
    let statuses: Vec<_> =
        calls.as_array().unwrap().iter().map(|call| call["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [503, 200, 400]);
    assert_eq!(calls[2]["error"], "InvalidSignatureException");
    let id = process.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(process.child.wait().unwrap().success());
}

#[test]
fn an_unusable_policy_file_is_an_error_with_its_name_and_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.json");
    let error = || {
        let mut emulator = Command::new(env!("CARGO_BIN_EXE_ecr-emulator"));
        let output = emulator.arg("--policy").arg(&file).output().unwrap();
        assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()));
        String::from_utf8(output.stderr).unwrap().replace(file.to_str().unwrap(), "FILE")
    };
    assert_eq!(error(), "ecr-emulator: FILE: No such file or directory (os error 2)\n");
    replace(&file, "Version: 2012-10-17");
    assert_eq!(error(), "ecr-emulator: FILE: expected value at line 1 column 1\n");
    replace(&file, &shipped("trust-irsa.json"));
    assert_eq!(error(), "ecr-emulator: FILE: a statement of this kind of policy has a Principal\n");
}

#[test]
fn a_wrong_order_is_rejected_with_the_reason() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let rejected = |method, path, body| control(&emulator.endpoint(), method, path, body);
    let (status, answer) = rejected("PUT", "faults", r#"{"service": "sts", "fault": "not-base64"}"#);
    assert_eq!((status, answer["error"].as_str()), (400, Some("NotBase64 means nothing for Sts")));
    assert_eq!(rejected("PUT", "faults", r#"{"service": "s3", "fault": "hang"}"#).0, 400);
    assert_eq!(rejected("PUT", "settings", r#"{"tokenLifetime": 1}"#).0, 400);
    assert_eq!(rejected("PUT", "settings", r#"{"registryUpstream": "http://registry.example"}"#).0, 400);
    assert_eq!(rejected("GET", "nothing", "").0, 404);
}

#[test]
fn policies_are_attached_and_cleared_over_http() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let endpoint = emulator.endpoint();
    let order = |attach_to: Value, document: &str| {
        let document: Value = serde_json::from_str(&shipped(document)).unwrap();
        let body = json!({"attachTo": attach_to, "documents": [document]}).to_string();
        control(&endpoint, "PUT", "policies", &body).0
    };
    let user = json!({"identity": "arn:aws:iam::123456789012:user/emulated"});
    assert_eq!(order(user.clone(), "public-policy.json"), 200);
    assert_eq!(token_status(&endpoint), 400);
    let (_, calls) = control(&endpoint, "GET", "calls", "");
    assert_eq!(calls[0]["denied"], "ecr:GetAuthorizationToken");
    assert_eq!(order(user.clone(), "pull-policy.json"), 200);
    assert_eq!(token_status(&endpoint), 200);
    assert_eq!(order(json!({"account": "123456789012"}), "public-policy.json"), 200);
    assert_eq!(token_status(&endpoint), 400);
    assert_eq!(control(&endpoint, "DELETE", "policies", "").0, 200);
    assert_eq!(token_status(&endpoint), 200);
    for (attach_to, document) in [
        (user, "trust-irsa.json"),
        (json!("vpc-endpoint"), "pull-policy.json"),
        (json!({"bucket": "b"}), "pull-policy.json"),
    ] {
        assert_eq!(order(attach_to.clone(), document), 400, "{attach_to} {document}");
    }
    let order = r#"{"pullThroughCache": "docker-hub"}"#;
    assert_eq!(control(&endpoint, "PUT", "settings", order).0, 200);
}

#[test]
fn the_rest_of_the_control_api_answers() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let endpoint = emulator.endpoint();
    for (method, path) in [
        ("DELETE", "faults"),
        ("POST", "revoke-tokens"),
        ("POST", "expire-credentials"),
        ("GET", "pulls"),
        ("GET", "refusals"),
        ("GET", "connects"),
        ("GET", "panic"),
    ] {
        assert_eq!(control(&endpoint, method, path, "").0, 200, "{method} {path}");
    }
}

#[test]
#[should_panic(expected = "the emulator panicked: asked for by the control API")]
fn a_panic_inside_surfaces_in_the_test() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    assert!(Ask::new("POST", "/_emulator/panic").send(&emulator.endpoint()).is_err());
    loop {
        emulator.calls();
        std::thread::yield_now();
    }
}

#[test]
#[should_panic(expected = "the emulator panicked")]
fn a_panic_inside_surfaces_at_the_drop_at_the_latest() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    assert!(Ask::new("POST", "/_emulator/panic").send(&emulator.endpoint()).is_err());
    while control(&emulator.endpoint(), "GET", "panic", "").1.is_null() {}
    drop(emulator);
}

#[test]
fn nothing_is_left_behind() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let (ca, address) = (emulator.ca_file().to_owned(), emulator.endpoint().replace("http://", ""));
    assert!(ca.is_file());
    drop(emulator);
    assert!(!ca.parent().unwrap().exists());
    assert!(TcpStream::connect(address).is_err());
}
