//! A real node whose kubelet has the provider of `patches/kubelet`, and an emulated AWS with the registries.
//!
//! A test changes what names this machine and nothing else: where the configuration is, and where AWS is. containerd pulls
//! from every registry at the emulator's address.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ecr_emulator::{ACCESS_KEY_ID, Emulator, Role, SECRET_ACCESS_KEY, Service, Settings, Trust};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{
    ApiServer, Node,
    files::{overwrite, replace},
    iam::{allow_role, allow_what_we_ship},
    output,
    process::install,
    program,
};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ecr-sidecar");
pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Where the node has its tokens.
const CACHE: &str = "/var/run/ecr-sidecar";

pub(crate) struct Scene {
    pub(crate) node: Arc<Node>,
    pub(crate) aws: Emulator,
    busybox: PathBuf,
    folder: TempDir,
    /// A node has one provider.
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    /// With a file of `patches/kubelet` as CredentialProviderConfig, and roles that trust one ServiceAccount each
    /// (`NAMESPACE:NAME`). `None` when there is no node here.
    pub(crate) fn new(config: &str, roles: &[(&str, &str)]) -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        let (node, busybox) = (Node::shared()?, program("busybox")?);
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::Builder::new().prefix("ecr-sidecar-provider-").tempdir().unwrap();
        let aws = aws(&node, folder.path(), roles);
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        install(BINARY, &bin.join("ecr-sidecar"));
        let provider = folder.path().join("credential-provider.yaml");
        replace(&provider, &provider_config(config, folder.path(), &aws).to_string());
        node.pull_from(Some(&aws.endpoint()));
        node.use_credential_provider(&provider, &bin);
        let _ = fs::remove_dir_all(node.inside(Path::new("/run/ecr-sidecar")));
        Some(Self { node, aws, busybox, folder, _alone: alone })
    }

    /// A namespace without pods.
    pub(crate) fn namespace(&self, name: &str) {
        self.node.namespace(name);
    }

    /// Runs one command of the README, which begins with `kubectl`, in its folder.
    #[track_caller]
    pub(crate) fn run(&self, command: &str) {
        let arguments = command.strip_prefix("kubectl ").expect("a command of kubectl").split(' ');
        let mut kubectl = self.node.kubectl_command(&self.node.kubeconfig());
        let done = output(
            kubectl.args(arguments).current_dir(format!("{ROOT}/patches/kubelet")),
            Duration::from_secs(60),
        );
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Makes a ServiceAccount, with an annotation that names its role if it has one.
    pub(crate) fn account(&self, namespace: &str, name: &str, role: Option<&str>) {
        let annotations = role.map(|role| json!({"eks.amazonaws.com/ecr-role-arn": role}));
        let metadata = json!({"name": name, "namespace": namespace, "annotations": annotations});
        self.apply(&[json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})]);
    }

    /// Starts pods that pull an image each, run it, and end.
    pub(crate) fn pull<'a>(
        &self,
        namespace: &str,
        account: &str,
        pods: impl IntoIterator<Item = (&'a str, String)>,
    ) {
        let pods: Vec<_> =
            pods.into_iter().map(|(name, image)| self.pod(namespace, account, name, &image)).collect();
        self.apply(&pods);
    }

    /// The same with pods that have all been started before the first of them pulls.
    #[track_caller]
    pub(crate) fn pull_at_once(&self, namespace: &str, pods: impl IntoIterator<Item = (String, String)>) {
        let gate = self.folder.path().join("gate");
        fs::create_dir(&gate).unwrap();
        let waits = json!([{
            "name": "waits",
            "image": Node::BUSYBOX,
            "imagePullPolicy": "Never",
            "command": ["/bin/sh", "-c", "until [ -e /gate/open ]; do sleep 1; done"],
            "volumeMounts": [{"name": "gate", "mountPath": "/gate"}],
        }]);
        let pods = pods.into_iter().map(|(name, image)| {
            let mut pod = self.pod(namespace, "default", &name, &image);
            pod["spec"]["initContainers"] = waits.clone();
            let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
            volumes.push(json!({"name": "gate", "hostPath": {"path": gate, "type": "Directory"}}));
            pod
        });
        self.apply(&pods.collect::<Vec<_>>());
        self.wait_all(namespace, "{.status.initContainerStatuses[0].state.running}");
        replace(&gate.join("open"), "");
    }

    /// Waits until every pod of the namespace has pulled its image and run.
    #[track_caller]
    pub(crate) fn wait_all_ran(&self, namespace: &str) {
        self.wait_all(namespace, "{.status.phase}=Succeeded");
    }

    /// Waits until this holds for every pod of the namespace.
    #[track_caller]
    fn wait_all(&self, namespace: &str, path: &str) {
        let mut kubectl = self.node.kubectl_command(&self.node.kubeconfig());
        kubectl.args(["wait", &format!("--for=jsonpath={path}"), "pods", "--all", "--timeout=200s"]);
        let done = output(kubectl.args(["-n", namespace]), Duration::from_secs(240));
        if !done.status.success() {
            let events = self.node.kubectl(["get", "events", "-n", namespace]);
            let log = self.node.kubelet_log();
            let of_provider: Vec<_> = log.lines().filter(|line| line.contains("redential")).collect();
            panic!("{}\n{events}\n{}", String::from_utf8_lossy(&done.stderr), of_provider.join("\n"));
        }
    }

    /// Waits until the kubelet has failed to pull a pod's image.
    #[track_caller]
    pub(crate) fn wait_refused(&self, namespace: &str, pod: &str) {
        self.node.wait_pod(namespace, pod, "to have no image", |pod| {
            let waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].as_str();
            ["ErrImagePull", "ImagePullBackOff"].map(Some).contains(&waiting)
        });
    }

    /// To whom the tokens of all manifests pulled from now on were given; `before` was returned by the last call.
    pub(crate) fn principals(&self, before: usize) -> Vec<String> {
        let manifests =
            self.aws.pulls().into_iter().skip(before).filter(|pull| pull.path.contains("/manifests/"));
        let mut principals: Vec<_> = manifests.map(|pull| pull.principal).collect();
        principals.sort();
        principals.dedup();
        principals
    }

    /// Lets all cached tokens grow older.
    pub(crate) fn age(&self, hours: u64) {
        let folder = self.node.inside(Path::new(&CACHE.replace("/var", "")));
        let mut count = 0;
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "token") {
                let mut token: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                for time in ["obtained_at", "expires_at"] {
                    token[time] = json!(token[time].as_u64().unwrap() - hours * 3600);
                }
                overwrite(&path, &token.to_string());
                count += 1;
            }
        }
        assert!(count > 0, "no token in {CACHE}");
    }

    pub(crate) fn calls(&self) -> [u64; 2] {
        [Service::Sts, Service::Ecr].map(|service| self.aws.count(service))
    }

    pub(crate) fn apply(&self, objects: &[Value]) {
        self.node.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
    }

    fn pod(&self, namespace: &str, account: &str, name: &str, image: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "hostNetwork": true,
                "restartPolicy": "Never",
                "serviceAccountName": account,
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "app",
                    "image": image,
                    "imagePullPolicy": "Always",
                    // The image has a text and no program.
                    "command": ["/tools/busybox", "cat", "/hello.txt"],
                    "volumeMounts": [{"name": "tools", "mountPath": "/tools/busybox", "readOnly": true}],
                }],
                "volumes": [{"name": "tools", "hostPath": {"path": self.busybox, "type": "File"}}],
            },
        })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.node.pull_from(None);
    }
}

