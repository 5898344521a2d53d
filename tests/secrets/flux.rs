//! The Secret that Flux reads: what is in it, when it is written, what leaves it.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use ecr_emulator::Settings;
use serde_json::{Value, json};
use test_support::{
    Signal,
    harness::{DEADLINE, HOST, SIBLING},
    iam::allow_what_we_ship,
    kubernetes::audit::tally,
    pause, wait_for,
};

use crate::cluster::{Cluster, SECRET, SOON, by_file, sha256, value, with_registry};

#[test]
fn the_secret_that_flux_reads_holds_a_credential_under_the_printed_rights() {
    let Some(cluster) = Cluster::new("flux-reads") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let password = cluster.wait_password("flux-reads");
    let secret = cluster.secret("flux-reads", SECRET).unwrap();
    assert_eq!(secret["type"], "kubernetes.io/dockerconfigjson");
    let metadata = secret["metadata"].to_string();
    assert!(metadata.contains("ecr-sidecar/expires") && !metadata.contains(&password), "{metadata}");
    let status = sidecar.status();
    assert_eq!(status["outputs"][0]["type"], "docker-config-secret");
    assert_eq!(status["outputs"][0]["targets"]["in_sync"], 1, "{status}");
    assert!(!status.to_string().contains(&password) && !sidecar.stderr().contains(&password));

    // The very libraries that Flux reads it with: for an ImageRepository, and for a HelmRepository.
    let image = format!("{HOST}/team/app:v1");
    let expected = json!({"username": "AWS", "passwordSha256": sha256(&password)});
    let secret = ["--namespace=flux-reads", "--secret", SECRET];
    let Some(found) = cluster.finds(&[&["keychain", "--image", &image], &secret[..]].concat()) else {
        return;
    };
    assert_eq!(found, expected);
    assert_eq!(cluster.finds(&[&["docker-config", "--host", HOST], &secret[..]].concat()).unwrap(), expected);
}

#[test]
fn flux_pulls_with_the_secret_before_and_after_a_rotation() {
    let Some((_registry, aws)) = with_registry(Settings::default()) else { return };
    let Some(cluster) = Cluster::with("flux-pulls", aws) else { return };
    allow_what_we_ship(&cluster.harness.emulator);
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let image = format!("{HOST}/team/app:v1");
    let pull =
        ["keychain", "--namespace=flux-pulls", "--secret", SECRET, "--image", &image, "--tags", "--pull"];
    let Some(pulled) = cluster.finds(&pull) else { return };
    assert_eq!(pulled["tags"], json!(["v1"]));
    let before = cluster.password("flux-pulls");
    cluster.harness.emulator.revoke_tokens();
    sidecar.signal(Signal::HUP);
    wait_for("a new credential", DEADLINE, || (cluster.password("flux-pulls") != before).then_some(()));
    assert_eq!(cluster.finds(&pull).unwrap()["digest"], pulled["digest"]);
}

#[test]
fn the_password_is_in_the_data_and_nowhere_else() {
    let Some(cluster) = Cluster::new("canary") else { return };
    let file = cluster.harness.put(
        "canary.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {SECRET}}}, \
             {{type: argocd-repo-creds, namespace: canary}}]\n"
        ),
    );
    let sidecar = cluster.run(|command| {
        by_file(&file)(command);
        command.env("ECR_SIDECAR_LOG", "trace");
    });
    sidecar.wait_ready();
    let password = cluster.wait_password("canary");
    cluster.patch_as("hand", "canary", SECRET, &json!({".dockerconfigjson": STANDARD.encode("{}")}));
    cluster.wait_password("canary");
    sidecar.signal(Signal::HUP);
    wait_for("another credential", DEADLINE, || (cluster.wait_password("canary") != password).then_some(()));
    let newer = cluster.wait_password("canary");
    let status = sidecar.get("/status").1;
    sidecar.stop(DEADLINE);
    let secrets = [SECRET, "ecr-123456789012-eu-west-1-helm", "ecr-123456789012-eu-west-1-oci"];
    let metadata = secrets.map(|name| cluster.secret("canary", name).unwrap()["metadata"].to_string());
    let events = cluster.server.kubectl(["get", "events", "--all-namespaces", "-o", "json"]);
    let log = sidecar.stderr();
    assert!(log.contains("\"level\":\"WARN\""), "it did log");
    for place in [status, log, sidecar.stdout(), metadata.concat(), events] {
        for password in [&password, &newer] {
            for form in
                [password.clone(), STANDARD.encode(password), STANDARD.encode(format!("AWS:{password}"))]
            {
                assert!(!place.contains(&form[..40]), "the password is in {place}");
            }
        }
    }
}

