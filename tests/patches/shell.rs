//! Commands of the text, run by a shell with `kubectl`.

use std::{env, ffi::OsString, path::Path, process::Command, time::Duration};

use test_support::{clean_command, output, program};

/// A script with `kubectl` as this kubeconfig's user; programs in `bin` of the folder come before those of the machine.
pub(crate) fn admin_shell(folder: &Path, kubeconfig: &Path, script: &str) -> Command {
    let mut shell = clean_command("bash", folder);
    shell.args(["-euxc", script]).env("PATH", path(&folder.join("bin"))).env("KUBECONFIG", kubeconfig);
    shell
}

/// This machine's programs, with those of the folder and `kubectl` in front.
pub(crate) fn path(folder: &Path) -> OsString {
    let kubectl = program("kubectl").expect("the caller has seen to it");
    let machine = env::var_os("PATH").unwrap();
    let folders = [folder, kubectl.parent().unwrap()].map(Path::to_owned);
    env::join_paths(folders.into_iter().chain(env::split_paths(&machine))).unwrap()
}

/// Whether a script succeeds, and what it prints; what it says on standard error too, if it fails.
pub(crate) fn printed_by(shell: &mut Command, deadline: Duration) -> (bool, String) {
    let done = output(shell, deadline);
    let printed = if done.status.success() { done.stdout } else { [done.stderr, done.stdout].concat() };
    (done.status.success(), String::from_utf8_lossy(&printed).into_owned())
}
