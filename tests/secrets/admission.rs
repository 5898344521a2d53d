//! What the cluster's own policies reject: reported in the policy's words, and never fixed by deleting the Secret.

use std::process::Command;

use ecr_sidecar::failure::diagnosis::Diagnosis as D;
use serde_json::{Value, json};
use test_support::{
    Running,
    harness::{DEADLINE, HOST},
    output, wait_for,
};

use crate::{
    BINARY,
    cluster::{Cluster, SECRET, by_file},
    tls::TlsServer,
};

/// The problem that `/status` and the log have, which has this diagnosis and these words.
fn is_reported(sidecar: &Running, diagnosis: D, words: &str) {
    let line = sidecar.wait_log(&format!("\"diagnosis\":\"{}\"", diagnosis.id()), DEADLINE);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert!(line["error"].as_str().unwrap().contains(words), "{line}");
    let remedy = line["remedy"].as_str().unwrap();
    assert!(remedy.starts_with(diagnosis.remedy()), "{line}");
    assert!(!remedy.contains("kubectl -n") && !remedy.contains("Role"), "{line}");
    sidecar.wait_status(diagnosis.id(), |status| {
        status["outputs"][0]["last_error"]["diagnosis"] == diagnosis.id()
    });
}

#[test]
fn a_validating_admission_policy_is_reported_by_its_words() {
    let Some(cluster) = Cluster::new("vap") else { return };
    cluster.server.apply(
        "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: {name: vap}\nspec:\n  \
         failurePolicy: Fail\n  matchConstraints:\n    \
         namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: vap}}\n    \
         resourceRules: [{apiGroups: [''], apiVersions: [v1], operations: [UPDATE], resources: [secrets]}]\n  \
         validations: [{expression: 'false', message: 'field is immutable, says the tenant'}]\n---\n\
         apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata: {name: vap}\n\
         spec: {policyName: vap, validationActions: [Deny]}\n",
    );
    // A policy counts some time after it was made.
    cluster.server.apply("{apiVersion: v1, kind: Secret, metadata: {name: probe, namespace: vap}}");
    let mut probes = 0;
    wait_for("the policy to count", DEADLINE, || {
        probes += 1;
        let text = format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: probe, namespace: vap, labels: {{a: a{probes}}}}}}}"
        );
        (!cluster.server.apply_with(["--server-side", "--force-conflicts"], &text).status.success())
            .then_some(())
    });
    let sidecar = cluster.run(|_| {});
    is_reported(
        &sidecar,
        D::AdmissionDenied,
        "ValidatingAdmissionPolicy 'vap' with binding 'vap' denied request",
    );
    let once = cluster.once();
    assert_eq!(once.status.code(), Some(69));
}

/// `ecr-sidecar once` ends although it has more time than this test, with these words of the API server.
fn once_ends_with(cluster: &Cluster, change: impl FnOnce(&mut Command), diagnosis: D, words: &str) {
    let mut command = Command::new(BINARY);
    command.args(["once", "--timeout", "10m"]).env_clear().envs(cluster.harness.environment());
    cluster.prepare(&mut command);
    change(&mut command);
    let once = output(&mut command, DEADLINE);
    let said = String::from_utf8_lossy(&once.stderr).into_owned();
    assert_eq!(once.status.code(), Some(69), "{said}");
    let reported = format!("\"diagnosis\":\"{}\"", diagnosis.id());
    assert!(said.lines().any(|line| line.contains(&reported)), "{said}");
    // And without the log.
    let shown: Vec<_> = said.lines().filter(|line| !line.starts_with('{')).collect();
    assert!(shown.iter().any(|line| line.contains(words) && line.contains(diagnosis.remedy())), "{said}");
}

