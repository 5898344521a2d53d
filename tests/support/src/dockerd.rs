//! A Docker daemon of the test's own.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    files::overwrite,
    process::{Process, clean_command, output},
    requirement::{program, programs, root, skip},
    wait::wait_for,
};

/// A `dockerd` with its own store, state and socket. It and its containerd end on drop.
#[derive(Debug)]
pub struct Dockerd {
    process: Process,
    docker: PathBuf,
    folder: TempDir,
}

impl Dockerd {
    /// Starts one without networks, and with `environment` added to its own: it pulls images, and runs containers with
    /// `--network=none` or `host`. Waits until it answers. `None` when it can't be had here: it takes root, and
    /// `docker.io` of Debian.
    ///
    /// # Panics
    /// When it does not start, or something is missing and `CI=true`.
    pub fn start<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Option<Self> {
        Self::run(&[], |command| {
            command.envs(environment).args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        })
    }

    /// Starts one in a network namespace of its own: its containers have networks and each other's names, reach
    /// nothing else, and this machine's interfaces and packet filter stay as they are.
    ///
    /// # Panics
    /// As [`Dockerd::start`].
    pub fn with_networks() -> Option<Self> {
        program("iptables")?;
        Self::run(&["--net"], |_| {})
    }

    /// Its mounts are in a namespace of its own: what it leaves mounted would keep the folder from being removed.
    fn run(namespaces: &[&str], prepare: impl FnOnce(&mut Command)) -> Option<Self> {
        let (docker, dockerd, unshare) = (program("docker")?, program("dockerd")?, program("unshare")?);
        program("containerd")?;
        if !root() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| folder.path().join(name);
        overwrite(&at("daemon.json"), "{}"); // and not this machine's
        let mut command = clean_command(unshare, folder.path());
        command.arg("--mount").args(namespaces).arg(dockerd);
        prepare(&mut command);
        command.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec"));
        command.arg("--pidfile").arg(at("dockerd.pid")).arg("--config-file").arg(at("daemon.json"));
        command.arg("--host").arg(socket(folder.path()));
        let daemon = Self { process: Process::spawn(&mut command), docker, folder };
        daemon.wait_until_it_answers();
        Some(daemon)
    }

    fn wait_until_it_answers(&self) {
        wait_for("dockerd to answer", Duration::from_secs(60), || {
            if let Some(status) = self.process.exit_status() {
                panic!("dockerd ended: {status}");
            }
            let answer = output(self.docker(self.folder.path()).arg("version"), Duration::from_secs(30));
            answer.status.success().then_some(())
        });
    }

    /// The `docker` client, talking to this daemon, with its configuration in `config`.
    pub fn docker(&self, config: &Path) -> Command {
        self.client(&self.docker, config)
    }

    /// The `docker` client for `docker build` with BuildKit. `None` when there is none: newer clients do it by a
    /// plugin, which may not be here.
    ///
    /// # Panics
    /// When there is none and `CI=true`.
    pub fn docker_with_buildkit(&self) -> Option<Command> {
        let with_buildkit = |docker: PathBuf| {
            let mut command = self.client(&docker, self.folder.path());
            command.env("DOCKER_BUILDKIT", "1");
            command
        };
        let works = |command: &mut Command| {
            output(command.args(["build", "--help"]), Duration::from_secs(30)).status.success()
        };
        let able = programs("docker").find(|docker| works(&mut with_buildkit(docker.clone())));
        if able.is_none() {
            skip("no docker client here builds with BuildKit: apt-get install docker.io or docker-buildx");
        }
        able.map(with_buildkit)
    }

    /// Any other `client` of this daemon, with its configuration in `config`.
    pub fn client(&self, client: &Path, config: &Path) -> Command {
        let mut command = clean_command(client, self.folder.path());
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

    #[test]
    fn one_with_networks_leaves_those_of_this_machine_as_they_are() {
        let interfaces = || std::fs::read_to_string("/proc/self/net/dev").unwrap().matches("docker").count();
        let before = interfaces();
        let Some(daemon) = Dockerd::with_networks() else { return };
        let mut create = daemon.docker(daemon.folder.path());
        let created = output(
            create.args(["network", "create", "--opt=com.docker.network.bridge.name=docker-own", "own"]),
            Duration::from_secs(30),
        );
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
        assert_eq!(interfaces(), before);
    }
}
