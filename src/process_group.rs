//! Programs of the user's that we run: `credential_process` of AWS profiles, exec plugins of kubeconfigs.
//!
//! Such a program may hang, or start others that do. It leads a process group of its own, which is killed as a whole when
//! the program's caller is dropped (`a_plugin_that_hangs_is_killed`), and at the end of this process
//! (`no_credential_process_outlives_the_command`).

use std::{
    io,
    process::{ExitStatus, Stdio},
    sync::Mutex,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpgid};
use tokio::{
    process::{Child, ChildStderr, ChildStdout, Command},
    time::sleep,
};

use crate::tasks::locked;

static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Kills every group that runs. For the end of this process, where nothing is dropped any more.
pub(crate) fn kill_all() {
    for group in locked(&RUNNING).drain(..) {
        let _ = kill_process_group(group, Signal::KILL); // it may have exited
    }
}

/// A child and what it has started, killed on drop unless the child has exited.
pub(crate) struct ProcessGroup(Child);

impl ProcessGroup {
    /// Starts `command` without standard input.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.stdin(Stdio::null()).process_group(0).kill_on_drop(true).spawn()?;
        let group = Self(child);
        locked(&RUNNING).extend(group.leader());
        Ok(group)
    }

    pub(crate) fn take_output(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.0.stdout.take(), self.0.stderr.take())
    }

    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let leader = self.leader();
        let status = self.0.wait().await;
        locked(&RUNNING).retain(|group| Some(*group) != leader);
        status
    }

    /// `None` when the child has exited. Until it is waited for, no other process gets its number.
    fn leader(&self) -> Option<Pid> {
        Pid::from_raw(self.0.id()?.cast_signed())
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        let Some(group) = self.leader() else { return };
        locked(&RUNNING).retain(|other| *other != group);
        let _ = kill_process_group(group, Signal::KILL);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(reap(group));
        }
    }
}

/// As process 1 of a container we inherit the descendants, which stay in the process table until they are waited for.
async fn reap(group: Pid) {
    for _ in 0..50 {
        match waitpgid(group, WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => sleep(Duration::from_millis(20)).await,
            Err(_) => return, // none is left
        }
    }
}
