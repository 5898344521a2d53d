//! Those who hold the printed manifests in Git: each applies them twice under a running sidecar, which succeeds, leaves
//! the applier its labels, and leaves the consumer a credential.

use std::process::Command;

use serde_json::json;
use test_support::{harness::DEADLINE, output, program, wait_for};

use crate::cluster::{Cluster, SECRET, SOON};

fn succeeds(command: &mut Command, what: &str) {
    let done = output(command, DEADLINE);
    assert!(
        done.status.success(),
        "{what}: {}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Applies before the sidecar runs, and twice more while it does; `label` is the applier's own.
fn lives_beside(cluster: &Cluster, label: (&str, &str), mut apply: impl FnMut(u32)) {
    let namespace = cluster.namespace();
    apply(0);
    let sidecar = cluster.start(|_| {});
    sidecar.wait_ready();
    let password = cluster.wait_password(namespace);
    for turn in 1..=2 {
        apply(turn);
        wait_for("the credential", SOON, || (cluster.password(namespace)? == password).then_some(()));
        let secret = cluster.secret(namespace, SECRET).unwrap();
        let labels = &secret["metadata"]["labels"];
        assert_eq!(labels[label.0], label.1, "turn {turn}: {labels}");
        assert!(secret["metadata"]["annotations"]["ecr-sidecar/expires"].is_string(), "turn {turn}");
        sidecar.wait_ready();
    }
}

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// A chart that holds what `manifests` prints, by that helm.
fn helm(name: &str, namespace: &str) {
    let Some(cluster) = Cluster::new(namespace) else { return };
    let Some(helm) = program(name) else { return };
    let manifests = cluster.manifests(|_| {});
    let chart = |version: u32| {
        // Something else changes each time, as it does in practice.
        cluster
            .harness
            .put("chart/Chart.yaml", &format!("apiVersion: v2\nname: team-a\nversion: 0.1.{version}\n"));
        let note = format!(
            "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: note}}, data: {{a: 'v{version}'}}}}\n"
        );
        cluster.harness.put("chart/templates/all.yaml", &format!("{manifests}{note}"));
    };
    let folder = cluster.harness.at("chart");
    std::fs::create_dir_all(folder.join("templates")).unwrap();
    lives_beside(&cluster, (MANAGED_BY, "Helm"), |turn| {
        chart(turn);
        let mut command = cluster.consumer(&helm);
        command.args(["upgrade", "--install", "team-a", "-n", namespace]).arg(&folder);
        succeeds(command.arg("--kubeconfig").arg(cluster.server.kubeconfig()), &format!("turn {turn}"));
    });
}

#[test]
fn helm_3_upgrades_a_chart_with_the_printed_manifests() {
    helm("helm3", "by-helm3");
}

#[test]
fn helm_4_upgrades_a_chart_with_the_printed_manifests() {
    helm("helm4", "by-helm4");
}

fn kubectl(namespace: &str, arguments: &[&str]) {
    let Some(cluster) = Cluster::new(namespace) else { return };
    let manifests = cluster.manifests(|_| {});
    lives_beside(&cluster, (MANAGED_BY, "ecr-sidecar"), |turn| {
        let manifests = manifests.replace("type: kubernetes", &format!("# {turn}\ntype: kubernetes"));
        let done = cluster.server.apply_with(arguments, &manifests);
        assert!(done.status.success(), "turn {turn}: {}", String::from_utf8_lossy(&done.stderr));
    });
}

#[test]
fn kubectl_applies_the_printed_manifests_again() {
    kubectl("by-kubectl", &[]);
}

#[test]
fn kubectl_applies_the_printed_manifests_server_side() {
    kubectl("by-kubectl-ssa", &["--server-side"]);
}

/// An applier whose labels every object gets, the one that we once claimed among them.
fn kustomize(namespace: &str, arguments: &[&str]) {
    let Some(cluster) = Cluster::new(namespace) else { return };
    cluster.harness.put("kustomize/all.yaml", &cluster.manifests(|_| {}));
    cluster.harness.put(
        "kustomize/kustomization.yaml",
        &format!("resources: [all.yaml]\ncommonLabels: {{{MANAGED_BY}: kustomize, team: a}}\n"),
    );
    lives_beside(&cluster, (MANAGED_BY, "kustomize"), |turn| {
        let mut build = cluster.server.kubectl_command(&cluster.server.kubeconfig());
        let built = output(build.arg("kustomize").arg(cluster.harness.at("kustomize")), DEADLINE);
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let done = cluster.server.apply_with(arguments, &String::from_utf8(built.stdout).unwrap());
        assert!(done.status.success(), "turn {turn}: {}", String::from_utf8_lossy(&done.stderr));
    });
}

#[test]
fn kustomize_applies_its_own_labels() {
    kustomize("by-kustomize", &[]);
}

#[test]
fn kustomize_applies_its_own_labels_server_side() {
    kustomize("by-kustomize-ssa", &["--server-side"]);
}

/// An Argo CD Application that ignores what `manifests` prints besides the Secret: with `RespectIgnoreDifferences=true` it
/// applies the live values of the fields that it ignores, and then there is nothing to undo.
#[test]
fn an_application_that_ignores_what_is_printed_takes_nothing() {
    let Some(cluster) = Cluster::new("by-argocd") else { return };
    let manifests = cluster.manifests(|_| {});
    let comment = manifests.lines().skip_while(|line| *line != "    #   spec:");
    let comment = comment.take_while(|line| line.starts_with("    #   "));
    let comment: Vec<_> = comment.map(|line| line.trim_start_matches(['#', ' '])).collect();
    for line in [
        "ignoreDifferences:",
        "- kind: Secret",
        &format!("name: '{SECRET}'"),
        "namespace: 'by-argocd'",
        "syncOptions: [RespectIgnoreDifferences=true]",
    ] {
        assert!(comment.contains(&line), "{line} is not in {comment:#?}");
    }
    let pointers = comment.iter().find_map(|line| line.strip_prefix("jsonPointers: [")?.strip_suffix(']'));

    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let live = cluster.secret("by-argocd", SECRET).unwrap();
    let mut desired = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": SECRET, "namespace": "by-argocd", "annotations": {},
            "labels": {"app.kubernetes.io/managed-by": "ecr-sidecar", "argocd.argoproj.io/instance": "team-a"}},
        "data": {},
    });
    for pointer in pointers.unwrap().split(", ") {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let value = live.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in the Secret")).clone();
        desired.pointer_mut(parent).unwrap()[name.replace("~1", "/")] = value;
    }
    assert_eq!(desired["data"], live["data"], "all of the credentials are ignored");
    let mark = cluster.server.audit_mark();
    for _ in 0..2 {
        let forced = ["--server-side", "--force-conflicts", "--field-manager=argocd-controller"];
        let applied = cluster.server.apply_with(forced, &desired.to_string());
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    }
    let after = cluster.secret("by-argocd", SECRET).unwrap();
    assert_eq!(after["data"], live["data"]);
    assert_eq!(after["metadata"]["labels"]["argocd.argoproj.io/instance"], "team-a");
    sidecar.wait_ready();
    assert_eq!(cluster.writes_since(mark), 0);
}
