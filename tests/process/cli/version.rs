//! `--version`, however the program was built.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use test_support::{clean_command, files::overwrite, output, skip};

use super::{BINARY, DEADLINE, printed, sidecar};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[track_caller]
fn git(folder: &Path, arguments: &[&str]) -> String {
    let who = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
    printed(&output(clean_command("git", folder).current_dir(folder).args(who).args(arguments), DEADLINE))
}

#[test]
fn the_version_shows_the_commit_and_its_date() {
    if !Path::new(ROOT).join(".git").exists() {
        return skip("this is no checkout of git");
    }
    let commit = git(Path::new(ROOT), &["log", "-1", "--format=%H %cs"]);
    let (hash, date) = commit.trim().split_once(' ').unwrap();
    let said = printed(&sidecar(&["--version"]));
    assert_eq!(said, format!("ecr-sidecar {VERSION} ({} {date})\n", &hash[..7]));
}

/// build.rs, to be run where no cargo builds.
struct BuildScript {
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl BuildScript {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("build-script");
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["--edition", "2024", "-o"]).arg(&program).arg(format!("{ROOT}/build.rs"));
        printed(&output(&mut rustc, DEADLINE));
        Self { folder, program }
    }

    /// A folder to build in.
    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// What is printed behind `KEY=`, in order.
    fn says(&self, key: &str, folder: &Path, prepare: impl FnOnce(&mut Command)) -> Vec<String> {
        let mut command = clean_command(self.program.to_str().unwrap(), folder);
        prepare(command.current_dir(folder).env("CARGO_PKG_VERSION", VERSION));
        let said = printed(&output(&mut command, DEADLINE));
        let values = said.lines().filter_map(|line| line.strip_prefix(&format!("cargo::{key}=")));
        values.map(ToOwned::to_owned).collect()
    }

    fn version(&self, folder: &Path, prepare: impl FnOnce(&mut Command)) -> String {
        let said = self.says("rustc-env", folder, prepare);
        let [said] = said.as_slice() else { panic!("{said:?}") };
        said.strip_prefix("BUILD_VERSION=").unwrap().to_owned()
    }
}

#[test]
fn a_tarball_knows_its_version_only_even_inside_another_repository() {
    let script = BuildScript::new();
    let repository = script.folder("other");
    git(&repository, &["init", "--quiet"]);
    git(&repository, &["commit", "--quiet", "--allow-empty", "--message", "not ours"]);
    for folder in [script.folder("tarball"), script.folder("other/tarball")] {
        assert_eq!(script.version(&folder, |_| {}), VERSION);
    }
}

#[test]
fn a_package_knows_its_commit_and_a_build_without_git_is_reported() {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let script = BuildScript::new();
    let folder = script.folder("package");
    let info = format!("{{\n  \"git\": {{\n    \"sha1\": \"{COMMIT}\"\n  }},\n  \"path_in_vcs\": \"\"\n}}");
    overwrite(&folder.join(".cargo_vcs_info.json"), &info);
    assert_eq!(script.version(&folder, |_| {}), format!("{VERSION} (0123456)"));
    let reported = script.version(&folder, |command| {
        command
            .env("ECR_SIDECAR_COMMIT", COMMIT.replace('0', "f"))
            .env("ECR_SIDECAR_COMMIT_DATE", "2026-11-25");
    });
    assert_eq!(reported, format!("{VERSION} (f123456 2026-11-25)"));
}

#[test]
fn a_checkout_is_checked_again_after_a_commit_and_not_before() {
    let script = BuildScript::new();
    let main = script.folder("main");
    git(&main, &["init", "--quiet", "--initial-branch", "main"]);
    git(&main, &["commit", "--quiet", "--allow-empty", "--message", "one"]);
    git(&main, &["worktree", "add", "--quiet", "../tree"]);
    git(&main, &["pack-refs", "--all"]); // the branches have no files of their own then
    for folder in [main, script.folder("tree")] {
        let watched = || script.says("rerun-if-changed", &folder, |_| {});
        let modified = || -> Vec<_> {
            let files = watched().into_iter().filter(|path| path != "build.rs").map(|path| folder.join(path));
            // One that is not there would be checked with each command.
            files.map(|path| fs::metadata(path).unwrap().modified().unwrap()).collect()
        };
        let before = modified();
        assert_eq!(modified(), before);
        assert!(before.len() >= 3, "{:?}", watched());
        git(&folder, &["commit", "--quiet", "--allow-empty", "--message", "two"]);
        assert_ne!(modified(), before, "{:?}", watched());
    }
}

/// What build.rs sets for the compiler, `cargo run` sets for the program, which refuses unknown variables of its own.
#[test]
fn the_program_runs_under_cargo_run() {
    let script = BuildScript::new();
    let reported = script.says("rustc-env", &script.folder("tarball"), |_| {});
    let mut config = clean_command(BINARY, Path::new("/nonexistent"));
    config.env("AWS_REGION", "eu-west-1").envs(reported.iter().map(|pair| pair.split_once('=').unwrap()));
    printed(&output(config.arg("config"), DEADLINE));
}
