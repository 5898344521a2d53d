//! A node, an emulated AWS, and one product's manifests between the two.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use ecr_emulator::{ACCESS_KEY_ID, Emulator, SECRET_ACCESS_KEY, Settings};
use serde_json::{Value, json};
use test_support::{
    ApiServer, Node,
    files::overwrite,
    free_port, http_get,
    iam::{allow_partner, allow_role, allow_what_we_ship},
    markdown::{blocks, commands, section},
    output,
    wait::within,
    wait_for,
};

use crate::{
    build::{Build, Objects, Product, read},
    node::consumers::{self, REFUSED},
    scc,
    shell::{admin_shell, printed_by},
};

pub(crate) const ROLE: &str = "arn:aws:iam::123456789012:role/ecr-pull";
const SIDECAR: &str = "ecr-sidecar";
/// How long anything may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(100);

static KUBELET: RwLock<()> = RwLock::new(());

/// Held by who waits for a startup probe: a kubelet that has just started takes containers that run already for started.
pub(crate) fn steady_kubelet() -> RwLockReadGuard<'static, ()> {
    KUBELET.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held by who restarts the node's kubelet.
pub(crate) fn own_kubelet() -> RwLockWriteGuard<'static, ()> {
    KUBELET.write().unwrap_or_else(PoisonError::into_inner)
}

/// A namespace of the node, and an AWS of its own.
pub(crate) struct Scene {
    pub(crate) node: Arc<Node>,
    pub(crate) aws: Emulator,
    pub(crate) namespace: &'static str,
    health: u16,
}

impl Scene {
    /// With the role and the policies of `iam/`: it trusts these service accounts (`NAMESPACE:NAME`) by tokens of the
    /// cluster's issuer, signed by its keys. EKS Pod Identity has an association for the first of them.
    pub(crate) fn new(namespace: &'static str, accounts: &[&str]) -> Option<Self> {
        let node = Node::shared()?;
        if !consumers::import(&node) {
            return None;
        }
        node.namespace(namespace);
        let folder = tempfile::tempdir().unwrap();
        let jwks_file = folder.path().join("jwks.json");
        overwrite(&jwks_file, &node.jwks().to_string());
        let aws = Emulator::start(Settings {
            pod_identity_role: ROLE.to_owned(),
            pod_identity_subject: accounts.first().map(|name| format!("system:serviceaccount:{name}")),
            jwks_file: Some(jwks_file),
            issuer: Some(ApiServer::ISSUER.to_owned()),
            ..Settings::default()
        });
        let aws = aws.unwrap();
        allow_what_we_ship(&aws);
        allow_role(&aws, ROLE, ApiServer::ISSUER, accounts);
        allow_partner(&aws, ROLE);
        let scene = Self { node, aws, namespace, health: free_port() };
        let ca = std::fs::read_to_string(scene.aws.ca_file()).unwrap();
        scene.apply(&[config_map("test-ca", namespace, &json!({"ca.pem": ca}))]);
        Some(scene)
    }

    /// Applies what `components` make of one Deployment of the stock, and waits until it is rolled out.
    pub(crate) fn deploy(&self, product: Product, components: &[&str]) {
        self.roll_out_changed(built(product, components), product.deployments()[0].0);
    }

    /// Applies these as OpenShift's SCC `restricted-v2` admits their pods, and waits until the Deployment is rolled out.
    pub(crate) fn deploy_on_openshift(&self, mut objects: Objects, deployment: &str) {
        for object in objects.0.iter_mut().filter(|object| object["kind"] == "Deployment") {
            let pod = &mut object["spec"]["template"]["spec"];
            *pod = scc::restricted_v2(pod).unwrap();
        }
        self.roll_out_changed(objects, deployment);
    }

    /// Applies these with the overlay, and waits until the Deployment is rolled out.
    pub(crate) fn roll_out_changed(&self, objects: Objects, deployment: &str) {
        let _steady = steady_kubelet();
        self.apply_changed(objects);
        self.roll_out(deployment);
    }

    /// Applies these with the overlay.
    pub(crate) fn apply_changed(&self, mut objects: Objects) {
        for object in &mut objects.0 {
            match object["kind"].as_str().unwrap() {
                // `restricted` forbids the machine's network; it is enforced on what is built in admission.rs.
                "Namespace" => object["metadata"]["labels"] = json!({}),
                "Deployment" => {
                    // The machine's ports are there once.
                    object["spec"]["strategy"] = json!({"type": "Recreate"});
                    self.overlay(&mut object["spec"]["template"]["spec"]);
                }
                "Job" => self.overlay(&mut object["spec"]["template"]["spec"]),
                "CronJob" => self.overlay(&mut object["spec"]["jobTemplate"]["spec"]["template"]["spec"]),
                _ => {}
            }
        }
        self.apply(&objects.0);
    }

    pub(crate) fn apply(&self, objects: &[Value]) {
        self.node.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
    }

