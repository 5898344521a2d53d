//! Roles are assumed by whom their trust policies name, and a session may do what its role and its own policy allow.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ecr_emulator::{Attachment, Emulator, POD_IDENTITY_TOKEN, Settings};
use serde_json::{Value, json};

use crate::common::{Answer, Ask, ECR, Signer, shipped};
use crate::policies::{ALL, ROLE, USER, allow, deny, endpoint, statement, to_anyone, user};

const THEIR_ROLE: &str = "arn:aws:iam::999999999999:role/ecr-pull";

fn start() -> Emulator {
    Emulator::start(Settings::default()).unwrap()
}

/// Asks for credentials, and with these for a token: what is denied first, if anything is.
fn denied_session(emulator: &Emulator, answer: &Answer) -> Option<String> {
    if answer.status != 200 {
        return emulator.calls().pop().unwrap().denied;
    }
    let text = answer.text();
    let field = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>")).unwrap();
        rest.split('<').next().unwrap().to_owned()
    };
    let signer = Signer {
        key: field("AccessKeyId"),
        secret: field("SecretAccessKey"),
        session_token: Some(field("SessionToken")),
        ..Signer::new("ecr")
    };
    signer.send(Ask::token(ECR), &emulator.endpoint());
    emulator.calls().pop().unwrap().denied
}

#[test]
fn a_role_is_assumed_when_its_trust_policy_and_across_accounts_the_caller_s_allow_it() {
    let trust = |principal: &str, condition: Value| {
        statement("Allow", "sts:AssumeRole", json!({"Principal": {"AWS": principal}, "Condition": condition}))
    };
    let root = "arn:aws:iam::123456789012:root";
    let id = json!({"StringEquals": {"sts:ExternalId": "gitops"}});
    let assume = Some("sts:AssumeRole");
    for (role, own, trust, external_id, expected) in [
        (ROLE, None, trust(USER, json!({})), None, None),
        (ROLE, None, trust(root, json!({})), None, assume),
        (ROLE, Some(ALL), trust(root, json!({})), None, None),
        (ROLE, Some(ALL), trust("arn:aws:iam::123456789012:user/other", json!({})), None, assume),
        (THEIR_ROLE, None, trust(USER, json!({})), None, assume),
        (THEIR_ROLE, Some(ALL), trust(USER, json!({})), None, None),
        (THEIR_ROLE, Some(ALL), trust(root, json!({})), None, None),
        (THEIR_ROLE, Some(ALL), trust(USER, id.clone()), Some("gitops"), None),
        (THEIR_ROLE, Some(ALL), trust(USER, id.clone()), Some("wrong"), assume),
        (THEIR_ROLE, Some(ALL), trust(USER, id), None, assume),
    ] {
        let emulator = start();
        emulator.set_policies(user(), own.as_slice());
        emulator.set_policies(Attachment::Trust(role.to_owned()), &[&trust]);
        let external_id = external_id.map(|id| format!("&ExternalId={id}")).unwrap_or_default();
        let request = format!("Action=AssumeRole&RoleArn={role}&RoleSessionName=test{external_id}");
        let answer = Signer::new("sts").send(Ask::sts(&request), &emulator.endpoint());
        assert_eq!(
            denied_session(&emulator, &answer).as_deref(),
            expected.or(Some("ecr:GetAuthorizationToken")),
            "{role} {own:?} {trust} {external_id}: the role has no policy of its own"
        );
        emulator.set_policies(Attachment::Identity(role.to_owned()), &[ALL]);
        // STS is not behind the endpoints of ECR.
        emulator.set_policies(Attachment::VpcEndpoint, &[&endpoint("Allow", "ecr:*")]);
        let answer = Signer::new("sts").send(Ask::sts(&request), &emulator.endpoint());
        assert_eq!(denied_session(&emulator, &answer).as_deref(), expected, "{role} {trust}");
    }
}

