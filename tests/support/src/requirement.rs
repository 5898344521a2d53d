//! Is here what this test needs, and what if not?
//!
//! On a user's machine a missing program skips the test and says how to get it; with `CI=true` it fails the
//! test, so that no promise goes unchecked for want of a package. Held by `a_missing_program_is_a_skip`.

use std::{
    env,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    thread,
};

/// The program `name`: one that `tests/tools/build` built, or the first on `PATH`.
///
/// `None` when it is not here; that has then been [`skip`]ped already.
///
/// # Panics
/// When it is not here and `CI=true`.
pub fn program(name: &str) -> Option<PathBuf> {
    let found = programs(name).next();
    if found.is_none() {
        skip(&format!("{name} is not here: {}", how_to_get(name)));
    }
    found
}

/// Every program `name` that is here, in the order in which they would be found.
pub(crate) fn programs(name: &str) -> impl Iterator<Item = PathBuf> {
    folders().iter().map(move |folder| folder.join(name)).filter(|path| is_executable(path))
}

/// Whether this process is root; if not, that has been [`skip`]ped already.
///
/// # Panics
/// When it is not and `CI=true`.
pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("this needs root");
    }
    root
}

/// Says that the running test does nothing, and why. The caller returns afterwards.
///
/// # Panics
/// When `CI=true`.
pub fn skip(reason: &str) {
    assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{reason} (and CI=true makes that a failure)");
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    // Not eprintln!, which the test runner keeps to itself when a test passes.
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED {test}: {reason}");
}

/// The shared libraries that `program` is loaded with, to be put next to it into an image; none when it is static.
///
/// # Panics
/// When `ldd` can't be run.
pub fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().expect("ldd is of libc-bin");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Where programs are searched, in order.
fn folders() -> &'static [PathBuf] {
    static FOLDERS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOLDERS.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/build");
        let built = Command::new(&script)
            .arg("--print-path")
            .output()
            .ok()
            .filter(|output| output.status.success())
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
            .unwrap_or_default();
        let path = env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = env::split_paths(&built).chain(env::split_paths(&path)).collect();
        folders.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from)); // dockerd, for a user's PATH
        folders.retain(|folder| folder.is_absolute());
        folders
    })
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn how_to_get(name: &str) -> String {
    match name {
        "helm3"
        | "helm4"
        | "crane"
        | "docker-compose"
        | "docker-credential-ecr-login"
        | "kube-apiserver"
        | "kube-controller-manager"
        | "kube-scheduler"
        | "kubectl"
        | "kubelet"
        | "promtool"
        | "scrapes"
        | "consumers" => "run tests/tools/build".to_owned(),
        "docker" | "dockerd" => "apt-get install docker.io".to_owned(),
        "busybox" => "apt-get install busybox-static".to_owned(),
        "containerd" | "ctr" => "apt-get install containerd".to_owned(),
        "etcd" => "apt-get install etcd-server".to_owned(),
        "groff" => "apt-get install groff-base".to_owned(),
        "script" => "apt-get install bsdutils".to_owned(),
        "nsenter" | "unshare" => "apt-get install util-linux".to_owned(),
        "aws" => "pip install awscli".to_owned(),
        _ => format!("apt-get install {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_on_the_path_is_found() {
        assert!(program("tar").is_some_and(|path| path.is_absolute() && path.ends_with("tar")));
    }

    #[test]
    fn built_programs_come_first() {
        let first = folders().first().unwrap();
        assert!(first.ends_with("bin"), "{first:?}");
        assert!(
            first.parent().unwrap().file_name().unwrap().to_str().unwrap().starts_with("helm3-"),
            "{first:?}"
        );
    }

    /// Both halves in child processes: this one's environment stays as it is.
    #[test]
    fn a_missing_program_is_a_skip_and_in_ci_a_failure() {
        for (ci, passes) in [(None, true), (Some("true"), false)] {
            let mut command = Command::new(env::current_exe().unwrap());
            command.args(["--exact", "requirement::tests::needs_a_program_that_no_machine_has", "--ignored"]);
            command.env_remove("CI").envs(ci.map(|ci| ("CI", ci)));
            let output = command.output().unwrap();
            assert_eq!(output.status.success(), passes, "CI={ci:?}");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(said.contains("no-such-program is not here: apt-get install no-such-program"), "{said}");
            assert_eq!(said.contains("SKIPPED requirement::tests::needs_a_program"), passes, "{said}");
        }
    }

    #[test]
    #[ignore = "run by the test above"]
    fn needs_a_program_that_no_machine_has() {
        assert_eq!(program("no-such-program"), None);
    }
}
