//! The NetworkPolicies that we ship, together with those that are there already. Policies add up, so one of ours can
//! only open more, or cut off a pod that was open: both are checked for every pod, peer and port that any of the
//! policies speaks of.

mod semantics;

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path};

use semantics::{Peer, Target, reaches};
use serde_json::{Value, json};

use crate::{
    build::{Build, Objects, Product, ROOT, kustomize, read},
    chart, values,
};

/// The health endpoint's.
const OURS: u64 = 9808;
const MONITORING: &str = "monitoring";

/// What is there, and what is there when ours is applied too.
struct Scene {
    name: String,
    before: Vec<Value>,
    after: Vec<Value>,
    targets: Vec<(String, Target)>,
}

impl Scene {
    fn new(name: &str, namespace: &str, stock: &Objects, built: &Objects) -> Self {
        let mut targets: Vec<_> = built.0.iter().filter_map(|object| target(object, namespace)).collect();
        // Pods that are not among the manifests, but that their policies select: a policy of ours may select them too.
        for policy in policies(stock, namespace) {
            let labels = policy["spec"]["podSelector"]["matchLabels"].clone();
            let name = format!("a pod with {labels}");
            targets.push((name, Target { namespace: namespace.into(), labels, ports: Vec::new() }));
        }
        targets.push((
            "any other pod".into(),
            Target { namespace: namespace.into(), labels: json!({"app": "x"}), ports: Vec::new() },
        ));
        let (before, after) = (policies(stock, namespace), policies(built, namespace));
        Self { name: name.into(), before, after, targets }
    }

    /// Everything that `patches/` and the chart have a policy for; empty when kubectl is not here.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for product in Product::ALL {
            let Some(stock) = Build::stock(product) else { return Vec::new() };
            for components in product.choices().iter().filter(|chosen| chosen.contains(&"open-health")) {
                let built = Build::chosen(product, components).unwrap().objects();
                let name = format!("{product:?} {components:?}");
                all.push(Self::new(&name, product.namespace(), &stock.objects(), &built));
            }
        }
        let standalone = Objects::parse(&kustomize(&Path::new(ROOT).join("patches/standalone/deployment")));
        let open = Objects::parse(&kustomize(&Build::open_standalone().at("deployment")));
        all.push(Self::new("standalone", "ecr-sidecar", &standalone, &open));
        if let Some(helm) = chart::Helm::newest() {
            let [closed, open] =
                ["false", "true"].map(|enabled| helm.rendered(&format!("metrics: {{enabled: {enabled}}}")));
            all.push(Self::new("standalone, by the chart", "ecr-sidecar", &closed, &open));
        }
        let chart = values::stock();
        for (files, objects) in values::all().iter().filter(|(files, _)| files.contains("open-health")) {
            for (name, more) in [
                ("chart 10", &["network-policy.yaml"][..]),
                // It is for older charts; here it is one policy too many, and must do no harm.
                ("chart 10, both", &["network-policy.yaml", "network-policy-repo-server.yaml"]),
            ] {
                let built = with(objects, more);
                all.push(Self::new(&format!("{name}: {files}"), "argocd", &chart, &built));
            }
        }
        all
    }

    fn before(&self, peer: &Peer, target: &Target, protocol: &str, port: u64) -> bool {
        reaches(&self.before, peer, target, protocol, port)
    }

    fn after(&self, peer: &Peer, target: &Target, protocol: &str, port: u64) -> bool {
        reaches(&self.after, peer, target, protocol, port)
    }

    /// Each (target, peer, protocol, port) that is worth a check.
    fn questions(&self) -> Vec<(&str, &Target, Peer, &'static str, u64)> {
        let all: Vec<_> = self.before.iter().chain(&self.after).collect();
        let peers = peers(&all);
        let mut questions = Vec::new();
        for (name, target) in &self.targets {
            let mut ports: BTreeSet<u64> = target.ports.iter().map(|(_, _, port)| *port).collect();
            // Those of the products, of the sidecar, their neighbours, and unknown ones.
            ports.extend([1, 22, 8080, 8081, 8084, 9090, 9292, 9440, OURS - 1, OURS, OURS + 1, 65535]);
            ports.extend(all.iter().flat_map(|policy| named_ports(policy)));
            for peer in &peers {
                for protocol in ["TCP", "UDP", "SCTP"] {
                    let ask = |port: &u64| (name.as_str(), target, peer.clone(), protocol, *port);
                    questions.extend(ports.iter().map(ask));
                }
            }
        }
        questions
    }
}

