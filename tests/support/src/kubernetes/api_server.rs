//! A real `kube-apiserver` with an etcd of its own, on loopback: its life and its outages.
//!
//! Rights (RBAC), server-side apply, watches and audit are the real ones. Held by `tests/kubernetes.rs`.

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    files::overwrite,
    http::http_get,
    kubernetes::{access::Kubeconfig, audit::AuditLog, locked},
    net::steady_port,
    process::{Process, Signal, clean_command, output},
    requirement::program,
    wait::wait_for,
};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(120);

/// How long it is given to end: it lingers for a minute when its etcd does not answer.
const GRACE: Duration = Duration::from_secs(3);

/// Every request, with its user, verb, object and status code, never with a body: those of Secrets stay out.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n\
     omitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

/// The users that a node's programs are, each with its group: what they may is what RBAC and the node authorizer
/// grant by themselves.
pub(super) const NODE_USERS: [(&str, &str); 3] =
    [(CONTROLLER_MANAGER, ""), (SCHEDULER, ""), (KUBELET, "system:nodes")];
pub(super) const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
pub(super) const SCHEDULER: &str = "system:kube-scheduler";
/// Of the node whose name is an address: it needs no resolver then.
pub(super) const KUBELET: &str = "system:node:127.0.0.1";

/// An API server with RBAC, and its etcd. Both end on drop, the API server first.
#[derive(Debug)]
pub struct ApiServer {
    // These two in this order: the first ends first.
    server: Mutex<Option<Process>>,
    etcd: Mutex<Option<Process>>,
    addr: SocketAddr,
    etcd_addr: SocketAddr,
    programs: Programs,
    for_node: bool,
    audit: AuditLog,
    folder: TempDir,
}

#[derive(Debug)]
struct Programs {
    server: PathBuf,
    etcd: PathBuf,
    kubectl: PathBuf,
}

impl ApiServer {
    /// Starts one with nothing in it, and waits until it is ready: some 3 s, and 330 MB of memory. `None` when
    /// it can't be had here.
    ///
    /// # Panics
    /// When it does not start, or a program is missing and `CI=true`.
    pub fn start() -> Option<Self> {
        Self::start_with(false)
    }

    /// The same for a [`Node`](super::Node): service accounts and their tokens are put into pods, each of
    /// [`NODE_USERS`] has a [`ApiServer::kubeconfig_of`] its own, and kubelets are asked at their addresses.
    pub(super) fn start_for_node() -> Option<Self> {
        Self::start_with(true)
    }

