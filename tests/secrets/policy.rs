//! The admission policy that `ecr-sidecar manifests` prints where namespaces are found out, against whoever holds our
//! token: each attempt succeeds for an account that has the same rights and no policy, and is denied to ours.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use test_support::{
    ServiceAccount,
    harness::{DEADLINE, HOST},
    wait_for,
};

use crate::{
    cluster::{Cluster, SOON, by_file, value},
    tls::TlsServer,
};

/// The printed manifests without the policy and its binding.
fn without_policy(manifests: &str) -> String {
    let kept: Vec<_> =
        manifests.split("---\n").filter(|document| !document.contains("admissionregistration")).collect();
    kept.join("---\n")
}

/// Two accounts that may do the same, of which one is held by the policy.
struct Attack {
    held: Cluster,
    free: ServiceAccount,
}

impl Attack {
    fn new(namespace: &str, namespaces: &str) -> Option<Self> {
        let held = Cluster::new(namespace)?;
        let text = format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {namespace}-pull, \
             prune: true, namespaces: {namespaces}}}]\n"
        );
        let file = held.harness.put("attack.yaml", &text);
        let manifests = held.manifests(by_file(&file));
        let free = held.server.service_account(namespace, "free");
        let of_free = without_policy(&manifests).replace("reflector", free.name());
        assert!(manifests.contains("kind: ValidatingAdmissionPolicyBinding") && !of_free.contains("Policy"));
        held.server.apply(&manifests);
        held.server.apply(&of_free);
        let attack = Self { held, free };
        let bad = attack.secret(namespace, "type: Opaque");
        wait_for("the rights and the policy to count", SOON, || {
            let free = attack.held.server.apply_as(&attack.free, ["--server-side", "--dry-run=server"], &bad);
            let dry = ["--server-side", "--dry-run=server"];
            let held = attack.held.server.apply_as(&attack.held.account, dry, &bad);
            let denied = String::from_utf8_lossy(&held.stderr).contains("ValidatingAdmissionPolicy");
            (free.status.success() && denied).then_some(())
        });
        Some(attack)
    }

    fn name(&self) -> String {
        format!("{}-pull", self.held.namespace())
    }

    /// A Secret of the one name, with more of YAML's lines.
    fn secret(&self, namespace: &str, more: &str) -> String {
        let name = self.name();
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: {namespace}\n{}\n",
            more.replace("META", "  ")
        )
    }

    /// Server-side apply by force, as nothing of ours.
    fn apply(&self, account: &ServiceAccount, yaml: &str) -> Result<(), String> {
        let arguments = ["--server-side", "--force-conflicts", "--field-manager=evil"];
        let answer = self.held.server.apply_as(account, arguments, yaml);
        if answer.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&answer.stderr).into_owned())
    }

    fn delete(&self, account: &ServiceAccount, namespace: &str) -> Result<(), String> {
        let name = self.name();
        let arguments = ["delete", "secret", &name, "-n", namespace, "--wait=false"];
        let answer = self.held.server.kubectl_as(account, arguments);
        if answer.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&answer.stderr).into_owned())
    }

    /// As the cluster's admin: what is there before an attempt, or nothing.
    fn prepare(&self, namespace: &str, before: Option<&str>) {
        let name = self.name();
        let server = &self.held.server;
        if server.get("secret", namespace, &name).is_some() {
            let nothing = r#"{"metadata":{"finalizers":null}}"#;
            server.kubectl(["patch", "secret", &name, "-n", namespace, "-p", nothing]);
            server.kubectl(["delete", "secret", &name, "-n", namespace]);
        }
        if let Some(before) = before {
            server.apply(&self.secret(namespace, before));
        }
    }

    /// The attempt succeeds without the policy, and is denied with it.
    #[track_caller]
    fn is_held(&self, what: &str, namespace: &str, before: Option<&str>, attempt: &str) {
        let yaml = self.secret(namespace, attempt);
        self.prepare(namespace, before);
        self.apply(&self.free, &yaml).unwrap_or_else(|said| panic!("{what}: the control failed: {said}"));
        self.prepare(namespace, before);
        let said = self.apply(&self.held.account, &yaml).expect_err(what);
        assert!(said.contains("ValidatingAdmissionPolicy") && said.contains("denied"), "{what}: {said}");
    }
}

const EMPTY: &str = "type: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: '{\"auths\":{}}'}";

