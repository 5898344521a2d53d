//! Namespaces that are found out while it runs, and those that leave.

use ecr_emulator::{Fault, Service};
use test_support::{
    harness::{DEADLINE, HOST},
    wait_for,
};

use crate::cluster::{Cluster, SECRET, SOON, by_file, value};

#[test]
fn a_new_namespace_has_its_secret_soon_and_one_that_is_left_out_has_none() {
    let Some(cluster) = Cluster::new("selected") else { return };
    let file = cluster.harness.put(
        "selected.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: selected-pull, \
             namespaces: {{selector: 'ecr=enabled'}}}}]\n"
        ),
    );
    let sidecar = cluster.run(by_file(&file));
    sidecar.wait_ready(); // with nothing to keep
    cluster.namespace_with("selected-a", "{ecr: enabled}");
    cluster.namespace_with("selected-b", "{ecr: disabled}");
    let there = |namespace: &str| cluster.secret(namespace, "selected-pull").is_some();
    wait_for("the Secret", SOON, || there("selected-a").then_some(()));
    cluster.namespace_with("selected-b", "{ecr: enabled}");
    wait_for("the Secret", SOON, || there("selected-b").then_some(()));
    assert!(!there("selected"));
    cluster.server.kubectl(["delete", "secret", "selected-pull", "-n", "selected-a"]);
    wait_for("the Secret to be back", SOON, || there("selected-a").then_some(()));
    sidecar.wait_log("Secret was deleted; recreated", DEADLINE);
    sidecar.wait_ready();
}

/// A namespace that loses its label: our entry goes; what was ours alone goes altogether if that was asked for.
fn leaves(name: &str, prune: bool) {
    let Some(cluster) = Cluster::new(name) else { return };
    let [first, second] = ["a", "b"].map(|letter| format!("{name}-{letter}"));
    cluster.namespace_with(&first, &format!("{{{name}: enabled}}"));
    cluster.namespace_with(&second, &format!("{{{name}: enabled}}"));
    let secret = format!("{name}-pull");
    let file = cluster.harness.put(
        "leaves.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {secret}, \
             prune: {prune}, adopt: true, namespaces: {{selector: {name}=enabled}}}}]\n"
        ),
    );
    // The second has one already, with another's entry in it.
    cluster.server.apply(&format!(
        "{{apiVersion: v1, kind: Secret, type: kubernetes.io/dockerconfigjson, metadata: {{name: {secret}, \
         namespace: {second}}}, stringData: {{.dockerconfigjson: '{{\"auths\":{{\"ghcr.io\":{{}}}}}}'}}}}"
    ));
    let sidecar = cluster.run(by_file(&file));
    sidecar.wait_ready();
    let config = |namespace: &str| value(&cluster.secret(namespace, &secret)?, ".dockerconfigjson");
    assert!(config(&first).unwrap().contains(HOST) && config(&second).unwrap().contains(HOST));
    for namespace in [&first, &second] {
        cluster.server.kubectl(["label", "namespace", namespace, &format!("{name}-")]);
    }
    wait_for("our entry to go", SOON, || (!config(&second)?.contains(HOST)).then_some(()));
    assert!(config(&second).unwrap().contains("ghcr.io"));
    if prune {
        wait_for("our Secret to go", SOON, || config(&first).is_none().then_some(()));
    } else {
        wait_for("our entry to go", SOON, || (!config(&first)?.contains(HOST)).then_some(()));
    }
    sidecar.wait_ready();
    // What was written to them stays counted.
    sidecar.wait_status("no target", |status| status["outputs"][0]["targets"]["total"] == 0);
    assert!(sidecar.status()["outputs"][0]["writes"].as_u64() >= Some(2));
}

#[test]
fn our_entry_leaves_with_the_namespace_and_the_secret_stays() {
    leaves("unlabelled", false);
}

#[test]
fn a_secret_that_is_ours_alone_leaves_with_the_namespace_if_asked_for() {
    leaves("pruned", true);
}

#[test]
fn fewer_names_in_the_configuration_take_our_entry_out_of_the_rest() {
    let Some(cluster) = Cluster::new("fewer") else { return };
    cluster.namespace_with("fewer-b", "{}");
    let text = |names: &str| {
        format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {SECRET}, \
             namespaces: {{names: [{names}]}}}}]\n"
        )
    };
    let file = cluster.harness.put("fewer.yaml", &text("fewer, fewer-b"));
    let sidecar = cluster.run(by_file(&file));
    sidecar.wait_ready();
    let config = |namespace: &str| value(&cluster.secret(namespace, SECRET)?, ".dockerconfigjson");
    assert!(config("fewer-b").unwrap().contains(HOST));
    cluster.harness.put("fewer.yaml", &text("fewer"));
    wait_for("our entry to go", DEADLINE, || (!config("fewer-b")?.contains(HOST)).then_some(()));
    sidecar.wait_ready();
    assert!(config("fewer").unwrap().contains(HOST));
    // An output that goes altogether leaves everything as it is, like a file.
    cluster.harness.put("fewer.yaml", &text("fewer").replace(SECRET, "another"));
    sidecar.wait_status("the other output", |status| status.to_string().contains("fewer/another"));
    assert!(config("fewer").unwrap().contains(HOST));
}

/// Many namespaces, one of them new while the others are still being worked on.
#[test]
fn a_new_namespace_does_not_wait_for_the_many_and_a_second_pass_writes_nothing() {
    let Some(cluster) = Cluster::new("many") else { return };
    let names: Vec<_> = (0..800).map(|number| format!("many-{number:03}")).collect();
    let yaml = |name: &String| {
        format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{many: enabled}}}}}}\n---\n"
        )
    };
    cluster.server.apply(&names.iter().map(yaml).collect::<String>());
    let file = cluster.harness.put(
        "many.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: many-pull, \
             namespaces: {{selector: many=enabled}}}}]\n"
        ),
    );
    let mark = cluster.server.audit_mark();
    let sidecar = cluster.run(by_file(&file));
    let in_sync =
        |status: &serde_json::Value| status["outputs"][0]["targets"]["in_sync"].as_u64().unwrap_or(0);
    sidecar.wait_status("the first ones", |status| in_sync(status) > 0);
    cluster.namespace_with("many-zzz", "{many: enabled}"); // the last by name
    sidecar.wait_status("all", |status| in_sync(status) == 801);
    sidecar.wait_ready();
    let requests = cluster.server.requests_since(mark);
    let newcomer =
        requests.iter().position(|it| it.resource == "namespaces" && it.name == "many-zzz").unwrap();
    let writes = requests[newcomer..].iter().filter(|it| it.resource == "secrets" && it.is_write());
    let before = writes.take_while(|it| it.namespace != "many-zzz").count();
    assert!(before < 200, "{before} were written between the namespace and its Secret");
    drop(sidecar);

    // While AWS is away there is no new credential: what is there is checked, and nothing is written.
    cluster.harness.emulator.set_fault(Service::Ecr, Fault::Status(500));
    let mark = cluster.server.audit_mark();
    let sidecar = cluster.start(by_file(&file));
    sidecar.wait_status("all", |status| in_sync(status) == 801);
    sidecar.wait_ready();
    assert_eq!(cluster.writes_since(mark), 0);
}