    fn start_with(for_node: bool) -> Option<Self> {
        let programs = Programs {
            server: program("kube-apiserver")?,
            etcd: program("etcd")?,
            kubectl: program("kubectl")?,
        };
        let folder = tempfile::tempdir().expect("a temporary directory");
        let server = Self {
            server: Mutex::default(),
            etcd: Mutex::default(),
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, steady_port())),
            etcd_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, steady_port())),
            programs,
            for_node,
            audit: AuditLog::at(folder.path().join("audit.log")),
            folder,
        };
        server.write_configuration();
        server.start_etcd();
        server.start_server();
        Some(server)
    }

    /// The one that tests of this process share while at least one of them holds it: for tests that keep to
    /// namespaces of their own, and neither stop nor restart it.
    ///
    /// # Panics
    /// As [`ApiServer::start`].
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<ApiServer>> = Mutex::new(Weak::new());
        let mut shared = locked(&SHARED);
        shared.upgrade().or_else(|| {
            let server = Arc::new(Self::start()?);
            *shared = Arc::downgrade(&server);
            Some(server)
        })
    }

    /// Who has issued the tokens of its service accounts, as their `iss` says.
    pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    /// Where it listens, for good: `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// The same as an address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The PEM file of the authority that its certificate is from; it survives restarts.
    pub fn ca_file(&self) -> PathBuf {
        self.at("certs/apiserver.crt")
    }

    /// Starts the API server after [`ApiServer::stop_server`], on the same port and data, and waits until it
    /// is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    #[track_caller]
    pub fn start_server(&self) {
        *locked(&self.server) = Some(Process::spawn(&mut self.server_command()));
        self.wait_ready();
    }

    /// Ends the API server, gracefully if that takes no more than some seconds. Connections to it are refused then.
    pub fn stop_server(&self) {
        stop(&self.server);
    }

    /// [`ApiServer::stop_server`], [`ApiServer::start_server`].
    ///
    /// # Panics
    /// When it does not get ready.
    #[track_caller]
    pub fn restart(&self) {
        self.stop_server();
        self.start_server();
    }

    /// Stops the API server where it stands: connections are taken by the kernel, and nothing answers.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends [`ApiServer::pause`].
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts etcd after [`ApiServer::stop_etcd`], on the same port and data, and waits until it is healthy. The
    /// API server finds back to it within seconds: [`ApiServer::wait_ready`].
    ///
    /// # Panics
    /// When it does not get healthy.
    #[track_caller]
    pub fn start_etcd(&self) {
        *locked(&self.etcd) = Some(Process::spawn(&mut self.etcd_command()));
        wait_for("etcd to be healthy", START, || {
            assert_runs(&self.etcd, "etcd");
            http_get(self.etcd_addr, "/health").ok().filter(|(status, _)| *status == 200)
        });
    }

    /// Ends etcd: the API server still answers, with errors after long waits.
    pub fn stop_etcd(&self) {
        stop(&self.etcd);
    }

    /// Waits until the API server is ready to serve.
    ///
    /// # Panics
    /// When it has ended, or is not ready within two minutes.
    #[track_caller]
    pub fn wait_ready(&self) {
        wait_for("the API server to be ready", START, || {
            assert_runs(&self.server, "kube-apiserver");
            TcpStream::connect(self.addr).ok()?; // costs less than to start a kubectl
            let mut kubectl = self.kubectl_command(&self.kubeconfig());
            kubectl.args(["get", "--raw=/readyz", "--request-timeout=5s"]);
            output(&mut kubectl, START).status.success().then_some(())
        });
    }

    /// The process ids of the API server and of etcd, of those that run.
    pub fn pids(&self) -> Vec<u32> {
        [&self.server, &self.etcd]
            .iter()
            .filter_map(|process| Some(locked(process).as_ref()?.pid()))
            .collect()
    }

    pub(super) fn kubectl_program(&self) -> &Path {
        &self.programs.kubectl
    }

    /// The kubeconfig of one of [`NODE_USERS`].
    pub(super) fn kubeconfig_of(&self, user: &str) -> PathBuf {
        self.at(&format!("kubeconfig-{user}"))
    }

    /// The key that signs tokens of service accounts.
    pub(super) fn signing_key(&self) -> PathBuf {
        self.at("certs/apiserver.key")
    }

    pub(super) fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// A place in this server's folder, which goes when it goes.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_configuration(&self) {
        let mut tokens = self.write_kubeconfig(&self.kubeconfig(), "admin", "system:masters");
        for (user, group) in NODE_USERS.iter().filter(|_| self.for_node) {
            tokens += &self.write_kubeconfig(&self.kubeconfig_of(user), user, group);
        }
        overwrite(&self.at("tokens.csv"), &tokens);
        overwrite(&self.at("audit.yaml"), AUDIT_POLICY);
    }

    /// Gives `user` a token in a kubeconfig, and hands over the line of `tokens.csv` that makes it good.
    fn write_kubeconfig(&self, file: &Path, user: &str, group: &str) -> String {
        let token = random_hex();
        let kubeconfig = Kubeconfig { namespace: "default", user: &format!("token: {token}") };
        overwrite(file, &kubeconfig.text(&self.url(), &self.ca_file()));
        format!("{token},{user},{user},\"{group}\"\n")
    }

    fn etcd_command(&self) -> std::process::Command {
        let client = format!("http://{}", self.etcd_addr);
        // It listens for peers that it will never have: on any port, whatever it sends them.
        let peer = "http://127.0.0.1:1";
        let mut command = clean_command(&self.programs.etcd, self.folder.path());
        command.arg("--data-dir").arg(self.at("etcd"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:0", "--initial-advertise-peer-urls", peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--log-level", "warn"]);
        command
    }

    fn server_command(&self) -> std::process::Command {
        // Tokens of service accounts are signed with the key of its certificate, which it makes itself, and
        // first: there is no other program that this takes.
        let key = self.signing_key();
        let mut command = clean_command(&self.programs.server, self.folder.path());
        command.arg("--etcd-servers").arg(format!("http://{}", self.etcd_addr));
        command.arg("--cert-dir").arg(self.at("certs"));
        command.args(["--bind-address=127.0.0.1", "--secure-port", &self.addr.port().to_string()]);
        command.arg("--service-account-signing-key-file").arg(&key);
        command.arg("--service-account-key-file").arg(&key);
        command.args(["--service-account-issuer", Self::ISSUER]);
        command.arg("--token-auth-file").arg(self.at("tokens.csv"));
        if self.for_node {
            command.args(["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"]);
            command.arg("--kubelet-preferred-address-types=InternalIP");
        } else {
            // Of the controller manager that is not here: service accounts to mount.
            command.args(["--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount"]);
        }
        command.arg("--endpoint-reconciler-type=none"); // no client reaches them
        command.arg("--service-cluster-ip-range=10.0.0.0/24");
        command.arg("--audit-policy-file").arg(self.at("audit.yaml"));
        command.arg("--audit-log-path").arg(self.audit.path());
        command.arg("--audit-log-maxsize=100000"); // in MB: it is never rotated
        command
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        locked(&self.server).as_ref().expect("a running API server").signal(signal);
    }
}

/// Ends what runs there, if anything does.
fn stop(process: &Mutex<Option<Process>>) {
    let stopped = locked(process).take();
    if let Some(process) = stopped {
        process.stop(GRACE);
    }
}

#[track_caller]
fn assert_runs(process: &Mutex<Option<Process>>, name: &str) {
    let process = locked(process);
    let Some(process) = process.as_ref() else { panic!("{name} has been stopped") };
    process.assert_runs();
}

/// A token that cannot be guessed.
fn random_hex() -> String {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).expect("random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
