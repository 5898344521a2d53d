//! A registry opens to its own region's tokens, while they last, and to nothing else.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ecr_emulator::{Emulator, Fault, Reason, Service, Settings};

use crate::common::{Answer, Ask, ECR, ECR_PUBLIC, Signer, ecr_token};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn start() -> Emulator {
    Emulator::start(Settings::default()).unwrap()
}

fn get(emulator: &Emulator, host: &str, path: &str, token: &str) -> Answer {
    let ask = Ask::new("GET", path).header("host", host).header("authorization", &format!("Basic {token}"));
    ask.send(&emulator.endpoint()).unwrap()
}

fn last_reason(emulator: &Emulator) -> Reason {
    emulator.refusals().pop().unwrap().reason
}

fn public_token(emulator: &Emulator) -> String {
    let signer = Signer { region: "us-east-1", ..Signer::new("ecr-public") };
    let answer = signer.send(Ask::token(ECR_PUBLIC), &emulator.endpoint()).json();
    answer["authorizationData"]["authorizationToken"].as_str().unwrap().to_owned()
}

#[test]
fn without_credentials_it_challenges() {
    let emulator = start();
    let answer = Ask::new("GET", "/v2/").header("host", HOST).send(&emulator.endpoint()).unwrap();
    assert_eq!(answer.status, 401);
    let challenge = format!("Basic realm=\"https://{HOST}/\",service=\"ecr.amazonaws.com\"");
    assert_eq!(answer.header("www-authenticate"), Some(challenge.as_str()));
    assert_eq!(last_reason(&emulator), Reason::NoCredentials);
}

#[test]
fn a_token_opens_every_account_of_its_region_and_no_other_region() {
    let emulator = start();
    let token = ecr_token(&emulator, "eu-west-1");
    assert_eq!(get(&emulator, HOST, "/v2/", &token).status, 200);
    assert_eq!(get(&emulator, "999999999999.dkr.ecr.eu-west-1.amazonaws.com", "/v2/", &token).status, 200);
    let pull = emulator.pulls().remove(0);
    assert_eq!((pull.host.as_str(), pull.region.as_deref(), pull.token), (HOST, Some("eu-west-1"), 1));
    assert_eq!(pull.principal, "arn:aws:iam::123456789012:user/emulated");
    assert_eq!(get(&emulator, "123456789012.dkr.ecr.us-east-1.amazonaws.com", "/v2/", &token).status, 400);
    assert_eq!(last_reason(&emulator), Reason::WrongRegion("eu-west-1".to_owned()));
}

#[test]
fn whatever_was_not_issued_is_rejected() {
    let emulator = start();
    let token = ecr_token(&emulator, "eu-west-1");
    let password = String::from_utf8(STANDARD.decode(&token).unwrap()).unwrap().replacen("AWS:", "", 1);
    let cases = [
        (STANDARD.encode("AWS:guessed"), Reason::UnknownToken),
        (STANDARD.encode("AWS:"), Reason::UnknownToken),
        (STANDARD.encode(format!("aws:{password}")), Reason::NotAws),
        ("%%%".to_owned(), Reason::NotUnderstood),
    ];
    for (credentials, reason) in cases {
        assert_eq!(get(&emulator, HOST, "/v2/", &credentials).status, 401);
        assert_eq!(last_reason(&emulator), reason);
    }
    assert!(emulator.pulls().is_empty());
}

#[test]
fn a_token_expires_by_the_emulators_clock_and_can_be_revoked() {
    let emulator = start();
    emulator.set_token_lifetime(Duration::from_secs(60));
    let token = ecr_token(&emulator, "eu-west-1");
    emulator.set_clock_offset(50);
    assert_eq!(get(&emulator, HOST, "/v2/", &token).status, 200);
    emulator.set_clock_offset(61);
    let answer = get(&emulator, HOST, "/v2/", &token);
    assert_eq!(answer.status, 401);
    let message = &answer.json()["errors"][0]["message"];
    assert_eq!(message, "Your authorization token has expired. Reauthenticate and try again.");
    assert_eq!(last_reason(&emulator), Reason::ExpiredToken);
    emulator.set_clock_offset(0);
    emulator.revoke_tokens();
    assert_eq!(get(&emulator, HOST, "/v2/", &token).status, 401);
    assert_eq!(last_reason(&emulator), Reason::RevokedToken);
    let fresh = ecr_token(&emulator, "eu-west-1");
    assert_eq!(get(&emulator, HOST, "/v2/", &fresh).status, 200);
}

