//! The admission policy of `ecr-sidecar manifests --pod-pull-secrets`: which pods name the Secret, as the API server admits
//! them, and on a real node, that they pull with it.

use std::path::{Path, PathBuf};

use ecr_emulator::Settings;
use serde_json::{Value, json};
use test_support::{Node, harness::HOST, iam::allow_what_we_ship, wait_for};

use crate::cluster::{Cluster, SECRET, SOON, Server, by_file, with_registry};

/// Of the other test, which shares the API server.
const OTHER_HOST: &str = "999999999999.dkr.ecr.eu-west-1.amazonaws.com";

fn config(cluster: &Cluster, host: &str, name: &str, namespaces: &str) -> PathBuf {
    let output = format!("{{type: docker-config-secret, name: {name}, namespaces: {namespaces}}}");
    cluster.harness.put(
        "pods.yaml",
        &format!(
            "registries: [{{host: 'a.{host}', region: eu-west-1}}, {{host: {host}}}]\noutputs: [{output}]\n"
        ),
    )
}

fn policy(cluster: &Cluster, config: &Path) -> String {
    cluster.manifests(|command| {
        by_file(config)(command);
        command.arg("--pod-pull-secrets");
    })
}

/// A pod with one container of that image.
fn pod(image: &str) -> Value {
    json!({"containers": [{"name": "app", "image": image}]})
}

/// What the API server makes of a pod; it is not created.
#[track_caller]
fn admitted(cluster: &Cluster, namespace: &str, metadata: &Value, spec: &Value) -> Value {
    let mut metadata = metadata.clone();
    metadata["name"] = json!("admitted");
    metadata["namespace"] = json!(namespace);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    let answer =
        cluster.server.apply_with(["--server-side", "--dry-run=server", "-o", "json"], &pod.to_string());
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    serde_json::from_slice(&answer.stdout).unwrap()
}

/// The Secrets that the pod names.
fn named(pod: &Value) -> Vec<&str> {
    let entries = pod["spec"]["imagePullSecrets"].as_array().into_iter().flatten();
    entries.map(|entry| entry["name"].as_str().unwrap()).collect()
}

#[track_caller]
fn names(cluster: &Cluster, namespace: &str, spec: &Value) -> Vec<String> {
    let pod = admitted(cluster, namespace, &json!({}), spec);
    named(&pod).into_iter().map(str::to_owned).collect()
}

/// Applies the policy, and waits until it counts.
fn enforce(cluster: &Cluster, policy: &str, namespace: &str, image: &str) {
    cluster.server.apply(policy);
    wait_for("the policy to count", SOON, || {
        names(cluster, namespace, &pod(image)).iter().any(|name| policy.contains(name)).then_some(())
    });
}

#[test]
fn a_pod_with_an_image_of_ours_names_the_secret_and_no_other_pod_does() {
    let Some(cluster) = Cluster::new("pods-images") else { return };
    let name = "pods-images-pull";
    let config = config(&cluster, HOST, name, "{selector: 'pods-images in (enabled)'}");
    cluster.namespace_with("pods-images-a", "{pods-images: enabled}");
    enforce(&cluster, &policy(&cluster, &config), "pods-images-a", &format!("{HOST}/app"));
    let names = |spec: &Value| names(&cluster, "pods-images-a", spec);

    for image in [
        format!("{HOST}/app"),
        format!("{HOST}/team/app:v1"),
        format!("{HOST}/team/app:v1@sha256:{}", "0".repeat(64)),
        format!("a.{HOST}/app"),
    ] {
        assert_eq!(names(&pod(&image)), [name], "{image}");
    }
    for image in [
        "app".to_owned(),
        "docker.io/library/app".to_owned(),
        HOST.to_owned(),
        format!("{HOST}:443/app"),
        format!("{HOST}.evil.example/app"),
        format!("evil.example/{HOST}/app"),
        format!("evil-{HOST}/app"),
        format!("{}/app", HOST.to_uppercase()),
        format!("9{HOST}/app"),
        format!("{}/app", HOST.replace("eu-west-1", "eu-west-2")),
    ] {
        assert_eq!(names(&pod(&image)), [""; 0], "{image}");
    }

    let ours = json!({"name": "ours", "image": format!("{HOST}/app")});
    let other = json!({"name": "other", "image": "docker.io/app"});
    let sidecar = json!({"name": "ours", "image": format!("{HOST}/app"), "restartPolicy": "Always"});
    let volume = json!({"name": "v", "image": {"reference": format!("{HOST}/app")}});
    let directory = json!({"name": "d", "emptyDir": {}});
    for (what, spec, wanted) in [
        ("the second container", json!({"containers": [other, ours]}), true),
        ("an init container", json!({"containers": [other], "initContainers": [ours]}), true),
        ("a native sidecar", json!({"containers": [other], "initContainers": [sidecar]}), true),
        ("a volume", json!({"containers": [other], "volumes": [directory, volume]}), true),
        ("none", json!({"containers": [other], "volumes": [directory]}), false),
    ] {
        assert_eq!(!names(&spec).is_empty(), wanted, "{what}");
    }
    let with = |entries: Value| {
        let mut spec = pod(&format!("{HOST}/app"));
        spec["imagePullSecrets"] = entries;
        names(&spec)
    };
    assert_eq!(with(json!([])), [name]);
    assert_eq!(with(json!([{"name": "other"}])), ["other", name]);
    assert_eq!(with(json!([{"name": name}])), [name]);
    assert_eq!(with(json!([{"name": name}, {"name": "other"}])), [name, "other"]);
    // What an admitted pod is, it stays when it is admitted again.
    let once = admitted(&cluster, "pods-images-a", &json!({}), &pod(&format!("{HOST}/app")))["spec"].clone();
    assert_eq!(names(&once), [name]);
    // In a namespace without the label.
    assert_eq!(self::names(&cluster, "pods-images", &pod(&format!("{HOST}/app"))), [""; 0]);
}

