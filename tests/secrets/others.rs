//! What others do to Secrets, and what is theirs.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use test_support::{
    harness::{DEADLINE, HOST},
    wait_for,
};

use crate::cluster::{Cluster, SECRET, SOON, by_file, value};

#[test]
fn an_edit_is_undone_and_reported() {
    let Some(cluster) = Cluster::new("edited") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let password = cluster.wait_password("edited");
    let emptied = json!({".dockerconfigjson": STANDARD.encode("{\"auths\":{}}")});
    cluster.patch_as("hand", "edited", SECRET, &emptied);
    wait_for("the edit to be undone", SOON, || (cluster.password("edited")? == password).then_some(()));
    let line = sidecar.wait_log("Secret was modified by field manager ", DEADLINE);
    assert!(line.contains("\"manager\":\"hand\"") && line.contains("edited/ecr-credentials"), "{line}");
    sidecar.wait_ready();
}

#[test]
fn an_ownership_conflict_is_reported_and_leaves_no_consumer_without_a_credential() {
    let Some(cluster) = Cluster::new("conflict") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let password = cluster.wait_password("conflict");
    let emptied = json!({".dockerconfigjson": STANDARD.encode("{\"auths\":{}}")});
    let patch = || cluster.patch_as("fighter", "conflict", SECRET, &emptied);
    let restored = || (cluster.password("conflict")? == password).then_some(());
    for _ in 0..4 {
        patch();
        wait_for("the edit to be undone", SOON, restored);
    }
    let line = sidecar.wait_log("ownership conflict over a Secret", DEADLINE);
    assert!(line.contains("fighter") && line.contains("IfNotPresent"), "{line}");
    // Further ones are undone too, and each call neither for a line of log nor, at full speed, for a write.
    let mark = cluster.server.audit_mark();
    for _ in 0..20 {
        patch();
    }
    wait_for("the credential", DEADLINE, restored);
    assert!(cluster.writes_since(mark) < 20, "at full speed");
    let lines = sidecar.log_lines();
    let conflicts = lines.iter().filter(|line| line.contains("ownership conflict")).count();
    assert_eq!(conflicts, 1, "{lines:#?}");
    // What no consumer notices, such as our annotation, waits; a credential that is taken meanwhile does not.
    let mark = cluster.server.audit_mark();
    let annotation = "ecr-sidecar/expires-";
    cluster.server.kubectl(["annotate", "secret", SECRET, "-n", "conflict", annotation]);
    patch();
    wait_for("the credential", SOON, restored);
    cluster.server.kubectl(["annotate", "secret", SECRET, "-n", "conflict", annotation]);
    sidecar.wait_ready();
    assert!(cluster.writes_since(mark) >= 1);
}

#[test]
fn a_secret_that_others_filled_is_left_alone_unless_adopted() {
    let Some(cluster) = Cluster::new("adopted") else { return };
    let theirs = STANDARD
        .encode(format!("{{\"auths\":{{\"{HOST}\":{{\"auth\":\"{}\"}}}}}}", STANDARD.encode("AWS:cronjob")));
    cluster.server.apply(&cluster.manifests(|_| {}));
    cluster.patch_as("cronjob", "adopted", SECRET, &json!({".dockerconfigjson": theirs}));
    let sidecar = cluster.start(|_| {});
    let line = sidecar.wait_log("holds unmanaged credentials", DEADLINE);
    assert!(line.contains("adopt: true"), "{line}");
    assert_eq!(cluster.password("adopted").as_deref(), Some("cronjob"));
    assert_eq!(sidecar.get("/readyz").0, 503);
    drop(sidecar);
    let file = cluster.harness.put(
        "adopt.yaml",
        &format!("registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {SECRET}, adopt: true}}]\n"),
    );
    let sidecar = cluster.start(by_file(&file));
    sidecar.wait_ready();
    assert_ne!(cluster.wait_password("adopted"), "cronjob");
}

#[test]
fn a_failing_target_holds_up_no_other() {
    let Some(cluster) = Cluster::new("failing") else { return };
    let server = &cluster.server;
    server.apply("{apiVersion: v1, kind: Namespace, metadata: {name: failing-opaque}}");
    let file = cluster.harness.put(
        "failing.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {SECRET}, \
             namespaces: {{names: [failing, failing-opaque, failing-missing]}}}}]\n"
        ),
    );
    server.apply(
        "{apiVersion: v1, kind: Secret, metadata: {name: ecr-credentials, namespace: failing-opaque}}",
    );
    server.apply(&cluster.manifests(|_| {})); // for the one namespace only
    let sidecar = cluster.start(by_file(&file));
    cluster.wait_password("failing");
    let status = sidecar.wait_status("two failing targets", |status| {
        status["outputs"][0]["targets"]["failing"].as_array().is_some_and(|failing| failing.len() == 2)
    });
    let targets = &status["outputs"][0]["targets"];
    assert_eq!((&targets["total"], &targets["in_sync"]), (&json!(3), &json!(1)));
    let errors = targets["failing"].to_string();
    for part in [
        "failing-opaque/ecr-credentials",
        "failing-missing/ecr-credentials",
        "Role in namespace failing-missing",
    ] {
        assert!(errors.contains(part), "{part} is not in {errors}");
    }
    let (code, body) = sidecar.get("/readyz");
    assert_eq!(code, 503, "{body}");
}

