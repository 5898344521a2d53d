//! Where do containers run, and how does nothing of them stay behind?
//!
//! Containers and their keepers are in a mount and a process namespace of the node's own. Whatever they mount, on
//! this machine no process sees it; and when process 1 of that namespace is killed, the kernel kills all others,
//! containers that have lost their keeper included, and unmounts everything. There remain cgroups and a folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{START, cgroups};
use crate::{
    files::overwrite,
    process::{Process, clean_command},
    requirement::{program, root},
    wait::{wait_for, within},
};

/// How long the end of all processes may take.
const END: Duration = Duration::from_secs(20);

/// Where containerd, its shims and the kubelet have fixed paths: these have their own there.
const HIDDEN: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// Hides these places, and the kernel's settings that a kubelet changes (for the whole machine, and for good), and
/// starts containerd.
const INIT: &str = r#"
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
mount -t tmpfs none /var/log
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    mkdir -p "settings/${setting%/*}"
    cat "/proc/sys/$setting" >"settings/$setting"
    mount --bind "settings/$setting" "/proc/sys/$setting"
done
"$@" &
wait "$!"
"#;

/// A containerd, and the namespaces that it is in.
#[derive(Debug)]
pub(super) struct Machine {
    /// `unshare`, which waits for the namespace's end.
    process: Process,
    /// Its process 1, by the id that this machine knows it by.
    init: Pid,
    programs: Programs,
    folder: TempDir,
}

#[derive(Debug)]
struct Programs {
    nsenter: PathBuf,
    ctr: PathBuf,
}

impl Machine {
    /// Starts one, and waits until containerd listens.
    pub(super) fn start() -> Option<Self> {
        if !root() {
            return None;
        }
        let programs = Programs { nsenter: program("nsenter")?, ctr: program("ctr")? };
        let (unshare, containerd) = (program("unshare")?, program("containerd")?);
        program("runc")?;
        let folder = tempfile::Builder::new().prefix("ecr-sidecar-node-").tempdir();
        let folder = folder.expect("a temporary directory");
        assert_visible(folder.path());
        write_configuration(folder.path());
        let mut command = command(unshare, folder.path());
        command.args(["--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-euc", INIT, "sh"]).arg(containerd);
        command.arg("--config").arg(folder.path().join("containerd.toml"));
        let process = Process::spawn(&mut command);
        let init = child(&process, "unshare");
        cgroups::create(&cgroup_of(folder.path()));
        let machine = Self { process, init, programs, folder };
        wait_for("containerd to listen", START, || {
            machine.assert_runs();
            machine.socket().exists().then_some(())
        });
        Some(machine)
    }

    /// `program`, to be run next to containerd. What is to be signalled is not the process that is started, but
    /// its [`child`].
    #[track_caller]
    pub(super) fn command_inside(&self, program: &Path) -> Command {
        assert_visible(program);
        let mut command = command(&self.programs.nsenter, self.folder());
        command.args(["--mount", "--pid", "--target", &self.init.as_raw_nonzero().to_string()]);
        command.arg("--").arg(program);
        command
    }

    /// `ctr`, of the images and containers that are Kubernetes's.
    pub(super) fn ctr(&self) -> Command {
        let mut command = command(&self.programs.ctr, self.folder());
        command.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]);
        command
    }

    /// Where containerd listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder().join("containerd.sock")
    }

    /// A path as processes on the node see it.
    pub(super) fn inside(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.init.as_raw_nonzero());
        Path::new(&root).join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What all cgroups of containers are below, as `/NAME`.
    pub(super) fn cgroup(&self) -> String {
        cgroup_of(self.folder())
    }

    /// Goes when the machine goes.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    #[track_caller]
    pub(super) fn assert_runs(&self) {
        self.process.assert_runs();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.process.exit_status().is_none() {
            let _ = kill_process(self.init, Signal::KILL);
        }
        within(END, || self.process.exit_status());
        within(END, || cgroups::remove(&self.cgroup()).then_some(()));
    }
}

/// The one process that `process`, which forks once, has started: an id of this machine's.
#[track_caller]
pub(super) fn child(process: &Process, name: &str) -> Pid {
    let parent = process.pid().to_string();
    wait_for(&format!("a child of {name}"), START, || {
        process.assert_runs();
        processes().find(|pid| status(*pid, "PPid").is_some_and(|ppid| ppid == parent))
    })
}

/// A field of `/proc/PID/status`.
pub(super) fn status(pid: Pid, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

#[track_caller]
fn assert_visible(path: &Path) {
    let hidden = HIDDEN.iter().find(|hidden| path.starts_with(hidden));
    assert!(
        hidden.is_none(),
        "{} can't be had on the node, which has a {hidden:?} of its own: set TMPDIR, ECR_SIDECAR_TEST_CACHE",
        path.display()
    );
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

fn command(program: impl AsRef<Path>, folder: &Path) -> Command {
    let mut command = clean_command(program, folder);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")).current_dir(folder); // runc, mount
    command
}

fn cgroup_of(folder: &Path) -> String {
    format!("/{}", folder.file_name().expect("a named folder").display())
}

fn write_configuration(folder: &Path) {
    let at = |name: &str| folder.join(name).display().to_string();
    fs::create_dir(at("cni")).expect("a new folder");
    // Pods have this machine's network, and a node without one of its own is never ready.
    overwrite(
        &folder.join("cni/10-none.conflist"),
        r#"{"cniVersion": "0.4.0", "name": "none", "plugins": [{"type": "loopback"}]}"#,
    );
    overwrite(
        &folder.join("containerd.toml"),
        &format!(
            r#"version = 2
root = "{root}"
state = "/run/containerd"
[grpc]
address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{opt}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{registries}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native" # works on every file system
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#,
            root = at("containerd"),
            socket = at("containerd.sock"),
            opt = at("opt"),
            image = super::Node::BUSYBOX,
            cni = at("cni"),
            registries = at("certs.d"),
        ),
    );
}
