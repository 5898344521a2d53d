//! A Docker daemon of the test's own.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    process::{Process, clean_command, output},
    registry::write,
    requirement::{program, root},
    wait::wait_for,
};

/// A `dockerd` with its own store, state and socket, without networks: it pulls images, and runs containers
/// with `--network=none` or `host`. It and its containerd end on drop.
#[derive(Debug)]
pub struct Dockerd {
    process: Process,
    docker: PathBuf,
    folder: TempDir,
}

impl Dockerd {
    /// Starts one with `environment` added to its own, and waits until it answers. `None` when it can't be had here: it takes
    /// root, and `docker.io` of Debian.
    ///
    /// # Panics
    /// When it does not start, or something is missing and `CI=true`.
    pub fn start<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Option<Self> {
        let (dockerd, docker) = (program("dockerd")?, program("docker")?);
        program("containerd")?;
        if !root() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| folder.path().join(name);
        write(&at("daemon.json"), "{}"); // and not this machine's
        let mut command = clean_command(dockerd, folder.path());
        command.envs(environment);
        command.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec"));
        command.arg("--pidfile").arg(at("dockerd.pid")).arg("--config-file").arg(at("daemon.json"));
        command.arg("--host").arg(socket(folder.path()));
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        let daemon = Self { process: Process::spawn(&mut command), docker, folder };
        wait_for("dockerd to answer", Duration::from_secs(60), || {
            if let Some(status) = daemon.process.exit_status() {
                panic!("dockerd ended: {status}");
            }
            let answer = output(daemon.docker(daemon.folder.path()).arg("version"), Duration::from_secs(30));
            answer.status.success().then_some(())
        });
        Some(daemon)
    }

    /// The `docker` client, talking to this daemon, with its configuration in `config`.
    pub fn docker(&self, config: &Path) -> Command {
        let mut command = clean_command(&self.docker, self.folder.path());
        command.env("DOCKER_HOST", socket(self.folder.path())).env("DOCKER_CONFIG", config);
        command
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // Not killed outright: its containerd would be left behind.
        self.process.stop(Duration::from_secs(20));
    }
}

fn socket(folder: &Path) -> String {
    format!("unix://{}", folder.join("docker.sock").display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::DockerRegistry;

    #[test]
    fn it_pulls_from_a_registry_on_loopback() {
        let Some(registry) = DockerRegistry::start() else { return };
        let Some(daemon) = Dockerd::start([("NO_PROXY", "127.0.0.1")]) else { return };
        registry.push_image("team/app", "v1");
        let image = format!("{}/team/app:v1", registry.addr());
        let pull =
            output(daemon.docker(daemon.folder.path()).args(["pull", &image]), Duration::from_secs(60));
        assert!(pull.status.success(), "{}", String::from_utf8_lossy(&pull.stderr));
        let containerd = daemon.folder.path().join("exec/containerd/containerd.pid");
        let containerd = std::fs::read_to_string(&containerd).unwrap();
        drop(daemon);
        let proc = format!("/proc/{}", containerd.trim());
        wait_for("the end of its containerd", Duration::from_secs(20), || {
            (!Path::new(&proc).exists()).then_some(())
        });
    }
}
