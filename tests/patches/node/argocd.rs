//! argocd-repo-server, with helm 3 in its place: AWS is down at the start, and comes back.

use ecr_emulator::{Fault, Service};
use test_support::wait_for;

use crate::{
    build::Product,
    node::{
        consumers::{HOST, PULLED, REFUSED, WITH_FILE, WITHOUT_FILE},
        scene::{DEADLINE, Scene, built, config_map, steady_kubelet},
    },
    openshift::by_argocd_operator,
    scc::FIRST,
};

const NAMESPACE: &str = "argocd";
const POD: &str = "app.kubernetes.io/name=argocd-repo-server";
const MAIN: &str = "argocd-repo-server";
const SIDECAR: &str = "ecr-sidecar";

#[test]
fn repo_server_starts_without_aws_and_pulls_when_it_is_back() {
    let Some(argocd) = Scene::new(NAMESPACE, &["argocd:argocd-repo-server"]) else { return };
    for name in ["argocd-ssh-known-hosts-cm", "argocd-tls-certs-cm", "argocd-gpg-keys-cm"] {
        argocd.apply(&[config_map(name, NAMESPACE, &serde_json::json!({}))]);
    }
    argocd.node.kubectl([
        "-n",
        NAMESPACE,
        "create",
        "secret",
        "generic",
        "argocd-redis",
        "--from-literal=auth=x",
    ]);
    argocd.aws.set_fault(Service::Sts, Fault::Status(503));
    let steady = steady_kubelet();
    argocd.apply_changed(built(Product::ArgoCd, &["sidecar", "web-identity", "oci-sources"]));

    it_starts_after_the_grace_and_not_before(&argocd);
    drop(steady);
    argocd.aws.clear_faults();
    it_pulls_without_a_restart(&argocd);
    helm_alone_reads_the_file(&argocd);
    the_templates_are_filled_and_only_the_sidecar_has_a_token(&argocd);
    argocd.run_of_readme("patches/argocd/README.md", "**Verify:**");
    argocd.walk("Argo CD", &[("111122223333.dkr.ecr.eu-central-1.amazonaws.com", HOST)]);

    // A uid and an fsGroup of the namespace's range: the file is theirs, in a folder that keeps the group.
    argocd.deploy_on_openshift(built(Product::ArgoCd, &["sidecar", "web-identity", "openshift"]), MAIN);
    helm_pulls_with(&argocd, FIRST, &format!("{FIRST}:{FIRST} 640"));

    argocd.deploy_on_openshift(by_argocd_operator().unwrap(), MAIN);
    helm_pulls_with(&argocd, FIRST, &format!("{FIRST}:{FIRST} 644"));
    argocd.run_of_readme("patches/argocd-operator/README.md", "**Verify:**");
    // Where nothing sets a uid, each container has its image's.
    argocd.roll_out_changed(by_argocd_operator().unwrap(), MAIN);
    helm_pulls_with(&argocd, 999, "65534:0 644"); // kubelet takes the uid of an image's user, and not its group
}

/// As a pod that has just been made: from its first pull on.
fn helm_pulls_with(argocd: &Scene, uid: u64, file: &str) {
    argocd.wait_log(POD, MAIN, PULLED);
    let log = argocd.logs(POD, MAIN);
    assert!(log.starts_with(WITH_FILE) && !log.contains(REFUSED), "{log}");
    let seen =
        argocd.shell(POD, MAIN, "cd $DOCKER_CONFIG; busybox id -u; busybox stat -c '%u:%g %a' config.json");
    assert_eq!(seen, format!("{uid}\n{file}"));
}

fn it_starts_after_the_grace_and_not_before(argocd: &Scene) {
    argocd.wait_log(POD, SIDECAR, "ecr-sidecar starts");
    wait_for("the reason for the wait", DEADLINE, || {
        argocd.ask(POD, &["health", "startup"]).contains("503").then_some(())
    });
    let first = argocd.wait_log(POD, MAIN, "config.json is");
    assert_eq!(first, WITHOUT_FILE);
    let pod = argocd.node.pod(NAMESPACE, POD).unwrap();
    let started = |name: &str| {
        let status = test_support::kubernetes::node::container_status(&pod, name);
        status["state"]["running"]["startedAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()
    };
    let waited = started(MAIN).duration_since(started(SIDECAR)).as_secs();
    assert!(waited >= 59, "{waited} s of a grace of 60 s, in whole seconds");
    assert_eq!(argocd.node.restart_count(NAMESPACE, POD, SIDECAR), 0);
}

fn it_pulls_without_a_restart(argocd: &Scene) {
    argocd.wait_log(POD, MAIN, PULLED);
    let log = argocd.logs(POD, MAIN);
    let (_, since) = log.split_once(PULLED).unwrap();
    assert!(!since.contains(REFUSED), "{log}");
    for container in [MAIN, SIDECAR] {
        assert_eq!(argocd.node.restart_count(NAMESPACE, POD, container), 0);
    }
    assert!(argocd.aws.pulls().iter().any(|pull| pull.path.contains("charts/hello")));
}

fn helm_alone_reads_the_file(argocd: &Scene) {
    let seen =
        argocd.shell(POD, MAIN, "cd $DOCKER_CONFIG; busybox id -u; busybox stat -c '%u:%g %a' config.json");
    assert_eq!(seen, "999\n999:999 640");
}

fn the_templates_are_filled_and_only_the_sidecar_has_a_token(argocd: &Scene) {
    let field = |name: &str, field: &str| {
        let template =
            format!("go-template={{{{with index .data \"{field}\"}}}}{{{{base64decode .}}}}{{{{end}}}}");
        argocd.node.kubectl(["-n", NAMESPACE, "get", "secret", name, "-o", &template])
    };
    for (name, url) in [
        ("ecr-123456789012-eu-west-1-helm", HOST.to_owned()),
        ("ecr-123456789012-eu-west-1-oci", format!("oci://{HOST}")),
    ] {
        wait_for("the template to be filled", DEADLINE, || (field(name, "username") == "AWS").then_some(()));
        assert_eq!(field(name, "url"), url);
        assert!(!field(name, "password").is_empty());
    }
    let secrets = "busybox ls /var/run/secrets 2>/dev/null; true";
    assert_eq!(argocd.shell(POD, MAIN, secrets), "");
}
