//! What a real API server says to what is built, in namespaces that enforce the `restricted` pod-security standard.

use std::path::Path;

use serde_json::{Value, json};
use test_support::{ApiServer, files::overwrite};

use crate::{
    build::{Build, Objects, Product, ROOT, kustomize},
    containers::Ours,
};

/// A namespace as a careful operator has it.
fn restricted(server: &ApiServer, name: &str) {
    server.apply(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, \
         labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
    ));
}

#[test]
fn every_pod_is_admitted_by_the_restricted_standard() {
    let Some(server) = ApiServer::shared() else { return };
    for ours in Ours::all() {
        let (namespace, _) = &ours.account;
        restricted(&server, namespace);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "admitted", "namespace": namespace},
            "spec": with_restart_policy(ours.pod.clone()),
        });
        let answer = server.apply_with(["--dry-run=server"], &pod.to_string());
        let said = String::from_utf8_lossy(&answer.stderr);
        assert!(answer.status.success() && !said.contains("Warning"), "{}: {said}", ours.place);
    }
}

/// A Job's pod says `Never` or `OnFailure` already.
fn with_restart_policy(mut pod: Value) -> Value {
    if pod["restartPolicy"].is_null() {
        pod["restartPolicy"] = json!("Always");
    }
    // A pod of that class is admitted in namespaces with a quota for it, which the pod's own controller has there.
    pod.as_object_mut().unwrap().remove("priorityClassName");
    pod
}

#[test]
fn what_is_standalone_is_taken_and_its_namespace_enforces_the_standard() {
    let Some(server) = ApiServer::shared() else { return };
    let standalone = Path::new(ROOT).join("patches/standalone");
    let open = Build::open_standalone();
    for (folder, namespace) in [
        (standalone.join("deployment"), "ecr-sidecar"),
        (open.at("deployment"), "ecr-sidecar"),
        (standalone.join("cronjob"), "flux-system"),
    ] {
        let built = kustomize(&folder);
        let folder = folder.display();
        let objects = Objects::parse(&built).0;
        for made in objects.iter().filter(|object| object["kind"] == "Namespace") {
            let enforced = &made["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
            assert_eq!(enforced, "restricted", "{folder}");
        }
        restricted(&server, namespace);
        let answer = server.apply_with(["--dry-run=server", "--validate=strict"], &built);
        let said = String::from_utf8_lossy(&answer.stderr);
        assert!(answer.status.success(), "{folder}: {said}");
    }
}

#[test]
fn applying_twice_changes_nothing_and_undo_leaves_the_stock() {
    for product in Product::ALL {
        let Some(server) = ApiServer::shared() else { return };
        let Some(stock) = Build::stock(product) else { return };
        let stock = manifests(&stock);
        restricted(&server, product.namespace());
        server.apply(&list(&stock));
        let before = state(&server, product);
        for components in product.choices() {
            let mut patched = manifests(&Build::chosen(product, components).unwrap());
            // What is as it was is applied already.
            let mut replaced = stock.clone();
            replaced.retain(|object| !patched.contains(object));
            patched.retain(|object| !stock.contains(object));
            let (patched, replaced) = (list(&patched), list(&replaced));
            server.apply(&patched);
            let once = versions(&server, &patched);
            assert_ne!(state(&server, product), before, "{components:?}");
            server.apply(&patched);
            assert_eq!(versions(&server, &patched), once, "{components:?}");
            // As Flux does when the component has gone; what is no longer built, it deletes.
            server.apply(&replaced);
            assert_eq!(state(&server, product), before, "{components:?}");
        }
    }
}

/// What is applied, but for the definitions of resources, which `patches/` can't touch and which take a second each.
fn manifests(build: &Build) -> Vec<Value> {
    let mut objects = build.objects().0;
    objects.retain(|object| object["kind"] != "CustomResourceDefinition");
    objects
}

fn list(objects: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

/// What the Deployments are, and what their service accounts have besides what kubectl remembers there.
fn state(server: &ApiServer, product: Product) -> Vec<Value> {
    let get = |kind: &str, name: &str| server.get(kind, product.namespace(), name).unwrap();
    let of = |(name, _): &(&str, &str)| {
        let mut metadata = get("serviceaccount", name)["metadata"].clone();
        let remembered = "kubectl.kubernetes.io/last-applied-configuration";
        metadata["annotations"].as_object_mut().unwrap().remove(remembered);
        let says = json!([metadata["annotations"], metadata["labels"]]);
        [get("deployment", name)["spec"].clone(), says]
    };
    product.deployments().iter().flat_map(of).collect()
}

/// The version of each object.
fn versions(server: &ApiServer, manifests: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    overwrite(file.path(), manifests);
    let path = file.path().display().to_string();
    // One object is shown as itself, several as a list.
    let versions = server.kubectl(["get", "-f", &path, "-o", "jsonpath={..metadata.resourceVersion}"]);
    assert!(!versions.trim().is_empty());
    versions
}