#[test]
fn a_webhook_that_denies_is_reported_by_its_words() {
    let Some(cluster) = Cluster::new("denying") else { return };
    cluster.server.apply(&cluster.manifests(|_| {}));
    let webhook = TlsServer::start(&cluster.server, |_, review| {
        let status = json!({"code": 403, "message": "[secrets-need-a-team] field is immutable: you must\nprovide labels: {\"team\"}"});
        let response = json!({"uid": review["request"]["uid"], "allowed": false, "status": status});
        (200, json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
    });
    cluster.server.apply(&webhook.configuration("Validating", "validation.gatekeeper.sh", "denying"));
    let probe = "{apiVersion: v1, kind: Secret, metadata: {name: probe, namespace: denying}}";
    wait_for("the webhook to be called", DEADLINE, || {
        let applied = cluster.server.apply_with(["--server-side"], probe);
        String::from_utf8_lossy(&applied.stderr).contains("denied the request").then_some(())
    });
    let words = "admission webhook \"validation.gatekeeper.sh\" denied the request: [secrets-need-a-team]";
    let sidecar = cluster.start(|_| {});
    is_reported(&sidecar, D::AdmissionDenied, words);
    once_ends_with(&cluster, |_| {}, D::AdmissionDenied, words);
    // It is tried again without a restart.
    cluster.server.kubectl(["delete", "validatingwebhookconfiguration", "denying"]);
    cluster.wait_password("denying");
    sidecar.wait_ready();
}

/// One that this program takes and this API server does not: as good as one of another version would answer.
#[test]
fn a_selector_that_the_api_server_rejects_is_reported_by_its_words() {
    let Some(cluster) = Cluster::new("rejected") else { return };
    let text = format!(
        "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {SECRET}, \
         namespaces: {{selector: 'tier in (a, b)'}}}}]\n"
    );
    let file = cluster.harness.put("rejected.yaml", &text);
    const WORDS: &str = "unable to parse requirement: found 'tier', expected: a newer selector";
    let strict = TlsServer::start(&cluster.server, |path, _| {
        match path.starts_with("/api/v1/namespaces?labelSelector=tier+in+") {
            true => (400, json!({"kind": "Status", "code": 400, "reason": "BadRequest", "message": WORDS})),
            false => (200, json!({"metadata": {"resourceVersion": "1"}, "items": []})),
        }
    });
    let kubeconfig = std::fs::read_to_string(cluster.account.kubeconfig()).unwrap();
    assert!(kubeconfig.contains(&cluster.server.url()), "{kubeconfig}");
    let kubeconfig =
        cluster.harness.put("kubeconfig", &kubeconfig.replace(&cluster.server.url(), &strict.url()));
    let change = |command: &mut Command| {
        by_file(&file)(command);
        command.env("KUBECONFIG", &kubeconfig);
    };
    is_reported(&cluster.start(change), D::SelectorRejected, WORDS);
    once_ends_with(&cluster, change, D::SelectorRejected, WORDS);
}

#[test]
fn a_webhook_that_no_pod_serves_is_reported_as_such() {
    let Some(cluster) = Cluster::new("webhook") else { return };
    cluster.server.apply(&cluster.manifests(|_| {}));
    cluster.server.apply(
        "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: webhook}\n\
         webhooks:\n- name: secrets.example.com\n  clientConfig: {url: 'https://127.0.0.1:1/validate'}\n  \
         admissionReviewVersions: [v1]\n  sideEffects: None\n  timeoutSeconds: 2\n  failurePolicy: Fail\n  \
         namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: webhook}}\n  \
         rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [secrets]}]\n",
    );
    let probe = "{apiVersion: v1, kind: Secret, metadata: {name: probe, namespace: webhook}}";
    wait_for("the webhook to be called", DEADLINE, || {
        (!cluster.server.apply_with(["--server-side"], probe).status.success()).then_some(())
    });
    let sidecar = cluster.start(|_| {});
    is_reported(&sidecar, D::WebhookFailing, "failed calling webhook \"secrets.example.com\"");
    // It is tried again without a restart.
    cluster.server.kubectl(["delete", "validatingwebhookconfiguration", "webhook"]);
    cluster.wait_password("webhook");
    sidecar.wait_ready();
}

#[test]
fn a_quota_is_reported_as_such() {
    let Some(cluster) = Cluster::new("quota") else { return };
    cluster.server.apply(&cluster.manifests(|_| {}));
    // What this account may do beyond that: make the Secret, which the quota then does not allow.
    cluster.server.kubectl(["delete", "secret", SECRET, "-n", "quota"]);
    let user = format!("quota:{}", cluster.account.name());
    cluster.server.kubectl(["create", "role", "maker", "--verb=create", "--resource=secrets", "-n", "quota"]);
    let account = format!("--serviceaccount={user}");
    cluster.server.kubectl(["create", "rolebinding", "maker", "--role=maker", &account, "-n", "quota"]);
    cluster.server.kubectl(["create", "quota", "q", "--hard=secrets=0", "-n", "quota"]);
    // As the controller does, which is not here.
    cluster.server.kubectl([
        "patch",
        "resourcequota",
        "q",
        "-n",
        "quota",
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"hard":{"secrets":"0"},"used":{"secrets":"0"}}}"#,
    ]);
    wait_for("the quota to count", DEADLINE, || {
        let probe = "{apiVersion: v1, kind: Secret, metadata: {name: probe, namespace: quota}}";
        let applied = cluster.server.apply_with(["--server-side"], probe);
        String::from_utf8_lossy(&applied.stderr).contains("exceeded quota").then_some(())
    });
    let sidecar = cluster.start(|_| {});
    is_reported(&sidecar, D::QuotaExceeded, "exceeded quota: q");
}
