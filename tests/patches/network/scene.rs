//! Policies of a place before and after ours are applied, and each question that is worth a check.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use serde_json::{Value, json};

use super::semantics::{Peer, Target, reaches};
use crate::{
    build::{Build, Objects, Product, ROOT, kustomize, read},
    chart, values,
};

/// The health endpoint's.
pub(crate) const OURS: u64 = 9808;
pub(crate) const MONITORING: &str = "monitoring";

/// What is there, and what is there when ours is applied too.
pub(crate) struct Scene {
    pub(crate) name: String,
    pub(crate) before: Vec<Value>,
    pub(crate) after: Vec<Value>,
    pub(crate) targets: Vec<(String, Target)>,
}

impl Scene {
    pub(crate) fn new(name: &str, namespace: &str, stock: &Objects, built: &Objects) -> Self {
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
    pub(crate) fn all() -> Vec<Self> {
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

    pub(crate) fn before(&self, peer: &Peer, target: &Target, protocol: &str, port: u64) -> bool {
        reaches(&self.before, peer, target, protocol, port)
    }

    pub(crate) fn after(&self, peer: &Peer, target: &Target, protocol: &str, port: u64) -> bool {
        reaches(&self.after, peer, target, protocol, port)
    }

    /// Each (target, peer, protocol, port) that is worth a check.
    pub(crate) fn questions(&self) -> Vec<(&str, &Target, Peer, &'static str, u64)> {
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
pub(crate) fn with(objects: &Objects, files: &[&str]) -> Objects {
    let mut objects = objects.clone();
    for file in files {
        objects.0.extend(Objects::parse(&read(&format!("patches/argocd-helm/{file}"))).0);
    }
    objects
}
