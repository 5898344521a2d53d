//! A whole Kubernetes node of the test's own: what becomes of a pod?
//!
//! | module | question |
//! |---|---|
//! | `machine` | where do containers run, and how does nothing of them stay behind? |
//! | `kubelet` | who runs them |
//! | `images` | what is in them |
//! | `pods` | what has become of them, what did they say? |
//! | `cgroups` | which processes are theirs? |
//!
//! Pods are the real thing: native sidecars, probes, restarts, projected tokens, volumes with their owners and
//! modes, security contexts. Held by `tests/node.rs`. What a test has to know:
//!
//! * Pods say `hostNetwork: true` and `imagePullPolicy: Never`: there is no network but this machine's own,
//!   no kube-proxy, no DNS. One that asks the API server has `KUBERNETES_SERVICE_HOST` and
//!   `KUBERNETES_SERVICE_PORT` set to [`ApiServer::addr`].
//! * The port of a container is a port of this machine. Two pods that list the same one are never there at once: a
//!   Deployment of such pods wants `strategy: {type: Recreate}`, or lists none.
//! * A container that ended is started again within seconds, however often that was: no test waits out a backoff.
//! * Native sidecars can't be switched off to see how older clusters do without: the feature gate
//!   `SidecarContainers` is locked since 1.33.

mod cgroups;
mod images;
mod kubelet;
mod machine;
mod pods;

