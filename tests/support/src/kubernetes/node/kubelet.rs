//! Who runs the containers.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::{
    Node, START,
    machine::{Machine, child},
};
use crate::{
    files::overwrite,
    http::http_get,
    kubernetes::{ApiServer, api_server::KUBELET, locked},
    net::steady_port,
    process::Process,
    wait::wait_for,
};

/// How long its end may take.
const END: Duration = Duration::from_secs(20);

/// A kubelet, which ends with its [`Machine`].
#[derive(Debug)]
pub(super) struct Kubelet {
    program: PathBuf,
    /// Besides those that it always has.
    arguments: Mutex<Vec<OsString>>,
    health: SocketAddr,
    /// `nsenter`, which waits for the kubelet's end.
    process: Mutex<Process>,
}

impl Kubelet {
    /// Starts one. Whether its node is ready is another question.
    pub(super) fn start(program: PathBuf, machine: &Machine, server: &ApiServer) -> Self {
        let health = SocketAddr::from((Ipv4Addr::LOCALHOST, steady_port()));
        let configuration = configuration(machine, health, steady_port());
        overwrite(&machine.folder().join("kubelet.json"), &configuration.to_string());
        let process = Mutex::new(spawn(&program, &[], machine, server));
        Self { program, arguments: Mutex::default(), health, process }
    }

    /// Ends it, starts it again, and waits until it works.
    #[track_caller]
    pub(super) fn restart(&self, machine: &Machine, server: &ApiServer) {
        let mut process = self.process();
        kill_process(child(&process, "kubelet"), Signal::TERM).expect("a signal to the kubelet");
        process.wait_exit(END);
        let arguments = locked(&self.arguments);
        *process = spawn(&self.program, &arguments, machine, server);
        wait_for("the kubelet to be healthy", START, || {
            process.assert_runs();
            http_get(self.health, "/healthz").ok().filter(|(status, _)| *status == 200)
        });
    }

    /// The same, with these arguments from then on.
    #[track_caller]
    pub(super) fn restart_with(&self, arguments: Vec<OsString>, machine: &Machine, server: &ApiServer) {
        *locked(&self.arguments) = arguments;
        self.restart(machine, server);
    }

    /// What it has logged since it was started.
    pub(super) fn log(&self) -> String {
        self.process().stderr()
    }

    #[track_caller]
    pub(super) fn assert_runs(&self) {
        self.process().assert_runs();
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        locked(&self.process)
    }
}

#[track_caller]
fn spawn(program: &Path, arguments: &[OsString], machine: &Machine, server: &ApiServer) -> Process {
    let mut command = machine.command_inside(program);
    command.arg("--config").arg(machine.folder().join("kubelet.json"));
    command.arg("--kubeconfig").arg(server.kubeconfig_of(KUBELET));
    command.arg("--root-dir").arg(machine.folder().join("kubelet"));
    command.arg("--cert-dir").arg(machine.folder().join("kubelet/pki"));
    command.args(["--hostname-override", Node::NAME]).args(arguments);
    Process::spawn(&mut command)
}

fn configuration(machine: &Machine, health: SocketAddr, port: u16) -> Value {
    let resolv_conf = machine.folder().join("resolv.conf");
    overwrite(&resolv_conf, "nameserver 127.0.0.1\n"); // no name leaves this machine
    let never = json!({
        "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
        "imagefs.available": "0%", "imagefs.inodesFree": "0%",
    });
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", machine.socket().display()),
        "address": "127.0.0.1",
        "port": port,
        "healthzPort": health.port(),
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "resolvConf": resolv_conf,

        // A guest on this machine, whatever that looks like: it evicts and deletes nothing for want of room.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": machine.cgroup(),
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "failCgroupV1": false,
        "localStorageCapacityIsolation": false,
        "evictionHard": never,
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": false,
        "oomScoreAdj": 0,

        // Pulls wait for nothing but the registry.
        "serializeImagePulls": false,
        "registryPullQPS": 0,

        // In a test's time: an edited ConfigMap is in its pods, a killed container runs again within seconds.
        "configMapAndSecretChangeDetectionStrategy": "Watch",
        "syncFrequency": "1s",
        "featureGates": {"KubeletCrashLoopBackOffMax": true},
        "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
    })
}
