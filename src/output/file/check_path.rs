//! Whether the file can ever be replaced at its path.

use std::{fs, io, os::unix::fs::FileTypeExt, path::Path};

use super::{DockerConfigError, DockerConfigFile, mount};
use crate::fs::atomic_file::Target;

impl DockerConfigFile {
    /// Rejects a path on which the file can never be replaced. Nothing is changed.
    ///
    /// What may be fixed later (a missing directory, missing rights, a full disk) is left to [`Self::reconcile`].
    pub(crate) fn check_path(&self) -> Result<(), DockerConfigError> {
        let path = &self.settings.path;
        if path.file_name().is_none() {
            return Err(DockerConfigError::NoFileName { path: path.clone() });
        }
        let Ok(here) = Target::open(path) else { return Ok(()) };
        let mounted = |target: &Target| {
            let directory = fs::canonicalize(target.directory.path());
            directory.is_ok_and(|directory| mount::is_mount_point(&directory.join(&target.name)))
        };
        if let Ok(Some(metadata)) = here.metadata() {
            let kind = metadata.file_type();
            if kind.is_dir() && (mounted(&here) || !is_empty(&here)) {
                return Err(DockerConfigError::IsADirectory { path: path.clone() });
            }
            if kind.is_char_device() || kind.is_block_device() {
                return Err(DockerConfigError::NotAFile { path: path.clone() });
            }
        }
        if mounted(&here) || here.behind_link().is_some_and(|behind| mounted(&behind)) {
            return Err(DockerConfigError::SingleFileMount { path: path.clone() });
        }
        Ok(())
    }
}

fn is_empty(directory: &Target) -> bool {
    let opened = directory.directory.open_from(Path::new(&directory.name));
    match opened.and_then(|opened| opened.any_name(|_| true)) {
        Ok(any) => !any,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied, // the rename shows whether it can be removed
    }
}