#[test]
fn once_writes_all_others_where_one_is_rejected() {
    let Some(cluster) = Cluster::new("once-many") else { return };
    let names: Vec<_> = (0..40).map(|number| format!("once-many-{number:02}")).collect();
    names.iter().for_each(|name| cluster.namespace_with(name, "{}"));
    let text = |names: &str| {
        format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {SECRET}, \
             namespaces: {{names: [{names}]}}}}]\n"
        )
    };
    let file = cluster.harness.put("once-many.yaml", &text(&names.join(", ")));
    cluster.server.apply(&cluster.manifests(by_file(&file)));
    cluster.harness.put("once-many.yaml", &text(&format!("once-denied, {}", names.join(", "))));
    let last = &names[39];
    wait_for("the Role to count", SOON, || {
        cluster.may("patch", "secrets/ecr-credentials", last).then_some(())
    });
    let done = cluster.once_with(by_file(&file));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(69) && said.contains("once-denied/ecr-credentials"), "{said}");
    for name in &names {
        assert!(cluster.password(name).is_some(), "{name}: {said}");
    }
}

#[test]
fn once_leaves_the_newest_credential_and_not_one_that_was_there() {
    let Some(cluster) = Cluster::new("once-again") else { return };
    cluster.server.apply(&cluster.manifests(|_| {}));
    wait_for("the Role to count", SOON, || (cluster.once().status.code() == Some(0)).then_some(()));
    let mut before = cluster.password("once-again");
    for round in 1..=5 {
        cluster.harness.emulator.set_clock_offset(2 * round); // expiries are compared by the second
        assert_eq!(cluster.once().status.code(), Some(0));
        let after = cluster.password("once-again");
        assert_ne!(after, before);
        before = after;
    }
}

#[test]
fn once_writes_the_secret_and_ends_with_69_where_it_may_not() {
    let Some(cluster) = Cluster::new("once") else { return };
    let refused = cluster.once();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(69), "{said}");
    for part in [
        "cannot get resource \\\"secrets\\\"",
        "system:serviceaccount:once:reflector",
        "once/ecr-credentials",
        "ecr-sidecar manifests",
        "resourceNames: [ecr-credentials]",
        "verbs: [get, list, watch, patch]",
        "Role in namespace once",
    ] {
        assert!(said.contains(part) || said.contains(&part.replace('\\', "")), "{part} is not in\n{said}");
    }
    cluster.server.apply(&cluster.manifests(|_| {}));
    wait_for("the Role to count", SOON, || (cluster.once().status.code() == Some(0)).then_some(()));
    assert!(cluster.password("once").is_some());
}

#[test]
fn nothing_is_written_between_refreshes() {
    let Some(cluster) = Cluster::new("quiet") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let mark = cluster.server.audit_mark();
    let successor = cluster.start(|_| {}); // with a token of its own, which ends later
    successor.wait_ready();
    let both = cluster.password("quiet");
    cluster.server.kubectl(["annotate", "secret", SECRET, "-n", "quiet", "someone=else"]);
    // The successor's check of the annotation is over when a later event has been answered.
    cluster.server.kubectl(["delete", "secret", SECRET, "-n", "quiet"]);
    cluster.server.apply(&cluster.manifests(|_| {}));
    cluster.wait_password("quiet");
    assert!(both.is_some());
    // Without the attempts while the Secret was away, whose number is a matter of time.
    let mut writes = cluster.server.requests_since(mark);
    writes
        .retain(|request| request.user == cluster.account.user() && request.is_write() && request.code < 400);
    let (count, writes) = (writes.len(), tally(&writes));
    // How often each loses to the other is a matter of time; two that fight write without end.
    assert!(count <= 12, "{writes:?} of two sidecars for a start, an annotation and a deletion");
    // Nothing to wait for: that nothing happens is what is shown.
    let writes_in_a_while = || {
        let mark = cluster.server.audit_mark();
        pause(Duration::from_secs(3));
        cluster.writes_since(mark)
    };
    wait_for("the two to agree", DEADLINE, || (writes_in_a_while() == 0).then_some(()));
    assert_eq!(writes_in_a_while(), 0);
}

#[test]
fn a_registry_that_leaves_the_configuration_leaves_the_secret() {
    let Some(cluster) = Cluster::new("leaves") else { return };
    cluster.server.apply(&cluster.manifests(|_| {}));
    let text = |hosts: &str| {
        format!("registries: [{hosts}]\noutputs: [{{type: docker-config-secret, name: {SECRET}}}]\n")
    };
    let file = cluster.harness.put("leaves.yaml", &text(&format!("{{host: {HOST}}}, {{host: {SIBLING}}}")));
    let sidecar = cluster.start(by_file(&file));
    sidecar.wait_ready();
    let hosts = || {
        let text = value(&cluster.secret("leaves", SECRET)?, ".dockerconfigjson")?;
        let config: Value = serde_json::from_str(&text).unwrap();
        Some(config["auths"].as_object()?.keys().cloned().collect::<Vec<_>>())
    };
    assert_eq!(hosts().unwrap(), [HOST, SIBLING]);
    cluster.harness.put("leaves.yaml", &text(&format!("{{host: {HOST}}}")));
    wait_for("the entry to go", DEADLINE, || (hosts()? == [HOST]).then_some(()));
}
