//! Nothing is believed that isn't signed by a known key, for the right service and region, and just now.

use ecr_emulator::{Denial, Emulator, Settings};

use crate::common::{Answer, Ask, ECR, ECR_PUBLIC, Signer};

fn start() -> Emulator {
    Emulator::start(Settings::default()).unwrap()
}

fn ecr(signer: &Signer, emulator: &Emulator) -> Answer {
    signer.send(Ask::token(ECR), &emulator.endpoint())
}

fn sts(signer: &Signer, emulator: &Emulator) -> Answer {
    signer.send(Ask::sts("Action=GetCallerIdentity"), &emulator.endpoint())
}

/// What ECR and STS answer to the same mistake.
fn both(mistake: impl Fn(&mut Signer)) -> (String, String) {
    let emulator = start();
    let signer = |service| {
        let mut signer = Signer::new(service);
        mistake(&mut signer);
        signer
    };
    (ecr(&signer("ecr"), &emulator).code(), sts(&signer("sts"), &emulator).code())
}

fn codes(ecr: &str, sts: &str) -> (String, String) {
    (ecr.to_owned(), sts.to_owned())
}

#[test]
fn a_good_signature_is_accepted_and_written_down() {
    let emulator = start();
    let answer = ecr(&Signer::new("ecr"), &emulator);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let call = emulator.calls().remove(0);
    assert_eq!(call.region.as_deref(), Some("eu-west-1"));
    assert_eq!(call.access_key_id.as_deref(), Some(ecr_emulator::ACCESS_KEY_ID));
    assert_eq!(call.principal.as_deref(), Some("arn:aws:iam::123456789012:user/emulated"));
    assert_eq!((call.operation.as_str(), call.status), ("GetAuthorizationToken", Some(200)));
    assert!(call.registry_ids.is_empty());
}

#[test]
fn tokens_differ_and_live_as_long_as_the_settings_say() {
    let emulator = start();
    let answers = [0; 2].map(|_| ecr(&Signer::new("ecr"), &emulator).json()["authorizationData"][0].clone());
    assert_ne!(answers[0]["authorizationToken"], answers[1]["authorizationToken"]);
    let now = jiff::Timestamp::now().as_second() as f64;
    let lifetime = answers[0]["expiresAt"].as_f64().unwrap() - now;
    assert!((lifetime - 43_200.0).abs() < 60.0, "{lifetime}");
    assert_eq!(answers[0]["proxyEndpoint"], "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com");
}

