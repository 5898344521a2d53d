//! Credentials of a pod and of an instance are given out only with their token.

use std::time::Duration;

use ecr_emulator::{Emulator, POD_IDENTITY_TOKEN, Service, Settings};
use serde_json::Value;

use crate::common::{Ask, ECR, Signer};

fn signs(emulator: &Emulator, credentials: &Value) -> bool {
    let text = |name: &str| credentials[name].as_str().unwrap().to_owned();
    let signer = Signer {
        key: text("AccessKeyId"),
        secret: text("SecretAccessKey"),
        session_token: Some(text("Token")),
        ..Signer::new("ecr")
    };
    signer.send(Ask::token(ECR), &emulator.endpoint()).status == 200
}

#[test]
fn pod_identity_wants_the_pods_token() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let get = |token: &str| {
        let ask = Ask::new("GET", "/v1/credentials").header("authorization", token);
        ask.send(&emulator.endpoint()).unwrap()
    };
    let none = Ask::new("GET", "/v1/credentials").send(&emulator.endpoint()).unwrap();
    assert_eq!((none.status, none.text().as_str()), (400, "Service account token cannot be empty\n"));
    let unknown = get("another");
    assert_eq!(unknown.status, 404);
    assert!(unknown.text().contains("ResourceNotFoundException"), "{}", unknown.text());
    let good = get(POD_IDENTITY_TOKEN).json();
    assert_eq!(good["AccountId"], "123456789012");
    assert!(signs(&emulator, &good));
    assert_eq!(emulator.count(Service::PodIdentity), 3);
    let principal = "arn:aws:sts::123456789012:assumed-role/pod-role/eks-emulator-pod";
    assert_eq!(emulator.calls()[2].principal.as_deref(), Some(principal));
}

#[test]
fn pod_identity_has_an_association_for_one_service_account() {
    let account = "system:serviceaccount:flux-system:image-reflector-controller";
    let settings = Settings { pod_identity_subject: Some(account.to_owned()), ..Settings::default() };
    let emulator = Emulator::start(settings).unwrap();
    let status = |subject: &str, audience: &str| {
        let token = emulator.web_identity_token(subject, audience, Duration::from_secs(600));
        let ask = Ask::new("GET", "/v1/credentials").header("authorization", &token);
        ask.send(&emulator.endpoint()).unwrap().status
    };
    assert_eq!(status(account, "pods.eks.amazonaws.com"), 200);
    assert_eq!(status("system:serviceaccount:flux-system:other", "pods.eks.amazonaws.com"), 404);
    assert_eq!(status(account, "sts.amazonaws.com"), 400);
}

#[test]
fn imds_wants_a_session_token() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let endpoint = emulator.endpoint();
    let path = "/latest/meta-data/iam/security-credentials/";
    assert_eq!(Ask::new("GET", path).send(&endpoint).unwrap().status, 401);
    assert_eq!(Ask::new("PUT", "/latest/api/token").send(&endpoint).unwrap().status, 400);
    let ask = Ask::new("PUT", "/latest/api/token").header("x-aws-ec2-metadata-token-ttl-seconds", "60");
    let token = ask.send(&endpoint).unwrap().text();
    let get = |path: &str| {
        Ask::new("GET", path).header("x-aws-ec2-metadata-token", &token).send(&endpoint).unwrap()
    };
    assert_eq!(get(path).text(), "node-role");
    let credentials = get(&format!("{path}node-role")).json();
    assert_eq!(credentials["Code"], "Success");
    assert!(signs(&emulator, &credentials));
    assert_eq!(get(&format!("{path}another")).status, 404);
    assert_eq!(get("/latest/dynamic/instance-identity/document").json()["region"], "eu-west-1");
    assert_eq!(get("/latest/meta-data/placement/region").text(), "eu-west-1");
    emulator.set_clock_offset(61);
    assert_eq!(get(path).status, 401);
}
