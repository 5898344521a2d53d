//! The sidecar as a process beside an emulated AWS, and what a test asks of the two.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part of this")]

pub mod http;
pub mod tap;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    net::SocketAddr,
    ops::Deref,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ecr_emulator::{ACCESS_KEY_ID, Emulator, SECRET_ACCESS_KEY, Settings};
use serde_json::Value;
use tempfile::TempDir;
use test_support::{Sidecar, wait_for};

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_ecr-sidecar");
/// The registry that every test has.
pub const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
/// One that the same token serves.
pub const SIBLING: &str = "210987654321.dkr.ecr.eu-west-1.amazonaws.com";
/// How long anything may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// An emulated AWS, and a folder for the sidecar's files.
pub struct Rig {
    /// AWS.
    pub emulator: Emulator,
    folder: TempDir,
}

impl Rig {
    /// With tokens of 12 hours.
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    /// With an AWS of your own.
    pub fn with(settings: Settings) -> Self {
        Self { emulator: Emulator::start(settings).unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The file that the sidecar keeps.
    pub fn file(&self) -> PathBuf {
        self.at("out/config.json")
    }

    /// The ways to AWS and to the file, as environment variables; the health endpoint is on a free port.
    pub fn environment(&self) -> BTreeMap<&'static str, String> {
        [
            ("AWS_ENDPOINT_URL", self.emulator.endpoint()),
            ("AWS_REGION", "eu-west-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
            ("ECR_SIDECAR_REGISTRIES", HOST.to_owned()),
            ("ECR_SIDECAR_DOCKER_CONFIG", self.file().display().to_string()),
            ("ECR_SIDECAR_HEALTH_LISTEN", "127.0.0.1:0".to_owned()),
        ]
        .into()
    }

    /// `ecr-sidecar run`, configured by the environment; `prepare` may change that.
    #[track_caller]
    pub fn run(&self, prepare: impl FnOnce(&mut Command)) -> Running {
        self.spawn(BINARY, |command| {
            command.arg("run");
            prepare(command);
        })
    }

    /// `ecr-sidecar run`, with registries and outputs by a file of that text.
    #[track_caller]
    pub fn run_with_file(&self, text: &str) -> Running {
        let path = self.put("ecr-sidecar.yaml", text);
        self.run(|command| configured_by(command, &path))
    }

    /// The same in a mount namespace of its own, after the shell commands of `mounts`. Its files are at
    /// [`Running::inside`]; its mounts end with it. Needs root.
    #[track_caller]
    pub fn run_with_mounts(&self, mounts: &str, prepare: impl FnOnce(&mut Command)) -> Running {
        self.spawn("unshare", |command| {
            command.args(["--mount", "--propagation", "private", "sh", "-e", "-c"]);
            command.arg(format!("cd '{}'\n{mounts}\nexec {BINARY} run", self.folder.path().display()));
            prepare(command);
        })
    }

    /// Any program, with this environment.
    #[track_caller]
    pub fn spawn(&self, program: &str, prepare: impl FnOnce(&mut Command)) -> Running {
        Running(Sidecar::spawn(program, |command| {
            command.envs(self.environment());
            prepare(command);
        }))
    }

    /// Puts a file into the folder, whole at any time.
    pub fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.at(name);
        replace(&path, text);
        path
    }

    /// Puts a pipe there that nobody writes to: opening it to read waits for ever, as on a volume that hangs.
    pub fn hanging_file(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        path
    }
}

/// Has the sidecar take registries and outputs from the file.
pub fn configured_by(command: &mut Command, file: &Path) {
    command.env("ECR_SIDECAR_CONFIG", file);
    command.env_remove("ECR_SIDECAR_REGISTRIES").env_remove("ECR_SIDECAR_DOCKER_CONFIG");
}

/// A running sidecar.
pub struct Running(Sidecar);

impl Deref for Running {
    type Target = Sidecar;

    fn deref(&self) -> &Sidecar {
        &self.0
    }
}

impl Running {
    /// The address of the health endpoint, which its first line tells.
    #[track_caller]
    pub fn health(&self) -> SocketAddr {
        let line = self.wait_log("ecr-sidecar starts", DEADLINE);
        let line: Value = serde_json::from_str(&line).unwrap();
        line["health"].as_str().unwrap().parse().unwrap()
    }

    /// Status and body of a path of the health endpoint.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        http::get(self.health(), path)
    }

    /// `/status`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let (code, body) = self.get("/status");
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Waits until a path of the health endpoint answers that status, and hands its body over.
    #[track_caller]
    pub fn wait_get(&self, path: &str, code: u16) -> String {
        let health = self.health();
        wait_for(&format!("{code} at {path}"), DEADLINE, || {
            let (answered, body) = http::get(health, path);
            (answered == code).then_some(body)
        })
    }

    /// Waits until it is ready.
    #[track_caller]
    pub fn wait_ready(&self) {
        self.wait_get("/readyz", 200);
    }

    /// Waits until `/status` is as wanted, and hands it over.
    #[track_caller]
    pub fn wait_status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let health = self.health();
        wait_for(what, DEADLINE, || {
            let status = serde_json::from_str(&http::get(health, "/status").1).unwrap();
            wanted(&status).then_some(status)
        })
    }

    /// How many lines of its log have `part` in them.
    pub fn count_log(&self, part: &str) -> usize {
        self.log_lines().iter().filter(|line| line.contains(part)).count()
    }

    /// A path as the process sees it, in its own mount namespace.
    pub fn inside(&self, path: &Path) -> PathBuf {
        Path::new("/proc").join(self.pid().to_string()).join("root").join(path.strip_prefix("/").unwrap())
    }

    /// A shell command in its mount namespace, run to its end.
    #[track_caller]
    pub fn in_its_mounts(&self, script: &str) {
        let status = Command::new("nsenter")
            .args(["--target", &self.pid().to_string(), "--mount", "sh", "-e", "-c", script])
            .status()
            .unwrap();
        assert!(status.success(), "{script}: {status}");
    }
}

/// Replaces a file by rename.
pub fn replace(path: &Path, text: &str) {
    let folder = path.parent().unwrap();
    fs::create_dir_all(folder).unwrap();
    let mut file = tempfile::NamedTempFile::new_in(folder).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
    file.persist(path).unwrap();
}

/// Writes a file in place, as an editor of the careless kind does.
pub fn overwrite(path: &Path, text: &str) {
    File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// The docker config at the path, if it is there and whole.
pub fn config(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The `auth` of a registry in the file at the path.
pub fn auth(path: &Path, host: &str) -> Option<String> {
    Some(config(path)?["auths"][host]["auth"].as_str()?.to_owned())
}

/// Waits until the file at the path has a credential for the registry, and hands that over.
#[track_caller]
pub fn wait_auth(path: &Path, host: &str) -> String {
    wait_for(&format!("a credential of {host}"), DEADLINE, || auth(path, host))
}

/// The permission bits of a file.
pub fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// The names of the files in a folder, sorted, but for what the sidecar leaves to its successor.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".config.json.ecr-sidecar")
        .collect();
    names.sort();
    names
}
