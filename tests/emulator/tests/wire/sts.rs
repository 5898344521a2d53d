//! Roles are assumed only by whom they trust, and their sessions sign and expire.

use std::time::Duration;

use ecr_emulator::{Emulator, Role, Settings, Trust};

use crate::common::{Answer, Ask, ECR, Signer};

const ROLE: &str = "arn:aws:iam::999999999999:role/team/ecr-pull";
const SUBJECT: &str = "system:serviceaccount:flux-system:image-reflector-controller";
const HOUR: Duration = Duration::from_secs(3600);

fn assume(signer: &Signer, emulator: &Emulator, more: &str) -> Answer {
    let ask = Ask::sts(&format!("Action=AssumeRole&RoleArn={ROLE}&RoleSessionName=test{more}"));
    signer.send(ask, &emulator.endpoint())
}

fn with_web_identity(emulator: &Emulator, token: &str) -> Answer {
    let parameters = format!("RoleArn={ROLE}&RoleSessionName=test&WebIdentityToken={token}");
    Ask::sts(&format!("Action=AssumeRoleWithWebIdentity&{parameters}")).send(&emulator.endpoint()).unwrap()
}

fn element(answer: &Answer, name: &str) -> String {
    let text = answer.text();
    let rest = text.split(&format!("<{name}>")).nth(1).unwrap_or_else(|| panic!("no {name}: {text}"));
    rest.split('<').next().unwrap().to_owned()
}

/// A signer with the credentials of an answer.
fn session(answer: &Answer, service: &'static str) -> Signer {
    Signer {
        key: element(answer, "AccessKeyId"),
        secret: element(answer, "SecretAccessKey"),
        session_token: Some(element(answer, "SessionToken")),
        ..Signer::new(service)
    }
}

#[test]
fn a_session_signs_until_it_expires() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let answer = assume(&Signer::new("sts"), &emulator, "&DurationSeconds=900");
    assert_eq!(element(&answer, "Arn"), "arn:aws:sts::999999999999:assumed-role/ecr-pull/test");
    let token = || session(&answer, "ecr").send(Ask::token(ECR), &emulator.endpoint());
    let entry = token().json()["authorizationData"][0].clone();
    assert_eq!(entry["proxyEndpoint"], "https://999999999999.dkr.ecr.eu-west-1.amazonaws.com");
    let identity = session(&answer, "sts").send(Ask::sts("Action=GetCallerIdentity"), &emulator.endpoint());
    assert_eq!(element(&identity, "Account"), "999999999999");
    emulator.set_clock_offset(901);
    let late = Signer { time: Signer::new("ecr").time + 901, ..session(&answer, "ecr") };
    let late = late.send(Ask::token(ECR), &emulator.endpoint());
    assert_eq!((late.status, late.code().as_str()), (400, "ExpiredTokenException"));
}

#[test]
fn expire_credentials_ends_every_session_at_once() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let answer = assume(&Signer::new("sts"), &emulator, "");
    emulator.expire_credentials();
    let ecr = session(&answer, "ecr").send(Ask::token(ECR), &emulator.endpoint());
    assert_eq!(ecr.code(), "ExpiredTokenException");
    let sts = session(&answer, "sts").send(Ask::sts("Action=GetCallerIdentity"), &emulator.endpoint());
    assert_eq!((sts.status, sts.code().as_str()), (403, "ExpiredToken"));
    let fresh = assume(&Signer::new("sts"), &emulator, "");
    assert_eq!(session(&fresh, "ecr").send(Ask::token(ECR), &emulator.endpoint()).status, 200);
}

#[test]
fn a_chained_role_lasts_an_hour_at_most() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let first = assume(&Signer::new("sts"), &emulator, "&DurationSeconds=43200");
    assert_eq!(first.status, 200, "{}", first.text());
    let chained = |more| assume(&session(&first, "sts"), &emulator, more);
    assert_eq!(chained("&DurationSeconds=3601").code(), "ValidationError");
    assert_eq!(chained("").status, 200);
}

#[test]
fn parameters_are_validated() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let code = |parameters: &str| Signer::new("sts").send(Ask::sts(parameters), &emulator.endpoint()).code();
    assert_eq!(code("Action=AssumeRole&RoleSessionName=test"), "ValidationError");
    assert_eq!(code("Action=AssumeRole&RoleArn=role&RoleSessionName=test"), "ValidationError");
    assert_eq!(code(&format!("Action=AssumeRole&RoleArn={ROLE}&RoleSessionName=a%20b")), "ValidationError");
    assert_eq!(assume(&Signer::new("sts"), &emulator, "&DurationSeconds=60").code(), "ValidationError");
    assert_eq!(code("Action=GetFederationToken"), "InvalidAction");
    assert_eq!(
        Ask::new("POST", "/").body("Action=AssumeRole").send(&emulator.endpoint()).unwrap().code(),
        "InvalidAction"
    );
}

#[test]
fn an_external_id_must_match() {
    let mut role = Role::new(ROLE, [Trust::Any]);
    role.external_id = Some("gitops".to_owned());
    let emulator = Emulator::start(Settings { roles: vec![role], ..Settings::default() }).unwrap();
    let signer = Signer::new("sts");
    let refused = assume(&signer, &emulator, "");
    assert_eq!((refused.status, refused.code().as_str()), (403, "AccessDenied"));
    assert!(refused.text().contains("is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam"));
    assert_eq!(assume(&signer, &emulator, "&ExternalId=wrong").code(), "AccessDenied");
    assert_eq!(assume(&signer, &emulator, "&ExternalId=gitops").status, 200);
}

#[test]
fn a_web_identity_token_needs_no_signature_of_the_request() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let token = emulator.web_identity_token(SUBJECT, "sts.amazonaws.com", HOUR);
    let answer = with_web_identity(&emulator, &token);
    assert_eq!(element(&answer, "SubjectFromWebIdentityToken"), SUBJECT);
    assert_eq!(element(&answer, "Audience"), "sts.amazonaws.com");
    assert_eq!(session(&answer, "ecr").send(Ask::token(ECR), &emulator.endpoint()).status, 200);
    assert_eq!(emulator.calls()[0].principal.as_deref(), Some(SUBJECT));
}

#[test]
fn a_bad_web_identity_token_is_rejected() {
    let role = Role::new(ROLE, [Trust::Subject(SUBJECT.to_owned())]);
    let emulator = Emulator::start(Settings { roles: vec![role], ..Settings::default() }).unwrap();
    let code = |token: &str| with_web_identity(&emulator, token).code();
    assert_eq!(code("nonsense"), "InvalidIdentityToken");
    assert_eq!(code(&emulator.web_identity_token(SUBJECT, "other", HOUR)), "InvalidIdentityToken");
    assert_eq!(code(&emulator.web_identity_token("another", "sts.amazonaws.com", HOUR)), "AccessDenied");
    let good = emulator.web_identity_token(SUBJECT, "sts.amazonaws.com", HOUR);
    let expired = emulator.web_identity_token(SUBJECT, "sts.amazonaws.com", Duration::ZERO);
    assert_eq!(code(&expired), "ExpiredTokenException");
    assert_eq!(with_web_identity(&emulator, &good).status, 200);
    emulator.set_clock_offset(3700);
    assert_eq!(code(&good), "ExpiredTokenException");
}
