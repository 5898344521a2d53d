//! The node that tests start runs real pods, and nothing of it stays behind.
#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use test_support::{
    ApiServer, ImageConfig, Node, Signal,
    kubernetes::node::{container_status, restart_count},
    output, program, wait_for,
};

const SOON: Duration = Duration::from_secs(60);

/// A native sidecar that takes a second to have started, and a main container that records when it starts itself.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: pods, labels: {app: app}}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 1337
    seccompProfile: {type: RuntimeDefault}
  initContainers:
  - name: sidecar
    image: sidecar:1
    imagePullPolicy: Never
    restartPolicy: Always
    command: [sh, -c, 'echo starting; sleep 1; date +%s.%N > /shared/started; echo started; exec sleep 3600']
    resources: {requests: {cpu: 10m, memory: 8Mi}, limits: {memory: 16Mi}}
    startupProbe: {exec: {command: [sh, -c, 'test -e /shared/started']}, periodSeconds: 1, failureThreshold: 60}
    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: token, mountPath: /var/run/secrets/aws, readOnly: true}
  containers:
  - name: main
    image: localhost/busybox:1
    imagePullPolicy: Never
    command: [sh, -c, 'ls /shared; exec sleep 3600']
    volumeMounts:
    - {name: shared, mountPath: /shared, readOnly: true}
    - {name: settings, mountPath: /settings}
  volumes:
  - {name: shared, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: settings, configMap: {name: settings}}
  - name: token
    projected:
      sources: [{serviceAccountToken: {audience: sts.amazonaws.com, expirationSeconds: 600, path: token}}]
";

/// In one test, on one node: its end is what is checked last.
#[test]
fn pods_run_as_in_a_cluster_and_nothing_stays_behind() {
    let Some(node) = Node::start() else { return };
    let busybox = program("busybox").unwrap();
    let config = ImageConfig { env: &["FROM=image"], user: "1000", ..ImageConfig::default() };
    node.import_image("sidecar:1", [("/bin/sh", busybox.as_path())], config);
    node.namespace("pods");
    node.apply(&settings("old"));
    node.apply(POD);
    node.wait_pod_ready("pods", "app=app");

    the_main_container_starts_when_the_sidecar_has(&node);
    volumes_and_users_are_as_the_pod_says(&node);
    the_api_server_can_be_asked(&node);
    an_edited_config_map_arrives(&node);
    tokens_are_of_their_audience_and_are_replaced(&node);
    a_killed_container_runs_again(&node);

    let traces = Traces::of(&node);
    assert!(!traces.left().is_empty());
    let failing = AssertUnwindSafe(move || {
        let _node = node;
        panic!("as a test does that fails");
    });
    catch_unwind(failing).unwrap_err();
    assert_eq!(traces.left(), [""; 0]);
}

fn the_main_container_starts_when_the_sidecar_has(node: &Node) {
    assert_eq!(node.logs("pods", "app", "main"), "started\n", "what it saw first");
    assert_eq!(node.logs("pods", "app", "sidecar"), "starting\nstarted\n");
    let pod = node.pod("pods", "app").unwrap();
    assert_eq!(container_status(&pod, "sidecar")["started"], true, "{pod:#}");
}

fn volumes_and_users_are_as_the_pod_says(node: &Node) {
    let seen = sh(node, "main", "id -u; id -G; stat -c %g:%a /shared; stat -f -c %T /shared");
    assert_eq!(seen, "65532\n65532 1337\n1337:3777\ntmpfs\n");
    assert_eq!(sh(node, "sidecar", "echo $FROM; touch /x 2>&1 | grep -c Read-only"), "image\n1\n");
    let status =
        fs::read_to_string(format!("/proc/{}/status", node.container_pid("pods", "app", "main"))).unwrap();
    assert!(status.contains("\nSeccomp:\t2\n") && status.contains("\nUid:\t65532\t"), "{status}");
    assert!(!node.exec("pods", "app", "main", ["false"]).status.success());
}