    /// Images, network, endpoints.
    fn overlay(&self, pod: &mut Value) {
        pod["hostNetwork"] = json!(true);
        let mut with_ca = false;
        for key in ["initContainers", "containers"] {
            for container in pod[key].as_array_mut().into_iter().flatten() {
                container["imagePullPolicy"] = json!("Never");
                if container["name"] == SIDECAR {
                    let api = self.node.addr();
                    let (ip, port) = (api.ip().to_string(), api.port().to_string());
                    add_env(
                        container,
                        &[
                            ("AWS_ENDPOINT_URL", &self.aws.endpoint()),
                            ("ECR_SIDECAR_HEALTH_LISTEN", &format!("127.0.0.1:{}", self.health)),
                            ("KUBERNETES_SERVICE_HOST", &ip),
                            ("KUBERNETES_SERVICE_PORT", &port),
                        ],
                    );
                } else if key == "containers" {
                    with_ca = true;
                    add_env(
                        container,
                        &[("HTTPS_PROXY", &self.aws.proxy()), ("SSL_CERT_FILE", "/test/ca.pem")],
                    );
                    push(&mut container["volumeMounts"], json!({"name": "test-ca", "mountPath": "/test"}));
                }
            }
        }
        if with_ca {
            push(&mut pod["volumes"], json!({"name": "test-ca", "configMap": {"name": "test-ca"}}));
        }
    }

    #[track_caller]
    pub(crate) fn roll_out(&self, deployment: &str) {
        let target = format!("deployment/{deployment}");
        let mut kubectl = self.node.kubectl_command(&self.node.kubeconfig());
        kubectl.args(["-n", self.namespace, "rollout", "status", "--timeout=80s", &target]);
        let done = output(&mut kubectl, DEADLINE);
        if !done.status.success() {
            let namespaced = ["-n", self.namespace];
            let pods = self
                .node
                .kubectl(["get", "pods", "-o", "jsonpath={.items[*].status}"].iter().chain(&namespaced));
            let events = self.node.kubectl(["get", "events"].iter().chain(&namespaced));
            let mut logs = self.node.kubectl_command(&self.node.kubeconfig());
            let logs = output(logs.args(["-n", self.namespace, "logs", &target, "-c", SIDECAR]), DEADLINE);
            let logs = String::from_utf8_lossy(&logs.stdout);
            panic!("{deployment} is not rolled out\n{pods}\n{events}\n{logs}");
        }
    }

    /// Runs the commands that a README gives under this heading.
    pub(crate) fn run_of_readme(&self, readme: &str, heading: &str) {
        let text = read(readme);
        let (_, text) = text.split_once(heading).unwrap_or_else(|| panic!("{readme} has no {heading}"));
        let (_, block) = text.split_once("```sh\n").unwrap();
        let (block, _) = block.split_once("```").unwrap();
        self.run(block);
    }

    /// Runs what the main README has one run against pods; it prints what is shown, with other names as these say.
    #[track_caller]
    pub(crate) fn walk(&self, heading: &str, names: &[(&str, &str)]) {
        let readme = read("README.md");
        let ours = |text: &str| names.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let blocks = blocks(section(&readme, heading));
        let shown: Vec<_> = blocks.iter().filter(|block| block.info == "console on a node").collect();
        assert!(!shown.is_empty(), "{heading} has no block for a node");
        for command in shown.iter().flat_map(|block| commands(&block.text)) {
            let printed = self.run(&ours(&command.command));
            for line in ours(&command.output).lines() {
                assert!(printed.lines().any(|printed| printed == line), "{line} is not in\n{printed}");
            }
        }
    }

    /// Makes the Secret with static keys by the command that a README gives, from a file as it says.
    pub(crate) fn make_keys(&self, readme: &str) {
        let text = read(readme);
        let command =
            text.split('`').find(|code| code.contains("create secret generic ecr-sidecar-aws")).unwrap();
        let keys = format!(
            "[default]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n"
        );
        self.run(&format!("cd; printf '{keys}' > credentials; {command}"));
    }

    /// Answers of the sidecar's health endpoint.
    pub(crate) fn get(&self, path: &str) -> String {
        http_get(SocketAddr::from((Ipv4Addr::LOCALHOST, self.health)), path).unwrap().1
    }

