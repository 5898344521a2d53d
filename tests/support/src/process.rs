//! What did that process print, cost, and end with?
//!
//! A [`Process`] never outlives the value: it is killed and reaped on drop
//! (`a_dropped_process_is_gone`), and what it wrote is shown when the test panics.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use rustix::process::{Pid, kill_process};

use crate::wait::{wait_for, within};

pub use rustix::process::Signal;

/// How many lines of a process's log are shown when its test fails.
const SHOWN: usize = 100;

/// A command with an emptied environment: `PATH`, `HOME`, and no way to the instance metadata service.
///
/// What the caller adds to it is all that it can know of this machine and of this user's credentials.
pub fn clean_command(program: impl AsRef<Path>, home: &Path) -> Command {
    let mut command = Command::new(program.as_ref());
    command.env_clear();
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.env("HOME", home).env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

/// Runs `command` to its end, whatever that is.
///
/// # Panics
/// When it can't be started or is not done within `deadline`.
#[track_caller]
pub fn output(command: &mut Command, deadline: Duration) -> Output {
    let process = Process::spawn(command);
    let status = process.wait_exit(deadline);
    Output { status, stdout: process.stdout().into_bytes(), stderr: process.stderr().into_bytes() }
}

/// What `command` prints, which has to succeed.
///
/// # Panics
/// When it does not, or not within `deadline`.
#[track_caller]
pub fn printed_by(command: &mut Command, deadline: Duration) -> String {
    let Output { status, stdout, stderr } = output(command, deadline);
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text")
}

/// Copies a program to `path`, to be run there by any user.
///
/// By a process of its own: what this one has written may not be run for a moment ("Text file busy"), as the children
/// that other tests are starting have it open too, until they become other programs.
///
/// # Panics
/// When that fails.
#[track_caller]
pub fn install(program: impl AsRef<Path>, path: &Path) {
    let status = Command::new("install").args(["--mode", "755"]).arg(program.as_ref()).arg(path).status();
    assert!(status.as_ref().is_ok_and(ExitStatus::success), "install {}: {status:?}", path.display());
}

/// A running program whose output is kept.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Mutex<Child>,
    stdout: Captured,
    stderr: Captured,
}

impl Process {
    /// Starts `command`, with no standard input.
    ///
    /// # Panics
    /// When it can't be started.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        let program = command.get_program().to_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("can't start {}: {e}", program.display()));
        let stdout = Captured::from(child.stdout.take().expect("a pipe was asked for"));
        let stderr = Captured::from(child.stderr.take().expect("a pipe was asked for"));
        let name = Path::new(&program).file_name().unwrap_or(&program).to_string_lossy().into_owned();
        Self { name, child: Mutex::new(child), stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// Sends `signal` to it.
    ///
    /// # Panics
    /// When it has ended already.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        if let Some(status) = self.send(signal) {
            panic!("{} has ended ({status}) before {signal:?} could be sent", self.name);
        }
    }

    /// How it ended, or `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// # Panics
    /// When it has ended.
    #[track_caller]
    pub fn assert_runs(&self) {
        if let Some(status) = self.exit_status() {
            panic!("{} ended: {status}\n{}", self.name, self.stderr());
        }
    }

    /// Waits for its end, and for the last of its output.
    ///
    /// # Panics
    /// When it still runs after `deadline`.
    #[track_caller]
    pub fn wait_exit(&self, deadline: Duration) -> ExitStatus {
        let status = wait_for(&format!("the end of {}", self.name), deadline, || self.exit_status());
        self.stdout.settle();
        self.stderr.settle();
        status
    }

    /// Everything on its standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Everything on its standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// The lines of its standard error so far, where logs go.
    pub fn log_lines(&self) -> Vec<String> {
        self.stderr().lines().map(str::to_owned).collect()
    }

    /// Waits for a line of the log that has `part` in it, and hands that line over.
    ///
    /// # Panics
    /// When there is none within `deadline`, or the process ends without one.
    #[track_caller]
    pub fn wait_log(&self, part: &str, deadline: Duration) -> String {
        wait_for(&format!("{part:?} in the log of {}", self.name), deadline, || {
            let ended = self.exit_status();
            if ended.is_some() {
                self.stderr.settle();
            }
            let line = self.log_lines().into_iter().find(|line| line.contains(part));
            if let (None, Some(status)) = (&line, ended) {
                panic!("{} ended ({status}) with no {part:?} in its log", self.name);
            }
            line
        })
    }

    /// Its resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = self.proc("status");
        let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        value.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok()).expect("VmRSS in kB: proc(5)")
    }

    /// The processor time that it has used, in user and kernel mode together, to the scheduler's tick (10 ms).
    pub fn cpu_time(&self) -> Duration {
        let stat = self.proc("stat");
        // Fields are counted behind the name, which may hold anything, even `) `: proc(5), fields 14 and 15.
        let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses: proc(5)");
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// The environment that it was started with, as `NAME=value`.
    pub fn environ(&self) -> Vec<String> {
        split_nul(&self.proc("environ"))
    }

    /// Its arguments, its own name first.
    pub fn cmdline(&self) -> Vec<String> {
        split_nul(&self.proc("cmdline"))
    }

    /// Asks it to end, with SIGTERM, and kills it when it has not within `grace`.
    pub fn stop(&self, grace: Duration) {
        self.send(Signal::TERM);
        within(grace, || self.exit_status());
        self.kill();
    }

    /// Sends `signal`, unless it has ended: then says how.
    fn send(&self, signal: Signal) -> Option<ExitStatus> {
        let mut child = self.child.lock().unwrap();
        // Its id stays its own until it is reaped, and only this lock's holder reaps.
        let ended = child.try_wait().unwrap();
        if ended.is_none() {
            kill_process(Pid::from_child(&child), signal).expect("a signal to one's own child");
        }
        ended
    }

    fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let _ = child.kill();
        let _ = child.wait();
    }

    #[track_caller]
    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.pid());
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("can't read {path} of {}: {e}", self.name));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            self.stderr.settle();
            let lines = self.log_lines();
            let last = &lines[lines.len().saturating_sub(SHOWN)..];
            eprintln!("---- stderr of {} ----\n{}\n----", self.name, last.join("\n"));
        }
    }
}

