//! The Kubernetes outputs against a real API server, under the rights that `ecr-sidecar manifests` prints.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod rig;

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use ecr_emulator::{Fault, Service, Settings};
use rig::{BINARY, DEADLINE, HOST, Rig, Running, SIBLING};
use serde_json::{Value, json};
use test_support::{
    ApiServer, ServiceAccount, clean_command, kubernetes::AuditMark, output, program, wait_for,
};

const SECRET: &str = "ecr-credentials";
/// "Within a second", on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// An API server, an AWS, and a service account with the rights that `manifests` prints.
struct Cluster {
    server: Arc<ApiServer>,
    rig: Rig,
    account: ServiceAccount,
}

impl Cluster {
    /// In a namespace of its own; `None` when there is no API server here.
    fn new(namespace: &str) -> Option<Self> {
        Self::with(namespace, Settings::default())
    }

    fn with(namespace: &str, aws: Settings) -> Option<Self> {
        let server = ApiServer::shared()?;
        let account = server.service_account(namespace, "reflector");
        Some(Self { server, rig: Rig::with(aws), account })
    }

    fn namespace(&self) -> &str {
        self.account.namespace()
    }

    /// The sidecar's way to the API server, and one Secret as its only output.
    fn prepare(&self, command: &mut Command) {
        command.env("KUBECONFIG", self.account.kubeconfig()).env_remove("ECR_SIDECAR_DOCKER_CONFIG");
        command.env("ECR_SIDECAR_DOCKER_CONFIG_SECRET", SECRET);
    }

    /// What `ecr-sidecar manifests` prints.
    fn manifests(&self, change: impl FnOnce(&mut Command)) -> String {
        let mut command = Command::new(BINARY);
        command.args([
            "manifests",
            "--service-account",
            self.account.name(),
            "--namespace",
            self.namespace(),
        ]);
        command.env_clear().envs(self.rig.environment());
        self.prepare(&mut command);
        change(&mut command);
        let output = output(&mut command, DEADLINE);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Applies them, and runs the sidecar.
    fn run(&self, change: impl Fn(&mut Command)) -> Running {
        self.server.apply(&self.manifests(&change));
        self.start(change)
    }

    fn start(&self, change: impl Fn(&mut Command)) -> Running {
        self.rig.run(|command| {
            self.prepare(command);
            change(command);
        })
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Value> {
        self.server.get("secret", namespace, name)
    }

    /// The password of the registry in the Secret that Flux reads.
    fn password(&self, namespace: &str) -> Option<String> {
        let text = value(&self.secret(namespace, SECRET)?, ".dockerconfigjson")?;
        let config: Value = serde_json::from_str(&text).ok()?;
        let auth = STANDARD.decode(config["auths"][HOST]["auth"].as_str()?).unwrap();
        Some(String::from_utf8(auth).unwrap().strip_prefix("AWS:").unwrap().to_owned())
    }

    fn wait_password(&self, namespace: &str) -> String {
        wait_for("a credential in the Secret", DEADLINE, || self.password(namespace))
    }

    /// The writes of our service account since then.
    fn writes_since(&self, mark: AuditMark) -> usize {
        let user = self.account.user();
        self.server.count_requests(mark, |request| request.user == user && request.is_write())
    }
}

fn value(secret: &Value, key: &str) -> Option<String> {
    Some(String::from_utf8(STANDARD.decode(secret["data"][key].as_str()?).unwrap()).unwrap())
}

#[test]
fn the_secret_that_flux_reads_holds_a_credential_under_the_printed_rights() {
    let Some(cluster) = Cluster::new("flux-reads") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let password = cluster.wait_password("flux-reads");
    let secret = cluster.secret("flux-reads", SECRET).unwrap();
    assert_eq!(secret["type"], "kubernetes.io/dockerconfigjson");
    let metadata = secret["metadata"].to_string();
    assert!(metadata.contains("ecr-sidecar/expires") && !metadata.contains(&password), "{metadata}");
    let status = sidecar.status();
    assert_eq!(status["outputs"][0]["type"], "docker-config-secret");
    assert_eq!(status["outputs"][0]["targets"]["in_sync"], 1, "{status}");
    assert!(!status.to_string().contains(&password) && !sidecar.stderr().contains(&password));

    // the very library that Flux reads it with
    let Some(consumers) = program("consumers") else { return };
    let home = tempfile::tempdir().unwrap();
    let image = format!("{HOST}/team/app:v1");
    let mut keychain = clean_command(&consumers, home.path());
    keychain.args([
        "keychain",
        "--namespace=flux-reads",
        "--secret",
        SECRET,
        "--image",
        &image,
        "--kubeconfig",
    ]);
    let found = output(keychain.arg(cluster.server.kubeconfig()), DEADLINE);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found, json!({"username": "AWS", "passwordSha256": sha256(&password)}));
}

#[test]
fn once_writes_the_secret_and_ends_with_69_where_it_may_not() {
    let Some(cluster) = Cluster::new("once") else { return };
    let once = || {
        let mut command = Command::new(BINARY);
        command.args(["once", "--timeout", "30s"]).env_clear().envs(cluster.rig.environment());
        cluster.prepare(&mut command);
        output(&mut command, DEADLINE)
    };
    let refused = once();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(69), "{said}");
    for part in [
        "cannot get resource \\\"secrets\\\"",
        "system:serviceaccount:once:reflector",
        "once/ecr-credentials",
        "ecr-sidecar manifests",
        "resourceNames: [ecr-credentials]",
        "verbs: [get, list, watch, patch]",
        "Role in namespace once",
    ] {
        assert!(said.contains(part) || said.contains(&part.replace('\\', "")), "{part} is not in\n{said}");
    }
    cluster.server.apply(&cluster.manifests(|_| {}));
    wait_for("the Role to count", SOON, || (once().status.code() == Some(0)).then_some(()));
    assert!(cluster.password("once").is_some());
}

