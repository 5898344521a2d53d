//! The archive that a release offers for download, and the Homebrew formula that names it.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use test_support::{files::overwrite, release_program};

use crate::succeeded;

const TARGET: &str = concat!(env!("CARGO_PKG_VERSION"), "-x86_64-unknown-linux-gnu");

fn script(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name))
}

fn archive(program: &Path, folder: &Path) -> String {
    succeeded(script("archive").arg(program).arg(folder)).trim().to_owned()
}

#[test]
fn an_archive_has_the_program_its_second_name_manual_and_completions() {
    let (program, folder) = (release_program(), tempfile::tempdir().unwrap());
    let packed = archive(&program, folder.path());
    assert!(packed.ends_with(&format!("/ecr-sidecar-{TARGET}.tar.gz")), "{packed}");
    let listed =
        succeeded(Command::new("tar").args(["--list", "--verbose", "--numeric-owner", "--file", &packed]));
    let entries = listed.lines().map(|line| {
        let mut fields = line.split_whitespace();
        let (mode, owner) = (fields.next().unwrap(), fields.next().unwrap());
        let (_, name) = line.split_once(&format!("ecr-sidecar-{TARGET}/")).unwrap();
        format!("{mode} {owner} {name}")
    });
    assert_eq!(
        entries.collect::<Vec<_>>(),
        [
            "drwxr-xr-x 0/0 ",
            "-rw-r--r-- 0/0 LICENSE",
            "drwxr-xr-x 0/0 completions/",
            "-rw-r--r-- 0/0 completions/_ecr-sidecar",
            "-rw-r--r-- 0/0 completions/_ecr-sidecar.ps1",
            "-rw-r--r-- 0/0 completions/ecr-sidecar.bash",
            "-rw-r--r-- 0/0 completions/ecr-sidecar.elv",
            "-rw-r--r-- 0/0 completions/ecr-sidecar.fish",
            "lrwxrwxrwx 0/0 docker-credential-ecr-sidecar -> ecr-sidecar",
            "-rwxr-xr-x 0/0 ecr-sidecar",
            "drwxr-xr-x 0/0 man/",
            "-rw-r--r-- 0/0 man/ecr-sidecar.1",
        ]
    );
    succeeded(Command::new("sha256sum").args(["--check", &format!("{packed}.sha256")]).current_dir(&folder));

    // What is unpacked works, under both names.
    succeeded(Command::new("tar").args(["--extract", "--file", &packed, "--directory"]).arg(folder.path()));
    let unpacked = folder.path().join(format!("ecr-sidecar-{TARGET}"));
    let version = succeeded(Command::new(unpacked.join("ecr-sidecar")).arg("--version"));
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let listed =
        Command::new(unpacked.join("docker-credential-ecr-sidecar")).arg("version").output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains(env!("CARGO_PKG_VERSION")), "{listed:?}");
    assert!(fs::read_to_string(unpacked.join("man/ecr-sidecar.1")).unwrap().contains(".TH ecr-sidecar"));

    let again = tempfile::tempdir().unwrap();
    assert!(
        fs::read(&packed).unwrap() == fs::read(archive(&program, again.path())).unwrap(),
        "not the same bytes"
    );
}

#[test]
fn the_formula_and_cargo_binstall_name_what_a_release_offers() {
    let folder = tempfile::tempdir().unwrap();
    let sums = [("aarch64-apple-darwin", "a".repeat(64)), ("x86_64-unknown-linux-gnu", "b".repeat(64))];
    for (target, sum) in &sums {
        let name = format!("ecr-sidecar-{}-{target}.tar.gz", env!("CARGO_PKG_VERSION"));
        overwrite(&folder.path().join(&name), "");
        overwrite(&folder.path().join(format!("{name}.sha256")), &format!("{sum}  {name}\n"));
    }
    let formula = succeeded(script("homebrew-formula").arg(folder.path()));
    let release =
        format!("{}/releases/download/v{}", env!("CARGO_PKG_REPOSITORY"), env!("CARGO_PKG_VERSION"));
    for (target, sum) in &sums {
        let url = format!("{release}/ecr-sidecar-{}-{target}.tar.gz", env!("CARGO_PKG_VERSION"));
        assert!(formula.contains(&format!("url \"{url}\"\n      sha256 \"{sum}\"")), "{formula}");
    }
    assert_eq!(formula.matches("sha256").count(), 2, "{formula}");

    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--no-deps", "--format-version=1", "--offline", "--manifest-path"]);
    let metadata = succeeded(cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")));
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let package =
        metadata["packages"].as_array().unwrap().iter().find(|it| it["name"] == "ecr-sidecar").unwrap();
    let binstall = &package["metadata"]["binstall"];
    let filled = |template: &Value, target: &str| {
        let template = template.as_str().unwrap().replace("{ repo }", env!("CARGO_PKG_REPOSITORY"));
        let template = template.replace("{ version }", env!("CARGO_PKG_VERSION"));
        template.replace("{ target }", target).replace("{ bin }{ binary-ext }", "ecr-sidecar")
    };
    let own = "x86_64-unknown-linux-gnu";
    let path = format!("ecr-sidecar-{}-{own}", env!("CARGO_PKG_VERSION"));
    assert_eq!(filled(&binstall["pkg-url"], own), format!("{release}/{path}.tar.gz"));
    assert_eq!(filled(&binstall["bin-dir"], own), format!("{path}/ecr-sidecar"));
    // The program needs no C library, so it is the one for musl, too.
    let musl = &binstall["overrides"]["x86_64-unknown-linux-musl"];
    assert_eq!(filled(&musl["pkg-url"], "-"), format!("{release}/{path}.tar.gz"));
    assert_eq!(filled(&musl["bin-dir"], "-"), format!("{path}/ecr-sidecar"));
}
