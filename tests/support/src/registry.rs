//! A real OCI registry with something in it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    files::overwrite,
    kubernetes::node::BusyBox,
    process::{Process, clean_command, printed_by},
    requirement::program,
};

/// How long one push may take.
const PUSH: Duration = Duration::from_secs(60);

/// Debian's `docker-registry` on a loopback port: plain HTTP, no authentication, an empty store that goes on
/// drop. Its redirects are relative, so that it works behind a proxy.
#[derive(Debug)]
pub struct DockerRegistry {
    addr: SocketAddr,
    scratch: TempDir,
    crane: PathBuf,
    helm: PathBuf,
    _process: Process,
}

impl DockerRegistry {
    /// Starts one, and waits until it listens. `None` when it, or what fills it, is not here.
    ///
    /// # Panics
    /// When it does not start, or a program is missing and `CI=true`.
    pub fn start() -> Option<Self> {
        let (registry, crane, helm) = (program("docker-registry")?, program("crane")?, program("helm4")?);
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let config = scratch.path().join("config.yml");
        let store = scratch.path().join("store");
        let text = format!(
            "version: 0.1\n\
             log: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n\
             http: {{addr: '127.0.0.1:0', relativeurls: true, secret: only-one-instance}}\n",
            store.display()
        );
        overwrite(&config, &text);
        let mut command = clean_command(registry, scratch.path());
        let process = Process::spawn(command.arg("serve").arg(&config));
        let line = process.wait_log("listening on 127.0.0.1:", Duration::from_secs(30));
        let digits = line.rsplit_once("listening on 127.0.0.1:").map(|(_, rest)| rest);
        let digits = digits.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        let port: u16 = digits.and_then(|digits| digits.parse().ok()).expect("a port in the log line");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Some(Self { addr, scratch, crane, helm, _process: process })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Pushes an image of one layer, for linux/amd64, and hands over its digest. The layer holds one file,
    /// `image.txt`, with the text `repository:tag`.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn push_image(&self, repository: &str, tag: &str) -> String {
        let folder = tempfile::tempdir_in(self.scratch.path()).expect("a temporary directory");
        overwrite(&folder.path().join("image.txt"), &format!("{repository}:{tag}"));
        let layer = folder.path().join("layer.tar");
        self.run(self.command("tar").arg("-C").arg(folder.path()).arg("-cf").arg(&layer).arg("image.txt"));
        let reference = format!("{}/{repository}:{tag}", self.addr);
        self.run(self.command(&self.crane).args(["append", "-t", &reference, "-f"]).arg(&layer));
        self.run(
            self.command(&self.crane)
                .args(["mutate", "--set-platform=linux/amd64", "-t"])
                .args([&reference; 2]),
        );
        self.run(self.command(&self.crane).args(["digest", &reference])).trim().to_owned()
    }

    /// Pushes an image that runs on a [`Node`](crate::Node), as [`Node::BUSYBOX`](crate::Node::BUSYBOX) does. `None` when
    /// it can't be made here.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn push_busybox(&self, repository: &str, tag: &str) -> Option<()> {
        let archive = self.scratch.path().join("busybox.tar");
        let reference = format!("{}/{repository}:{tag}", self.addr);
        BusyBox::find()?.write_archive(&archive, &reference);
        self.run(self.command(&self.crane).arg("push").arg(&archive).arg(&reference));
        Some(())
    }

    /// Packages and pushes a Helm chart of one ConfigMap to the repository `prefix/name`.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn push_chart(&self, prefix: &str, name: &str, version: &str) {
        let folder = tempfile::tempdir_in(self.scratch.path()).expect("a temporary directory");
        let chart = folder.path().join(name);
        fs::create_dir_all(chart.join("templates")).expect("a new folder");
        overwrite(&chart.join("Chart.yaml"), &format!("apiVersion: v2\nname: {name}\nversion: {version}\n"));
        overwrite(
            &chart.join("templates/configmap.yaml"),
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}'}\n",
        );
        self.run(self.command(&self.helm).arg("package").arg(&chart).arg("-d").arg(folder.path()));
        let package = folder.path().join(format!("{name}-{version}.tgz"));
        let target = format!("oci://{}/{prefix}", self.addr);
        self.run(self.command(&self.helm).arg("push").arg(&package).args([&target, "--plain-http"]));
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        clean_command(program, self.scratch.path())
    }

    #[track_caller]
    fn run(&self, command: &mut Command) -> String {
        printed_by(command, PUSH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::http_get;

    #[test]
    fn an_image_and_a_chart_can_be_had_from_it() {
        let Some(registry) = DockerRegistry::start() else { return };
        let digest = registry.push_image("team/app", "v1");
        assert!(digest.starts_with("sha256:"), "{digest}");
        registry.push_chart("charts", "web", "0.1.0");
        for (path, part) in [
            ("/v2/_catalog", "charts/web"),
            ("/v2/team/app/tags/list", "v1"),
            ("/v2/charts/web/tags/list", "0.1.0"),
        ] {
            let (status, body) = http_get(registry.addr(), path).unwrap();
            assert!(status == 200 && body.contains(part), "{path}: {status} {body}");
        }
    }
}
