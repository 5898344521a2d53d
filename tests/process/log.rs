//! Whoever reads the log may stop: nothing else does.

use std::{
    io::{self, BufRead, BufReader, PipeReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use test_support::{
    Harness, Signal,
    harness::{DEADLINE, HOST, KEYS},
    http_get, steady_port, wait_for,
};

use crate::BINARY;

/// A sidecar whose standard error is a pipe that is full already.
struct Unread {
    child: Child,
    health: SocketAddr,
    log: PipeReader,
}

impl Unread {
    fn start(command: &mut Command) -> Self {
        let (log, mut writer) = io::pipe().unwrap();
        writer.write_all(&[b'\n'; 64 << 10]).unwrap(); // what a pipe holds
        let health = SocketAddr::from(([127, 0, 0, 1], steady_port()));
        command.env("ECR_SIDECAR_HEALTH_LISTEN", health.to_string()).env("ECR_SIDECAR_LOG", "trace");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
        Self { child: command.spawn().unwrap(), health, log }
    }

    fn wait(&self, what: &str, path: &str, holds: impl Fn(u16, &str) -> bool) {
        wait_for(what, DEADLINE, || {
            let (code, body) = http_get(self.health, path).ok()?;
            holds(code, &body).then_some(())
        });
    }

    fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn wait_exit(&mut self) -> Option<i32> {
        wait_for("its end", DEADLINE, || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_no_process_reads_stops_nothing() {
    let harness = Harness::new(BINARY).without_keys();
    let mut sidecar = Unread::start(harness.command("run").envs(KEYS));
    sidecar.wait("readiness", "/readyz", |code, _| code == 200);
    let refreshed = |times: u64| {
        move |_: u16, body: &str| {
            let status: serde_json::Value = serde_json::from_str(body).unwrap();
            status["tokens"][0]["refreshed"].as_u64() >= Some(times)
        }
    };
    sidecar.wait("the first token", "/status", refreshed(1));
    sidecar.signal(Signal::HUP);
    sidecar.wait("the second token", "/status", refreshed(2));
    sidecar.wait("liveness", "/livez", |code, _| code == 200);
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.wait_exit(), Some(0));
}

#[test]
fn dropped_lines_are_counted_and_reported_once_the_reader_is_back() {
    let harness = Harness::new(BINARY).without_keys();
    let rejected = |round: usize| -> String {
        (0..1500).map(|number| format!("unknownKeyOfThisConfiguration{round}x{number}: 1\n")).collect()
    };
    let config = harness.write("config.yaml", &format!("registries: [{{host: {HOST}}}]\n"));
    let mut command = harness.command("run");
    command.envs(KEYS).env("ECR_SIDECAR_CONFIG", &config).env_remove("ECR_SIDECAR_REGISTRIES");
    let mut sidecar = Unread::start(&mut command);
    sidecar.wait("readiness", "/readyz", |code, _| code == 200);
    let dropped = |body: &str| {
        let line = body.lines().find_map(|line| line.strip_prefix("ecr_sidecar_log_lines_dropped_total "));
        line.unwrap().parse::<f64>().unwrap()
    };
    let mut round = 0;
    wait_for("dropped lines", DEADLINE, || {
        round += 1;
        harness.write("config.yaml", &rejected(round));
        let (_, body) = http_get(sidecar.health, "/metrics").unwrap();
        (dropped(&body) > 0.0).then_some(())
    });

    let mut lines = BufReader::new(&sidecar.log).lines().map(Result::unwrap);
    let report = lines.find(|line| line.contains("log lines dropped")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(report["lines"].as_u64() > Some(0), "{report}");
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.wait_exit(), Some(0));
}

/// The exit message comes behind the log, and waits for no reader for ever either.
#[test]
fn who_fails_with_a_log_that_no_process_reads_ends_all_the_same() {
    let harness = Harness::new(BINARY).without_keys();
    let mut sidecar = Unread::start(harness.command("once").args(["--timeout", "1s"]));
    assert_eq!(sidecar.wait_exit(), Some(69));
    let once = harness.once(|command| {
        command.args(["--timeout", "1s"]);
    });
    let last = once.stderr.lines().position(|line| line.starts_with("ecr-sidecar: not all required"));
    let first = once.stderr.lines().position(|line| line.contains("token refresh failed"));
    assert!(first.is_some() && last > first, "{}", once.stderr);
}
