//! The rights that `ecr-sidecar manifests` prints: enough, and nothing superfluous.

use std::process::Command;

use test_support::{
    Harness,
    harness::{DEADLINE, HOST},
    output, wait_for,
};

use crate::{
    BINARY,
    cluster::{Cluster, SECRET, SOON, by_file},
};

#[test]
fn the_sidecar_can_do_nothing_with_any_other_secret() {
    let Some(cluster) = Cluster::new("least") else { return };
    cluster.server.apply(&cluster.manifests(|_| {}));
    cluster.server.apply("{apiVersion: v1, kind: Secret, metadata: {name: other, namespace: least}}");
    let may = |verb: &str, what: &str| cluster.may(verb, what, "least");
    wait_for("the Role to count", SOON, || may("patch", "secrets/ecr-credentials").then_some(()));
    for verb in ["get", "list", "watch", "patch"] {
        assert!(may(verb, "secrets/ecr-credentials"), "{verb}");
    }
    for (verb, what) in [
        ("create", "secrets"),
        ("create", "secrets/ecr-credentials"),
        ("update", "secrets/ecr-credentials"),
        ("delete", "secrets/ecr-credentials"),
        ("get", "secrets/other"),
        ("patch", "secrets/other"),
        ("list", "secrets"),
        ("watch", "secrets"),
        ("get", "configmaps"),
        ("list", "namespaces"),
    ] {
        assert!(!may(verb, what), "{verb} {what}");
    }
    let read = cluster.server.kubectl_as(&cluster.account, ["get", "secret", "other", "-n", "least"]);
    assert!(!read.status.success());
}

/// Takes `verb` on `resource` out of what `manifests` prints, and waits until the sidecar says that it lacks it.
fn breaks_without(cluster: &Cluster, prepare: &impl Fn(&mut Command), verb: &str, resource: &str) {
    let mut rules = 0;
    let mut of_resource = false;
    let without: String = cluster
        .manifests(prepare)
        .lines()
        .map(|line| {
            if let Some(named) = line.trim().strip_prefix("resources: ") {
                of_resource = named == format!("[{resource}]");
            }
            let verbs = line.trim().strip_prefix("verbs: [").and_then(|rest| rest.strip_suffix(']'));
            match verbs.filter(|verbs| of_resource && verbs.split(", ").any(|one| one == verb)) {
                Some(verbs) => {
                    rules += 1;
                    let rest: Vec<_> = verbs.split(", ").filter(|one| *one != verb).collect();
                    let rest = if rest.is_empty() { "none".to_owned() } else { rest.join(", ") };
                    format!("    verbs: [{rest}]\n")
                }
                None => format!("{line}\n"),
            }
        })
        .collect();
    assert_eq!(rules, 1, "{verb} on {resource}");
    cluster.server.apply(&without);
    let namespace = cluster.account.namespace();
    let name = if resource == "secrets" { format!("secrets/{SECRET}") } else { resource.to_owned() };
    wait_for("the rights to count", SOON, || (!cluster.may(verb, &name, namespace)).then_some(()));
    let sidecar = cluster.start(prepare);
    let line = sidecar.wait_log(&format!("cannot {verb} resource"), DEADLINE);
    assert!(line.contains("ecr-sidecar manifests") && line.contains("verbs: ["), "{line}");
}

#[test]
fn each_verb_of_the_role_is_needed() {
    let Some(cluster) = Cluster::new("verbs") else { return };
    for verb in ["get", "list", "watch", "patch"] {
        breaks_without(&cluster, &|_: &mut Command| {}, verb, "secrets");
    }
}

#[test]
fn each_verb_of_the_cluster_role_is_needed() {
    let Some(cluster) = Cluster::new("cluster-verbs") else { return };
    cluster.namespace_with("cluster-verbs", "{cluster-verbs: enabled}");
    let text = |label: &str| {
        format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {SECRET}, \
             namespaces: {{selector: {label}=enabled}}}}]\n"
        )
    };
    let file = cluster.harness.put("cluster-verbs.yaml", &text("cluster-verbs"));
    let prepare = by_file(&file);
    // While there is no Secret, one has to be made; when there is one, what it says has to be read.
    for verb in ["create", "patch"] {
        breaks_without(&cluster, &prepare, verb, "secrets");
    }
    cluster.run(&prepare).wait_ready();
    for verb in ["get", "list", "watch"] {
        breaks_without(&cluster, &prepare, verb, "secrets");
    }
    for verb in ["list", "watch"] {
        breaks_without(&cluster, &prepare, verb, "namespaces");
    }
}

#[test]
fn to_prune_takes_the_right_to_delete() {
    let Some(cluster) = Cluster::new("delete-verb") else { return };
    cluster.namespace_with("delete-verb-a", "{delete-verb: enabled}");
    let text = |prune: bool| {
        format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: delete-verb-pull, \
             prune: {prune}, namespaces: {{selector: delete-verb=enabled}}}}]\n"
        )
    };
    let without = cluster.harness.put("kept.yaml", &text(false));
    let manifests = cluster.manifests(by_file(&without));
    assert!(!manifests.contains("delete]"), "{manifests}");
    cluster.permit(&manifests);
    let with = cluster.harness.put("pruned.yaml", &text(true));
    let sidecar = cluster.start(by_file(&with));
    sidecar.wait_ready();
    cluster.server.kubectl(["label", "namespace", "delete-verb-a", "delete-verb-"]);
    let line = sidecar.wait_log("left as it is", DEADLINE);
    assert!(line.contains("cannot delete resource"), "{line}");
}

#[test]
fn a_secret_that_is_deleted_and_may_not_be_created_is_reported_with_the_remedy() {
    let Some(cluster) = Cluster::new("deleted") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    cluster.server.kubectl(["delete", "secret", SECRET, "-n", "deleted"]);
    let line = sidecar.wait_log("cannot create resource", DEADLINE);
    assert!(line.contains("create the Secret beforehand"), "{line}");
    cluster.server.apply(&cluster.manifests(|_| {}));
    cluster.wait_password("deleted");
    sidecar.wait_ready();
}

#[test]
fn files_alone_need_no_rights() {
    let harness = Harness::new(BINARY);
    let mut command = Command::new(BINARY);
    command
        .args(["manifests", "--service-account=a", "--namespace=b"])
        .env_clear()
        .envs(harness.environment());
    let printed = output(&mut command, DEADLINE);
    let printed = String::from_utf8_lossy(&printed.stdout);
    assert!(
        printed.contains("it needs nothing") && printed.lines().all(|line| line.starts_with('#')),
        "{printed}"
    );
}
