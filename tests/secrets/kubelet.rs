//! What a kubelet makes of pull Secrets that are patched. From 1.35 on it checks the credentials of a pod for images that
//! are on the node already, too (KEP-2535): it takes those that it has pulled the image with, by their Secret's UID or by
//! their hash, and pulls again with others.

use ecr_emulator::{Fault, Service, Settings};
use serde_json::{Value, json};
use test_support::{Node, harness::DEADLINE, iam::allow_what_we_ship, wait_for};

use crate::cluster::{Cluster, SECRET, Server, by_file, with_registry};

const NAMESPACE: &str = "pulls";

#[test]
fn a_patched_secret_needs_no_pull_of_a_cached_image_and_a_new_one_does() {
    let Some((registry, aws)) = with_registry(Settings::default()) else { return };
    let Some(()) = registry.push_busybox("team/app", "v1") else { return };
    let Some(node) = Node::start() else { return };
    node.namespace(NAMESPACE);
    let cluster = Cluster::of(Server::Node(Box::new(node)), NAMESPACE, aws);
    let aws = &cluster.harness.emulator;
    allow_what_we_ship(aws);
    let host = aws.add_registry("eu-west-1");
    let image = format!("{host}/team/app:v1");
    let config = cluster.harness.put(
        "kubelet.yaml",
        &format!(
            "registries: [{{host: '{host}', region: eu-west-1, endpoint: '{}'}}]\n\
             outputs: [{{type: docker-config-secret, name: {SECRET}}}]\n",
            aws.endpoint()
        ),
    );
    let sidecar = cluster.run(by_file(&config));
    sidecar.wait_ready();
    let data = || cluster.secret(NAMESPACE, SECRET).unwrap()["data"].clone();
    let uid = || cluster.secret(NAMESPACE, SECRET).unwrap()["metadata"]["uid"].clone();

    start(&cluster, "first", &image, &[SECRET]);
    wait_ready(&cluster, "first");
    start(&cluster, "stranger", &image, &[]);
    assert_not_pulled(&cluster, "stranger");

    let (before, first) = (data(), uid());
    aws.revoke_tokens();
    sidecar.refresh();
    wait_for("another token in the Secret", DEADLINE, || (data() != before).then_some(()));
    assert_eq!(uid(), first);
    // What needs a pull can't start from now on.
    aws.set_fault(Service::Registry, Fault::Reset);
    start(&cluster, "patched", &image, &[SECRET]);
    wait_ready(&cluster, "patched");

    drop(sidecar);
    cluster.server.kubectl(["delete", "secret", SECRET, "-n", NAMESPACE]);
    cluster.server.apply(&cluster.manifests(by_file(&config)));
    let done = cluster.once_with(by_file(&config));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_ne!(uid(), first);
    start(&cluster, "created", &image, &[SECRET]);
    assert_not_pulled(&cluster, "created");
}

fn start(cluster: &Cluster, name: &str, image: &str, secrets: &[&str]) {
    let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "hostNetwork": true,
            "terminationGracePeriodSeconds": 0,
            "imagePullSecrets": secrets,
            "containers": [{"name": "app", "image": image, "imagePullPolicy": "IfNotPresent"}],
        },
    });
    cluster.server.apply(&pod.to_string());
}

fn wait_ready(cluster: &Cluster, pod: &str) {
    cluster.node().wait_pod_ready(NAMESPACE, pod);
}

fn assert_not_pulled(cluster: &Cluster, pod: &str) {
    let waits = |pod: &Value| {
        let reason = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
        ["ErrImagePull", "ImagePullBackOff"].iter().any(|wanted| reason == wanted)
    };
    cluster.node().wait_pod(NAMESPACE, pod, "to be without its image", waits);
}