#[test]
fn a_session_policy_limits_the_session() {
    let emulator = start();
    emulator.set_policies(user(), &[ALL]);
    emulator.set_policies(Attachment::Trust(ROLE.to_owned()), &[&to_anyone("Allow", "sts:AssumeRole")]);
    emulator.set_policies(Attachment::Identity(ROLE.to_owned()), &[ALL]);
    for (policy, expected) in [
        (allow("ecr:*"), None),
        (allow("s3:*"), Some("ecr:GetAuthorizationToken")),
        (deny("ecr:*"), Some("ecr:GetAuthorizationToken")),
    ] {
        let policy = policy.replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
        let request = format!("Action=AssumeRole&RoleArn={ROLE}&RoleSessionName=test&Policy={policy}");
        let answer = Signer::new("sts").send(Ask::sts(&request), &emulator.endpoint());
        assert_eq!(denied_session(&emulator, &answer).as_deref(), expected, "{policy}");
    }
    let request = format!("Action=AssumeRole&RoleArn={ROLE}&RoleSessionName=test&Policy=no");
    let answer = Signer::new("sts").send(Ask::sts(&request), &emulator.endpoint());
    assert_eq!(answer.code(), "MalformedPolicyDocument");
}

#[test]
fn a_web_identity_is_let_in_by_provider_audience_and_subject() {
    let issuer = "oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE";
    let reflector = "system:serviceaccount:flux-system:image-reflector-controller";
    let emulator = start();
    emulator.set_policies(Attachment::Trust(ROLE.to_owned()), &[&shipped("trust-irsa.json")]);
    for (issuer, subject, admitted) in [
        (issuer, reflector, true),
        (issuer, "system:serviceaccount:argocd:argocd-repo-server", true),
        (issuer, "system:serviceaccount:default:default", false),
        ("oidc.eks.eu-west-1.amazonaws.com/id/ANOTHER", reflector, false),
    ] {
        let claims = json!({"iss": format!("https://{issuer}"), "sub": subject, "aud": "sts.amazonaws.com", "exp": 4e9 as u64});
        let token = ["{}", &claims.to_string(), ""].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let request = format!(
            "Action=AssumeRoleWithWebIdentity&RoleArn={ROLE}&RoleSessionName=test&WebIdentityToken={token}"
        );
        let answer = Ask::sts(&request).send(&emulator.endpoint()).unwrap();
        assert_eq!(answer.status == 200, admitted, "{issuer} {subject}: {}", answer.text());
        let denied = emulator.calls().pop().unwrap().denied;
        assert_eq!(denied.is_none(), admitted);
    }
}

#[test]
fn pod_identity_sessions_carry_tags_into_the_next_role() {
    let settings = Settings { pod_identity_role: ROLE.to_owned(), ..Settings::default() };
    let emulator = Emulator::start(settings).unwrap();
    let agent = || Ask::new("GET", "/v1/credentials").header("authorization", POD_IDENTITY_TOKEN);
    emulator.set_policies(Attachment::Trust(ROLE.to_owned()), &[&shipped("trust-irsa.json")]);
    let answer = agent().send(&emulator.endpoint()).unwrap();
    assert!(answer.text().contains("EKS does not have permissions to assume"), "{}", answer.text());
    emulator.set_policies(Attachment::Trust(ROLE.to_owned()), &[&shipped("trust-pod-identity.json")]);
    let credentials = agent().send(&emulator.endpoint()).unwrap().json();
    let text = |name: &str| credentials[name].as_str().unwrap().to_owned();
    let signer = Signer {
        key: text("AccessKeyId"),
        secret: text("SecretAccessKey"),
        session_token: Some(text("Token")),
        ..Signer::new("sts")
    };
    emulator.set_policies(Attachment::Identity(ROLE.to_owned()), &[ALL]);
    let request = format!("Action=AssumeRole&RoleArn={THEIR_ROLE}&RoleSessionName=test&ExternalId=gitops");
    let untagged = to_anyone("Allow", "sts:AssumeRole");
    for (trust, expected) in [(untagged, Some("sts:TagSession")), (shipped("cross-account/trust.json"), None)]
    {
        emulator.set_policies(Attachment::Trust(THEIR_ROLE.to_owned()), &[&trust]);
        let answer = signer.send(Ask::sts(&request), &emulator.endpoint());
        assert_eq!(answer.status == 200, expected.is_none(), "{}", answer.text());
        assert_eq!(emulator.calls().pop().unwrap().denied.as_deref(), expected, "{trust}");
    }
}
