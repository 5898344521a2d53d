//! What NetworkPolicies let in, as the API reference of `networking.k8s.io/v1` defines it: they add up, a pod that none
//! selects is open to everybody, and one that any selects is reached by what some rule lets in and by nothing else.

use std::net::IpAddr;

use serde_json::Value;

/// Who opens a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    Pod {
        namespace: String,
        labels: Vec<(String, String)>,
    },
    /// A node, or something outside of the cluster.
    Address(IpAddr),
}

/// A pod that listens.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) namespace: String,
    pub(crate) labels: Value,
    /// Its named ports: name, protocol, number.
    pub(crate) ports: Vec<(String, String, u64)>,
}

/// Whether that peer reaches that port under these policies.
pub(crate) fn reaches(policies: &[Value], peer: &Peer, target: &Target, protocol: &str, port: u64) -> bool {
    let mut selecting = policies.iter().filter(|policy| isolates(policy, target)).peekable();
    selecting.peek().is_none()
        || selecting.any(|policy| {
            list(&policy["spec"]["ingress"]).iter().any(|rule| {
                let (ports, from) = (list(&rule["ports"]), list(&rule["from"]));
                // Left out or empty is everything and everybody.
                (ports.is_empty() || ports.iter().any(|allowed| covers(allowed, target, protocol, port)))
                    && (from.is_empty() || from.iter().any(|who| is(who, peer, &target.namespace)))
            })
        })
}

fn isolates(policy: &Value, target: &Target) -> bool {
    let spec = &policy["spec"];
    let types = list(&spec["policyTypes"]);
    policy["metadata"]["namespace"] == *target.namespace
        && (types.is_empty() || types.contains(&Value::from("Ingress")))
        && selects(&spec["podSelector"], &|name| target.labels[name].as_str())
}

fn covers(allowed: &Value, target: &Target, protocol: &str, port: u64) -> bool {
    allowed["protocol"].as_str().unwrap_or("TCP") == protocol
        && match &allowed["port"] {
            Value::Null => true,
            Value::String(name) => target
                .ports
                .iter()
                .any(|(named, with, number)| named == name && with == protocol && *number == port),
            first => {
                let first = first.as_u64().unwrap();
                (first..=allowed["endPort"].as_u64().unwrap_or(first)).contains(&port)
            }
        }
}

fn is(who: &Value, peer: &Peer, own_namespace: &str) -> bool {
    let (pods, namespaces, block) = (&who["podSelector"], &who["namespaceSelector"], &who["ipBlock"]);
    match peer {
        Peer::Address(address) => {
            let within = |block: &Value| is_within(*address, block.as_str().unwrap());
            !block.is_null() && within(&block["cidr"]) && !list(&block["except"]).iter().any(within)
        }
        // What a block means to a pod is up to the network plugin: it may be let in.
        Peer::Pod { .. } if !block.is_null() => true,
        Peer::Pod { namespace, labels } => {
            let label =
                |name: &str| labels.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
            let of_namespace = |name: &str| (name == "kubernetes.io/metadata.name").then_some(&**namespace);
            let there = if namespaces.is_null() {
                namespace == own_namespace
            } else {
                selects(namespaces, &of_namespace)
            };
            there && (pods.is_null() || selects(pods, &label))
        }
    }
}

fn selects<'a>(selector: &Value, label: &dyn Fn(&str) -> Option<&'a str>) -> bool {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    equal.into_iter().all(|(name, value)| label(name) == value.as_str())
        && list(&selector["matchExpressions"]).iter().all(|expression| {
            let (found, values) = (label(expression["key"].as_str().unwrap()), list(&expression["values"]));
            let among = found.is_some_and(|found| values.contains(&Value::from(found)));
            match expression["operator"].as_str().unwrap() {
                "In" => among,
                "NotIn" => !among,
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                other => panic!("no operator: {other}"),
            }
        })
}

fn is_within(address: IpAddr, block: &str) -> bool {
    let (network, length) = block.split_once('/').unwrap();
    let length: u32 = length.parse().unwrap();
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let ((address, size), (network, of_network)) = (bits(address), bits(network.parse().unwrap()));
    size == of_network && (length == 0 || (address ^ network) >> (128 - length) == 0)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
