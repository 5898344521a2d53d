//! An emulated AWS, a folder, and sidecars between the two.
//!
//! Every sidecar runs as a process with an empty environment, a home of its own in the folder, and the
//! emulator as its only proxy: whatever name of AWS it might ask by itself, it stays on this machine.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    ops::Deref,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ecr_emulator::{ACCESS_KEY_ID, Call, Emulator, Pull, SECRET_ACCESS_KEY, Service, Settings};
use serde_json::Value;
use tempfile::TempDir;
use test_support::{Process, Sidecar, Signal, clean_command, http_get, install, wait_for};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ecr-sidecar");

/// A private registry of the emulator's default account.
pub(crate) const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
pub(crate) const PUBLIC: &str = "public.ecr.aws";

/// How long anything may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// The default user's keys.
pub(crate) const KEYS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)];

pub(crate) struct World {
    pub(crate) emulator: Emulator,
    folder: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        Self { emulator: Emulator::start(settings).unwrap(), folder }
    }

    /// A place for a file of the test's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(&path, text);
        path
    }

    /// An executable script.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        install(self.write(&format!("{name}.text"), text), &path);
        path
    }

    /// The docker config.json that the sidecar keeps.
    pub(crate) fn docker_config(&self) -> PathBuf {
        self.path("out/config.json")
    }

    /// `ecr-sidecar COMMAND` for [`HOST`], with the emulator for every API. No credentials.
    pub(crate) fn command(&self, command_name: &str) -> Command {
        let mut command = clean_command(BINARY, self.folder.path());
        self.prepare(&mut command, command_name);
        command
    }

    fn prepare(&self, command: &mut Command, command_name: &str) {
        command.arg(command_name).current_dir(self.folder.path());
        command.env("AWS_ENDPOINT_URL", self.emulator.endpoint());
        command.env("HTTPS_PROXY", self.emulator.proxy()).env("HTTP_PROXY", self.emulator.proxy());
        command.env("ECR_SIDECAR_REGISTRIES", HOST);
        command.env("ECR_SIDECAR_DOCKER_CONFIG", self.docker_config());
        command.env("ECR_SIDECAR_HEALTH_LISTEN", "127.0.0.1:0");
    }

    /// Runs `once` to its end.
    #[track_caller]
    pub(crate) fn once(&self, prepare: impl FnOnce(&mut Command)) -> Once {
        let mut command = self.command("once");
        prepare(&mut command);
        self.run_once(&mut command)
    }

    /// Runs a [`command`](Self::command) that ends by itself.
    #[track_caller]
    pub(crate) fn run_once(&self, command: &mut Command) -> Once {
        let process = Process::spawn(command);
        let code = process.wait_exit(DEADLINE).code();
        Once { code, said: process.stderr() }
    }

    /// Runs `once` and shows that it worked: there is a credential for `host`, and a pull with it is admitted.
    #[track_caller]
    pub(crate) fn once_pulls(&self, host: &str, prepare: impl FnOnce(&mut Command)) -> Pull {
        let once = self.once(prepare);
        assert_eq!(once.code, Some(0), "{}", once.said);
        self.pull(host)
    }

    /// Starts `run`.
    #[track_caller]
    pub(crate) fn run(&self, prepare: impl FnOnce(&mut Command)) -> Running {
        let sidecar = Sidecar::spawn(BINARY, |command| {
            command.env("HOME", self.folder.path());
            self.prepare(command, "run");
            prepare(command);
        });
        let line = sidecar.wait_log("ecr-sidecar starts", DEADLINE);
        let line: Value = serde_json::from_str(&line).unwrap();
        let health = line["health"].as_str().unwrap().parse().unwrap();
        Running { sidecar, health }
    }

    /// Starts `run` with the default user's keys and waits until it is ready.
    #[track_caller]
    pub(crate) fn run_ready(&self, prepare: impl FnOnce(&mut Command)) -> Running {
        let running = self.run(|command| {
            command.envs(KEYS);
            prepare(command);
        });
        running.wait_ready();
        running
    }

    /// The bytes of the docker config.json.
    #[track_caller]
    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(self.docker_config()).unwrap()
    }

    pub(crate) fn nothing_written(&self) -> bool {
        !self.docker_config().exists()
    }

    /// What is published: host and `auth`.
    #[track_caller]
    pub(crate) fn auths(&self) -> BTreeMap<String, String> {
        let config: Value = serde_json::from_slice(&self.bytes()).expect("a whole file, at any time");
        let auths = config["auths"].as_object().expect("auths");
        auths.iter().map(|(host, entry)| (host.clone(), entry["auth"].as_str().unwrap().to_owned())).collect()
    }

    /// Asks `/v2/` of `host` with the published credential, which must be admitted; says what of.
    #[track_caller]
    pub(crate) fn pull(&self, host: &str) -> Pull {
        let auth = self.auths().remove(host).unwrap_or_else(|| panic!("no credential for {host}"));
        let answer = get(
            &self.emulator.endpoint(),
            "/v2/",
            &[("Host", host), ("Authorization", &format!("Basic {auth}"))],
        );
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
        let pulls = self.emulator.pulls();
        pulls.into_iter().rfind(|pull| pull.host == host).expect("the emulator knows of the pull")
    }

    /// The calls that a service has had.
    pub(crate) fn calls(&self, service: Service) -> Vec<Call> {
        self.emulator.calls().into_iter().filter(|call| call.service == service).collect()
    }

    /// The only call that a service has had.
    #[track_caller]
    pub(crate) fn only_call(&self, service: Service) -> Call {
        let calls = self.calls(service);
        let [call] = calls.as_slice() else { panic!("one call of {service:?}: {calls:?}") };
        call.clone()
    }

    /// How often each API was asked: STS, ECR, ECR Public, Pod Identity, IMDS.
    pub(crate) fn counts(&self) -> [u64; 5] {
        [Service::Sts, Service::Ecr, Service::EcrPublic, Service::PodIdentity, Service::Imds]
            .map(|service| self.emulator.count(service))
    }

    /// Keys with a session token, as the emulator's Pod Identity agent gives them: id, secret, token.
    pub(crate) fn session(&self) -> [String; 3] {
        let token = ecr_emulator::POD_IDENTITY_TOKEN;
        let answer =
            get(&self.emulator.endpoint(), "/v1/credentials", &[("Host", "agent"), ("Authorization", token)]);
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        ["AccessKeyId", "SecretAccessKey", "Token"].map(|key| body[key].as_str().unwrap().to_owned())
    }

    /// A file with a web-identity token that the emulator's STS takes.
    pub(crate) fn web_identity_file(&self, subject: &str) -> PathBuf {
        self.write("web-identity/token", &self.web_identity_token(subject))
    }

    pub(crate) fn web_identity_token(&self, subject: &str) -> String {
        self.emulator.web_identity_token(subject, "sts.amazonaws.com", Duration::from_secs(3600))
    }
}

