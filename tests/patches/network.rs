//! The NetworkPolicies that we ship, together with those that are there already. Policies add up, so one of ours can
//! only open more, or cut off a pod that was open: both are checked for every pod, peer and port that any of the
//! policies speaks of.

mod scene;
mod semantics;

use std::{fs, path::Path};

use scene::{MONITORING, OURS, Scene, with};
use semantics::Peer;
use serde_json::{Value, json};

use crate::{
    build::{Objects, ROOT},
    values,
};

fn is_monitoring(peer: &Peer) -> bool {
    matches!(peer, Peer::Pod { namespace, .. } if namespace == MONITORING)
}

#[test]
fn no_policy_of_ours_opens_any_port_but_9808_and_that_to_one_namespace() {
    for scene in Scene::all() {
        let mut opened = 0;
        for (name, target, peer, protocol, port) in scene.questions() {
            if scene.after(&peer, target, protocol, port) && !scene.before(&peer, target, protocol, port) {
                let ours = port == OURS && protocol == "TCP" && is_monitoring(&peer);
                let injected = target.labels["ecr-sidecar/health"] == "open";
                assert!(ours && injected, "{}: {name} {protocol} {port} by {peer:?}", scene.name);
                opened += 1;
            }
        }
        assert!(opened > 0 || scene.before.is_empty(), "{}", scene.name);
    }
}

#[test]
fn no_policy_of_ours_cuts_off_anybody_and_monitoring_is_let_in() {
    for scene in Scene::all() {
        for (name, target, peer, protocol, port) in scene.questions() {
            let injected = target.labels["ecr-sidecar/health"] == "open";
            let after = scene.after(&peer, target, protocol, port);
            if injected && port == OURS && protocol == "TCP" && is_monitoring(&peer) {
                assert!(after, "{}: {name}", scene.name);
            }
            // The standalone pod has this one port, and no client used it before.
            if !scene.name.starts_with("standalone") && scene.before(&peer, target, protocol, port) {
                assert!(after, "{}: {name} {protocol} {port} by {peer:?}", scene.name);
            }
        }
    }
}

/// A chart before 10.0.0: the pods are the same, there are no policies.
#[test]
fn with_an_older_chart_repo_server_is_open_to_argocds_components_and_to_no_other_pod() {
    let all = values::all();
    let (_, objects) = all.iter().find(|(files, _)| files.contains("open-health")).unwrap();
    let mut objects = objects.clone();
    objects.0.retain(|object| object["kind"] != "NetworkPolicy");
    let scene = |more: &[&str]| Scene::new("chart 9", "argocd", &objects, &with(&objects, more));
    let as_by_chart_10 = Scene::new("chart 10", "argocd", &values::stock(), &values::stock());
    let both = scene(&["network-policy.yaml", "network-policy-repo-server.yaml"]);
    let (_, repo_server) = both.targets.iter().find(|(name, _)| name == "argocd-repo-server").unwrap();
    let mut open = 0;
    for (name, target, peer, protocol, port) in both.questions().into_iter().chain(as_by_chart_10.questions())
    {
        if name != "argocd-repo-server" || (port == OURS && is_monitoring(&peer)) {
            continue;
        }
        let wanted = as_by_chart_10.before(&peer, target, protocol, port);
        assert_eq!(both.after(&peer, repo_server, protocol, port), wanted, "{protocol} {port} by {peer:?}");
        open += u32::from(wanted);
    }
    assert!(open > 4);
    // Why there are two: the first alone cuts Argo CD's own components off.
    let server = Peer::Pod {
        namespace: "argocd".into(),
        labels: ["name", "instance"]
            .map(|key| format!("app.kubernetes.io/{key}"))
            .into_iter()
            .zip(["argocd-server".to_owned(), "argocd".to_owned()])
            .collect(),
    };
    assert!(both.after(&server, repo_server, "TCP", 8081));
    assert!(!scene(&["network-policy.yaml"]).after(&server, repo_server, "TCP", 8081));
}

/// A policy that names `Egress` cuts off what it doesn't list, also what the sidecar needs; one that is in no scene is
/// checked by no test.
#[test]
fn every_policy_of_ours_is_about_ingress_alone_and_is_in_a_scene() {
    let scenes = Scene::all();
    if scenes.is_empty() {
        return;
    }
    let files = policy_files(&Path::new(ROOT).join("patches"));
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        for policy in Objects::parse(&fs::read_to_string(&file).unwrap()).0 {
            let spec = &policy["spec"];
            assert_eq!(spec["policyTypes"], json!(["Ingress"]), "{file}");
            assert!(spec["egress"].is_null(), "{file}");
            let known = scenes.iter().flat_map(|scene| &scene.after).any(|applied| applied["spec"] == *spec);
            assert!(known, "{file}");
        }
    }
}

fn policy_files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(policy_files(&path));
        } else if fs::read_to_string(&path).unwrap().contains("kind: NetworkPolicy\n") {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Holes that this file's tests must see: what was shipped once, and others of its kind.
#[test]
fn holes_are_seen() {
    let chart = values::stock();
    let policy = |spec: Value| {
        let mut built = chart.clone();
        built.0.push(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "hole"}, "spec": spec,
        }));
        built
    };
    let to_repo_server = json!({"matchLabels": {"app.kubernetes.io/name": "argocd-repo-server"}});
    for (hole, spec) in [
        (
            "a rule without `from`",
            json!({"podSelector": to_repo_server, "ingress": [{"ports": [{"port": 8081}]}]}),
        ),
        (
            "an empty `from`",
            json!({"podSelector": to_repo_server, "ingress": [{"ports": [{"port": 8081}], "from": []}]}),
        ),
        (
            "a rule without ports",
            json!({"podSelector": to_repo_server,
            "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": MONITORING}}}]}]}),
        ),
        (
            "a port by its name",
            json!({"podSelector": to_repo_server,
            "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": "repo-server"}]}]}),
        ),
        (
            "a range",
            json!({"podSelector": to_repo_server, "ingress": [{"ports": [{"port": 8000, "endPort": 9000}]}]}),
        ),
        (
            "an address block",
            json!({"podSelector": to_repo_server,
            "ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 8081}]}]}),
        ),
        (
            "every pod of the namespace",
            json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}),
        ),
        (
            "an expression",
            json!({"podSelector": {"matchExpressions": [
            {"key": "app.kubernetes.io/name", "operator": "NotIn", "values": ["x"]}]},
            "ingress": [{"from": [{"podSelector": {"matchExpressions": [
                {"key": "app", "operator": "Exists"}]}}], "ports": [{"port": 8081}]}]}),
        ),
    ] {
        let scene = Scene::new(hole, "argocd", &chart, &policy(spec));
        let opened = scene.questions().into_iter().any(|(_, target, peer, protocol, port)| {
            port != OURS
                && scene.after(&peer, target, protocol, port)
                && !scene.before(&peer, target, protocol, port)
        });
        assert!(opened, "{hole}");
    }
    let cut_off = policy(json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    let scene = Scene::new("deny all", "argocd", &chart, &cut_off);
    assert!(scene.questions().into_iter().any(|(_, target, peer, protocol, port)| {
        scene.before(&peer, target, protocol, port) && !scene.after(&peer, target, protocol, port)
    }));
}
