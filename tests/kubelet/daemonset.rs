//! `daemonset.yaml` on a real node: it puts the program into the kubelet's folder, over an older one.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};
use test_support::{ImageConfig, Node, libraries, process::install, program};

use crate::scene::{BINARY, read};

#[test]
fn the_daemonset_replaces_an_older_program() {
    let (Some(node), Some(busybox)) = (Node::shared(), program("busybox")) else { return };
    import(&node, &busybox);
    let bin = tempfile::Builder::new().prefix("ecr-sidecar-bin-").tempdir().unwrap();
    let installed = bin.path().join("ecr-sidecar");
    install(&busybox, &installed);

    let documents = read("daemonset.yaml");
    let mut objects: Vec<Value> =
        documents.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect();
    let pod = &mut objects[1]["spec"]["template"]["spec"];
    // What a test's node has of its own: its network, and this folder.
    pod["hostNetwork"] = json!(true);
    pod["volumes"][0]["hostPath"]["path"] = json!(bin.path());
    node.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
    let namespace = ["-n", "ecr-sidecar-node"];
    let kubectl = |arguments: &[&str]| node.kubectl(namespace.iter().chain(arguments));
    kubectl(&["rollout", "status", "daemonset/ecr-sidecar-node", "--timeout=120s"]);

    assert!(fs::read(&installed).unwrap() == fs::read(BINARY).unwrap(), "the program of the image");
    assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_dir(bin.path()).unwrap().count(), 1, "nothing is left over");
    let log = node.logs("ecr-sidecar-node", "app.kubernetes.io/name=ecr-sidecar-node", "install");
    assert_eq!(log, "/kubelet/ecr-sidecar is installed\n");
    node.kubectl(["delete", "namespace", "ecr-sidecar-node", "--wait=false"]);
}

/// The images that the file names; the program under test with what it is linked with.
fn import(node: &Node, busybox: &Path) {
    let needed = libraries(Path::new(BINARY));
    let files = needed.iter().map(|path| (path.to_str().unwrap(), path.as_path()));
    let program = "/usr/local/bin/ecr-sidecar";
    let config = ImageConfig { entrypoint: &[program], user: "65534:65534", ..ImageConfig::default() };
    let files = files.chain([(program, Path::new(BINARY))]);
    node.import_image("ghcr.io/ecr-sidecar/ecr-sidecar:0.1.0", files, config);
    let config = ImageConfig { entrypoint: &["/busybox", "sleep", "100000"], ..ImageConfig::default() };
    node.import_image("registry.k8s.io/pause:3.10.1", [("/busybox", busybox)], config);
}
