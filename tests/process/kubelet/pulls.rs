//! Pulls under the identity of the node.

use ecr_emulator::{Fault, Service};
use serde_json::{Value, json};
use test_support::harness::{HOST, SIBLING, configured_by};

use super::{A, ANNOTATION, HALF, answer, credential, failed, node, of_pod, provider, request, response};
use crate::helper::{age, ask, start};

#[test]
fn a_pull_gets_a_credential_to_keep_for_half_of_its_life() {
    let harness = node();
    let output = answer(&harness, &request(&format!("{HOST}/team/app@sha256:{}", "0".repeat(64))));
    let response = response(&output);
    let fields = ["apiVersion", "kind", "cacheKeyType"].map(|key| response[key].as_str().unwrap());
    let expected = ["credentialprovider.kubelet.k8s.io/v1", "CredentialProviderResponse", "Registry"];
    assert_eq!(fields, expected);
    let (_, principal, kept) = credential(&harness, HOST, &output);
    assert!(principal.ends_with(":user/emulated"), "{principal}");
    assert!((HALF - 600..=HALF).contains(&kept), "{kept}");
}

#[test]
fn an_image_of_another_registry_is_answered_with_nothing() {
    let harness = node();
    let nothing = json!({
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "kind": "CredentialProviderResponse",
        "cacheKeyType": "Registry",
        "cacheDuration": "0s",
        "auth": {},
    });
    let evil = format!("{HOST}.evil.example/app");
    for image in
        ["docker.io/library/busybox:1", "ghcr.io/a/b", "busybox", "", "/", "a b/c", "*.com/app", &evil]
    {
        assert_eq!(response(&answer(&harness, &request(image))), nothing, "{image}");
    }
    // Whatever the pod's account asks for.
    let mut other = of_pod(&harness, A, &[(ANNOTATION, "no role")]);
    other["image"] = json!("ghcr.io/a/b:1");
    assert_eq!(response(&answer(&harness, &other)), nothing);
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_registry_of_another_name_is_served_when_it_is_configured() {
    let harness = node();
    let host = harness.emulator.add_registry("eu-west-1");
    let file = harness.put(
        "node.yaml",
        &format!("registries: [{{host: '{host}', region: eu-west-1}}, {{host: {HOST}}}]\noutputs: []\n"),
    );
    let image = request(&format!("{host}/app:1.0"));
    let configured = |image: &Value| {
        let mut command = provider(&harness);
        configured_by(&mut command, &file);
        ask(&mut command, &image.to_string())
    };
    credential(&harness, &host, &configured(&image));
    // A name of ECR's needs no entry: the others are of the default identity.
    credential(&harness, SIBLING, &configured(&request(&format!("{SIBLING}/app"))));
    assert_eq!(response(&answer(&harness, &image))["auth"], json!({}), "unconfigured");
}

#[test]
fn fifty_pulls_at_once_from_fifty_registries_cost_one_call() {
    let harness = node();
    let hosts: Vec<_> = (0..50).map(|n| format!("{n:012}.dkr.ecr.eu-west-1.amazonaws.com")).collect();
    let start =
        |host: &String| start(&mut provider(&harness), &request(&format!("{host}/app:1.0")).to_string());
    let children: Vec<_> = hosts.iter().map(start).collect();
    for (child, host) in children.into_iter().zip(&hosts) {
        credential(&harness, host, &child.wait_with_output().unwrap());
    }
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
}

#[test]
fn while_aws_is_away_pulls_go_on_until_the_token_expires() {
    let harness = node();
    let pull = || answer(&harness, &request(&format!("{HOST}/app:1.0")));
    let (first, ..) = credential(&harness, HOST, &pull());
    age(&harness, 7);
    for fault in [Fault::Status(503), Fault::Hang, Fault::Reset] {
        harness.emulator.set_fault(Service::Ecr, fault);
        let (password, _, kept) = credential(&harness, HOST, &pull());
        // For minutes: then a newer one may be available.
        assert_eq!((password, kept), (first.clone(), 300));
    }
    age(&harness, 5);
    failed(&pull(), &[HOST, "ecr:GetAuthorizationToken", "to fix it:"]);
    harness.emulator.clear_faults();
    assert_ne!(credential(&harness, HOST, &pull()).0, first);
}
