//! The rights that are applied are those that the program prints for the same configuration.

use serde_json::Value;

use crate::{build::Objects, containers::Ours};

const RIGHTS: [&str; 7] = [
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "Secret",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

#[test]
fn the_rights_of_every_container_are_those_that_manifests_prints() {
    for ours in Ours::all() {
        if ours.place == "init-container" {
            continue; // it writes a file
        }
        let (namespace, name) = &ours.account;
        let printed = ours.command(&["manifests", "--namespace", namespace, "--service-account", name]);
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let printed = Objects::parse(&String::from_utf8(printed.stdout).unwrap());
        let printed = sorted(printed.0.iter());
        let given = sorted(ours.objects.0.iter().filter(|object| is_given_to(object, name)));
        assert_eq!(given, printed, "{}", ours.place);
    }
}

/// Whether that object is a right of ours as this service account, or a Secret of ours.
fn is_given_to(object: &Value, account: &str) -> bool {
    let name = object["metadata"]["name"].as_str().unwrap();
    is_right(object)
        && match object["kind"].as_str() {
            Some("Secret") => name.starts_with("ecr-"),
            _ => name.starts_with("ecr-sidecar-") && name.ends_with(account),
        }
}

/// Whether it is of a kind that `manifests` prints.
pub(crate) fn is_right(object: &Value) -> bool {
    object["kind"].as_str().is_some_and(|kind| RIGHTS.contains(&kind))
}

/// By kind, namespace and name.
pub(crate) fn sorted<'a>(objects: impl Iterator<Item = &'a Value>) -> Vec<Value> {
    let mut objects: Vec<_> = objects.cloned().collect();
    objects.sort_by_key(|object| {
        let metadata = &object["metadata"];
        format!("{} {} {}", object["kind"], metadata["namespace"], metadata["name"])
    });
    objects
}
