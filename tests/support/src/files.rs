//! Files as users, editors and the kubelet write them, and the docker config as its consumers read it.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use serde_json::Value;

use crate::{harness::DEADLINE, wait::wait_for};

/// Replaces a file by rename.
pub fn replace(path: &Path, text: &str) {
    let folder = path.parent().unwrap();
    fs::create_dir_all(folder).unwrap();
    let mut file = tempfile::NamedTempFile::new_in(folder).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
    file.persist(path).unwrap();
}

/// Writes a file in place, as an editor of the careless kind does.
#[track_caller]
pub fn overwrite(path: &Path, content: &(impl AsRef<[u8]> + ?Sized)) {
    let written = File::create(path).and_then(|mut file| file.write_all(content.as_ref()));
    written.unwrap_or_else(|e| panic!("can't write {}: {e}", path.display()));
}

/// Files in a folder as kubelet projects them: `file -> ..data/file`, `..data -> ..N`. Written again, all
/// change at one instant.
pub fn project(folder: &Path, generation: u32, files: &[(&str, &str)]) {
    let real = folder.join(format!("..{generation}"));
    fs::create_dir_all(&real).unwrap();
    for (name, text) in files {
        overwrite(&real.join(name), text);
        let link = folder.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
    symlink(real.file_name().unwrap(), folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

/// The docker config at the path, if it is there and whole.
pub fn config(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The `auth` of a registry in the file at the path.
pub fn auth(path: &Path, host: &str) -> Option<String> {
    Some(config(path)?["auths"][host]["auth"].as_str()?.to_owned())
}

/// Waits until the file at the path has a credential for the registry, and hands that over.
#[track_caller]
pub fn wait_auth(path: &Path, host: &str) -> String {
    wait_for(&format!("a credential of {host}"), DEADLINE, || auth(path, host))
}

/// The permission bits of a file.
pub fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// The names of the files in a folder, sorted, without the sidecar's store of expiries.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".config.json.ecr-sidecar")
        .collect();
    names.sort();
    names
}
