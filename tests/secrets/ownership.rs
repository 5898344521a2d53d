//! Whose a Secret is: what tenants, restores and earlier processes make of it.

use std::process::Command;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use test_support::{
    ApiServer, Harness,
    harness::{DEADLINE, HOST},
    wait_for,
};

use crate::{
    BINARY,
    cluster::{Cluster, SECRET, SOON, Server, argocd, by_file, sha256, value},
};

const HELM: &str = "ecr-123456789012-eu-west-1-helm";

fn encoded(fields: &[(&str, &str)]) -> Value {
    fields
        .iter()
        .map(|(key, text)| ((*key).to_owned(), json!(STANDARD.encode(text))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A docker config with this password for the registry.
fn config(password: &str) -> String {
    json!({"auths": {HOST: {"auth": STANDARD.encode(format!("AWS:{password}"))}}}).to_string()
}

#[test]
fn a_template_whose_url_a_tenant_changes_loses_our_password() {
    let Some(cluster) = Cluster::new("moved") else { return };
    let sidecar = cluster.run(argocd("moved"));
    sidecar.wait_ready();
    let of = |key: &str| value(&cluster.secret("moved", HELM)?, key);
    assert!(of("password").is_some());
    cluster.patch_as("tenant", "moved", HELM, &encoded(&[("url", "https://evil.example")]));
    wait_for("our password to go", SOON, || of("password").is_none().then_some(()));
    let line = sidecar.wait_log("credential-withheld", DEADLINE);
    assert!(line.contains("its `url` is not the registry's"), "{line}");
    assert_eq!(sidecar.get("/readyz").0, 503);
    // The other template is not affected, and the owner's correction brings the password back.
    assert!(value(&cluster.secret("moved", "ecr-123456789012-eu-west-1-oci").unwrap(), "password").is_some());
    cluster.patch_as("owner", "moved", HELM, &encoded(&[("url", HOST)]));
    wait_for("our password", SOON, || of("password").map(drop));
    sidecar.wait_ready();
    // Argo CD would send it to whoever answers.
    cluster.patch_as("tenant", "moved", HELM, &encoded(&[("insecure", "true")]));
    wait_for("our password to go", SOON, || of("password").is_none().then_some(()));
    assert_eq!(of("enableOCI").as_deref(), Some("true"));
}

#[test]
fn a_template_with_another_users_credentials_is_left_alone() {
    let Some(cluster) = Cluster::new("robot") else { return };
    cluster.server.apply(&cluster.manifests(argocd("robot")));
    cluster.patch_as("admin", "robot", HELM, &encoded(&[("username", "robot"), ("password", "theirs")]));
    let before = cluster.secret("robot", HELM).unwrap();
    let sidecar = cluster.start(argocd("robot"));
    let line = sidecar.wait_log("holds the credentials of another user", DEADLINE);
    assert!(line.contains("credential-withheld"), "{line}");
    assert_eq!(sidecar.get("/readyz").0, 503);
    sidecar.wait_status("the other template", |status| status["outputs"][0]["targets"]["in_sync"] == 1);
    assert_eq!(cluster.secret("robot", HELM).unwrap(), before);
}

/// `once` with one output, then `once` with another that matches the first one's Secrets.
#[test]
fn outputs_that_run_after_each_other_keep_what_the_other_applied() {
    let Some(cluster) = Cluster::new("in-turn") else { return };
    // With the right to create, so that the templates are all its own.
    let verbs = "--verb=get,list,watch,patch,create";
    cluster.server.kubectl(["create", "role", "all", "-n", "in-turn", verbs, "--resource=secrets"]);
    let account = format!("--serviceaccount=in-turn:{}", cluster.account.name());
    cluster.server.kubectl(["create", "rolebinding", "all", "-n", "in-turn", "--role=all", &account]);
    let file = cluster.harness.put(
        "in-turn.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: argocd-repositories, namespace: in-turn, \
             selector: argocd.argoproj.io/secret-type}}]\n"
        ),
    );
    wait_for("the rights", SOON, || cluster.may("create", "secrets", "in-turn").then_some(()));
    let once = |change: &dyn Fn(&mut Command)| {
        let done = cluster.once_with(change);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    once(&argocd("in-turn"));
    let template = || cluster.secret("in-turn", HELM).unwrap();
    let made = template();
    let templates_and_repositories: [&dyn Fn(&mut Command); 2] = [&by_file(&file), &argocd("in-turn")];
    for change in templates_and_repositories {
        let before = value(&template(), "password");
        // A token of the same second is no newer one.
        wait_for("a newer credential", DEADLINE, || {
            once(change);
            (value(&template(), "password") != before).then_some(())
        });
        let secret = template();
        for key in ["url", "type", "enableOCI", "username"] {
            assert_eq!(secret["data"][key], made["data"][key], "{key}");
        }
        assert_eq!(secret["metadata"]["labels"], made["metadata"]["labels"]);
    }
    let url = format!("{HOST}/charts/web");
    let Some(found) = cluster.finds(&["argocd-match", "--namespace=in-turn", "--url", &url]) else { return };
    assert_eq!((&found["secret"], &found["username"]), (&json!(HELM), &json!("AWS")), "{found}");
}

/// A docker Secret in JSON, as a backup or a manifest has it: without our annotation.
fn plain(namespace: &str, password: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": SECRET, "namespace": namespace}, "stringData": {".dockerconfigjson": config(password)},
    })
    .to_string()
}

#[test]
fn what_is_replaced_while_it_runs_is_restored() {
    let Some(cluster) = Cluster::new("replaced") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let password = cluster.wait_password("replaced");
    let restored = || (cluster.password("replaced")? == password).then_some(());
    let file = cluster.harness.put("replace.json", &plain("replaced", "of-a-backup"));
    let file = file.to_str().unwrap();
    // As `Replace=true` does it.
    cluster.server.kubectl(["replace", "-f", file]);
    wait_for("the credential", SOON, restored);
    sidecar.wait_ready();
    // As `Replace=true,Force=true` and Velero do it: another object, with another's credential in it.
    cluster.server.kubectl(["replace", "--force", "-f", file]);
    wait_for("the credential", SOON, restored);
    sidecar.wait_ready();
    let annotations = cluster.secret("replaced", SECRET).unwrap()["metadata"]["annotations"].to_string();
    assert!(annotations.contains("ecr-sidecar/expires"), "{annotations}");
}

#[test]
fn a_forged_annotation_does_not_freeze_a_credential() {
    let Some(cluster) = Cluster::new("forged") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let password = cluster.wait_password("forged");
    let auth = STANDARD.encode("AWS:bogus");
    let expiry = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(11);
    let marks = json!({HOST: format!("{expiry:.0} {}", &sha256(&auth)[..16])}).to_string();
    let forge = || {
        let patch = json!({
            "metadata": {"annotations": {"ecr-sidecar/expires": marks}},
            "data": {".dockerconfigjson": STANDARD.encode(config("bogus"))},
        });
        let manager = "--field-manager=tenant";
        cluster.server.kubectl([
            "patch",
            "secret",
            SECRET,
            "-n",
            "forged",
            manager,
            "-p",
            &patch.to_string(),
        ]);
    };
    forge();
    wait_for("the credential", SOON, || (cluster.password("forged")? == password).then_some(()));
    // Also by a process that knows nothing of it, which has a token of its own.
    drop(sidecar);
    forge();
    cluster.start(|_| {}).wait_ready();
    assert_ne!(cluster.password("forged").as_deref(), Some("bogus"));
}

/// The cleanup of a configuration that left a namespace out is still at it when the namespace is wanted again.
#[test]
fn a_namespace_that_is_wanted_again_is_not_emptied() {
    let Some(server) = ApiServer::start() else { return };
    let account = server.service_account("again", "reflector");
    let cluster = Cluster {
        server: Server::Shared(server.into()),
        harness: Harness::with(BINARY, ecr_emulator::Settings::default()),
        account,
    };
    cluster.namespace_with("again-b", "{}");
    let text = |names: &str| {
        format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {SECRET}, \
             namespaces: {{names: [{names}]}}}}]\n"
        )
    };
    let file = cluster.harness.put("again.yaml", &text("again, again-b"));
    let sidecar = cluster.run(by_file(&file));
    sidecar.wait_ready();
    let password = cluster.wait_password("again-b");
    let reloads = |count: u64| {
        sidecar.wait_status("the reload", |status| status["configuration"]["reloads"] == count);
    };
    let mark = cluster.server.audit_mark();
    cluster.server.pause();
    cluster.harness.put("again.yaml", &text("again"));
    reloads(1);
    cluster.harness.put("again.yaml", &text("again, again-b"));
    reloads(2);
    cluster.server.resume();
    sidecar.wait_status("both", |status| status["outputs"][0]["targets"]["in_sync"] == 2);
    let user = cluster.account.user();
    let of_it =
        |request: &test_support::kubernetes::Request| request.user == user && request.namespace == "again-b";
    wait_for("a check of it", DEADLINE, || (cluster.server.count_requests(mark, of_it) >= 2).then_some(()));
    let requests = cluster.server.requests_since(mark);
    let writes: Vec<_> = requests.iter().filter(|it| of_it(it) && it.is_write()).collect();
    assert!(writes.is_empty(), "{} writes", writes.len());
    assert_eq!(cluster.password("again-b"), Some(password));
}