/// Its one user is the node's identity. The mirror's address is a registry of the region.
fn aws(node: &Node, folder: &Path, roles: &[(&str, &str)]) -> Emulator {
    let jwks = folder.join("jwks.json");
    replace(&jwks, &node.jwks().to_string());
    let trusts = |account: &str| [Trust::Subject(format!("system:serviceaccount:{account}"))];
    let aws = Emulator::start(Settings {
        roles: roles.iter().map(|(role, account)| Role::new(*role, trusts(account))).collect(),
        jwks_file: Some(jwks),
        issuer: Some(ApiServer::ISSUER.to_owned()),
        ..Settings::default()
    });
    let aws = aws.unwrap();
    allow_what_we_ship(&aws);
    for (role, account) in roles {
        allow_role(&aws, role, ApiServer::ISSUER, &[account]);
    }
    let address = aws.endpoint();
    aws.name_registry(address.strip_prefix("http://").unwrap(), "eu-west-1");
    aws
}

/// The shipped file, with this machine's paths and AWS.
fn provider_config(name: &str, folder: &Path, aws: &Emulator) -> Value {
    let keys = folder.join("aws");
    replace(&keys.join("access-key-id"), ACCESS_KEY_ID);
    replace(&keys.join("secret-access-key"), SECRET_ACCESS_KEY);
    let config = read("config.yaml").replace("/etc/ecr-sidecar/aws", keys.to_str().unwrap());
    replace(&folder.join("config.yaml"), &config);
    let mut provider: Value = serde_saphyr::from_str(&read(name)).unwrap();
    let env = provider["providers"][0]["env"].as_array_mut().unwrap();
    let variable = env.iter_mut().find(|variable| variable["name"] == "ECR_SIDECAR_CONFIG").unwrap();
    variable["value"] = json!(folder.join("config.yaml"));
    env.push(json!({"name": "AWS_ENDPOINT_URL", "value": aws.endpoint()}));
    provider
}

/// A file of `patches/kubelet`.
pub(crate) fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join("patches/kubelet").join(name)).unwrap()
}