/// What a reader thread has taken from a pipe so far.
#[derive(Debug, Clone)]
struct Captured(Arc<Mutex<Buffer>>);

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    at_end: bool,
}

impl Captured {
    fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let captured = Self(Arc::default());
        let buffer = Arc::clone(&captured.0);
        thread::spawn(move || {
            let mut chunk = [0; 8192];
            loop {
                let read = pipe.read(&mut chunk).unwrap_or(0);
                let mut buffer = buffer.lock().unwrap();
                buffer.bytes.extend_from_slice(&chunk[..read]);
                if read == 0 {
                    buffer.at_end = true;
                    return;
                }
            }
        });
        captured
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap().bytes).into_owned()
    }

    /// Waits for the end of the pipe, but not for long: a grandchild may hold it open.
    fn settle(&self) {
        within(Duration::from_secs(1), || self.0.lock().unwrap().at_end.then_some(()));
    }
}

fn split_nul(text: &str) -> Vec<String> {
    text.split_terminator('\0').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Process {
        Process::spawn(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn both_outputs_and_the_status_are_kept() {
        let process = shell("echo out; echo one >&2; printf two >&2; exit 3");
        assert_eq!(process.wait_exit(SOON).code(), Some(3));
        assert_eq!(
            (process.stdout().as_str(), process.log_lines()),
            ("out\n", vec!["one".into(), "two".into()])
        );
    }

    #[test]
    fn a_signal_arrives() {
        let process =
            shell("trap 'echo caught >&2; exit 7' TERM; echo ready >&2; while :; do sleep 0.01; done");
        process.wait_log("ready", SOON);
        process.signal(Signal::TERM);
        assert_eq!(process.wait_exit(SOON).code(), Some(7));
        assert_eq!(process.wait_log("aug", SOON), "caught");
    }

    #[test]
    #[should_panic(expected = "sh ended (exit status: 1) with no \"ready\" in its log")]
    fn a_process_that_ends_early_is_not_waited_for() {
        shell("echo failed >&2; exit 1").wait_log("ready", Duration::from_secs(600));
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = shell("exec sleep 600");
        let proc = format!("/proc/{}", process.pid());
        assert!(fs::exists(&proc).unwrap());
        drop(process);
        assert!(!fs::exists(&proc).unwrap());
    }

    #[test]
    fn a_process_that_ignores_sigterm_is_killed_after_its_grace() {
        let process = shell("trap '' TERM; echo ready >&2; while :; do sleep 0.01; done");
        process.wait_log("ready", SOON);
        process.stop(Duration::from_millis(50));
        assert_eq!(process.exit_status().unwrap().code(), None);
    }

    #[test]
    fn proc_says_what_it_costs_and_what_it_was_given() {
        let home = Path::new("/nonexistent");
        let mut command = clean_command("sh", home);
        let process = Process::spawn(command.args(["-c", "while :; do :; done", "a b"]).env("ANSWER", "42"));
        let busy = Duration::from_millis(30);
        wait_for("30 ms of processor time", SOON, || (process.cpu_time() >= busy).then_some(()));
        assert!((100..100_000).contains(&process.rss_kib()), "{} KiB", process.rss_kib());
        assert_eq!(process.cmdline(), ["sh", "-c", "while :; do :; done", "a b"]);
        let mut names: Vec<String> =
            process.environ().iter().map(|entry| entry.split('=').next().unwrap().to_owned()).collect();
        names.sort();
        assert_eq!(names, ["ANSWER", "AWS_EC2_METADATA_DISABLED", "HOME", "PATH"]);
    }

    #[test]
    fn a_grandchild_that_holds_the_pipes_delays_no_test() {
        let process = shell("sleep 600 & echo $! >&2");
        process.wait_exit(SOON);
        let grandchild = process.log_lines().concat();
        assert!(fs::read_link(format!("/proc/{grandchild}/fd/2")).is_ok(), "it holds the pipe still");
        kill_process(Pid::from_raw(grandchild.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    }
}