use std::{
    ffi::OsString,
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

pub use cgroups::Usage;
pub(crate) use images::BusyBox;
pub use images::ImageConfig;
pub use pods::{container_status, restart_count};

use crate::{
    files::replace,
    kubernetes::{
        ApiServer,
        api_server::{CONTROLLER_MANAGER, SCHEDULER},
        locked,
        node::{kubelet::Kubelet, machine::Machine},
    },
    process::{Process, clean_command},
    requirement::program,
    wait::wait_for,
};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(120);

/// An [`ApiServer`], which it stands for, with a controller manager, a scheduler and one node. All of it ends on
/// drop: processes, mounts, cgroups.
#[derive(Debug)]
pub struct Node {
    // In this order: the first ends first.
    kubelet: Kubelet,
    machine: Machine,
    scheduler: Process,
    controller_manager: Process,
    server: ApiServer,
}

impl Node {
    /// The one name that it has, which is also its address.
    pub const NAME: &str = "127.0.0.1";

    /// An image that every node has: BusyBox with all its applets in `/bin`. By default it sleeps,
    /// and as process 1 it does not mind SIGTERM: pods of it want `terminationGracePeriodSeconds: 0` or a `trap`.
    pub const BUSYBOX: &str = "localhost/busybox:1";

    /// Starts one, and waits until it is ready and pods can be made in the namespace `default`. `None` when it
    /// can't be had here: it takes root, `tests/tools/build` and some packages.
    ///
    /// # Panics
    /// When it does not start, or something is missing and `CI=true`.
    pub fn start() -> Option<Self> {
        let controller_manager = program("kube-controller-manager")?;
        let scheduler = program("kube-scheduler")?;
        let kubelet = program("kubelet")?;
        let busybox = BusyBox::find()?;
        let machine = Machine::start()?;
        let server = ApiServer::start_for_node()?;
        let node = Self {
            controller_manager: Process::spawn(&mut controller_manager_command(controller_manager, &server)),
            scheduler: Process::spawn(&mut scheduler_command(scheduler, &server)),
            kubelet: Kubelet::start(kubelet, &machine, &server),
            machine,
            server,
        };
        node.import_busybox(&busybox);
        node.wait_ready();
        node.wait_namespace("default");
        Some(node)
    }

    /// The one that tests of this process share while at least one of them holds it: for tests that keep to
    /// namespaces and ports of their own, and stop nothing.
    ///
    /// # Panics
    /// As [`Node::start`].
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Node>> = Mutex::new(Weak::new());
        let mut shared = locked(&SHARED);
        shared.upgrade().or_else(|| {
            let node = Arc::new(Self::start()?);
            *shared = Arc::downgrade(&node);
            Some(node)
        })
    }

    /// Makes a namespace, unless it is there, and waits until pods can be made in it. It can be deleted with
    /// `kubectl`, unlike that of an [`ApiServer`] without a controller manager.
    ///
    /// # Panics
    /// When that takes minutes.
    #[track_caller]
    pub fn namespace(&self, name: &str) {
        self.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}"));
        self.wait_namespace(name);
    }

    /// Ends the kubelet and starts it again; containers run on meanwhile. It has forgotten the tokens that it had
    /// for its pods: within seconds each projected token is replaced by a new one, years before its time.
    ///
    /// # Panics
    /// When it does not get ready.
    #[track_caller]
    pub fn restart_kubelet(&self) {
        self.kubelet.restart(&self.machine, &self.server);
    }

    /// Restarts the kubelet with this CredentialProviderConfig, whose programs are in the folder `bin`.
    ///
    /// # Panics
    /// When the kubelet does not take it.
    #[track_caller]
    pub fn use_credential_provider(&self, config: &Path, bin: &Path) {
        let flags = ["--image-credential-provider-config", "--image-credential-provider-bin-dir"];
        let arguments = flags.map(OsString::from).into_iter().zip([config, bin].map(OsString::from));
        let arguments = arguments.flat_map(|(flag, value)| [flag, value]).collect();
        self.kubelet.restart_with(arguments, &self.machine, &self.server);
    }

    /// Has every registry of whatever name be pulled from at `url`, from now on; `None`: at its own name.
    ///
    /// # Panics
    /// When the file that says so cannot be written.
    pub fn pull_from(&self, url: Option<&str>) {
        let file = self.folder().join("certs.d/_default/hosts.toml");
        let text = url.map(|url| {
            format!("server = \"{url}\"\n[host.\"{url}\"]\ncapabilities = [\"pull\", \"resolve\"]\n")
        });
        replace(&file, &text.unwrap_or_default());
    }

    /// A path as processes on the node see it, from outside.
    pub fn inside(&self, path: &Path) -> PathBuf {
        self.machine.inside(path)
    }

    /// What the kubelet has logged since it was last started.
    pub fn kubelet_log(&self) -> String {
        self.kubelet.log()
    }

    /// Where containerd and the kubelet keep what they have, volumes included (`kubelet/pods/…`; what is mounted
    /// there isn't seen from outside). All that runs on the node names it in its arguments, but for the containers.
    pub fn folder(&self) -> &Path {
        self.machine.folder()
    }

    #[track_caller]
    fn wait_ready(&self) {
        let path = "-o=jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        wait_for("the node to be ready", START, || {
            self.controller_manager.assert_runs();
            self.scheduler.assert_runs();
            self.kubelet.assert_runs();
            self.machine.assert_runs();
            (self.kubectl(["get", "node", Self::NAME, "--ignore-not-found", path]) == "True").then_some(())
        });
    }

    /// Waits for what the controller manager puts into each namespace.
    #[track_caller]
    fn wait_namespace(&self, name: &str) {
        let wanted = ["serviceaccount/default", "configmap/kube-root-ca.crt"];
        wait_for(&format!("what pods in namespace {name} need"), START, || {
            self.controller_manager.assert_runs();
            let names =
                self.kubectl(["get", "-n", name, "--ignore-not-found", "-o=name"].iter().chain(&wanted));
            (names.lines().count() == wanted.len()).then_some(())
        });
    }
}

impl Deref for Node {
    type Target = ApiServer;

    fn deref(&self) -> &ApiServer {
        &self.server
    }
}

fn controller_manager_command(program: PathBuf, server: &ApiServer) -> Command {
    let mut command = clean_command(program, &server.at(""));
    command.arg("--kubeconfig").arg(server.kubeconfig_of(CONTROLLER_MANAGER));
    command.arg("--service-account-private-key-file").arg(server.signing_key());
    command.arg("--root-ca-file").arg(server.ca_file());
    command.args(["--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0"]);
    command
}

fn scheduler_command(program: PathBuf, server: &ApiServer) -> Command {
    let mut command = clean_command(program, &server.at(""));
    command.arg("--kubeconfig").arg(server.kubeconfig_of(SCHEDULER));
    command.args(["--leader-elect=false", "--secure-port=0"]);
    command
}
