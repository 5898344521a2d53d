//! The program under test, cut off from this machine's credentials.

use std::{
    env,
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::process::{Process, clean_command, output};

/// How long a build from nothing may take on a busy machine.
const BUILD: Duration = Duration::from_secs(3600);

/// A running `ecr-sidecar`, with a home directory of its own; everything else of it is [`Process`].
#[derive(Debug)]
pub struct Sidecar {
    process: Process,
    home: TempDir,
}

impl Sidecar {
    /// Starts `binary`, which an integration test knows as `env!("CARGO_BIN_EXE_ecr-sidecar")`.
    ///
    /// Its environment is empty but for [`clean_command`]'s; `prepare` adds arguments and variables.
    ///
    /// # Panics
    /// When it can't be started.
    #[track_caller]
    pub fn spawn(binary: impl AsRef<Path>, prepare: impl FnOnce(&mut Command)) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut command = clean_command(binary, home.path());
        prepare(&mut command);
        Self { process: Process::spawn(&mut command), home }
    }

    /// Its home directory, which goes when it goes.
    pub fn home(&self) -> PathBuf {
        self.home.path().to_owned()
    }
}

impl Deref for Sidecar {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// The program as it is shipped, built by `packaging/build-release`; in CI that has been done before.
///
/// # Panics
/// When it can't be built.
#[track_caller]
pub fn release_program() -> PathBuf {
    built_by(Command::new(root().join("packaging/build-release"))).trim().into()
}

/// The emulator as a program, for containers; as current as what is tested.
///
/// # Panics
/// When it can't be built.
#[track_caller]
pub fn emulator_program() -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Of the whole workspace, whose features have been built already.
    cargo.args(["build", "--quiet", "--locked", "--workspace", "--bin", "ecr-emulator"]).current_dir(root());
    built_by(cargo);
    let test = env::current_exe().expect("the test's own path");
    test.parent().and_then(Path::parent).expect("target/…/debug/deps").join("ecr-emulator")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[track_caller]
fn built_by(mut command: Command) -> String {
    // Not the variables that cargo gives to a test: crates whose build reads them would be built again.
    command.env_clear();
    for name in ["PATH", "HOME", "CARGO_HOME", "CARGO_TARGET_DIR", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        command.envs(env::var_os(name).map(|value| (name, value)));
    }
    let built = output(&mut command, BUILD);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    String::from_utf8(built.stdout).expect("a path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_test_adds_reaches_it() {
        let sidecar = Sidecar::spawn("/usr/bin/env", |command| {
            command.env("AWS_REGION", "eu-west-1");
        });
        assert!(sidecar.wait_exit(Duration::from_secs(10)).success());
        let stdout = sidecar.stdout();
        let mut lines: Vec<&str> = stdout.lines().filter(|line| !line.starts_with("PATH=")).collect();
        lines.sort_unstable();
        let home = format!("HOME={}", sidecar.home().display());
        assert_eq!(lines, ["AWS_EC2_METADATA_DISABLED=true", "AWS_REGION=eu-west-1", &home]);
    }
}