fn policies(objects: &Objects, namespace: &str) -> Vec<Value> {
    let policies = objects.0.iter().filter(|object| object["kind"] == "NetworkPolicy").cloned();
    let mut policies: Vec<_> = policies.collect();
    for policy in &mut policies {
        // As `kubectl apply -n` does it.
        if policy["metadata"]["namespace"].is_null() {
            policy["metadata"]["namespace"] = json!(namespace);
        }
    }
    policies
}

/// The pod of a Deployment.
fn target(object: &Value, namespace: &str) -> Option<(String, Target)> {
    if object["kind"] != "Deployment" {
        return None;
    }
    let template = &object["spec"]["template"];
    let containers = ["containers", "initContainers"].map(|key| template["spec"][key].as_array());
    let ports = containers.into_iter().flatten().flatten().flat_map(|c| c["ports"].as_array()).flatten();
    let ports = ports.map(|port| {
        let text = |key: &str, default: &str| port[key].as_str().unwrap_or(default).to_owned();
        (text("name", ""), text("protocol", "TCP"), port["containerPort"].as_u64().unwrap())
    });
    let labels = template["metadata"]["labels"].clone();
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    Some((name, Target { namespace: namespace.into(), labels, ports: ports.collect() }))
}

/// The numbers that a policy's rules have.
fn named_ports(policy: &Value) -> Vec<u64> {
    let rules = policy["spec"]["ingress"].as_array().into_iter().flatten();
    let ports = rules.flat_map(|rule| rule["ports"].as_array()).flatten();
    ports.flat_map(|port| [port["port"].as_u64(), port["endPort"].as_u64()]).flatten().collect()
}

/// A pod of each kind that any policy lets in, in each namespace that could matter, with each label alone and with all of
/// them; one that is unknown; and addresses inside and outside of the cluster.
fn peers(policies: &[&Value]) -> Vec<Peer> {
    let mut kinds = vec![Vec::new(), vec![("app".to_owned(), "unknown".to_owned())]];
    for policy in policies {
        let rules = policy["spec"]["ingress"].as_array().into_iter().flatten();
        let selectors =
            rules.flat_map(|rule| rule["from"].as_array()).flatten().map(|who| &who["podSelector"]);
        for selector in selectors.chain([&policy["spec"]["podSelector"]]) {
            let labels = selector["matchLabels"].as_object().into_iter().flatten();
            let labels: Vec<_> =
                labels.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect();
            kinds.extend(labels.iter().map(|label| vec![label.clone()]));
            kinds.push(labels);
        }
    }
    kinds.sort();
    kinds.dedup();
    let own = policies.iter().filter_map(|policy| policy["metadata"]["namespace"].as_str());
    let namespaces: BTreeSet<_> = own.chain([MONITORING, "monitoring-2", "default"]).collect();
    let pods = namespaces.into_iter().flat_map(|namespace| {
        kinds.iter().map(move |labels| Peer::Pod { namespace: namespace.into(), labels: labels.clone() })
    });
    let addresses =
        ["10.0.0.7", "192.0.2.1", "2001:db8::1"].map(|address| address.parse::<IpAddr>().unwrap());
    pods.chain(addresses.map(Peer::Address)).collect()
}

/// With policies of `argocd-helm/`.
fn with(objects: &Objects, files: &[&str]) -> Objects {
    let mut objects = objects.clone();
    for file in files {
        objects.0.extend(Objects::parse(&read(&format!("patches/argocd-helm/{file}"))).0);
    }
    objects
}

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