/// What an expression may cost is limited, and a policy that fails is ignored.
#[test]
fn a_thousand_registries_and_a_pod_of_many_images_are_not_too_much() {
    let Some(cluster) = Cluster::new("pods-many") else { return };
    let host = |account: u64| format!("{account}.dkr.ecr.us-gov-west-1.amazonaws.com");
    let hosts: String =
        (100_000_000_000..100_000_001_000).map(|it| format!("- host: {}\n", host(it))).collect();
    let text = format!(
        "registries:\n{hosts}outputs: [{{type: docker-config-secret, name: pods-many-pull, namespaces: {{all: true}}}}]\n"
    );
    let config = cluster.harness.put("pods.yaml", &text);
    let last = format!("{}/team/app:v1", host(100_000_000_999));
    enforce(&cluster, &policy(&cluster, &config), "pods-many", &last);
    let mut images: Vec<_> =
        (0..100).map(|it| format!("{}/team/app-{it}:v1", host(200_000_000_000 + it))).collect();
    let containers = |images: &[String]| {
        let named =
            images.iter().enumerate().map(|(it, image)| json!({"name": format!("c{it}"), "image": image}));
        json!({"containers": named.collect::<Vec<_>>()})
    };
    assert_eq!(names(&cluster, "pods-many", &containers(&images)), [""; 0]);
    images.push(last);
    assert_eq!(names(&cluster, "pods-many", &containers(&images)), ["pods-many-pull"]);
}

#[test]
fn the_policy_reaches_as_far_as_the_secret() {
    let Some(cluster) = Cluster::new("pods-reach") else { return };
    for (name, labels) in [
        ("pods-reach-a", "{ecr: enabled, team: a, tier: prod, pods-reach: x}"),
        ("pods-reach-b", "{ecr: enabled, team: b, tier: test, pods-reach: x}"),
        ("pods-reach-c", "{ecr: enabled, team: a, tier: prod, legacy: '1', pods-reach: x}"),
        ("pods-reach-d", "{team: a, pods-reach: ''}"),
    ] {
        cluster.namespace_with(name, labels);
    }
    let all = ["pods-reach", "pods-reach-a", "pods-reach-b", "pods-reach-c", "pods-reach-d"];
    let image = format!("{OTHER_HOST}/app");
    for (index, (namespaces, wanted)) in [
        ("{names: [pods-reach-a, pods-reach-d]}", &["pods-reach-a", "pods-reach-d"][..]),
        ("{all: true, exclude: [pods-reach-b, default]}", &[all[0], all[1], all[3], all[4]]),
        ("{all: true}", &all),
        ("{selector: 'ecr,pods-reach=x'}", &[all[1], all[2], all[3]]),
        ("{selector: 'pods-reach=x,team in (a, c),tier!=test,!legacy,x notin (y)'}", &[all[1]]),
        ("{selector: 'pods-reach='}", &[all[4]]),
    ]
    .into_iter()
    .enumerate()
    {
        let secret = format!("pods-reach-{index}");
        let config = config(&cluster, OTHER_HOST, &secret, namespaces);
        let policy = policy(&cluster, &config);
        enforce(&cluster, &policy, wanted[0], &image);
        // Those before it may count for a while after they are deleted.
        let names = |namespace: &&&str| names(&cluster, namespace, &pod(&image)).contains(&secret);
        assert_eq!(all.iter().filter(names).copied().collect::<Vec<_>>(), wanted, "{namespaces}");
        let admission: Vec<_> = policy.split("---\n").filter(|it| it.contains("kind: Mutating")).collect();
        let file = cluster.harness.put("gone.yaml", &admission.join("---\n"));
        cluster.server.kubectl(["delete", "-f", file.to_str().unwrap()]);
    }
}

