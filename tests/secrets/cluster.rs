//! An API server, an AWS, and a sidecar under the rights that it prints itself.

use std::{ops::Deref, path::Path, process::Command, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use ecr_emulator::Settings;
use serde_json::Value;
use test_support::{
    ApiServer, DockerRegistry, Harness, Node, Running, ServiceAccount, clean_command,
    harness::{DEADLINE, HOST, configured_by},
    kubernetes::AuditMark,
    output, program, wait_for,
};

use crate::BINARY;

pub(crate) const SECRET: &str = "ecr-credentials";
/// "Within a second", on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The API server that tests of this program share, or a whole node with one of its own.
pub(crate) enum Server {
    Shared(Arc<ApiServer>),
    Node(Box<Node>),
}

impl Deref for Server {
    type Target = ApiServer;

    fn deref(&self) -> &ApiServer {
        match self {
            Self::Shared(server) => server,
            Self::Node(node) => node,
        }
    }
}

/// An API server, an AWS, and a service account with the rights that `manifests` prints.
pub(crate) struct Cluster {
    pub(crate) server: Server,
    pub(crate) harness: Harness,
    pub(crate) account: ServiceAccount,
}

impl Cluster {
    /// In a namespace of its own; `None` when there is no API server here.
    pub(crate) fn new(namespace: &str) -> Option<Self> {
        Self::with(namespace, Settings::default())
    }

    pub(crate) fn with(namespace: &str, aws: Settings) -> Option<Self> {
        Some(Self::of(Server::Shared(ApiServer::shared()?), namespace, aws))
    }

    pub(crate) fn of(server: Server, namespace: &str, aws: Settings) -> Self {
        let account = server.service_account(namespace, "reflector");
        Self { server, harness: Harness::with(BINARY, aws), account }
    }

    pub(crate) fn namespace(&self) -> &str {
        self.account.namespace()
    }

    #[track_caller]
    pub(crate) fn node(&self) -> &Node {
        let Server::Node(node) = &self.server else { panic!("the cluster of this test has no node") };
        node
    }

    /// The sidecar's way to the API server, and one Secret as its only output.
    pub(crate) fn prepare(&self, command: &mut Command) {
        command.env("KUBECONFIG", self.account.kubeconfig()).env_remove("ECR_SIDECAR_DOCKER_CONFIG");
        command.env("ECR_SIDECAR_DOCKER_CONFIG_SECRET", SECRET);
    }

    /// What `ecr-sidecar manifests` prints.
    pub(crate) fn manifests(&self, change: impl FnOnce(&mut Command)) -> String {
        let mut command = Command::new(BINARY);
        command.args([
            "manifests",
            "--service-account",
            self.account.name(),
            "--namespace",
            self.namespace(),
        ]);
        command.env_clear().envs(self.harness.environment());
        self.prepare(&mut command);
        change(&mut command);
        let output = output(&mut command, DEADLINE);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The verdict of `kubectl auth can-i` for the sidecar's account.
    pub(crate) fn may(&self, verb: &str, what: &str, namespace: &str) -> bool {
        let answer = self.server.kubectl_as(&self.account, ["auth", "can-i", verb, what, "-n", namespace]);
        String::from_utf8_lossy(&answer.stdout).trim() == "yes"
    }

    /// A namespace with these labels, in YAML's flow form.
    pub(crate) fn namespace_with(&self, name: &str, labels: &str) {
        self.server.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {labels}}}}}"
        ));
    }

    /// Changes the data of a Secret as another field manager; `data` is JSON.
    pub(crate) fn patch_as(&self, manager: &str, namespace: &str, name: &str, data: &Value) {
        let patch = serde_json::json!({"data": data}).to_string();
        let manager = format!("--field-manager={manager}");
        self.server.kubectl(["patch", "secret", name, "-n", namespace, &manager, "-p", &patch]);
    }

    /// `ecr-sidecar once`.
    pub(crate) fn once(&self) -> std::process::Output {
        self.once_with(|_| {})
    }

    /// The same, configured otherwise.
    pub(crate) fn once_with(&self, change: impl FnOnce(&mut Command)) -> std::process::Output {
        let mut command = Command::new(BINARY);
        command.args(["once", "--timeout", "30s"]).env_clear().envs(self.harness.environment());
        self.prepare(&mut command);
        change(&mut command);
        output(&mut command, DEADLINE)
    }

    /// A program in a home of its own, with the way to the registries by their true names, and a cluster's admin.
    pub(crate) fn consumer(&self, program: &Path) -> Command {
        let mut command = clean_command(program, self.harness.folder());
        let ca = self.harness.emulator.ca_file().to_str().unwrap().to_owned();
        command.env("HTTPS_PROXY", self.harness.emulator.proxy()).env("NO_PROXY", "127.0.0.1");
        command.env("SSL_CERT_FILE", ca);
        command
    }

    /// What a consumer from `tests/tools/consumers` finds, as the cluster's admin; `None` when it is not here.
    pub(crate) fn finds(&self, arguments: &[&str]) -> Option<Value> {
        let mut command = self.consumer(&program("consumers")?);
        let found =
            output(command.args(arguments).arg("--kubeconfig").arg(self.server.kubeconfig()), DEADLINE);
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        Some(serde_json::from_slice(&found.stdout).unwrap())
    }

    /// Applies them, and runs the sidecar.
    pub(crate) fn run(&self, change: impl Fn(&mut Command)) -> Running {
        self.permit(&self.manifests(&change));
        self.start(change)
    }

    /// Applies what `manifests` printed, and waits until the policy among it counts: it judges whatever is written then.
    pub(crate) fn permit(&self, manifests: &str) {
        self.server.apply(manifests);
        let names = manifests.split_once("variables.secret.metadata.name in ['");
        let Some((name, _)) = names.and_then(|(_, rest)| rest.split_once('\'')) else { return };
        let denied = format!(
            "{{apiVersion: v1, kind: Secret, type: kubernetes.io/dockerconfigjson, metadata: {{name: {name}, \
             namespace: default, labels: {{probe: p}}}}, stringData: {{.dockerconfigjson: '{{}}'}}}}"
        );
        let arguments = ["--server-side", "--force-conflicts", "--dry-run=server", "--field-manager=probe"];
        wait_for("the policy to count", SOON, || {
            let answer = self.server.apply_as(&self.account, arguments, &denied);
            String::from_utf8_lossy(&answer.stderr).contains("ValidatingAdmissionPolicy").then_some(())
        });
    }

    pub(crate) fn start(&self, change: impl Fn(&mut Command)) -> Running {
        self.harness.run(|command| {
            self.prepare(command);
            change(command);
        })
    }

    pub(crate) fn secret(&self, namespace: &str, name: &str) -> Option<Value> {
        self.server.get("secret", namespace, name)
    }

    /// The password of the registry in the Secret that Flux reads.
    pub(crate) fn password(&self, namespace: &str) -> Option<String> {
        let text = value(&self.secret(namespace, SECRET)?, ".dockerconfigjson")?;
        let config: Value = serde_json::from_str(&text).ok()?;
        let auth = STANDARD.decode(config["auths"][HOST]["auth"].as_str()?).unwrap();
        Some(String::from_utf8(auth).unwrap().strip_prefix("AWS:").unwrap().to_owned())
    }

    pub(crate) fn wait_password(&self, namespace: &str) -> String {
        wait_for("a credential in the Secret", DEADLINE, || self.password(namespace))
    }

    /// The writes of our service account since then.
    pub(crate) fn writes_since(&self, mark: AuditMark) -> usize {
        let user = self.account.user();
        self.server.count_requests(mark, |request| request.user == user && request.is_write())
    }
}