fn with_meta(meta: &str) -> String {
    format!("META{meta}\n{EMPTY}")
}

#[test]
fn whoever_holds_our_token_creates_no_other_secret_than_ours() {
    let Some(attack) = Attack::new("vap-create", "{selector: 'vap-create=enabled'}") else { return };
    let there = "vap-create";
    let token = "METAannotations: {kubernetes.io/service-account.name: free}\ntype: kubernetes.io/service-account-token";
    for (what, attempt) in [
        // The token of any service account of the namespace is written into it.
        ("a service account's token", token.to_owned()),
        // A cluster that Argo CD then deploys to with its own rights, or a repository that it trusts.
        (
            "an Argo CD cluster",
            "METAlabels: {argocd.argoproj.io/secret-type: cluster}\nstringData: {server: x}".to_owned(),
        ),
        ("an Argo CD repository", with_meta("labels: {argocd.argoproj.io/secret-type: repository}")),
        // What Helm takes for its release.
        ("a release", "METAlabels: {owner: helm}\ntype: helm.sh/release.v1".to_owned()),
        ("a key that is not ours", format!("{EMPTY}\ndata: {{password: YQ==}}")),
        (
            "an annotation that is not ours",
            with_meta("annotations: {kubernetes.io/service-account.name: free}"),
        ),
        (
            "what a garbage collector deletes",
            with_meta(
                "ownerReferences: [{apiVersion: v1, kind: Pod, name: x, uid: 11111111-1111-1111-1111-111111111111}]",
            ),
        ),
        ("what holds its namespace up for ever", with_meta("finalizers: [example.com/never]")),
        ("what cannot be changed any more", format!("{EMPTY}\nimmutable: true")),
    ] {
        attack.is_held(what, there, None, &attempt);
    }
    // It holds us, and no other; and whoever takes our name, too.
    attack.prepare(there, None);
    attack.held.server.apply(&attack.secret(there, token));
    let user = format!("--as={}", attack.held.account.user());
    let answer = attack
        .held
        .server
        .apply_with(["--server-side", "--force-conflicts", &user], &attack.secret("default", token));
    let said = String::from_utf8_lossy(&answer.stderr);
    assert!(!answer.status.success() && said.contains("ValidatingAdmissionPolicy"), "{said}");
    // And what it is there for, it may.
    attack.prepare(there, None);
    attack.apply(&attack.held.account, &attack.secret(there, EMPTY)).unwrap();
    attack.delete(&attack.held.account, there).unwrap();
}

#[test]
fn whoever_holds_our_token_makes_no_existing_secret_into_another_and_deletes_none_of_another_type() {
    let Some(attack) = Attack::new("vap-update", "{selector: 'vap-update=enabled'}") else { return };
    let there = "vap-update";
    let before = format!("METAlabels: {{team: a}}\n{EMPTY}\ndata: {{extra: YQ==}}");
    for (what, attempt) in [
        ("an Argo CD cluster", with_meta("labels: {argocd.argoproj.io/secret-type: cluster}")),
        ("another one's label", with_meta("labels: {team: b}")),
        ("an annotation", with_meta("annotations: {kubernetes.io/service-account.name: free}")),
        ("another one's key", format!("{EMPTY}\ndata: {{extra: Yg==}}")),
        ("a new key", format!("{EMPTY}\ndata: {{password: YQ==}}")),
        ("a finalizer", with_meta("finalizers: [example.com/never]")),
        (
            "an owner",
            with_meta(
                "ownerReferences: [{apiVersion: v1, kind: Pod, name: x, uid: 11111111-1111-1111-1111-111111111111}]",
            ),
        ),
        ("an immutable one", format!("{EMPTY}\nimmutable: true")),
        ("an Opaque one's data", "type: Opaque\nstringData: {a: b}".to_owned()),
    ] {
        let opaque = "type: Opaque\nstringData: {a: a}";
        let before = if attempt.starts_with("type: Opaque") { opaque } else { &before };
        attack.is_held(what, there, Some(before), &attempt);
    }
    // What another one has put there stays as it is while ours is written next to it.
    attack.prepare(there, Some(&before));
    let ours = with_meta("labels: {app.kubernetes.io/managed-by: ecr-sidecar}");
    attack.apply(&attack.held.account, &attack.secret(there, &ours)).unwrap();
    // To delete: of our type alone.
    attack.delete(&attack.held.account, there).unwrap();
    for account in [&attack.free, &attack.held.account] {
        attack.prepare(there, Some("type: Opaque"));
        let deleted = attack.delete(account, there);
        assert_eq!(deleted.is_ok(), *account == attack.free, "{deleted:?}");
    }
}

