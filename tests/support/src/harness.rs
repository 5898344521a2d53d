//! An emulated AWS, a folder, and the program under test between the two.
//!
//! Every sidecar runs as a process with an empty environment, with the folder as its home and working
//! directory, and with a health endpoint on a free port.

mod probe;
mod running;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ecr_emulator::{ACCESS_KEY_ID, Call, Emulator, Pull, SECRET_ACCESS_KEY, Service, Settings};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    files::{overwrite, replace},
    http,
    process::{Process, clean_command, install},
};

pub use running::Running;

/// A private registry of the emulator's default account.
pub const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
/// One that the same token serves.
pub const SIBLING: &str = "210987654321.dkr.ecr.eu-west-1.amazonaws.com";
pub const PUBLIC: &str = "public.ecr.aws";
/// How long anything may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(90);
/// The default user's keys.
pub const KEYS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)];

pub struct Harness {
    pub emulator: Emulator,
    folder: TempDir,
    binary: PathBuf,
    has_keys: bool,
}

impl Harness {
    /// For the program `binary`, which an integration test knows as `env!("CARGO_BIN_EXE_ecr-sidecar")`, with the
    /// default user's keys.
    #[track_caller]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self::with(binary, Settings::default())
    }

    /// With an AWS of your own.
    #[track_caller]
    pub fn with(binary: impl Into<PathBuf>, settings: Settings) -> Self {
        let folder = tempfile::Builder::new().prefix("ecr-sidecar-").tempdir().unwrap();
        Self { emulator: Emulator::start(settings).unwrap(), folder, binary: binary.into(), has_keys: true }
    }

    /// With no keys and no region; the emulator is the only proxy, so that whatever name of AWS is asked, the request
    /// stays on this machine.
    #[must_use]
    pub fn without_keys(self) -> Self {
        Self { has_keys: false, ..self }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder where it is.
    pub fn keep_folder(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// A path in the folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The docker config that the sidecar writes.
    pub fn file(&self) -> PathBuf {
        self.at("out/config.json")
    }

    /// Puts a file into the folder, whole at any time.
    pub fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.at(name);
        replace(&path, text);
        path
    }

    /// Writes a file in the folder in place.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        overwrite(&path, text);
        path
    }

    /// An executable script.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.at(name);
        install(self.write(&format!("{name}.text"), text), &path);
        path
    }

    /// A pipe that no process writes to: opening it to read waits for ever, as on a volume that hangs.
    pub fn hanging_file(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        path
    }

    /// A file with a web-identity token that the emulator's STS takes.
    pub fn web_identity_file(&self, subject: &str) -> PathBuf {
        self.write("web-identity/token", &self.web_identity_token(subject))
    }

    pub fn web_identity_token(&self, subject: &str) -> String {
        self.emulator.web_identity_token(subject, "sts.amazonaws.com", Duration::from_secs(3600))
    }

    /// Where AWS, the file and the health endpoint are, as environment variables.
    pub fn environment(&self) -> BTreeMap<&'static str, String> {
        let mut environment = BTreeMap::from([
            ("HOME", self.folder.path().display().to_string()),
            ("AWS_ENDPOINT_URL", self.emulator.endpoint()),
            ("ECR_SIDECAR_REGISTRIES", HOST.to_owned()),
            ("ECR_SIDECAR_DOCKER_CONFIG", self.file().display().to_string()),
            ("ECR_SIDECAR_HEALTH_LISTEN", "127.0.0.1:0".to_owned()),
        ]);
        if self.has_keys {
            environment.insert("AWS_REGION", "eu-west-1".to_owned());
            environment.extend(KEYS.map(|(name, value)| (name, value.to_owned())));
        } else {
            environment.extend(["HTTPS_PROXY", "HTTP_PROXY"].map(|name| (name, self.emulator.proxy())));
        }
        environment
    }

    /// `ecr-sidecar NAME`, to be run by the test itself.
    pub fn command(&self, name: &str) -> Command {
        let mut command = clean_command(&self.binary, self.folder.path());
        command.arg(name).current_dir(self.folder.path()).envs(self.environment());
        command
    }

    /// Runs `once` to its end.
    #[track_caller]
    pub fn once(&self, prepare: impl FnOnce(&mut Command)) -> Once {
        let mut command = self.command("once");
        prepare(&mut command);
        self.run_once(&mut command)
    }

    /// Runs a [`command`](Self::command) to its end.
    #[track_caller]
    pub fn run_once(&self, command: &mut Command) -> Once {
        let process = Process::spawn(command);
        let code = process.wait_exit(DEADLINE).code();
        Once { code, stderr: process.stderr() }
    }

    /// Runs `once` and shows that it worked: there is a credential for `host`, and a pull with it is admitted.
    #[track_caller]
    pub fn once_pulls(&self, host: &str, prepare: impl FnOnce(&mut Command)) -> Pull {
        let once = self.once(prepare);
        assert_eq!(once.code, Some(0), "{}", once.stderr);
        self.pull(host)
    }

    /// Starts `ecr-sidecar run`, configured by the environment; `prepare` may change that.
    #[track_caller]
    pub fn run(&self, prepare: impl FnOnce(&mut Command)) -> Running {
        self.spawn(&self.binary, |command| {
            command.arg("run");
            prepare(command);
        })
    }

    /// Starts `run` with the default user's keys and waits until it is ready.
    #[track_caller]
    pub fn run_ready(&self, prepare: impl FnOnce(&mut Command)) -> Running {
        let running = self.run(|command| {
            command.envs(KEYS);
            prepare(command);
        });
        running.wait_ready();
        running
    }

    /// Starts `run`, with registries and outputs by a file of that text.
    #[track_caller]
    pub fn run_with_file(&self, text: &str) -> Running {
        let path = self.put("ecr-sidecar.yaml", text);
        self.run(|command| configured_by(command, &path))
    }

    /// Starts `run` in a mount namespace of its own, after the shell commands of `mounts`. Its files are at
    /// [`Running::inside`]; its mounts end with it. Needs root.
    #[track_caller]
    pub fn run_with_mounts(&self, mounts: &str, prepare: impl FnOnce(&mut Command)) -> Running {
        self.spawn("unshare", |command| {
            command.args(["--mount", "--propagation", "private", "sh", "-e", "-c"]);
            let (folder, binary) = (self.folder.path().display(), self.binary.display());
            command.arg(format!("cd '{folder}'\n{mounts}\nexec {binary} run"));
            prepare(command);
        })
    }

    /// Starts any program, with this environment.
    #[track_caller]
    pub fn spawn(&self, program: impl AsRef<Path>, prepare: impl FnOnce(&mut Command)) -> Running {
        let mut command = clean_command(program, self.folder.path());
        command.current_dir(self.folder.path()).envs(self.environment());
        prepare(&mut command);
        Running::from(Process::spawn(&mut command))
    }

    /// The bytes of the docker config.
    #[track_caller]
    pub fn bytes(&self) -> Vec<u8> {
        fs::read(self.file()).unwrap()
    }

    pub fn nothing_written(&self) -> bool {
        !self.file().exists()
    }

    /// What is published: host and `auth`.
    #[track_caller]
    pub fn auths(&self) -> BTreeMap<String, String> {
        let config: Value = serde_json::from_slice(&self.bytes()).expect("a whole file, at any time");
        let auths = config["auths"].as_object().expect("auths");
        auths.iter().map(|(host, entry)| (host.clone(), entry["auth"].as_str().unwrap().to_owned())).collect()
    }

    /// Pulls from `host` with the published credential, which must be admitted.
    #[track_caller]
    pub fn pull(&self, host: &str) -> Pull {
        let auth = self.auths().remove(host).unwrap_or_else(|| panic!("no credential for {host}"));
        self.admits(host, &auth)
    }

    /// Pulls from `host` with that credential, which must be admitted.
    #[track_caller]
    pub fn admits(&self, host: &str, auth: &str) -> Pull {
        let headers = [("Host", host), ("Authorization", &format!("Basic {auth}"))];
        let answer = http::get_with(http::address(&self.emulator.endpoint()), "/v2/", &headers);
        assert_eq!(answer.code, 200, "{host}: {answer:?}");
        let pulls = self.emulator.pulls();
        pulls.into_iter().rfind(|pull| pull.host == host).expect("the emulator knows of the pull")
    }

    /// The calls that a service has had.
    pub fn calls(&self, service: Service) -> Vec<Call> {
        self.emulator.calls().into_iter().filter(|call| call.service == service).collect()
    }

    /// The only call that a service has had.
    #[track_caller]
    pub fn only_call(&self, service: Service) -> Call {
        let calls = self.calls(service);
        let [call] = calls.as_slice() else { panic!("one call of {service:?}: {calls:?}") };
        call.clone()
    }

    /// How often each API was asked: STS, ECR, ECR Public, Pod Identity, IMDS.
    pub fn counts(&self) -> [u64; 5] {
        [Service::Sts, Service::Ecr, Service::EcrPublic, Service::PodIdentity, Service::Imds]
            .map(|service| self.emulator.count(service))
    }

    /// Keys with a session token, as the emulator's Pod Identity agent gives them: id, secret, token.
    pub fn session(&self) -> [String; 3] {
        let headers = [("Host", "agent"), ("Authorization", ecr_emulator::POD_IDENTITY_TOKEN)];
        let answer = http::get_with(http::address(&self.emulator.endpoint()), "/v1/credentials", &headers);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        ["AccessKeyId", "SecretAccessKey", "Token"].map(|key| body[key].as_str().unwrap().to_owned())
    }
}

/// A finished `once`.
#[derive(Debug)]
pub struct Once {
    pub code: Option<i32>,
    pub stderr: String,
}

impl Once {
    /// It gave up, and its message holds all `parts`.
    #[track_caller]
    pub fn failed_with(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(69), "{}", self.stderr);
        self.has(parts);
    }

    #[track_caller]
    pub fn has(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in:\n{}", self.stderr);
        }
    }
}

/// Has the sidecar take registries and outputs from the file.
pub fn configured_by(command: &mut Command, file: &Path) {
    command.env("ECR_SIDECAR_CONFIG", file);
    command.env_remove("ECR_SIDECAR_REGISTRIES").env_remove("ECR_SIDECAR_DOCKER_CONFIG");
}

/// Seconds from one RFC 3339 time in UTC to another.
pub fn seconds_between(start: &Value, end: &Value) -> f64 {
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    time(end).duration_since(time(start)).as_secs_f64()
}
