//! What a release offers: the image, in a real docker: what is in it, what works in it, and the trial that compose.yaml
//! makes of it; and the archives for laptops.
//!
//! Both images of the Dockerfile are built once, and kept as archives; each test loads them into a docker of its own.
//! Nothing is pulled: the base image of the build is made of this machine.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]

mod archive;
mod compose;
mod image;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
    thread,
    time::Duration,
};

use tempfile::TempDir;
use test_support::{Dockerd, import_rust_image, output, printed_by, skip};

/// What comes from outside: the labels' values, and what `--version` says of the commit.
fn build_arguments() -> [(&'static str, String); 4] {
    let of_commit = |format: &str| {
        let mut git = Command::new("git");
        git.args(["log", "-1", format]).current_dir(env!("CARGO_MANIFEST_DIR"));
        succeeded(&mut git).trim().to_owned()
    };
    [
        ("VERSION", "1.2.3".to_owned()),
        ("REVISION", of_commit("--format=%H")),
        ("CREATED", of_commit("--format=%cI")),
        ("SOURCE", "https://code.example/ecr-sidecar".to_owned()),
    ]
}

/// How long anything but a build may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);
const BUILD_DEADLINE: Duration = Duration::from_secs(3600);

/// A docker with both images in it.
struct Machine {
    daemon: Dockerd,
    folder: TempDir,
}

impl Machine {
    /// One whose containers are on this machine's network, with `--network=host`. `None` when it can't be had here.
    fn on_this_network() -> Option<Self> {
        Self::with_images(Dockerd::start::<&str, &str>([])?)
    }

    /// One that has networks, and no way out of them.
    fn with_networks() -> Option<Self> {
        Self::with_images(Dockerd::with_networks()?)
    }

    fn with_images(daemon: Dockerd) -> Option<Self> {
        let images = images()?;
        let machine = Self { daemon, folder: tempfile::tempdir().unwrap() };
        machine.docker(["load", "--input", images.to_str().unwrap()]);
        Some(machine)
    }

    /// Runs the client, which must succeed, and hands over what it printed.
    #[track_caller]
    fn docker<A: AsRef<Path>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        succeeded(&mut self.command(arguments))
    }

    /// Runs the client to whatever end.
    fn try_docker<A: AsRef<Path>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        output(&mut self.command(arguments), DEADLINE)
    }

    fn command<A: AsRef<Path>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.daemon.docker(self.folder.path());
        command.args(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        command
    }
}

/// An archive of `ecr-sidecar` and `ecr-emulator`, for `docker load`.
///
/// # Panics
/// When they can't be built.
fn images() -> Option<&'static Path> {
    static IMAGES: OnceLock<Result<Option<PathBuf>, String>> = OnceLock::new();
    let images = IMAGES.get_or_init(build_images).as_ref().unwrap_or_else(|said| panic!("{said}"));
    if images.is_none() {
        skip("the images can't be built here");
    }
    images.as_deref()
}

fn build_images() -> Result<Option<PathBuf>, String> {
    let Some(daemon) = Dockerd::start::<&str, &str>([]) else { return Ok(None) };
    let Some(()) = import_rust_image(&daemon, "rust") else { return Ok(None) };
    let (Some(sidecar), Some(emulator)) = (daemon.docker_with_buildkit(), daemon.docker_with_buildkit())
    else {
        return Ok(None);
    };
    thread::scope(|scope| {
        // Beside each other, for the linker of one keeps one core busy for a minute.
        let sidecar = scope.spawn(|| build(sidecar, &["--tag", "ecr-sidecar"]));
        let emulator = scope.spawn(|| build(emulator, &["--tag", "ecr-emulator", "--target", "emulator"]));
        [sidecar, emulator].into_iter().try_for_each(|build| build.join().unwrap())
    })?;
    let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images.tar");
    let mut save = daemon.docker(Path::new(env!("CARGO_TARGET_TMPDIR")));
    succeeded(save.arg("save").arg("--output").arg(&archive).args(["ecr-sidecar", "ecr-emulator"]));
    Ok(Some(archive))
}

/// `docker build` of this checkout.
fn build(mut docker: Command, arguments: &[&str]) -> Result<(), String> {
    docker.args(["build", "--network=none", "--progress=plain", "--build-arg=BUILD_IMAGE=rust"]);
    docker.args(build_arguments().map(|(name, value)| format!("--build-arg={name}={value}")));
    let built = output(docker.args(arguments).arg(env!("CARGO_MANIFEST_DIR")), BUILD_DEADLINE);
    let said = String::from_utf8_lossy(&built.stderr);
    built.status.success().then_some(()).ok_or_else(|| format!("docker build {arguments:?}: {said}"))
}

#[track_caller]
fn succeeded(command: &mut Command) -> String {
    printed_by(command, DEADLINE)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}