/// As Flux applies what is in Git, every few minutes, where it is not configured to leave the Secret alone.
#[test]
fn an_applier_that_takes_the_credentials_back_is_undone() {
    let Some(cluster) = Cluster::new("gitops") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let password = cluster.wait_password("gitops");
    let forced = ["--server-side", "--force-conflicts", "--field-manager=kustomize-controller"];
    let applied = cluster.server.apply_with(forced, &cluster.manifests(|_| {}));
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let line = sidecar.wait_log("Secret was modified by field manager ", DEADLINE);
    assert!(line.contains("kustomize-controller"), "{line}");
    wait_for("the credentials", SOON, || (cluster.password("gitops")? == password).then_some(()));
}

#[test]
fn entries_of_the_base_are_carried_along_and_follow_it() {
    let Some(cluster) = Cluster::new("based") else { return };
    let base = |password: &str| {
        let auth = STANDARD.encode(format!("me:{password}"));
        cluster.harness.put("base.json", &format!("{{\"auths\":{{\"ghcr.io\":{{\"auth\":\"{auth}\"}}}}}}"))
    };
    let path = base("one");
    let file = cluster.harness.put(
        "based.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {SECRET}, base: '{}'}}]\n",
            path.display()
        ),
    );
    let sidecar = cluster.run(by_file(&file));
    sidecar.wait_ready();
    let carried = || {
        let text = value(&cluster.secret("based", SECRET)?, ".dockerconfigjson")?;
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        let auth = STANDARD.decode(config["auths"]["ghcr.io"]["auth"].as_str()?).unwrap();
        Some(String::from_utf8(auth).unwrap())
    };
    wait_for("the entry of the base", DEADLINE, || (carried()? == "me:one").then_some(()));
    base("two");
    wait_for("the new entry of the base", DEADLINE, || (carried()? == "me:two").then_some(()));
    assert!(cluster.password("based").is_some());
}

#[test]
fn of_many_failing_twenty_are_reported_and_the_rest_counted() {
    let Some(cluster) = Cluster::new("crowd") else { return };
    let names: Vec<_> = (0..25).map(|number| format!("crowd-{number:02}")).collect();
    let file = cluster.harness.put(
        "crowd.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {SECRET}, \
             namespaces: {{names: [{}]}}}}]\n",
            names.join(", ")
        ),
    );
    let sidecar = cluster.start(by_file(&file)); // without any right
    let status = sidecar.wait_status("all targets failing", |status| {
        status["outputs"][0]["targets"]["more_failing"].as_u64() == Some(5)
    });
    assert_eq!(status["outputs"][0]["targets"]["failing"].as_array().unwrap().len(), 20);
}

/// Nothing of the Secrets of others is even asked for, so there is nothing that could grow with them.
#[test]
fn only_secrets_of_the_one_name_are_listed_and_watched() {
    let Some(cluster) = Cluster::new("name-only") else { return };
    cluster.namespace_with("name-only", "{name-only: enabled}");
    let file = cluster.harness.put(
        "name-only.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {SECRET}, \
             namespaces: {{selector: name-only=enabled}}}}]\n"
        ),
    );
    let mark = cluster.server.audit_mark();
    let sidecar = cluster.run(by_file(&file));
    sidecar.wait_ready();
    let user = cluster.account.user();
    let is_watch = |it: &test_support::kubernetes::Request| {
        it.user == user && it.resource == "secrets" && ["list", "watch"].contains(&it.verb.as_str())
    };
    wait_for("list and watch", DEADLINE, || {
        (cluster.server.count_requests(mark, is_watch) >= 2).then_some(())
    });
    for request in cluster.server.requests_since(mark).iter().filter(|it| is_watch(it)) {
        assert!(request.uri.contains("fieldSelector=metadata.name%3Decr-credentials"), "{}", request.uri);
    }
}

/// As large as a Secret may be, with entries that no consumer can read: it is kept like any other, next to an unmanaged one.
#[test]
fn a_secret_full_of_broken_entries_is_kept_and_holds_up_no_other() {
    let Some(cluster) = Cluster::new("hostile") else { return };
    let file = cluster.harness.put(
        "hostile.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\noutputs:\n- {{type: docker-config-secret, name: {SECRET}, adopt: true}}\n\
             - {{type: docker-config-secret, name: neighbour}}\n"
        ),
    );
    let entries: serde_json::Map<_, _> = (0..60_000).map(|number| (format!("h{number}"), json!(0))).collect();
    let hostile = json!({"auths": entries}).to_string();
    cluster.server.apply(&cluster.manifests(by_file(&file)));
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": SECRET, "namespace": "hostile"}, "data": {".dockerconfigjson": STANDARD.encode(&hostile)},
    });
    let forced = ["--server-side", "--force-conflicts"];
    let applied = cluster.server.apply_with(forced, &secret.to_string());
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let sidecar = cluster.start(by_file(&file));
    sidecar.wait_ready();
    let text = value(&cluster.secret("hostile", SECRET).unwrap(), ".dockerconfigjson").unwrap();
    assert!(text.contains("\"h59999\":0") && text.contains(HOST));
    let lines = sidecar.log_lines();
    assert!(lines.len() < 60, "{} lines", lines.len());
}
