//! Pulls under the role of a pod's ServiceAccount: whose it is, and who never gets it.

use std::fs;

use ecr_emulator::{Fault, Service};
use serde_json::{Value, json};
use test_support::{
    Harness,
    harness::{HOST, KEYS, configured_by},
};

use super::{
    A, ANNOTATION, B, HALF, ROLE_A, ROLE_B, answer, credential, failed, node, of_pod, provider, request,
};
use crate::helper::{ask, cached};

#[test]
fn each_service_account_gets_its_own_role_and_its_pods_share_one_call() {
    let harness = node();
    let pull = |subject: &str, role: &str| {
        let output = answer(&harness, &of_pod(&harness, subject, &[(ANNOTATION, role)]));
        let (password, principal, kept) = credential(&harness, HOST, &output);
        assert!((HALF - 600..=HALF).contains(&kept), "{kept}");
        (password, principal)
    };
    let (a, of_a) = pull(A, ROLE_A);
    let (b, of_b) = pull(B, ROLE_B);
    assert!(of_a.contains("assumed-role/team-a/") && of_b.contains("assumed-role/team-b/"), "{of_a} {of_b}");
    // The next pods have tokens of their own.
    assert_eq!((pull(A, ROLE_A).0, pull(B, ROLE_B).0), (a, b));
    assert_eq!([Service::Sts, Service::Ecr].map(|service| harness.emulator.count(service)), [2, 2]);
    let without = answer(&harness, &of_pod(&harness, B, &[]));
    assert!(credential(&harness, HOST, &without).1.ends_with(":user/emulated"), "the node's");
}

#[test]
fn no_service_account_gets_another_one_s_token() {
    let harness = node();
    credential(&harness, HOST, &answer(&harness, &of_pod(&harness, A, &[(ANNOTATION, ROLE_A)])));
    cached(&harness);
    let refused = answer(&harness, &of_pod(&harness, B, &[(ANNOTATION, ROLE_A)]));
    failed(&refused, &[ROLE_A, "sts:AssumeRoleWithWebIdentity", "AccessDenied"]);
    harness.emulator.set_fault(Service::Sts, Fault::Hang);
    failed(&answer(&harness, &of_pod(&harness, B, &[(ANNOTATION, ROLE_A)])), &["no answer"]);
}

/// However many tokens of the node's identity are at hand.
#[test]
fn a_role_that_is_refused_is_not_replaced_by_the_node_s_identity() {
    let harness = node();
    let _running = harness.run_ready(|_| {});
    let mut node = harness.command("kubelet-credential-provider");
    let counted = harness.counts();
    credential(&harness, HOST, &ask(&mut node, &request(&format!("{HOST}/app")).to_string()));
    assert_eq!(harness.counts(), counted, "the sidecar's token is at hand");
    credential(&harness, HOST, &answer(&harness, &request(&format!("{HOST}/app"))));
    cached(&harness);
    for prepare in [provider, |harness: &Harness| harness.command("kubelet-credential-provider")] {
        let denied = of_pod(&harness, B, &[(ANNOTATION, ROLE_A)]).to_string();
        failed(&ask(&mut prepare(&harness), &denied), &["AccessDenied"]);
        let mut by_default = prepare(&harness);
        by_default.args(["--role-arn", ROLE_A]);
        failed(&ask(&mut by_default, &of_pod(&harness, B, &[]).to_string()), &["AccessDenied"]);
    }
    harness.emulator.set_fault(Service::Ecr, Fault::Status(503));
    failed(&answer(&harness, &of_pod(&harness, A, &[(ANNOTATION, ROLE_A)])), &["503"]);
}

/// Roles of the configured identity are not assumed on top: the account chose.
#[test]
fn an_account_s_role_replaces_the_configured_identity_and_its_chain() {
    let harness = node();
    let file = harness.put(
        "node.yaml",
        &format!(
            "identities:\n  default: {{source: environment, assumeRoles: [{{roleArn: '{ROLE_B}'}}], \
             expectAccount: '999999999999'}}\nregistries: [{{host: {HOST}}}]\n"
        ),
    );
    let mut command = provider(&harness);
    configured_by(&mut command, &file);
    let output = ask(&mut command, &of_pod(&harness, A, &[(ANNOTATION, ROLE_A)]).to_string());
    let (_, principal, _) = credential(&harness, HOST, &output);
    assert!(principal.contains("assumed-role/team-a/"), "{principal}");
}