#[test]
fn registry_ids_are_written_down() {
    let emulator = start();
    let ask = Ask::token(ECR).body(r#"{"registryIds":["999999999999"]}"#);
    let answer = Signer::new("ecr").send(ask, &emulator.endpoint()).json();
    let endpoint = &answer["authorizationData"][0]["proxyEndpoint"];
    assert_eq!(endpoint, "https://999999999999.dkr.ecr.eu-west-1.amazonaws.com");
    assert_eq!(emulator.calls()[0].registry_ids, ["999999999999"]);
}

#[test]
fn a_wrong_secret_is_a_wrong_signature() {
    let answers = both(|signer| signer.secret.push('x'));
    assert_eq!(answers, codes("InvalidSignatureException", "SignatureDoesNotMatch"));
}

#[test]
fn an_unknown_key_is_an_invalid_token() {
    let answers = both(|signer| signer.key = "AKIAUNKNOWN000000000".to_owned());
    assert_eq!(answers, codes("UnrecognizedClientException", "InvalidClientTokenId"));
}

#[test]
fn a_session_token_must_be_the_keys_own() {
    let answers = both(|signer| signer.session_token = Some("made-up".to_owned()));
    assert_eq!(answers, codes("UnrecognizedClientException", "InvalidClientTokenId"));
}

#[test]
fn a_skewed_clock_is_reported_both_ways() {
    let emulator = start();
    for (offset, message) in [(3600, "Signature expired: "), (-3600, "Signature not yet current: ")] {
        emulator.set_clock_offset(offset);
        let answer = ecr(&Signer::new("ecr"), &emulator);
        assert_eq!(answer.code(), "InvalidSignatureException");
        assert!(answer.json()["message"].as_str().unwrap().starts_with(message), "{}", answer.text());
        let date = answer.header("date").unwrap();
        let date = jiff::fmt::rfc2822::parse(date).unwrap().timestamp().as_second();
        assert!((date - jiff::Timestamp::now().as_second() - offset).abs() < 60);
        let answer = sts(&Signer::new("sts"), &emulator);
        assert_eq!(answer.code(), "SignatureDoesNotMatch");
        assert!(answer.text().contains(message), "{}", answer.text());
    }
    emulator.set_clock_offset(200);
    assert_eq!(ecr(&Signer::new("ecr"), &emulator).status, 200);
}

#[test]
fn a_signature_is_for_one_service_and_region() {
    let emulator = start();
    let answer = ecr(&Signer::new("sts"), &emulator);
    assert_eq!(answer.code(), "InvalidSignatureException");
    assert!(answer.text().contains("scoped to correct service: 'ecr'"), "{}", answer.text());
    let elsewhere = Ask::token(ECR).header("host", "api.ecr.us-east-1.amazonaws.com");
    let answer = Signer::new("ecr").send(elsewhere, &emulator.endpoint());
    assert!(answer.text().contains("scoped to a valid region"), "{}", answer.text());
    let public = |region| {
        let signer = Signer { region, ..Signer::new("ecr-public") };
        signer.send(Ask::token(ECR_PUBLIC), &emulator.endpoint())
    };
    assert_eq!(public("eu-west-1").code(), "InvalidSignatureException");
    assert!(public("us-east-1").json()["authorizationData"]["expiresAt"].is_f64());
}

#[test]
fn an_unsigned_request_is_rejected() {
    let emulator = start();
    let ecr = Ask::token(ECR).send(&emulator.endpoint()).unwrap();
    assert_eq!((ecr.status, ecr.code().as_str()), (400, "MissingAuthenticationTokenException"));
    let sts = Ask::sts("Action=GetCallerIdentity").send(&emulator.endpoint()).unwrap();
    assert_eq!((sts.status, sts.code().as_str()), (403, "MissingAuthenticationToken"));
}

#[test]
fn a_denied_action_names_the_principal_and_the_action() {
    let deny = |action: &str| {
        let denial = Denial { arn_prefix: "arn:aws:iam::123456789012:user/".into(), action: action.into() };
        Emulator::start(Settings { deny: vec![denial], ..Settings::default() }).unwrap()
    };
    let answer = ecr(&Signer::new("ecr"), &deny("ecr:GetAuthorizationToken"));
    assert_eq!((answer.status, answer.code().as_str()), (400, "AccessDeniedException"));
    assert_eq!(
        answer.json()["message"],
        "User: arn:aws:iam::123456789012:user/emulated is not authorized to perform: ecr:GetAuthorizationToken on \
         resource: * because no identity-based policy allows the ecr:GetAuthorizationToken action"
    );
    let public = Signer { region: "us-east-1", ..Signer::new("ecr-public") };
    let answer = public.send(Ask::token(ECR_PUBLIC), &deny("sts:GetServiceBearerToken").endpoint());
    assert!(answer.text().contains("sts:GetServiceBearerToken"), "{}", answer.text());
}

#[test]
fn an_unknown_operation_or_a_wrong_body_is_an_error() {
    let emulator = start();
    let send = |target: &str, body: &str| {
        let ask = Ask::new("POST", "/").header("x-amz-target", target).body(body);
        Signer::new("ecr").send(ask, &emulator.endpoint())
    };
    assert_eq!(send(&format!("{ECR}.DescribeImages"), "{}").code(), "UnknownOperationException");
    for body in ["", "[]", "{"] {
        assert_eq!(
            send(&format!("{ECR}.GetAuthorizationToken"), body).code(),
            "SerializationException",
            "{body}"
        );
    }
}