#[test]
fn in_a_namespace_that_is_left_out_nothing_is_written_but_what_takes_ours_away() {
    let Some(attack) = Attack::new("vap-left-out", "{all: true, exclude: [vap-left-out]}") else { return };
    let there = "vap-left-out";
    attack.is_held("a new one", there, None, EMPTY);
    attack.is_held(
        "another one's",
        there,
        Some(EMPTY),
        &with_meta("annotations: {ecr-sidecar/expires: '{}'}"),
    );
    // One from before it was left out.
    attack.prepare(there, None);
    let ours = attack.secret(there, EMPTY);
    let applied = attack.held.server.apply_with(["--server-side", "--field-manager=ecr-sidecar"], &ours);
    assert!(applied.status.success());
    attack.apply(&attack.held.account, &ours).unwrap();
    attack.delete(&attack.held.account, there).unwrap();
    attack.held.namespace_with("vap-not-left-out", "{}");
    attack.apply(&attack.held.account, &attack.secret("vap-not-left-out", EMPTY)).unwrap();
}

#[test]
fn under_the_policy_apply_adopt_and_prune_still_work_next_to_other_outputs() {
    let Some(cluster) = Cluster::new("vap-works") else { return };
    cluster.namespace_with("vap-works-a", "{vap-works: enabled}");
    cluster.namespace_with("vap-works-b", "{vap-works: enabled}");
    cluster.namespace_with("vap-works-argocd", "{}");
    let text = format!(
        "registries: [{{host: {HOST}}}]\noutputs:\n\
         - {{type: docker-config-secret, name: vap-works-pull, prune: true, adopt: true, \
         namespaces: {{selector: vap-works=enabled}}}}\n\
         - {{type: docker-config-secret, name: vap-works-own}}\n\
         - {{type: argocd-repo-creds, namespace: vap-works-argocd}}\n"
    );
    let file = cluster.harness.put("works.yaml", &text);
    let name = "vap-works-pull";
    // One with what others put into it: entries, a key, a label, an annotation.
    cluster.server.apply(&format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/dockerconfigjson\nmetadata:\n  name: {name}\n  \
         namespace: vap-works-b\n  labels: {{team: b}}\n  annotations: {{example.com/note: b}}\nstringData:\n  \
         note: b\n  .dockerconfigjson: '{{\"auths\":{{\"ghcr.io\":{{}}}}}}'\n"
    ));
    let sidecar = cluster.run(by_file(&file));
    sidecar.wait_ready();
    let config = |namespace: &str| value(&cluster.secret(namespace, name)?, ".dockerconfigjson");
    assert!(config("vap-works-a").unwrap().contains(HOST));
    assert!(
        config("vap-works-b").unwrap().contains(HOST) && config("vap-works-b").unwrap().contains("ghcr.io")
    );
    for namespace in ["vap-works-a", "vap-works-b"] {
        cluster.server.kubectl(["label", "namespace", namespace, "vap-works-"]);
    }
    wait_for("our Secret to go", SOON, || config("vap-works-a").is_none().then_some(()));
    wait_for("our entry to go", DEADLINE, || (!config("vap-works-b")?.contains(HOST)).then_some(()));
    assert!(cluster.secret("vap-works-b", name).unwrap()["metadata"]["labels"]["team"] == "b");
}

