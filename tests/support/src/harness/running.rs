//! A running sidecar: its log, its health endpoint, its state.

use std::{
    fs,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;

use super::DEADLINE;
use crate::{
    http,
    process::{Process, Signal},
    wait::wait_for,
};

/// A running sidecar; everything that is not of the sidecar alone is [`Process`].
#[derive(Debug)]
pub struct Running {
    process: Process,
    health: OnceLock<SocketAddr>,
}

impl From<Process> for Running {
    fn from(process: Process) -> Self {
        Self { process, health: OnceLock::new() }
    }
}

impl Deref for Running {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Running {
    /// The address of the health endpoint, which the first line of the log has.
    #[track_caller]
    pub fn health(&self) -> SocketAddr {
        *self.health.get_or_init(|| {
            let line = self.wait_log("ecr-sidecar starts", DEADLINE);
            let line: Value = serde_json::from_str(&line).unwrap();
            line["health"].as_str().unwrap().parse().unwrap()
        })
    }

    /// Status and body of a path of the health endpoint.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        http::get(self.health(), path)
    }

    /// Waits until a path of the health endpoint answers that status, and hands its body over.
    #[track_caller]
    pub fn wait_get(&self, path: &str, code: u16) -> String {
        wait_for(&format!("{code} at {path}"), DEADLINE, || {
            let (answered, body) = self.get(path);
            (answered == code).then_some(body)
        })
    }

    #[track_caller]
    pub fn is_ready(&self) -> bool {
        self.get("/readyz").0 == 200
    }

    #[track_caller]
    pub fn wait_ready(&self) {
        self.wait_get("/readyz", 200);
    }

    /// `/status`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let (code, body) = self.get("/status");
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Waits until `/status` is as wanted, and hands it over.
    #[track_caller]
    pub fn wait_status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, DEADLINE, || Some(self.status()).filter(|status| wanted(status)))
    }

    /// The entry of the only token.
    #[track_caller]
    pub fn token(&self) -> Value {
        self.status()["tokens"][0].clone()
    }

    /// The entry of the only token, once `holds` of it.
    #[track_caller]
    pub fn wait_token(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, DEADLINE, || Some(self.token()).filter(|token| holds(token)))
    }

    /// Waits until the only token has been obtained `times` times, and its credential is in place.
    #[track_caller]
    pub fn wait_refreshed(&self, times: u64) -> Value {
        let what = format!("token number {times} in its place");
        wait_for(&what, DEADLINE, || {
            let status = self.status();
            let token = status["tokens"][0].clone();
            let placed = status["outputs"][0]["in_place"].as_object()?.values().next()?;
            (token["refreshed"].as_u64()? >= times && *placed == token["expires_at"]).then_some(token)
        })
    }

    /// Has it refresh everything now.
    pub fn refresh(&self) {
        self.signal(Signal::HUP);
    }

    /// How many lines of its log have `part` in them.
    pub fn count_log(&self, part: &str) -> usize {
        self.log_lines().iter().filter(|line| line.contains(part)).count()
    }

    /// The lines of the log with this message.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        let lines = self.log_lines();
        let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    /// The lines of the log with this message, which must be `times` of them. What is logged before a status
    /// is shown may still be on its way here.
    #[track_caller]
    pub fn wait_logged(&self, message: &str, times: usize) -> Vec<Value> {
        let what = format!("{message:?} in the log");
        let lines =
            wait_for(&what, DEADLINE, || Some(self.logged(message)).filter(|lines| lines.len() >= times));
        assert_eq!(lines.len(), times, "{lines:?}");
        lines
    }

    /// The most memory that it ever had, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        value.trim().strip_suffix(" kB").unwrap().parse().unwrap()
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
