//! Which commit is this? For `--version`, from the first of:
//!
//! * `ECR_SIDECAR_COMMIT` and `ECR_SIDECAR_COMMIT_DATE`, for builds without a repository, such as the image's;
//! * the repository, if this folder is one;
//! * `.cargo_vcs_info.json`, which packages from a crate registry have; it knows no date.
//!
//! Without any of them, the version is all that is shown. Whether files were changed since the commit is not shown: every
//! build would have to compare them all.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=ECR_SIDECAR_COMMIT");
    println!("cargo::rerun-if-env-changed=ECR_SIDECAR_COMMIT_DATE");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let commit = of_environment().or_else(of_repository).or_else(of_package);
    let version = commit.map_or_else(|| version.clone(), |commit| format!("{version} ({commit})"));
    // `cargo run` has it in its environment too, where the program rejects variables with its own prefix.
    println!("cargo::rustc-env=BUILD_VERSION={version}");
}

fn of_environment() -> Option<String> {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let commit: String = variable("ECR_SIDECAR_COMMIT")?.chars().take(7).collect();
    Some(match variable("ECR_SIDECAR_COMMIT_DATE") {
        Some(date) => format!("{commit} {date}"),
        None => commit,
    })
}

fn of_repository() -> Option<String> {
    // A package that was unpacked inside of some other repository is none of its commits.
    if !Path::new(".git").exists() {
        return None;
    }
    // The commit changes with what HEAD says, or with the branch that it names. To cargo a file that is not there is one
    // that has changed. A packed branch has none: the next commit makes it, in a folder that is there.
    let path = |name: &str| git(&["rev-parse", "--git-path", name]).map(PathBuf::from);
    let files = ["HEAD", "packed-refs"].into_iter().filter_map(path).filter(|path| path.exists());
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]).and_then(|branch| path(&branch));
    let branch = branch.iter().flat_map(|path| path.ancestors().find(|path| path.exists()));
    for watched in files.chain(branch.map(Path::to_owned)) {
        println!("cargo::rerun-if-changed={}", watched.display());
    }
    let commit = git(&["log", "-1", "--format=%H %cs"])?;
    let (hash, date) = commit.split_once(' ')?;
    Some(format!("{} {date}", hash.get(..7)?))
}

fn of_package() -> Option<String> {
    let info = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = info.split_once("\"sha1\"")?;
    let commit = rest.split('"').nth(1)?;
    commit.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| commit.chars().take(7).collect())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
