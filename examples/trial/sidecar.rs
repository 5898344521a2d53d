//! The real sidecar, in a process of its own that can be killed.
//!
//! The example starts itself once more under the name `ecr-sidecar`, and is then nothing but the program of
//! that name. Its environment is empty, so that nothing of this machine's AWS settings reaches it.

use std::{
    fs::{File, OpenOptions},
    io,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ExitCode, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use test_support::{Harness, harness::configured_by, http_get, wait::within};

const NAME: &str = "ecr-sidecar";
/// What it logs, in the folder of the harness.
pub(crate) const LOG: &str = "sidecar.log";

/// Whether this process was started as the sidecar.
pub(crate) fn is_this_process() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Is the sidecar, until it is stopped or the trial is gone.
pub(crate) fn main() -> ExitCode {
    thread::spawn(|| {
        // The trial holds the other end: it closes with the trial, however that ends.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
    ecr_sidecar::cli::main()
}

pub(crate) struct Sidecar {
    config: PathBuf,
    health: SocketAddr,
    child: Child,
    tokens: Vec<Token>,
}

/// What `/status` has of one registry's token.
#[derive(Clone, Default)]
pub(crate) struct Token {
    pub(crate) registry: String,
    /// From when until when it is good: the last one that is known, whichever process obtained it.
    pub(crate) life: Option<(SystemTime, SystemTime)>,
    /// When AWS is asked next.
    pub(crate) next_attempt: Option<SystemTime>,
    /// Attempts that failed since the last success.
    pub(crate) failures: u32,
    /// Tokens obtained since the trial began.
    pub(crate) refreshes: u64,
    /// Those of them that processes before this one obtained.
    refreshes_before: u64,
}

impl Sidecar {
    /// Starts one with the configuration file `config`, which has `health` and these registries.
    pub(crate) fn start(
        harness: &Harness,
        config: PathBuf,
        health: SocketAddr,
        registries: &[String],
    ) -> io::Result<Self> {
        let child = spawn(harness, &config)?;
        let tokens =
            registries.iter().map(|registry| Token { registry: registry.clone(), ..Token::default() });
        Ok(Self { tokens: tokens.collect(), config, health, child })
    }

    /// What is known of each registry's token, in the order of the registries.
    pub(crate) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Asks `/status`.
    pub(crate) fn update(&mut self) -> io::Result<()> {
        let (_, body) = http_get(self.health, "/status")?;
        let status: Status = serde_json::from_str(&body)?;
        for reported in &status.tokens {
            let serves = |token: &&mut Token| reported.registries.iter().any(|r| r.host == token.registry);
            for token in self.tokens.iter_mut().filter(serves) {
                token.learn(reported);
            }
        }
        Ok(())
    }

    /// Asks `/readyz`.
    pub(crate) fn is_ready(&self) -> bool {
        http_get(self.health, "/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// The exit status, if it has ended.
    pub(crate) fn has_ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// SIGHUP: "refresh everything now".
    pub(crate) fn refresh_now(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::HUP)?)
    }

    /// SIGKILL, and another one at once, as kubelet would.
    pub(crate) fn kill_and_restart(&mut self, harness: &Harness) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        for token in &mut self.tokens {
            token.refreshes_before = token.refreshes;
        }
        self.child = spawn(harness, &self.config)?;
        Ok(())
    }

    /// SIGTERM: how it ended, and after what time; `None` when it didn't within `limit`.
    pub(crate) fn stop(&mut self, limit: Duration) -> io::Result<Option<(ExitStatus, Duration)>> {
        let begin = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let ended = within(limit, || self.child.try_wait().transpose()).transpose()?;
        Ok(ended.map(|status| (status, begin.elapsed())))
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(harness: &Harness, config: &Path) -> io::Result<Child> {
    let log: File = OpenOptions::new().create(true).append(true).open(harness.at(LOG))?;
    let mut command = harness.command("run");
    configured_by(&mut command, config);
    command.arg0(NAME).env_remove("ECR_SIDECAR_HEALTH_LISTEN");
    // A process group of its own: ctrl-c is for the trial, which then stops it.
    command.process_group(0).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
    command.spawn()
}

#[derive(Deserialize)]
struct Status {
    tokens: Vec<TokenStatus>,
}

#[derive(Deserialize)]
struct TokenStatus {
    registries: Vec<Served>,
    obtained_at: Option<String>,
    expires_at: Option<String>,
    next_attempt: Option<String>,
    failures_in_a_row: u32,
    refreshed: u64,
}

#[derive(Deserialize)]
struct Served {
    host: String,
}

impl Token {
    fn learn(&mut self, reported: &TokenStatus) {
        self.life = time(&reported.obtained_at).zip(time(&reported.expires_at)).or(self.life);
        self.next_attempt = time(&reported.next_attempt);
        self.failures = reported.failures_in_a_row;
        self.refreshes = self.refreshes_before + reported.refreshed;
    }
}

fn time(text: &Option<String>) -> Option<SystemTime> {
    Some(text.as_deref()?.parse::<jiff::Timestamp>().ok()?.into())
}