pub(crate) fn value(secret: &Value, key: &str) -> Option<String> {
    Some(String::from_utf8(STANDARD.decode(secret["data"][key].as_str()?).unwrap()).unwrap())
}

pub(crate) fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Registries and outputs by this file.
pub(crate) fn by_file(file: &Path) -> impl Fn(&mut Command) {
    move |command| {
        command.env_remove("ECR_SIDECAR_DOCKER_CONFIG_SECRET");
        configured_by(command, file);
    }
}

/// Argo CD's templates in that namespace, by the environment.
pub(crate) fn argocd(namespace: &str) -> impl Fn(&mut Command) {
    move |command| {
        command.env_remove("ECR_SIDECAR_DOCKER_CONFIG_SECRET");
        command.env("ECR_SIDECAR_ARGOCD_NAMESPACE", namespace);
    }
}

/// An AWS whose registries have an image and a chart, by a real registry behind them.
pub(crate) fn with_registry(settings: Settings) -> Option<(DockerRegistry, Settings)> {
    let registry = DockerRegistry::start()?;
    registry.push_image("team/app", "v1");
    registry.push_chart("charts", "web", "0.1.0");
    let upstream = Some(format!("http://{}", registry.addr()));
    Some((registry, Settings { registry_upstream: upstream, ..settings }))
}