    /// Runs a script with `kubectl` as the cluster's admin; hands over what it prints.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> String {
        let home = tempfile::tempdir().unwrap();
        let mut shell = admin_shell(home.path(), &self.node.kubeconfig(), script);
        let (succeeds, printed) = printed_by(&mut shell, DEADLINE);
        assert!(succeeds, "{printed}");
        printed
    }

    /// Gives every pod that is created here the machine's network, whoever creates it, and waits until that is so.
    pub(crate) fn use_machines_network(&self) {
        let (namespace, name) = (self.namespace, format!("network-of-{}", self.namespace));
        let api = "admissionregistration.k8s.io/v1";
        let policy = json!({
            "apiVersion": api, "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail", "reinvocationPolicy": "Never",
                "matchConstraints": {"resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
                ]},
                "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {
                    "expression": "Object{spec: Object.spec{hostNetwork: true}}",
                }}],
            },
        });
        let binding = json!({
            "apiVersion": api, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name, "matchResources": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            }},
        });
        self.apply(&[policy, binding]);
        let probe = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "namespace": namespace},
            "spec": {"containers": [{"name": "probe", "image": "probe"}]}});
        wait_for("the policy to count", DEADLINE, || {
            let tried = self.node.apply_with(["--dry-run=server", "-o=json"], &probe.to_string());
            String::from_utf8_lossy(&tried.stdout).contains("\"hostNetwork\": true").then_some(())
        });
    }

    /// What a container has said; nothing before it has started.
    pub(crate) fn logs(&self, pod: &str, container: &str) -> String {
        let pod = self.node.pod(self.namespace, pod);
        let name = pod.as_ref().and_then(|pod| pod["metadata"]["name"].as_str()).unwrap_or_default();
        let mut kubectl = self.node.kubectl_command(&self.node.kubeconfig());
        kubectl.args(["-n", self.namespace, "logs", name, "-c", container]);
        String::from_utf8(output(&mut kubectl, DEADLINE).stdout).unwrap()
    }

    /// What a shell in the consumer prints.
    #[track_caller]
    pub(crate) fn shell(&self, pod: &str, container: &str, script: &str) -> String {
        let done = self.node.exec(self.namespace, pod, container, ["busybox", "sh", "-c", script]);
        assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// `ecr-sidecar ARGUMENTS` in its container.
    #[track_caller]
    pub(crate) fn ask(&self, pod: &str, arguments: &[&str]) -> String {
        let command = [&["ecr-sidecar"], arguments].concat();
        let done = self.node.exec(self.namespace, pod, SIDECAR, &command);
        String::from_utf8([done.stdout, done.stderr].concat()).unwrap()
    }

    /// Waits until a line with `part` is in a container's log.
    #[track_caller]
    pub(crate) fn wait_log(&self, pod: &str, container: &str, part: &str) -> String {
        self.wait_more(pod, container, part, 0)
    }

    /// Waits until more than `count` lines with `part` are in a container's log; hands over the last.
    #[track_caller]
    pub(crate) fn wait_more(&self, pod: &str, container: &str, part: &str, count: usize) -> String {
        let found = within(DEADLINE, || {
            let log = self.logs(pod, container);
            let lines: Vec<_> = log.lines().filter(|line| line.contains(part)).collect();
            (lines.len() > count).then(|| (*lines.last().unwrap()).to_owned())
        });
        found.unwrap_or_else(|| {
            panic!("no {part:?} in the log of {container}:\n{}", self.logs(pod, container))
        })
    }

    /// How many lines of a container's log have `part` in them.
    pub(crate) fn count(&self, pod: &str, container: &str, part: &str) -> usize {
        self.logs(pod, container).lines().filter(|line| line.contains(part)).count()
    }

    /// Not one pull was refused.
    #[track_caller]
    pub(crate) fn assert_none_rejected(&self, pod: &str, container: &str) {
        let log = self.logs(pod, container);
        assert!(!log.contains(REFUSED), "{log}");
        assert_eq!(self.aws.refusals().iter().filter(|r| r.path.contains("manifests")).count(), 0);
    }

    /// The entries of the pull Secret that Flux reads.
    pub(crate) fn hosts_in_secret(&self, name: &str) -> Vec<String> {
        let read = [
            "-n",
            self.namespace,
            "get",
            "secret",
            name,
            "-o",
            "go-template={{index .data \".dockerconfigjson\" | base64decode}}",
        ];
        let config: Value = serde_json::from_str(&self.node.kubectl(read)).unwrap();
        config["auths"].as_object().into_iter().flatten().map(|(host, _)| host.clone()).collect()
    }
}

/// What `components` make of one Deployment of the stock.
pub(crate) fn built(product: Product, components: &[&str]) -> Objects {
    let deployment = product.deployments()[0].0;
    let mut objects = Build::chosen(product, components).unwrap().objects();
    objects.0.retain(|object| match object["kind"].as_str() {
        Some("Deployment") => object["metadata"]["name"] == deployment,
        kind => kind != Some("CustomResourceDefinition"),
    });
    objects
}

pub(crate) fn config_map(name: &str, namespace: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data})
}

pub(crate) fn add_env(container: &mut Value, variables: &[(&str, &str)]) {
    for (name, value) in variables {
        if let Some(env) = container["env"].as_array_mut() {
            env.retain(|entry| entry["name"] != *name);
        }
        push(&mut container["env"], json!({"name": name, "value": value}));
    }
}

pub(crate) fn push(list: &mut Value, entry: Value) {
    match list {
        Value::Array(list) => list.push(entry),
        _ => *list = json!([entry]),
    }
}
