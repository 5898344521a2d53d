//! What is in the containers: images that never were in a registry.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::json;

use super::Node;
use crate::{
    files::overwrite,
    process::{clean_command, printed_by},
    requirement::{program, skip},
};

/// How long one step may take.
const STEP: Duration = Duration::from_secs(60);

/// What an image says about its containers, as a Dockerfile does.
#[derive(Debug, Default, Clone, Copy)]
pub struct ImageConfig<'a> {
    /// `ENTRYPOINT`.
    pub entrypoint: &'a [&'a str],
    /// `ENV`, each as `NAME=value`. Without a `PATH`, Kubernetes gives containers the usual one.
    pub env: &'a [&'a str],
    /// `USER`, by number: an image has no `/etc/passwd` unless it is given one. Empty is root.
    pub user: &'a str,
}

impl Node {
    /// Makes an image of `files`, each a path in it and where its content is on this machine (with its mode, but
    /// root's), and gives it to the node. Pods say `name`, with its tag: `app:1`.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn import_image<'a>(
        &self,
        name: &str,
        files: impl IntoIterator<Item = (&'a str, &'a Path)>,
        config: ImageConfig<'_>,
    ) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let content = folder.path().join("content");
        for (path, source) in files {
            let target = content.join(path.trim_start_matches('/'));
            make_parent(&target);
            fs::copy(source, &target).unwrap_or_else(|e| panic!("can't copy {}: {e}", source.display()));
        }
        self.import_content(name, &content, config);
    }

    /// Gives the node what `docker save` has written: its images, by their names.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn import_archive(&self, file: &Path) {
        run(self.machine.ctr().args(["images", "import"]).arg(file));
    }

    /// Gives the node its [`Node::BUSYBOX`].
    #[track_caller]
    pub(super) fn import_busybox(&self, busybox: &BusyBox) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let archive = folder.path().join("image.tar");
        busybox.write_archive(&archive, Self::BUSYBOX);
        self.import_archive(&archive);
    }

    #[track_caller]
    fn import_content(&self, name: &str, content: &Path, config: ImageConfig<'_>) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let archive = folder.path().join("image.tar");
        write_archive(&archive, name, content, config);
        self.import_archive(&archive);
    }
}

/// A busybox of this machine's that needs no libraries: there are none in an image.
#[derive(Debug)]
pub(crate) struct BusyBox(PathBuf);

impl BusyBox {
    pub(crate) fn find() -> Option<Self> {
        let path = program("busybox")?;
        if is_static(&path) {
            return Some(Self(path));
        }
        skip("busybox needs libraries: apt-get install busybox-static");
        None
    }

    /// An image like [`Node::BUSYBOX`], of this name, as `docker save` writes it.
    #[track_caller]
    pub(crate) fn write_archive(&self, archive: &Path, name: &str) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let bin = folder.path().join("bin");
        fs::create_dir_all(&bin).expect("a new folder");
        fs::copy(&self.0, bin.join("busybox")).expect("a copy of busybox");
        for applet in run(clean_command(&self.0, folder.path()).arg("--list")).lines() {
            if applet != "busybox" {
                symlink("busybox", bin.join(applet)).expect("a symbolic link");
            }
        }
        let config = ImageConfig { entrypoint: &["/bin/sleep", "2147483647"], env: &["PATH=/bin"], user: "" };
        write_archive(archive, name, folder.path(), config);
    }
}

/// Whether an ELF program names no dynamic linker, which it does on its first page: elf(5), `PT_INTERP`.
fn is_static(program: &Path) -> bool {
    let content = fs::read(program).unwrap_or_else(|e| panic!("can't read {}: {e}", program.display()));
    let page = &content[..content.len().min(4096)];
    !page.windows(6).any(|part| part == b".so.1\0" || part == b".so.2\0")
}

/// An archive of one image, of one layer, as `docker save` writes it.
#[track_caller]
fn write_archive(archive: &Path, name: &str, content: &Path, config: ImageConfig<'_>) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let layer = folder.path().join("layer.tar");
    tar(content, &layer, ".");
    let sum = run(clean_command("sha256sum", folder.path()).arg(&layer));
    let sum = sum.split(' ').next().expect("a checksum");
    let ImageConfig { entrypoint, env, user } = config;
    let described = json!({
        "os": "linux",
        "architecture": architecture(),
        "config": {"Entrypoint": entrypoint, "Env": env, "User": user},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    overwrite(&folder.path().join("config.json"), &described.to_string());
    overwrite(&folder.path().join("manifest.json"), &manifest.to_string());
    tar(folder.path(), archive, "manifest.json config.json layer.tar");
}

/// What Go, and hence an image, calls the processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[track_caller]
fn tar(folder: &Path, archive: &Path, names: &str) {
    let mut command = clean_command("tar", folder);
    command.args(["--create", "--owner=0", "--group=0", "--numeric-owner", "--file"]).arg(archive);
    run(command.arg("--directory").arg(folder).args(names.split(' ')));
}

#[track_caller]
fn make_parent(path: &Path) {
    let parent = path.parent().expect("a path of a file");
    fs::create_dir_all(parent).unwrap_or_else(|e| panic!("can't make {}: {e}", parent.display()));
}

#[track_caller]
fn run(command: &mut Command) -> String {
    printed_by(command, STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_libraries_is_distinguished_from_one_that_does_not() {
        let (Some(tar), Some(busybox)) = (program("tar"), BusyBox::find()) else { return };
        assert!(!is_static(&tar) && is_static(&busybox.0));
    }
}