#[test]
fn nothing_is_written_between_refreshes() {
    let Some(cluster) = Cluster::new("quiet") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let mark = cluster.server.audit_mark();
    let successor = cluster.start(|_| {}); // with a token of its own, which ends later
    successor.wait_ready();
    let both = cluster.password("quiet");
    cluster.server.kubectl(["annotate", "secret", SECRET, "-n", "quiet", "someone=else"]);
    // The successor's look at the annotation is over when a later event has been answered.
    cluster.server.kubectl(["delete", "secret", SECRET, "-n", "quiet"]);
    cluster.server.apply(&cluster.manifests(|_| {}));
    cluster.wait_password("quiet");
    assert!(both.is_some());
    let writes = cluster.writes_since(mark);
    assert!(writes <= 6, "{writes} writes of two sidecars for a start, an annotation and a deletion");
    // Nothing to wait for: that nothing happens is what is shown.
    let writes_in_a_while = || {
        let mark = cluster.server.audit_mark();
        std::thread::sleep(Duration::from_secs(3));
        cluster.writes_since(mark)
    };
    wait_for("the two to agree", DEADLINE, || (writes_in_a_while() == 0).then_some(()));
    assert_eq!(writes_in_a_while(), 0);
}

#[test]
fn an_edit_is_undone_and_told() {
    let Some(cluster) = Cluster::new("edited") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let password = cluster.wait_password("edited");
    let edit = json!({"data": {".dockerconfigjson": STANDARD.encode("{\"auths\":{}}")}}).to_string();
    cluster.server.kubectl(["patch", "secret", SECRET, "-n", "edited", "--field-manager=hand", "-p", &edit]);
    wait_for("the edit to be undone", SOON, || (cluster.password("edited")? == password).then_some(()));
    let line = sidecar.wait_log("somebody changed what is ours", DEADLINE);
    assert!(line.contains("\"manager\":\"hand\"") && line.contains("edited/ecr-credentials"), "{line}");
    sidecar.wait_ready();
}

#[test]
fn a_fight_is_told_and_slowed_down() {
    let Some(cluster) = Cluster::new("fight") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let password = cluster.wait_password("fight");
    let edit = json!({"data": {".dockerconfigjson": STANDARD.encode("{\"auths\":{}}")}}).to_string();
    let patch = || {
        cluster.server.kubectl([
            "patch",
            "secret",
            SECRET,
            "-n",
            "fight",
            "--field-manager=fighter",
            "-p",
            &edit,
        ]);
    };
    for _ in 0..4 {
        patch();
        wait_for("the edit to be undone", SOON, || (cluster.password("fight")? == password).then_some(()));
    }
    let line = sidecar.wait_log("a fight over a Secret", DEADLINE);
    assert!(line.contains("fighter") && line.contains("IfNotPresent"), "{line}");
    let mark = cluster.server.audit_mark();
    for _ in 0..10 {
        patch();
    }
    assert!(cluster.writes_since(mark) <= 1, "at full speed");
    wait_for("the truce to end", DEADLINE, || (cluster.password("fight")? == password).then_some(()));
}