#[test]
fn public_and_private_tokens_do_not_mix() {
    let emulator = start();
    let (private, public) = (ecr_token(&emulator, "us-east-1"), public_token(&emulator));
    let east = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    assert_eq!(get(&emulator, "public.ecr.aws", "/v2/", &public).status, 200);
    assert_eq!(get(&emulator, east, "/v2/", &private).status, 200);
    assert_eq!(get(&emulator, "public.ecr.aws", "/v2/", &private).status, 400);
    assert_eq!(get(&emulator, east, "/v2/", &public).status, 400);
    assert_eq!(last_reason(&emulator), Reason::WrongKind);
}

#[test]
fn a_password_with_colons_is_admitted() {
    let emulator = start();
    emulator.push_fault(Service::Ecr, Fault::ColonPassword, 1);
    let answer = Signer::new("ecr").send(Ask::token(ECR), &emulator.endpoint()).json();
    let token = answer["authorizationData"][0]["authorizationToken"].as_str().unwrap();
    assert_eq!(get(&emulator, HOST, "/v2/", token).status, 200);
}

#[test]
fn added_registries_and_named_hosts_belong_to_their_region() {
    let emulator = start();
    let token = ecr_token(&emulator, "eu-west-1");
    let (near, far) = (emulator.add_registry("eu-west-1"), emulator.add_registry("us-east-1"));
    let ping = |address: &str| {
        let ask = Ask::new("GET", "/v2/").header("authorization", &format!("Basic {token}"));
        ask.send(&format!("http://{address}")).unwrap().status
    };
    assert_eq!((ping(&near), ping(&far)), (200, 400));
    assert_eq!(get(&emulator, "registry.internal:8443", "/v2/", &token).status, 404);
    emulator.name_registry("registry.internal", "eu-west-1");
    assert_eq!(get(&emulator, "registry.internal:8443", "/v2/", &token).status, 200);
}

#[test]
fn the_image_and_the_chart_are_there() {
    let emulator = start();
    let token = ecr_token(&emulator, "eu-west-1");
    for (name, tag) in [("app", "1.0"), ("charts/hello", "1.0.0")] {
        let get = |path: String| get(&emulator, HOST, &path, &token);
        assert_eq!(get(format!("/v2/{name}/tags/list")).json()["tags"][0], tag);
        let manifest = get(format!("/v2/{name}/manifests/{tag}"));
        let digest = manifest.header("docker-content-digest").unwrap();
        assert_eq!(get(format!("/v2/{name}/manifests/{digest}")).body, manifest.body);
        let layer = &manifest.json()["layers"][0];
        let blob = get(format!("/v2/{name}/blobs/{}", layer["digest"].as_str().unwrap()));
        assert_eq!(blob.body.len() as u64, layer["size"].as_u64().unwrap());
    }
}

#[test]
fn an_upstream_sees_admitted_requests_without_the_credential() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"layer") {
            let mut part = [0; 512];
            let count = stream.read(&mut part).unwrap();
            seen.extend_from_slice(&part[..count]);
        }
        let location = format!("location: http://{address}/v2/app/blobs/uploads/1?state=x");
        write!(stream, "HTTP/1.1 202 Accepted\r\n{location}\r\ncontent-length: 0\r\n\r\n").unwrap();
        String::from_utf8(seen).unwrap()
    });
    let emulator = start();
    emulator.set_registry_upstream(Some(&format!("http://{address}")));
    let token = ecr_token(&emulator, "eu-west-1");
    let ask = Ask::new("POST", "/v2/app/blobs/uploads/?mount=y").header("host", HOST).body("layer");
    assert_eq!(ask.send(&emulator.endpoint()).unwrap().status, 401);
    let answer = ask.header("authorization", &format!("Basic {token}")).send(&emulator.endpoint()).unwrap();
    assert_eq!((answer.status, answer.header("location")), (202, Some("/v2/app/blobs/uploads/1?state=x")));
    let seen = upstream.join().unwrap();
    assert!(seen.starts_with("POST /v2/app/blobs/uploads/?mount=y HTTP/1.1\r\n"), "{seen}");
    assert!(!seen.contains("uthorization"), "{seen}");
}