#[test]
fn pods_of_a_deployment_pull_with_the_secret_and_mirror_pods_are_left_alone() {
    let Some((registry, aws)) = with_registry(Settings::default()) else { return };
    let Some(()) = registry.push_busybox("team/app", "v1") else { return };
    let Some(node) = Node::start() else { return };
    let there = "by-policy";
    node.namespace(there);
    let cluster = Cluster::of(Server::Node(Box::new(node)), there, aws);
    let aws = &cluster.harness.emulator;
    allow_what_we_ship(aws);
    let host = aws.add_registry("eu-west-1");
    let text = format!(
        "registries: [{{host: '{host}', region: eu-west-1, endpoint: '{}'}}]\n\
         outputs: [{{type: docker-config-secret, name: {SECRET}}}]\n",
        aws.endpoint()
    );
    let config = cluster.harness.put("pods.yaml", &text);
    let image = format!("{host}/team/app:v1");
    let sidecar = cluster.run(by_file(&config));
    sidecar.wait_ready();
    cluster.server.kubectl([
        "patch",
        "serviceaccount",
        "default",
        "-n",
        there,
        "-p",
        r#"{"imagePullSecrets":[{"name":"of-the-account"}]}"#,
    ]);
    cluster.server.apply(&policy(&cluster, &config));
    wait_for("the policy to count, after the account", SOON, || {
        (names(&cluster, there, &pod(&image)) == ["of-the-account", SECRET]).then_some(())
    });

    deploy(&cluster, "ours", &image);
    deploy(&cluster, "other", Node::BUSYBOX);
    let ours = cluster.node().wait_pod_ready(there, "app=ours");
    assert_eq!(named(&ours), ["of-the-account", SECRET]);
    let other = cluster.node().wait_pod_ready(there, "app=other");
    assert_eq!(named(&other), ["of-the-account"]);
    // What is in Git is what is in the cluster.
    let template =
        cluster.server.get("deployment", there, "ours").unwrap()["spec"]["template"]["spec"].clone();
    assert_eq!(template["imagePullSecrets"], Value::Null);

    // A container that is added to a running pod pulls with what the pod was created with.
    debug(&cluster, &ours, &image);
    let state = |pod: &Value| pod["status"]["ephemeralContainerStatuses"][0]["state"].clone();
    cluster.node().wait_pod(there, "app=ours", "to be debugged", |pod| !state(pod)["running"].is_null());
    debug(&cluster, &other, &image);
    cluster.node().wait_pod(there, "app=other", "to be without the image", |pod| {
        let reason = &state(pod)["waiting"]["reason"];
        reason == "ErrImagePull" || reason == "ImagePullBackOff"
    });

    // The API server rejects a mirror pod that names a Secret, and the static pod would be invisible.
    let mirror = json!({"annotations": {"kubernetes.io/config.mirror": "x"}});
    let mut spec = pod(&image);
    spec["nodeName"] = json!(Node::NAME);
    assert_eq!(named(&admitted(&cluster, there, &mirror, &spec)), [""; 0]);
}

fn deploy(cluster: &Cluster, name: &str, image: &str) {
    let labels = json!({"app": name});
    let container = json!({"name": "app", "image": image, "imagePullPolicy": "IfNotPresent"});
    let spec = json!({"hostNetwork": true, "terminationGracePeriodSeconds": 0, "containers": [container]});
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": cluster.namespace()},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    });
    cluster.server.apply(&deployment.to_string());
}

/// `kubectl debug`, which does not wait.
fn debug(cluster: &Cluster, pod: &Value, image: &str) {
    let name = pod["metadata"]["name"].as_str().unwrap();
    let image = format!("--image={image}");
    let namespace = cluster.namespace();
    cluster.server.kubectl([
        "debug",
        name,
        "-n",
        namespace,
        &image,
        "--image-pull-policy=Always",
        "--profile=general",
    ]);
}