#[test]
fn a_secret_that_others_filled_is_left_alone_unless_adopted() {
    let Some(cluster) = Cluster::new("adopted") else { return };
    let theirs = STANDARD
        .encode(format!("{{\"auths\":{{\"{HOST}\":{{\"auth\":\"{}\"}}}}}}", STANDARD.encode("AWS:cronjob")));
    cluster.server.apply(&cluster.manifests(|_| {}));
    let edit = json!({"data": {".dockerconfigjson": theirs}}).to_string();
    cluster.server.kubectl([
        "patch",
        "secret",
        SECRET,
        "-n",
        "adopted",
        "--field-manager=cronjob",
        "-p",
        &edit,
    ]);
    let sidecar = cluster.start(|_| {});
    let line = sidecar.wait_log("somebody else put there", DEADLINE);
    assert!(line.contains("adopt: true"), "{line}");
    assert_eq!(cluster.password("adopted").as_deref(), Some("cronjob"));
    assert_eq!(sidecar.get("/readyz").0, 503);
    drop(sidecar);
    let file = cluster.rig.put(
        "adopt.yaml",
        &format!("registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {SECRET}, adopt: true}}]\n"),
    );
    let sidecar = cluster.start(|command| {
        command.env_remove("ECR_SIDECAR_DOCKER_CONFIG_SECRET");
        rig::configured_by(command, &file);
    });
    sidecar.wait_ready();
    assert_ne!(cluster.wait_password("adopted"), "cronjob");
}

#[test]
fn a_target_in_trouble_holds_up_no_other() {
    let Some(cluster) = Cluster::new("trouble") else { return };
    let server = &cluster.server;
    server.apply("{apiVersion: v1, kind: Namespace, metadata: {name: trouble-opaque}}");
    let file = cluster.rig.put(
        "trouble.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {SECRET}, \
             namespaces: {{names: [trouble, trouble-opaque, trouble-missing]}}}}]\n"
        ),
    );
    server.apply(
        "{apiVersion: v1, kind: Secret, metadata: {name: ecr-credentials, namespace: trouble-opaque}}",
    );
    server.apply(&cluster.manifests(|_| {})); // for the one namespace only
    let sidecar = cluster.start(|command| {
        command.env_remove("ECR_SIDECAR_DOCKER_CONFIG_SECRET");
        rig::configured_by(command, &file);
    });
    cluster.wait_password("trouble");
    let status = sidecar.wait_status("two in trouble", |status| {
        status["outputs"][0]["targets"]["troubled"].as_array().is_some_and(|troubled| troubled.len() == 2)
    });
    let targets = &status["outputs"][0]["targets"];
    assert_eq!((&targets["total"], &targets["in_sync"]), (&json!(3), &json!(1)));
    let errors = targets["troubled"].to_string();
    for part in [
        "trouble-opaque/ecr-credentials",
        "trouble-missing/ecr-credentials",
        "Role in namespace trouble-missing",
    ] {
        assert!(errors.contains(part), "{part} is not in {errors}");
    }
    let (code, body) = sidecar.get("/readyz");
    assert_eq!(code, 503, "{body}");
}

#[test]
fn an_outage_of_the_api_server_goes_unnoticed() {
    let Some(server) = ApiServer::start() else { return };
    let aws = Settings { token_lifetime: Duration::from_secs(40), ..Settings::default() };
    let account = server.service_account("outage", "reflector");
    let cluster = Cluster { server: Arc::new(server), rig: Rig::with(aws), account };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let first = cluster.wait_password("outage");
    cluster.server.stop_server();
    sidecar.wait_status("the trouble", |status| status["outputs"][0]["last_error"].is_object());
    assert_eq!(sidecar.get("/readyz").0, 200, "what is there is good still");
    cluster.server.start_server();
    cluster.server.wait_ready();
    wait_for("a newer credential", DEADLINE, || (cluster.password("outage")? != first).then_some(()));
    sidecar.wait_status("no trouble", |status| status["outputs"][0]["last_error"].is_null());
    sidecar.wait_ready();
    // and its watch lives
    cluster.server.kubectl(["delete", "secret", SECRET, "-n", "outage"]);
    cluster.server.apply(&cluster.manifests(|_| {}));
    cluster.wait_password("outage");
}

