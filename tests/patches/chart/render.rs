//! Linted, rendered over all versions of Kubernetes, and accepted by a real API server.

use serde_json::{Value, json};
use test_support::ApiServer;

use super::{Helm, VALUES, all, values};
use crate::build::Objects;

/// The minor versions of Kubernetes 1 that the chart is rendered for.
const MINORS: std::ops::RangeInclusive<u32> = 29..=37;

#[test]
fn both_helms_lint_the_chart_with_all_values() {
    for helm in Helm::both() {
        for values in std::iter::once(String::new()).chain(VALUES.map(values)) {
            let (passes, said) = helm.lint(&values);
            assert!(passes && !said.contains("WARNING"), "{said}");
        }
    }
}

#[test]
fn every_version_of_kubernetes_gets_the_same() {
    for name in VALUES {
        let mut first = None;
        for helm in Helm::both() {
            for minor in MINORS {
                let version = format!("--kube-version=1.{minor}.0");
                let rendered = helm.template(&values(name), &[&version]);
                // Of what is below, only the policy is not there in 1.29.
                if minor == 29 && ["monitoring", "selector"].contains(&name) {
                    let message = rendered.unwrap_err();
                    assert!(message.contains("needs Kubernetes 1.30"), "{message}");
                    let without = format!("{}rbac: {{admissionPolicy: false}}\n", values(name));
                    let without = helm.template(&without, &[&version]).unwrap();
                    assert!(without.0.iter().all(|it| it["kind"] != "ValidatingAdmissionPolicy"), "{name}");
                    continue;
                }
                let rendered = rendered.unwrap_or_else(|message| panic!("{name}, 1.{minor}: {message}"));
                let first = first.get_or_insert_with(|| sorted(&rendered));
                assert_eq!(sorted(&rendered), *first, "{name}, 1.{minor}");
            }
            let message = helm.template(&values(name), &["--kube-version=1.28.15"]).unwrap_err();
            assert!(message.contains("1.29"), "{message}");
        }
    }
}

fn sorted(objects: &Objects) -> Vec<Value> {
    let mut objects = objects.0.clone();
    objects.sort_by_key(|object| format!("{} {}", object["kind"], object["metadata"]));
    objects
}

#[test]
fn a_real_api_server_accepts_every_object() {
    let Some(server) = ApiServer::shared() else { return };
    for name in ["ecr-sidecar", "flux-system", "argocd"] {
        server.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}"));
    }
    for (name, mut objects) in all() {
        // The Prometheus Operator's are compared with our own, in fields.rs.
        let of_operator = |object: &Value| object["apiVersion"] == "monitoring.coreos.com/v1";
        assert_eq!(
            objects.0.iter().filter(|it| of_operator(it)).count(),
            [0, 2][usize::from(name == "monitoring")]
        );
        objects.0.retain(|object| !of_operator(object));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects.0});
        let answer = server.apply_with(["--dry-run=server", "--validate=strict"], &list.to_string());
        let said = String::from_utf8_lossy(&answer.stderr);
        assert!(answer.status.success(), "{name}: {said}");
        assert_eq!(String::from_utf8_lossy(&answer.stdout).lines().count(), objects.0.len(), "{name}");
    }
}
