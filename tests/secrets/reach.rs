//! How the API server is found, and by whom it is asked.

use std::path::Path;

use ecr_sidecar::failure::diagnosis::Diagnosis;
use test_support::{
    Harness, Running, ServiceAccount,
    files::wait_auth,
    harness::{DEADLINE, HOST},
    wait_for,
};

use crate::{
    BINARY,
    cluster::{Cluster, SECRET},
};

#[test]
fn without_a_cluster_it_reports_it_and_keeps_the_file() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|command| {
        command.env("KUBECONFIG", harness.at("missing")).env("ECR_SIDECAR_DOCKER_CONFIG_SECRET", SECRET);
    });
    wait_auth(&harness.file(), HOST);
    let line = sidecar.wait_log("the kubeconfig cannot be used", DEADLINE);
    assert!(line.contains(Diagnosis::Kubeconfig.remedy()), "{line}");
    let (code, body) = sidecar.get("/readyz");
    assert!(code == 503 && body.contains("kubeconfig"), "{body}");
}

#[test]
fn a_pod_without_a_token_gets_the_remedy() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|command| {
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
    let sidecar = cluster.harness.spawn(ServiceAccount::ENTER, |command| {
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
    let proxy = cluster.harness.emulator.proxy();
    let asked = || cluster.harness.emulator.connects().contains_key("127.0.0.1");
    let sidecar = cluster.run(|command| {
        command.env("HTTPS_PROXY", &proxy).env("https_proxy", &proxy);
    });
    sidecar.wait_ready();
    assert!(!asked(), "{:?}", cluster.harness.emulator.connects());
    let kubeconfig = std::fs::read_to_string(cluster.account.kubeconfig()).unwrap();
    let proxied =
        kubeconfig.replace("cluster: {server:", &format!("cluster: {{proxy-url: '{proxy}', server:"));
    assert_ne!(proxied, kubeconfig);
    let kubeconfig = cluster.harness.put("kubeconfig", &proxied);
    let _sidecar = cluster.start(|command| {
        command.env("KUBECONFIG", &kubeconfig);
    });
    wait_for("the proxy to be asked", DEADLINE, || asked().then_some(()));
}

/// The account's kubeconfig with another `user` in it.
fn kubeconfig_with(cluster: &Cluster, name: &str, user: &str) -> std::path::PathBuf {
    let kubeconfig = std::fs::read_to_string(cluster.account.kubeconfig()).unwrap();
    let own = format!("tokenFile: '{}'", cluster.account.token_file().display());
    assert!(kubeconfig.contains(&own), "{kubeconfig}");
    cluster.harness.put(name, &kubeconfig.replace(&own, user))
}

#[test]
fn a_kubeconfig_that_switches_verification_off_is_obeyed_and_reported() {
    let Some(cluster) = Cluster::new("unverified") else { return };
    cluster.server.apply(&cluster.manifests(|_| {}));
    let kubeconfig = std::fs::read_to_string(cluster.account.kubeconfig()).unwrap();
    let (before, rest) = kubeconfig.split_once("certificate-authority: '").unwrap();
    let (_, after) = rest.split_once('\'').unwrap();
    let kubeconfig =
        cluster.harness.put("kubeconfig", &format!("{before}insecure-skip-tls-verify: true{after}"));
    let sidecar = cluster.start(|command| {
        command.env("KUBECONFIG", &kubeconfig);
    });
    let line = sidecar.wait_log("\"diagnosis\":\"api-server-unverified\"", DEADLINE);
    assert!(line.contains(Diagnosis::ApiServerUnverified.remedy()), "{line}");
    sidecar.wait_ready();
    assert!(cluster.password("unverified").is_some());
}

fn token(cluster: &Cluster) -> String {
    std::fs::read_to_string(cluster.account.token_file()).unwrap().trim().to_owned()
}

/// Makes the account's tokens worthless, waits until the sidecar gets that error, and gives it a new one.
fn revoke(cluster: &Cluster, sidecar: &Running) {
    cluster.server.revoke_tokens(&cluster.account);
    wait_for("the old token to be worth nothing", DEADLINE, || {
        let answer = cluster.server.kubectl_as(&cluster.account, ["get", "secret", SECRET]);
        (!answer.status.success()).then_some(())
    });
    sidecar.signal(test_support::Signal::HUP);
    sidecar.wait_log("\"diagnosis\":\"api-server-login\"", DEADLINE);
    cluster.server.renew_token(&cluster.account);
}

#[test]
fn a_kubeconfig_that_is_replaced_is_read_again() {
    let Some(cluster) = Cluster::new("relogin") else { return };
    let write = || kubeconfig_with(&cluster, "kubeconfig", &format!("token: {}", token(&cluster)));
    let kubeconfig = write();
    let sidecar = cluster.run(|command| {
        command.env("KUBECONFIG", &kubeconfig);
    });
    sidecar.wait_ready();
    let before = cluster.wait_password("relogin");
    revoke(&cluster, &sidecar);
    write();
    wait_for("the newer credential", DEADLINE, || (cluster.password("relogin")? != before).then_some(()));
    sidecar.wait_log("connecting to the API server again", DEADLINE);
}

#[test]
fn a_plugin_without_an_expiry_is_run_again_when_its_token_is_rejected() {
    let Some(cluster) = Cluster::new("plugin") else { return };
    let script = format!(
        "printf '{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{{\"token\":\"%s\"}}}}' \"$(cat '{}')\"",
        cluster.account.token_file().display()
    );
    cluster.harness.put("plugin.sh", &script);
    // The program is relative to the kubeconfig's folder where it has a separator, and this one has none.
    let plugin = format!(
        "exec: {{apiVersion: client.authentication.k8s.io/v1, interactiveMode: IfAvailable, command: sh, args: ['{}']}}",
        cluster.harness.at("plugin.sh").display()
    );
    let kubeconfig = kubeconfig_with(&cluster, "kubeconfig", &plugin);
    let sidecar = cluster.run(|command| {
        command.env("KUBECONFIG", &kubeconfig).env("PATH", "/usr/bin:/bin");
    });
    sidecar.wait_ready();
    let before = cluster.wait_password("plugin");
    revoke(&cluster, &sidecar);
    wait_for("the newer credential", DEADLINE, || (cluster.password("plugin")? != before).then_some(()));
}

/// Neither the runtime nor the end wait for it, and its words are not shown.
#[test]
fn a_plugin_that_hangs_holds_up_neither_health_nor_the_end() {
    const CANARY: &str = "c4n4ry-0f-the-plugin";
    let harness = Harness::new(BINARY);
    let script =
        format!("echo {CANARY} >&2; echo {CANARY}; echo $$ > '{}'; sleep 1000", harness.at("pid").display());
    harness.put("plugin.sh", &script);
    let user = format!("exec: {{command: sh, args: ['{}']}}", harness.at("plugin.sh").display());
    let kubeconfig = harness.put(
        "kubeconfig",
        &format!(
            "current-context: a\nclusters: [{{name: a, cluster: {{server: 'https://127.0.0.1:1'}}}}]\n\
             contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\nusers: [{{name: a, user: {{{user}}}}}]\n"
        ),
    );
    let sidecar = harness.run(|command| {
        command.env("KUBECONFIG", &kubeconfig).env("ECR_SIDECAR_DOCKER_CONFIG_SECRET", SECRET);
        command.env("PATH", "/usr/bin:/bin").env("ECR_SIDECAR_LOG", "trace");
    });
    let pid = wait_for("the plugin", DEADLINE, || {
        std::fs::read_to_string(harness.at("pid")).ok().filter(|it| it.ends_with('\n'))
    });
    wait_auth(&harness.file(), HOST);
    assert_eq!(sidecar.get("/livez").0, 200);
    sidecar.signal(test_support::Signal::TERM);
    assert_eq!(sidecar.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(sidecar.count_log("the volume hangs"), 0, "it did not wait for the plugin");
    let stat = format!("/proc/{}/stat", pid.trim());
    wait_for("the plugin to end", DEADLINE, || {
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z")).then_some(())
    });
    assert_eq!(sidecar.count_log(CANARY), 0);
    assert!(!sidecar.stderr().contains(CANARY), "{}", sidecar.stderr());
}

#[test]
fn an_api_server_with_another_certificate_is_reported_and_once_ends() {
    let Some(cluster) = Cluster::new("other-ca") else { return };
    let kubeconfig = std::fs::read_to_string(cluster.account.kubeconfig()).unwrap();
    let other = cluster.harness.emulator.ca_file();
    let kubeconfig = kubeconfig.replace(
        &format!("certificate-authority: '{}'", cluster.server.ca_file().display()),
        &format!("certificate-authority: '{}'", other.display()),
    );
    assert!(kubeconfig.contains(&other.display().to_string()), "{kubeconfig}");
    let kubeconfig = cluster.harness.put("kubeconfig", &kubeconfig);
    let once = cluster.once_with(|command| {
        command.env("KUBECONFIG", &kubeconfig);
    });
    let said = String::from_utf8_lossy(&once.stderr).into_owned();
    assert_eq!(once.status.code(), Some(69), "{said}");
    assert!(
        said.contains("invalid peer certificate") && said.contains("\"api-server-certificate\""),
        "{said}"
    );
}