#[test]
fn a_sidecar_that_is_killed_while_aws_is_away_is_ready_when_it_is_back() {
    let Some(cluster) = Cluster::new("killed") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    drop(sidecar);
    cluster.rig.emulator.set_fault(Service::Ecr, Fault::Status(500));
    cluster.start(|_| {}).wait_ready();
    let argocd = |command: &mut Command| {
        command.env_remove("ECR_SIDECAR_DOCKER_CONFIG_SECRET").env("ECR_SIDECAR_ARGOCD_NAMESPACE", "killed");
    };
    cluster.rig.emulator.clear_faults();
    let sidecar = cluster.run(argocd);
    sidecar.wait_ready();
    drop(sidecar);
    cluster.rig.emulator.set_fault(Service::Ecr, Fault::Status(500));
    cluster.start(argocd).wait_ready();
}

#[test]
fn argo_cd_finds_both_kinds_of_template_and_another_applier_keeps_its_fields() {
    let Some(cluster) = Cluster::new("argo") else { return };
    let argocd = |command: &mut Command| {
        command.env_remove("ECR_SIDECAR_DOCKER_CONFIG_SECRET").env("ECR_SIDECAR_ARGOCD_NAMESPACE", "argo");
    };
    let manifests = cluster.manifests(argocd);
    let git = || {
        let applied =
            cluster.server.apply_with(["--server-side", "--field-manager", "argocd-controller"], &manifests);
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    };
    git();
    let sidecar = cluster.start(argocd);
    sidecar.wait_ready();
    let name = "ecr-123456789012-eu-west-1-helm";
    let before = cluster.secret("argo", name).unwrap();
    assert_eq!(value(&before, "username").as_deref(), Some("AWS"));
    let mark = cluster.server.audit_mark();
    git();
    assert_eq!(
        cluster.secret("argo", name).unwrap()["data"],
        before["data"],
        "a second apply leaves it alone"
    );
    assert_eq!(cluster.writes_since(mark), 0);

    let Some(consumers) = program("consumers") else { return };
    let home = tempfile::tempdir().unwrap();
    for (url, secret) in [
        (format!("{HOST}/charts/web"), name),
        (format!("oci://{HOST}/charts/web"), "ecr-123456789012-eu-west-1-oci"),
    ] {
        let mut matching = clean_command(&consumers, home.path());
        matching.args(["argocd-match", "--namespace=argo", "--url", &url, "--kubeconfig"]);
        let found = output(matching.arg(cluster.server.kubeconfig()), DEADLINE);
        let found: Value = serde_json::from_slice(&found.stdout).unwrap();
        assert_eq!((&found["secret"], &found["username"]), (&json!(secret), &json!("AWS")), "{found}");
        let password = value(&cluster.secret("argo", secret).unwrap(), "password").unwrap();
        assert_eq!(found["passwordSha256"], json!(sha256(&password)));
    }
}

#[test]
fn a_new_namespace_has_its_secret_soon_and_one_that_is_left_out_has_none() {
    let Some(cluster) = Cluster::new("selected") else { return };
    let file = cluster.rig.put(
        "selected.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: selected-pull, \
             namespaces: {{selector: 'ecr=enabled'}}}}]\n"
        ),
    );
    let by_file = |command: &mut Command| {
        command.env_remove("ECR_SIDECAR_DOCKER_CONFIG_SECRET");
        rig::configured_by(command, &file);
    };
    let sidecar = cluster.run(by_file);
    sidecar.wait_ready(); // with nothing to keep
    let space = |name: &str, labels: &str| {
        cluster.server.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {labels}}}}}"
        ));
    };
    space("selected-a", "{ecr: enabled}");
    space("selected-b", "{ecr: disabled}");
    let there = |namespace: &str| cluster.secret(namespace, "selected-pull").is_some();
    wait_for("the Secret", SOON, || there("selected-a").then_some(()));
    space("selected-b", "{ecr: enabled}");
    wait_for("the Secret", SOON, || there("selected-b").then_some(()));
    assert!(!there("selected"));
    cluster.server.kubectl(["delete", "secret", "selected-pull", "-n", "selected-a"]);
    wait_for("the Secret to be back", SOON, || there("selected-a").then_some(()));
    sidecar.wait_log("somebody deleted the Secret", DEADLINE);
    sidecar.wait_ready();
}

