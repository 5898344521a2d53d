//! How the API server is found, and by whom it is asked.

use std::path::Path;

use test_support::{ServiceAccount, wait_for};

use crate::{
    cluster::{Cluster, SECRET},
    rig::{self, BINARY, DEADLINE, HOST, Rig},
};

#[test]
fn without_a_cluster_it_says_so_and_keeps_the_file() {
    let rig = Rig::new();
    let sidecar = rig.run(|command| {
        command.env("KUBECONFIG", rig.at("missing")).env("ECR_SIDECAR_DOCKER_CONFIG_SECRET", SECRET);
    });
    rig::wait_auth(&rig.file(), HOST);
    let line = sidecar.wait_log("the kubeconfig cannot be used", DEADLINE);
    assert!(line.contains("name it by KUBECONFIG"), "{line}");
    let (code, body) = sidecar.get("/readyz");
    assert!(code == 503 && body.contains("kubeconfig"), "{body}");
}

#[test]
fn a_pod_without_a_token_is_told_the_mend() {
    let rig = Rig::new();
    let sidecar = rig.run(|command| {
        command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", "1");
        command.env("ECR_SIDECAR_DOCKER_CONFIG_SECRET", SECRET);
    });
    let line = sidecar.wait_log("service account cannot be used", DEADLINE);
    assert!(line.contains("automountServiceAccountToken: true"), "{line}");
}

#[test]
fn in_a_pod_the_service_account_is_used() {
    let Some(cluster) = Cluster::new("in-pod") else { return };
    cluster.server.apply(&cluster.manifests(|_| {}));
    let mut entered = true;
    let sidecar = cluster.rig.spawn(ServiceAccount::ENTER, |command| {
        entered = cluster.account.enter_pod(command, Path::new(BINARY));
        command
            .arg("run")
            .env_remove("ECR_SIDECAR_DOCKER_CONFIG")
            .env("ECR_SIDECAR_DOCKER_CONFIG_SECRET", SECRET);
        command.env("HTTPS_PROXY", "http://127.0.0.1:1"); // for AWS, not for the API server
        command.env("NO_PROXY", "127.0.0.1");
    });
    if !entered {
        return;
    }
    sidecar.wait_ready();
    assert!(cluster.password("in-pod").is_some());
}

#[test]
fn a_proxy_for_aws_is_not_one_for_the_api_server_but_that_of_the_kubeconfig_is() {
    let Some(cluster) = Cluster::new("proxied") else { return };
    let proxy = cluster.rig.emulator.proxy();
    let asked = || cluster.rig.emulator.connects().contains_key("127.0.0.1");
    let sidecar = cluster.run(|command| {
        command.env("HTTPS_PROXY", &proxy).env("https_proxy", &proxy);
    });
    sidecar.wait_ready();
    assert!(!asked(), "{:?}", cluster.rig.emulator.connects());
    let kubeconfig = std::fs::read_to_string(cluster.account.kubeconfig()).unwrap();
    let proxied =
        kubeconfig.replace("cluster: {server:", &format!("cluster: {{proxy-url: '{proxy}', server:"));
    assert_ne!(proxied, kubeconfig);
    let kubeconfig = cluster.rig.put("kubeconfig", &proxied);
    let _sidecar = cluster.start(|command| {
        command.env("KUBECONFIG", &kubeconfig);
    });
    wait_for("the proxy to be asked", DEADLINE, || asked().then_some(()));
}
