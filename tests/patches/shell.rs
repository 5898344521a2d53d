//! Commands of the text, run by a shell with `kubectl`.

use std::{path::Path, process::Command, time::Duration};

use test_support::{clean_command, output, program};

/// A script with `kubectl` as this kubeconfig's user; programs in `bin` of the folder come before those of the machine.
pub(crate) fn admin_shell(folder: &Path, kubeconfig: &Path, script: &str) -> Command {
    let kubectl = program("kubectl").unwrap();
    let machine = std::env::var_os("PATH").unwrap();
    let first = [folder.join("bin"), kubectl.parent().unwrap().to_owned()];
    let path = std::env::join_paths(first.into_iter().chain(std::env::split_paths(&machine))).unwrap();
    let mut shell = clean_command("bash", folder);
    shell.args(["-euxc", script]).env("PATH", path).env("KUBECONFIG", kubeconfig);
    shell
}

/// Whether a script succeeds, and what it prints; what it says on standard error too, if it fails.
pub(crate) fn printed_by(shell: &mut Command, deadline: Duration) -> (bool, String) {
    let done = output(shell, deadline);
    let printed = if done.status.success() { done.stdout } else { [done.stderr, done.stdout].concat() };
    (done.status.success(), String::from_utf8_lossy(&printed).into_owned())
}