#[test]
fn what_an_account_asks_for_is_its_role_or_an_error() {
    let harness = node();
    let rejected = |annotations: &[(&str, &str)], parts: &[&str]| {
        failed(&answer(&harness, &of_pod(&harness, A, annotations)), parts);
    };
    rejected(&[(ANNOTATION, "")], &[ANNOTATION, "expected a role's ARN"]);
    rejected(&[(ANNOTATION, "team-a")], &[ANNOTATION, "`team-a`"]);
    rejected(&[(ANNOTATION, "arn:aws:iam::123456789012:role/a\nb\u{1b}[2J")], &["expected a role's ARN"]);
    rejected(&[(ANNOTATION, KEYS[1].1)], &["not shown"]);
    rejected(&[("example.com/role", ROLE_A)], &["example.com/role", "--role-annotation", "tokenAttributes"]);
    rejected(&[(ANNOTATION, ROLE_A), ("example.com/role", ROLE_B)], &["example.com/role"]);
    let mut tokenless = of_pod(&harness, A, &[(ANNOTATION, ROLE_A)]);
    for token in [json!(""), Value::Null] {
        tokenless["serviceAccountToken"] = token;
        assert_eq!(answer(&harness, &tokenless).status.code(), Some(1));
    }
    tokenless["serviceAccountToken"] = json!("hunter2.hunter2.hunter2");
    let output = answer(&harness, &tokenless);
    failed(&output, &["not a JSON web token"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn annotations_and_a_default_role_are_by_flag_and_the_more_special_annotation_comes_first() {
    let harness = node();
    let principal = |flags: &[&str], subject: &str, annotations: &[(&str, &str)]| {
        let mut command = provider(&harness);
        let output = ask(command.args(flags), &of_pod(&harness, subject, annotations).to_string());
        credential(&harness, HOST, &output).1
    };
    let both = [("eks.amazonaws.com/ecr-role-arn", ROLE_A), (ANNOTATION, ROLE_B)];
    assert!(principal(&[], A, &both).contains("/team-a/"));
    let own = ["--role-annotation", "example.com/role"];
    assert!(principal(&own, B, &[("example.com/role", ROLE_B)]).contains("/team-b/"));
    let mut command = provider(&harness);
    let usual = of_pod(&harness, A, &[(ANNOTATION, ROLE_A)]).to_string();
    failed(&ask(command.args(own), &usual), &[ANNOTATION, "names no role here"]);
    assert!(principal(&["--role-arn", ROLE_A], A, &[]).contains("/team-a/"));
    assert!(principal(&["--role-arn", ROLE_A], B, &[(ANNOTATION, ROLE_B)]).contains("/team-b/"));
    // Static pods have no account.
    let mut command = provider(&harness);
    let of_static_pod = request(&format!("{HOST}/app")).to_string();
    let output = ask(command.args(["--role-arn", ROLE_A]), &of_static_pod);
    assert!(credential(&harness, HOST, &output).1.ends_with(":user/emulated"));
    let mut command = provider(&harness);
    failed(
        &ask(command.args(["--role-arn", "team-a"]), &of_pod(&harness, A, &[]).to_string()),
        &["--role-arn"],
    );
}

#[test]
fn an_account_s_token_is_nowhere_in_the_log_or_the_cache() {
    let harness = node();
    for fault in [None, Some(Fault::Echo), Some(Fault::AccessDenied)] {
        harness.emulator.clear_faults();
        if let Some(fault) = fault {
            harness.emulator.set_fault(Service::Sts, fault);
        }
        let request = of_pod(&harness, A, &[(ANNOTATION, ROLE_A)]);
        let output = ask(provider(&harness).env("ECR_SIDECAR_LOG", "trace"), &request.to_string());
        let logged = String::from_utf8_lossy(&output.stderr);
        let token = request["serviceAccountToken"].as_str().unwrap();
        for part in token.split('.') {
            assert!(!logged.contains(part), "{logged}");
        }
        for entry in fs::read_dir(harness.at(".cache/ecr-sidecar")).unwrap().map(Result::unwrap) {
            let text = fs::read_to_string(entry.path()).unwrap() + entry.path().to_str().unwrap();
            assert!(!token.split('.').any(|part| text.contains(part)), "{text}");
            fs::remove_file(entry.path()).unwrap();
        }
    }
}
