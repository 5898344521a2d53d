//! `charts/ecr-sidecar`: installed, upgraded and uninstalled on a real node by the real helm 3 and 4, by the commands of
//! its README.
//!
//! The chart is installed as it is: the machine's network comes from an admission policy of the cluster.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Deserializer, Value, json};
use tempfile::TempDir;
use test_support::{
    Process, clean_command,
    files::overwrite,
    free_port,
    markdown::{Shown, blocks_of, scripts, section},
    output, pause, program,
    wait::within,
    wait_for,
};

use crate::{
    build::{ROOT, read},
    node::{
        consumers::{self, HOST},
        scene::{DEADLINE, ROLE, Scene},
    },
};

const PARTNER: &str = "999999999999.dkr.ecr.us-east-1.amazonaws.com";
const SECRET: &str = "ecr-credentials";
const POD: &str = "app.kubernetes.io/instance=ecr-sidecar";
const CHART: &str = "oci://ghcr.io/ecr-sidecar/charts/ecr-sidecar";
const NEWER: &str = "0.1.1";

/// A release called `ecr-sidecar` in the namespace of the scene, by one helm.
struct Release {
    scene: Scene,
    /// `helm` on the path, charts, values.
    folder: TempDir,
}

impl Release {
    fn new(namespace: &'static str, helm: &str) -> Option<Self> {
        let helm = program(helm)?;
        program("consumers")?;
        let scene = Scene::new(namespace, &[&format!("{namespace}:ecr-sidecar")])?;
        let release = Self { scene, folder: tempfile::tempdir().unwrap() };
        fs::create_dir(release.at("bin")).unwrap();
        symlink(helm, release.at("bin/helm")).unwrap();
        release.copy_chart();
        consumers::import_sidecar(&release.scene.node, NEWER);
        release.scene.use_machines_network();
        Some(release)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The chart as it is, and as its next version.
    fn copy_chart(&self) {
        for name in ["chart", "newer"] {
            let mut copy = clean_command("cp", self.folder.path());
            copy.arg("-r").arg(Path::new(ROOT).join("charts/ecr-sidecar")).arg(self.at(name));
            assert!(output(&mut copy, DEADLINE).status.success());
        }
        let about = self.at("newer/Chart.yaml");
        let newer = fs::read_to_string(&about).unwrap().replace("ersion: 0.1.0", &format!("ersion: {NEWER}"));
        overwrite(&about, &newer);
    }

    /// Values with that configuration, and what a pod needs on this node.
    fn write_values(&self, registries: &[&str], outputs: &str, more: &str) {
        let hosts: Vec<_> = registries.iter().map(|host| json!({"host": host})).collect();
        let (aws, api) = (&self.scene.aws, self.scene.node.addr());
        let env = [
            ("AWS_ENDPOINT_URL", aws.endpoint()),
            ("AWS_CA_BUNDLE", "/test/ca.pem".to_owned()),
            ("HTTPS_PROXY", aws.proxy()),
            ("ECR_SIDECAR_HEALTH_LISTEN", format!("127.0.0.1:{}", free_port())),
            ("KUBERNETES_SERVICE_HOST", api.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", api.port().to_string()),
        ];
        let env: Vec<_> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let values = format!(
            "config:\n  registries: {}\n  outputs: [{outputs}]\n\
             identity: {{type: web-identity, roleArn: '{ROLE}'}}\n\
             image: {{pullPolicy: Never}}\nextraEnv: {}\n\
             extraVolumes: [{{name: test-ca, configMap: {{name: test-ca}}}}]\n\
             extraVolumeMounts: [{{name: test-ca, mountPath: /test}}]\n{more}\n",
            json!(hosts),
            json!(env)
        );
        overwrite(&self.at("values.yaml"), &values);
    }

    /// Runs commands as the README gives them, with the chart in that folder; hands over what they print.
    #[track_caller]
    fn run(&self, commands: &str, chart: &str) -> String {
        let namespace = format!("-n {}", self.scene.namespace);
        let commands = commands.replace("-n ecr-sidecar", &namespace).replace(CHART, chart);
        let folder = self.folder.path().display();
        self.scene.run(&format!("cd {folder}; PATH={folder}/bin:$PATH\n{commands}"))
    }

    fn pod_name(&self) -> String {
        let pod = self.scene.node.pod(self.scene.namespace, POD).unwrap();
        pod["metadata"]["name"].as_str().unwrap().to_owned()
    }

    /// The objects of the cluster that carry this release's namespace in their names, or are in it.
    fn residue(&self) -> BTreeSet<String> {
        let kinds = "deployments,replicasets,pods,jobs,cronjobs,serviceaccounts,configmaps,secrets,roles,rolebindings,\
                     networkpolicies,clusterroles,clusterrolebindings,validatingadmissionpolicies,\
                     validatingadmissionpolicybindings";
        let columns = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name";
        let all = self.scene.node.kubectl(["get", kinds, "-A", "--no-headers", "-o", columns]);
        let words = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        words.filter(|line| line.contains(self.scene.namespace)).collect()
    }

    /// Waits until there is nothing else than before, and these; pods of what was deleted go a little later.
    #[track_caller]
    fn wait_residue(&self, before: &BTreeSet<String>, more: &[&str]) {
        let wanted: BTreeSet<_> =
            before.iter().cloned().chain(more.iter().map(|it| (*it).to_owned())).collect();
        let gone = within(DEADLINE, || (self.residue() == wanted).then_some(()));
        assert!(gone.is_some(), "{:#?}", self.residue().symmetric_difference(&wanted));
    }
}

/// The `sh` blocks of the chart's README: install, verify, use, upgrade, uninstall.
fn commands() -> [String; 5] {
    blocks_of("sh", &read("charts/ecr-sidecar/README.md")).try_into().expect("five blocks")
}

/// Flux's libraries, which pull with the Secret again and again.
struct Consumer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Consumer {
    fn start(release: &Release) -> Self {
        let program = program("consumers").unwrap();
        let (home, kubeconfig) = (release.folder.path().to_owned(), release.scene.node.kubeconfig());
        let (proxy, ca) = (release.scene.aws.proxy(), release.scene.aws.ca_file().to_owned());
        let namespace = release.scene.namespace;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut pulls = 0;
            while !stopped.load(Ordering::Relaxed) {
                let mut command = clean_command(&program, &home);
                command.args(["keychain", "--namespace", namespace, "--secret", SECRET, "--pull"]);
                command.args(["--image", &format!("{HOST}/app:1.0"), "--kubeconfig"]).arg(&kubeconfig);
                command.env("HTTPS_PROXY", &proxy).env("NO_PROXY", "127.0.0.1").env("SSL_CERT_FILE", &ca);
                let pulled = output(&mut command, DEADLINE);
                assert!(pulled.status.success(), "pull {pulls}: {}", String::from_utf8_lossy(&pulled.stderr));
                pulls += 1;
                pause(Duration::from_millis(200));
            }
            pulls
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends it; how often it has pulled, always with success.
    fn finish(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("no pull was rejected")
    }
}

/// Every state that a Secret has from now on.
struct Watch(Process);

impl Watch {
    fn start(release: &Release, namespace: &str, name: &str) -> Self {
        let mut kubectl = release.scene.node.kubectl_command(&release.scene.node.kubeconfig());
        kubectl.args(["get", "secret", name, "-n", namespace, "--watch", "--output-watch-events", "-o=json"]);
        let watch = Self(Process::spawn(&mut kubectl));
        wait_for("the first state", DEADLINE, || watch.states().pop());
        watch
    }

    fn states(&self) -> Vec<Value> {
        Deserializer::from_str(&self.0.stdout()).into_iter().map_while(Result::ok).collect()
    }

    /// It was never deleted, and never without a credential.
    #[track_caller]
    fn assert_never_empty(&self) {
        let states = self.states();
        for state in &states {
            assert_ne!(state["type"], "DELETED", "{state}");
            assert!(hosts_of(&state["object"]).contains(HOST), "{state}");
        }
    }
}

/// The registries of a Secret's content.
fn hosts_of(secret: &Value) -> BTreeSet<String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let content = secret["data"][".dockerconfigjson"].as_str().unwrap_or_default();
    let config: Value = serde_json::from_slice(&STANDARD.decode(content).unwrap()).unwrap_or_default();
    config["auths"].as_object().into_iter().flatten().map(|(host, _)| host.clone()).collect()
}

fn from_install_to_uninstall(namespace: &'static str, helm: &str) {
    let Some(release) = Release::new(namespace, helm) else { return };
    let node = &release.scene.node;
    let tenant = format!("{namespace}-tenant");
    node.namespace(&tenant);
    let before = release.residue();
    let [install, verify, label, upgrade, uninstall] = commands();
    // The name is this release's own: the Secrets of that name are deleted in the end, wherever they are.
    let of_tenants = format!("{SECRET}-of-{tenant}");
    let outputs = format!(
        "{{type: docker-config-secret, name: {SECRET}}}, \
         {{type: docker-config-secret, name: {of_tenants}, namespaces: {{selector: {namespace}=enabled}}, prune: true}}"
    );

    release.write_values(&[HOST], &outputs, "");
    let notes = release.run(&install, "./chart");
    let [installed, labelled] = &scripts(section(&read("README.md"), "Helm"))[..] else {
        panic!("two scripts")
    };
    assert!(installed.is(&notes), "{installed:?}: {notes}");
    assert!(notes.contains(&format!("kubectl -n {namespace} exec deployment/ecr-sidecar")), "{notes}");
    let report = release.run(&verify, "./chart");
    assert!(
        report.contains("[+]registry") && report.contains("deployment \"ecr-sidecar\" success"),
        "{report}"
    );
    assert!(report.contains("Phase:") && report.contains("Succeeded"), "{report}");
    release.scene.walk(
        "Helm",
        &[
            ("-n ecr-sidecar", &format!("-n {namespace}")),
            (
                "ecr-credentials in namespaces with ecr=",
                &format!("{of_tenants} in namespaces with {namespace}="),
            ),
        ],
    );
    assert!(node.pod(namespace, "app.kubernetes.io/instance=ecr-sidecar").is_some());
    let ours = |text: &str| {
        let text = text.replace("ecr=enabled", &format!("{namespace}=enabled")).replace(SECRET, &of_tenants);
        ["namespace apps", "namespace/apps", "-n apps"]
            .iter()
            .fold(text, |text, of_apps| text.replace(of_apps, &of_apps.replace("apps", &tenant)))
    };
    let printed = release.run(&ours(&label), "./chart");
    let labelled = Shown { output: ours(&labelled.output), ..labelled.clone() };
    assert!(labelled.is(&printed), "{labelled:?}: {printed}");
    let account = node.get("serviceaccount", &tenant, "default").unwrap();
    assert_eq!(account["imagePullSecrets"], json!([{"name": of_tenants}]));

    let watches = [(namespace, SECRET), (&tenant, &of_tenants)]
        .map(|(namespace, name)| Watch::start(&release, namespace, name));
    let consumer = Consumer::start(&release);

    // To the next version.
    let older = release.pod_name();
    release.write_values(&[HOST], &outputs, ""); // with another port: both pods are there for a moment
    release.run(&upgrade.replace(" -f", " --wait -f"), "./newer");
    wait_for("the new pod alone", DEADLINE, || (release.pod_name() != older).then_some(()));
    let pod = node.wait_pod_ready(namespace, POD);
    assert_eq!(pod["spec"]["containers"][0]["image"], format!("ghcr.io/ecr-sidecar/ecr-sidecar:{NEWER}"));

    // Another registry: the same pod applies it.
    let running = release.pod_name();
    let port_and_all = fs::read_to_string(release.at("values.yaml")).unwrap();
    let with_partner = port_and_all.replace(
        &format!("[{{\"host\":\"{HOST}\"}}]"),
        &format!("[{{\"host\":\"{HOST}\"}},{{\"host\":\"{PARTNER}\",\"optional\":true}}]"),
    );
    assert_ne!(with_partner, port_and_all);
    overwrite(&release.at("values.yaml"), &with_partner);
    release.run(&upgrade, "./newer");
    wait_for("the new configuration", DEADLINE, || {
        release.scene.ask(POD, &["status", "-o", "json"]).contains(PARTNER).then_some(())
    });
    assert_eq!((release.pod_name(), node.restart_count(namespace, POD, "ecr-sidecar")), (running, 0));

    let pulls = consumer.finish();
    assert!(pulls > 3, "{pulls}");
    watches.iter().for_each(Watch::assert_never_empty);
    assert!(watches[0].states().len() > 1, "it was written meanwhile");

    let (uninstall, clean_up) = uninstall.split_once('\n').unwrap();
    release.run(uninstall, "./newer");
    release.wait_residue(&before, &[&format!("Secret {tenant} {of_tenants}")]);
    release.run(&ours(clean_up), "./newer");
    release.wait_residue(&before, &[]);
}

#[test]
fn helm_3_installs_upgrades_and_uninstalls_and_a_consumer_pulls_throughout() {
    from_install_to_uninstall("chart-helm3", "helm3");
}

#[test]
fn helm_4_installs_upgrades_and_uninstalls_and_a_consumer_pulls_throughout() {
    from_install_to_uninstall("chart-helm4", "helm4");
}

#[test]
fn a_job_fills_the_secret_after_an_installation_and_after_a_rollback() {
    let Some(release) = Release::new("chart-cronjob", "helm4") else { return };
    let before = release.residue();
    let [install, _, _, upgrade, uninstall] = commands();
    release.write_values(
        &[HOST],
        &format!("{{type: docker-config-secret, name: {SECRET}}}"),
        "mode: cronjob",
    );
    let hosts = || release.scene.hosts_in_secret(SECRET);
    let wait_filled = |when: &str| {
        wait_for(&format!("a credential {when}"), DEADLINE, || (hosts() == [HOST]).then_some(()));
    };
    release.run(&install, "./chart");
    wait_filled("after the installation");
    let watch = Watch::start(&release, "chart-cronjob", SECRET);
    // To the same: nothing that a pod depends on is another one.
    release.run(&upgrade, "./chart");
    release.run("helm test ecr-sidecar -n ecr-sidecar", "./chart");
    watch.assert_never_empty();
    release.run("helm rollback ecr-sidecar 1 -n ecr-sidecar", "./chart");
    wait_filled("after the rollback");

    let (uninstall, _) = uninstall.split_once('\n').unwrap();
    release.run(uninstall, "./newer");
    release.wait_residue(&before, &[]);
}