/// As Kyverno, Gatekeeper and Istio do: a label and an annotation on every Secret, the annotation another one each time.
#[test]
fn under_the_policy_what_a_mutating_webhook_adds_stops_no_write_of_ours() {
    let Some(attack) = Attack::new("vap-mutated", "{selector: 'vap-mutated=enabled'}") else { return };
    let there = "vap-mutated";
    attack.held.namespace_with(there, "{vap-mutated: enabled}");
    let webhook = TlsServer::start(&attack.held.server, |_, review| {
        let request = &review["request"];
        let with = |map: &str, key: &str, value: &Value| {
            let mut all = request["object"]["metadata"][map].as_object().cloned().unwrap_or_default();
            all.insert(key.to_owned(), value.clone());
            json!({"op": "add", "path": format!("/metadata/{map}"), "value": all})
        };
        let patch = json!([
            with("labels", "webhook/team", &json!("a")),
            with("annotations", "webhook/last", &request["uid"]),
        ]);
        let patch = STANDARD.encode(patch.to_string());
        let response =
            json!({"uid": request["uid"], "allowed": true, "patchType": "JSONPatch", "patch": patch});
        (200, json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
    });
    attack.held.server.apply(&webhook.configuration("Mutating", "labels.example.com", there));
    let probe = "{apiVersion: v1, kind: Secret, metadata: {name: probe, namespace: vap-mutated}}";
    let mutated = |yaml: &Value| yaml["metadata"]["labels"]["webhook/team"] == "a";
    wait_for("the webhook to be called", SOON, || {
        attack.held.server.apply(probe);
        attack.held.server.kubectl(["annotate", "secret", "probe", "-n", there, "--overwrite", "a=b"]);
        let found = attack.held.secret(there, "probe").filter(mutated).is_some();
        attack.held.server.kubectl(["delete", "secret", "probe", "-n", there]);
        found.then_some(())
    });
    let file = attack.held.harness.at("attack.yaml");
    let mark = attack.held.server.audit_mark();
    let sidecar = attack.held.start(by_file(&file));
    sidecar.wait_ready();
    let name = attack.name();
    let annotation = || {
        let found = attack.held.secret(there, &name)?;
        assert!(mutated(&found) && value(&found, ".dockerconfigjson")?.contains(HOST), "{found}");
        Some(found["metadata"]["annotations"]["webhook/last"].as_str()?.to_owned())
    };
    // Made; and changed, with what the webhook has put there before.
    let first = wait_for("the Secret", SOON, &annotation);
    let edited = json!({".dockerconfigjson": "eyJhdXRocyI6e319"});
    attack.held.patch_as("editor", there, &name, &edited);
    sidecar.wait_log("Secret was modified by field manager ", DEADLINE);
    assert_ne!(annotation().unwrap(), first);
    assert!(attack.held.writes_since(mark) >= 2);
    assert_eq!(sidecar.count_log("admission-denied"), 0);
    drop(sidecar);
    // The same label is still none that our account may set, by whichever kind of request.
    let evil = with_meta("labels: {argocd.argoproj.io/secret-type: repository}");
    attack.is_held("next to the webhook's", there, Some(EMPTY), &evil);
    for patch in [
        r#"{"metadata":{"labels":{"argocd.argoproj.io/secret-type":"repository"}}}"#,
        r#"{"metadata":{"managedFields":[{}],"labels":{"argocd.argoproj.io/secret-type":"repository"}}}"#,
        r#"{"metadata":{"managedFields":null,"annotations":{"kubernetes.io/service-account.name":"free"}}}"#,
        r#"{"metadata":{"labels":{"webhook/team":"b","webhook/other":"b"}}}"#,
    ] {
        let arguments = ["patch", "secret", &name, "-n", there, "--type=merge", "-p", patch];
        for account in [&attack.free, &attack.held.account] {
            attack.prepare(there, Some(EMPTY));
            let answer = attack.held.server.kubectl_as(account, arguments);
            let said = String::from_utf8_lossy(&answer.stderr);
            assert_eq!(answer.status.success(), *account == attack.free, "{patch}: {said}");
            assert!(answer.status.success() || said.contains("ValidatingAdmissionPolicy"), "{patch}: {said}");
        }
    }
}

/// What takes a label of ours off it, or only annotates it, the API server allows.
#[test]
fn under_the_policy_an_immutable_secret_still_takes_our_annotation() {
    let Some(attack) = Attack::new("vap-immutable", "{selector: 'vap-immutable=enabled'}") else { return };
    let there = "vap-immutable";
    attack.prepare(there, Some(&format!("{EMPTY}\nimmutable: true")));
    let annotated = attack.secret(there, &with_meta("annotations: {ecr-sidecar/expires: '{}'}"));
    attack.apply(&attack.held.account, &annotated).unwrap();
    let changed = attack.secret(there, &EMPTY.replace("{}", "{\"a.example\":{}}"));
    let said = attack.apply(&attack.held.account, &changed).unwrap_err();
    assert!(said.contains("field is immutable") && !said.contains("ValidatingAdmissionPolicy"), "{said}");
}
