//! Requests that are none, or of a later kubelet.

use std::{io::Write, process::Stdio};

use serde_json::json;
use test_support::harness::HOST;

use super::{answer, credential, failed, node, provider, request};
use crate::helper::ask;

#[test]
fn what_is_no_request_is_an_error_that_says_so() {
    let harness = node();
    let old = request(HOST).to_string().replace("k8s.io/v1", "k8s.io/v1beta1");
    let large = json!({"image": "x".repeat(70_000)}).to_string();
    for (text, part) in [
        ("", "not a CredentialProviderRequest"),
        ("{\"image\": hunter2}", "not a CredentialProviderRequest"),
        (&old, "set `apiVersion: credentialprovider.kubelet.k8s.io/v1`"),
        (&large, "larger than the limit"),
    ] {
        let output = ask(&mut provider(&harness), text);
        failed(&output, &[part]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
    }
    let mut command = provider(&harness);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut held = child.stdin.take().unwrap();
    held.write_all(b"{").unwrap();
    failed(&child.wait_with_output().unwrap(), &["did not end"]);
    let bad = ask(
        provider(&harness).env("ECR_SIDECAR_FILE_MODE", "0666"),
        &request(&format!("{HOST}/app")).to_string(),
    );
    failed(&bad, &["ECR_SIDECAR_FILE_MODE"]);
}

/// The request has another field in a later kubelet.
#[test]
fn what_a_later_kubelet_adds_is_passed_over() {
    let harness = node();
    let mut later = request(&format!("{HOST}/app"));
    later["podName"] = json!("p");
    credential(&harness, HOST, &answer(&harness, &later));
}
