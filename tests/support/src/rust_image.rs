//! The base image of a Rust build, made of this machine: its Rust, its C compiler, and the crates that cargo has
//! fetched. Where images can't be pulled, it takes the place of `rust:slim`.
//!
//! Nothing in it is where it is on this machine, and cargo is configured to stay offline.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    dockerd::Dockerd,
    files::overwrite,
    process::printed_by,
    requirement::{program, skip},
};

/// The packages of Debian that a build's commands are from. What these depend on comes along.
const PACKAGES: [&str; 6] = ["ca-certificates", "coreutils", "dash", "gcc", "libc6-dev", "sed"];

/// What a build needs and no package owns.
const UNOWNED: [&str; 3] = ["/usr/bin/cc", "/etc/alternatives/cc", "/etc/ssl/certs/ca-certificates.crt"];

/// What of the packages' files is not for a build.
const UNUSED: [&str; 4] = ["/usr/share/doc/", "/usr/share/info/", "/usr/share/locale/", "/usr/share/man/"];

const ENVIRONMENT: &str = "ENV PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
                           CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true";

const DEADLINE: Duration = Duration::from_secs(120);

/// Makes it, and imports it as `name`. `None` where packages are not Debian's.
///
/// # Panics
/// When that fails, or this is not Debian and `CI=true`.
pub fn import_rust_image(daemon: &Dockerd, name: &str) -> Option<()> {
    program("dpkg-query")?;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let archive = folder.path().join("base.tar");
    let Some(files) = files_of_packages() else {
        skip(&format!("packages are missing: apt-get install {}", PACKAGES.join(" ")));
        return None;
    };
    let list = folder.path().join("files");
    overwrite(&list, &files.iter().map(|path| format!("{}\n", path.display())).collect::<String>());
    run(tar("--create", &archive, Path::new("/"), "").arg("--no-recursion").arg("--files-from").arg(&list));
    let sysroot = PathBuf::from(run(Command::new("rustc").args(["--print", "sysroot"])).trim());
    run(tar("--append", &archive, &sysroot, "usr/local/rust/").args(parts_of_rust(&sysroot)));
    let cargo_home = cargo_home();
    run(tar("--append", &archive, &cargo_home, "usr/local/cargo/").args(parts_of_cargo(&cargo_home)));
    run(daemon.docker(folder.path()).args(["import", "--change", ENVIRONMENT]).arg(&archive).arg(name));
    Some(())
}

/// `tar`, from `folder`; inside the archive the names begin with `prefix`.
fn tar(action: &str, archive: &Path, folder: &Path, prefix: &str) -> Command {
    let mut command = Command::new("tar");
    command.arg(action).arg("--file").arg(archive).arg("--directory").arg(folder);
    command.arg(format!("--transform=s,^,{prefix},S")); // not what symbolic links say
    command
}

/// The compiler, cargo, and the libraries of this machine's own target.
fn parts_of_rust(sysroot: &Path) -> Vec<PathBuf> {
    let version = run(Command::new("rustc").arg("-vV"));
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let mut parts = vec!["bin/rustc".into(), "bin/cargo".into(), Path::new("lib/rustlib").join(host)];
    let libraries = fs::read_dir(sysroot.join("lib")).expect("the libraries of rustc");
    let names = libraries.map(|entry| entry.expect("an entry").file_name());
    parts.extend(
        names.filter(|name| name.to_string_lossy().contains(".so")).map(|name| Path::new("lib").join(name)),
    );
    parts
}

/// The crates, packed as they came, and where cargo finds more of them.
fn parts_of_cargo(cargo_home: &Path) -> Vec<&'static str> {
    let mut parts = vec!["registry/cache", "registry/index", "config.toml"];
    parts.retain(|part| cargo_home.join(part).exists());
    parts
}

fn cargo_home() -> PathBuf {
    let default = || env::home_dir().expect("a home directory").join(".cargo");
    env::var_os("CARGO_HOME").map_or_else(default, PathBuf::from)
}

/// Every file of [`PACKAGES`] and of what these depend on, relative to `/`. `None` when one of them is not here.
fn files_of_packages() -> Option<BTreeSet<PathBuf>> {
    let installed = dependencies();
    if !PACKAGES.iter().all(|name| installed.contains_key(*name)) {
        return None;
    }
    let listed = run(Command::new("dpkg-query").arg("--listfiles").args(closure(&installed)));
    let owned = listed.lines().filter(|line| !UNUSED.iter().any(|folder| line.starts_with(folder)));
    let files = owned.chain(UNOWNED).filter_map(|line| at_its_true_place(Path::new(line)));
    Some(files.chain(links_of_root()).map(|path| path.strip_prefix("/").unwrap().to_owned()).collect())
}

/// A file's path with no symbolic link before its name: `/bin` is one to `/usr/bin`. `None` for folders.
fn at_its_true_place(path: &Path) -> Option<PathBuf> {
    let kind = path.symlink_metadata().ok()?;
    (!kind.is_dir()).then(|| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)))?
}

/// `/bin`, `/lib` and their kin, where these are symbolic links.
fn links_of_root() -> impl Iterator<Item = PathBuf> {
    let names = ["/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin"];
    names.into_iter().map(PathBuf::from).filter(|path| path.is_symlink())
}

/// Each installed package and what it depends on, alternatives included.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let format = "--showformat=${Package}\t${Pre-Depends}, ${Depends}\n";
    let text = run(Command::new("dpkg-query").arg("--show").arg(format));
    let name = |part: &str| part.trim().split([' ', ':', '(']).next().unwrap_or_default().to_owned();
    let line = |line: &str| {
        let (package, depends) = line.split_once('\t')?;
        Some((package.to_owned(), depends.split([',', '|']).map(name).collect()))
    };
    text.lines().filter_map(line).collect()
}

fn closure(installed: &BTreeMap<String, Vec<String>>) -> BTreeSet<&str> {
    let mut wanted: Vec<&str> = PACKAGES.to_vec();
    let mut found = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        let Some(depends) = installed.get(name) else { continue }; // an alternative that was not taken
        if found.insert(name) {
            wanted.extend(depends.iter().map(String::as_str));
        }
    }
    found
}

#[track_caller]
fn run(command: &mut Command) -> String {
    printed_by(command, DEADLINE)
}