#[test]
fn the_sidecar_can_do_nothing_with_any_other_secret() {
    let Some(cluster) = Cluster::new("least") else { return };
    cluster.server.apply(&cluster.manifests(|_| {}));
    cluster.server.apply("{apiVersion: v1, kind: Secret, metadata: {name: other, namespace: least}}");
    let may = |verb: &str, what: &str| {
        let answer =
            cluster.server.kubectl_as(&cluster.account, ["auth", "can-i", verb, what, "-n", "least"]);
        String::from_utf8_lossy(&answer.stdout).trim() == "yes"
    };
    wait_for("the Role to count", SOON, || may("patch", "secrets/ecr-credentials").then_some(()));
    for verb in ["get", "list", "watch", "patch"] {
        assert!(may(verb, "secrets/ecr-credentials"), "{verb}");
    }
    for (verb, what) in [
        ("create", "secrets"),
        ("create", "secrets/ecr-credentials"),
        ("update", "secrets/ecr-credentials"),
        ("delete", "secrets/ecr-credentials"),
        ("get", "secrets/other"),
        ("patch", "secrets/other"),
        ("list", "secrets"),
        ("watch", "secrets"),
        ("get", "configmaps"),
        ("list", "namespaces"),
    ] {
        assert!(!may(verb, what), "{verb} {what}");
    }
    let read = cluster.server.kubectl_as(&cluster.account, ["get", "secret", "other", "-n", "least"]);
    assert!(!read.status.success());
}

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
fn a_registry_that_leaves_the_configuration_leaves_the_secret() {
    let Some(cluster) = Cluster::new("leaves") else { return };
    cluster.server.apply(&cluster.manifests(|_| {}));
    let text = |hosts: &str| {
        format!("registries: [{hosts}]\noutputs: [{{type: docker-config-secret, name: {SECRET}}}]\n")
    };
    let file = cluster.rig.put("leaves.yaml", &text(&format!("{{host: {HOST}}}, {{host: {SIBLING}}}")));
    let sidecar = cluster.start(|command| {
        command.env_remove("ECR_SIDECAR_DOCKER_CONFIG_SECRET");
        rig::configured_by(command, &file);
    });
    sidecar.wait_ready();
    let hosts = || {
        let text = value(&cluster.secret("leaves", SECRET)?, ".dockerconfigjson")?;
        let config: Value = serde_json::from_str(&text).unwrap();
        Some(config["auths"].as_object()?.keys().cloned().collect::<Vec<_>>())
    };
    assert_eq!(hosts().unwrap(), [HOST, SIBLING]);
    cluster.rig.put("leaves.yaml", &text(&format!("{{host: {HOST}}}")));
    wait_for("the entry to go", DEADLINE, || (hosts()? == [HOST]).then_some(()));
}

fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Three replicas of one output for some refreshes: nobody ever puts an older credential over a newer one.
#[test]
fn replicas_never_step_back() {
    let aws = Settings { token_lifetime: Duration::from_secs(12), ..Settings::default() };
    let Some(cluster) = Cluster::with("replicas", aws) else { return };
    let first = cluster.run(|_| {});
    let replicas = [first, cluster.start(|_| {}), cluster.start(|_| {})];
    replicas.iter().for_each(Running::wait_ready);
    let begun = cluster.rig.emulator.count(Service::Ecr);
    let mark = cluster.server.audit_mark();
    let mut last = String::new();
    let mut changes = 0;
    wait_for("ten refreshes of each", Duration::from_secs(180), || {
        let secret = cluster.secret("replicas", SECRET)?;
        let expiries = secret["metadata"]["annotations"]["ecr-sidecar/expires"].as_str().unwrap().to_owned();
        let expiry = expiries.split('"').nth(3).unwrap().split(' ').next().unwrap().to_owned();
        assert!(expiry >= last, "{expiry} after {last}");
        changes += u32::from(expiry != last);
        last = expiry;
        (cluster.rig.emulator.count(Service::Ecr) >= begun + 30).then_some(())
    });
    let (writes, refreshes) = (cluster.writes_since(mark), cluster.rig.emulator.count(Service::Ecr) - begun);
    assert!(writes as u64 <= refreshes + 3, "{writes} writes for {refreshes} refreshes");
    assert!(changes > 5, "{changes}");
}