/// A finished `once`.
pub(crate) struct Once {
    pub(crate) code: Option<i32>,
    pub(crate) said: String,
}

impl Once {
    /// It gave up, and its message holds all `parts`.
    #[track_caller]
    pub(crate) fn failed_saying(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(69), "{}", self.said);
        self.says(parts);
    }

    #[track_caller]
    pub(crate) fn says(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.said.contains(part), "{part:?} is not in:\n{}", self.said);
        }
    }
}

/// A running sidecar.
pub(crate) struct Running {
    sidecar: Sidecar,
    health: SocketAddr,
}

impl Deref for Running {
    type Target = Sidecar;

    fn deref(&self) -> &Sidecar {
        &self.sidecar
    }
}

impl Running {
    /// Where its health endpoint is.
    pub(crate) fn health(&self) -> SocketAddr {
        self.health
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        http_get(self.health, path).unwrap()
    }

    #[track_caller]
    pub(crate) fn is_ready(&self) -> bool {
        self.get("/readyz").0 == 200
    }

    #[track_caller]
    pub(crate) fn wait_ready(&self) {
        wait_for("readiness", DEADLINE, || self.is_ready().then_some(()));
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status").1).unwrap()
    }

    /// The entry of the only token.
    #[track_caller]
    pub(crate) fn token(&self) -> Value {
        self.status()["tokens"][0].clone()
    }

    /// The entry of the only token, once `holds` of it.
    #[track_caller]
    pub(crate) fn wait_token(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, DEADLINE, || Some(self.token()).filter(|token| holds(token)))
    }

    /// Waits until the only token has been obtained `times` times, and its credential is in place.
    #[track_caller]
    pub(crate) fn wait_refreshed(&self, times: u64) -> Value {
        let what = format!("token number {times} in its place");
        wait_for(&what, DEADLINE, || {
            let status = self.status();
            let token = status["tokens"][0].clone();
            let placed = status["outputs"][0]["in_place"].as_object()?.values().next()?;
            (token["refreshed"].as_u64()? >= times && *placed == token["expires_at"]).then_some(token)
        })
    }

    /// Has it refresh everything now.
    pub(crate) fn refresh(&self) {
        self.signal(Signal::HUP);
    }

    /// The lines of the log with this message.
    pub(crate) fn logged(&self, message: &str) -> Vec<Value> {
        let lines = self.log_lines();
        let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    /// The lines of the log with this message, which must be `times` of them. What is logged before a status
    /// is told may still be on its way here.
    #[track_caller]
    pub(crate) fn wait_logged(&self, message: &str, times: usize) -> Vec<Value> {
        let what = format!("{message:?} in the log");
        let lines =
            wait_for(&what, DEADLINE, || Some(self.logged(message)).filter(|lines| lines.len() >= times));
        assert_eq!(lines.len(), times, "{lines:?}");
        lines
    }

    /// The most memory that it ever had, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        value.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }
}

/// Seconds from one RFC 3339 time in UTC to another; hours, days and months included.
pub(crate) fn seconds_between(start: &Value, end: &Value) -> f64 {
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    time(end).duration_since(time(start)).as_secs_f64()
}

/// Files in a folder as kubelet projects them: `file -> ..data/file`, `..data -> ..N`. Written again, all
/// change at one instant.
pub(crate) fn project(folder: &Path, generation: u32, files: &[(&str, &str)]) {
    let real = folder.join(format!("..{generation}"));
    fs::create_dir_all(&real).unwrap();
    for (name, text) in files {
        write(&real.join(name), text);
        let link = folder.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
    symlink(real.file_name().unwrap(), folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "what a test writes in steps, nobody reads in between")]
pub(crate) fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

/// One GET with these headers: the answer as it came.
pub(crate) fn get(endpoint: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut stream = TcpStream::connect(endpoint.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