fn the_api_server_can_be_asked(node: &Node) {
    let folder = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(
        sh(node, "main", &format!("cat {folder}/ca.crt")),
        fs::read_to_string(node.ca_file()).unwrap()
    );
    sh(node, "main", &format!("nc 127.0.0.1 {} </dev/null", node.addr().port()));
    let token = sh(node, "main", &format!("cat {folder}/token"));
    let mut kubectl = node.kubectl_command(Path::new("/dev/null"));
    kubectl.args(["--server", &node.url(), "--token", &token, "--certificate-authority"]).arg(node.ca_file());
    let asked = output(kubectl.args(["auth", "whoami"]), SOON);
    let said = String::from_utf8_lossy(&asked.stdout);
    assert!(said.contains("system:serviceaccount:pods:default"), "{said}");
}

fn an_edited_config_map_arrives(node: &Node) {
    assert_eq!(sh(node, "main", "cat /settings/text"), "old");
    node.apply(&settings("new"));
    wait_for("the new text", SOON, || (sh(node, "main", "cat /settings/text") == "new").then_some(()));
}

fn tokens_are_of_their_audience_and_are_replaced(node: &Node) {
    let pid = node.container_pid("pods", "app", "sidecar");
    let token = || fs::read_to_string(format!("/proc/{pid}/root/var/run/secrets/aws/token")).unwrap();
    let (first, claims) = (token(), claims(&token()));
    assert_eq!(claims["aud"], serde_json::json!(["sts.amazonaws.com"]));
    assert_eq!(claims["iss"], ApiServer::ISSUER);
    assert_eq!(claims["sub"], "system:serviceaccount:pods:default");
    assert_eq!(claims["kubernetes.io"]["pod"]["name"], "app");
    assert_eq!(node.jwks()["keys"][0]["kty"], "RSA");

    node.restart_kubelet();
    wait_for("another token", SOON, || (token() != first).then_some(()));
    assert_eq!(node.container_pid("pods", "app", "sidecar"), pid, "the container ran on");
}

fn a_killed_container_runs_again(node: &Node) {
    for restarts in 1..=2 {
        let pid = node.container_pid("pods", "app", "sidecar");
        node.signal_container("pods", "app", "sidecar", Signal::KILL);
        let again = |pod: &Value| {
            restart_count(pod, "sidecar") == restarts && container_status(pod, "sidecar")["started"] == true
        };
        node.wait_pod("pods", "app", "to have its sidecar again", again);
        assert_ne!(node.container_pid("pods", "app", "sidecar"), pid);
    }
    assert_eq!(node.restart_count("pods", "app", "main"), 0);
}

/// What there is of a node on this machine.
struct Traces {
    folder: PathBuf,
    containers: Vec<u32>,
}

impl Traces {
    fn of(node: &Node) -> Self {
        let containers = ["main", "sidecar"].map(|name| node.container_pid("pods", "app", name));
        Self { folder: node.folder().to_owned(), containers: [node.pids(), containers.into()].concat() }
    }

    fn left(&self) -> Vec<String> {
        let name = self.folder.file_name().unwrap().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mounts = mounts.lines().filter(|line| line.contains(name)).map(str::to_owned);
        let processes = paths_in("/proc").into_iter().filter(|process| {
            let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(name)
        });
        let containers = self.containers.iter().map(|pid| PathBuf::from(format!("/proc/{pid}")));
        let cgroups = paths_in("/sys/fs/cgroup").into_iter().chain([PathBuf::from("/sys/fs/cgroup")]);
        let cgroups = cgroups.map(|hierarchy| hierarchy.join(name));
        let paths = processes.chain(containers).chain(cgroups).chain([self.folder.clone()]);
        mounts.chain(paths.filter(|path| path.exists()).map(|path| path.display().to_string())).collect()
    }
}

fn paths_in(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[track_caller]
fn sh(node: &Node, container: &str, script: &str) -> String {
    let output = node.exec("pods", "app", container, ["sh", "-c", script]);
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn settings(text: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: settings, namespace: pods}}, data: {{text: {text}}}}}"
    )
}

/// What a JSON Web Token says, whoever signed it.
fn claims(token: &str) -> Value {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in token.split('.').nth(1).unwrap().bytes() {
        let value = digits.iter().position(|one| *one == digit).unwrap();
        bits = bits << 6 | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    serde_json::from_slice(&bytes).unwrap()
}
