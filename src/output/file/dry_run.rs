//! Whether the file could be written now, and what it would be, found out without writing.

use std::{io, path::Path};

use rustix::{
    fs::{Access, AtFlags, StatVfs, accessat, fstatvfs},
    io::Errno,
};

use super::{
    DockerConfigError, DockerConfigFile,
    read::{Found, read},
    warning,
};
use crate::{
    credentials::CredentialSet,
    docker_config::{Base, BaseContent, creds_store, merge},
    failure::Warning,
    fs::{
        atomic_file::{Cause, FileError, Operation, Target, directory_of, expected_group},
        directory::Directory,
    },
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DryRun {
    pub exists: bool,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub warnings: Vec<Warning>,
}

impl DockerConfigFile {
    /// Nothing is changed. Blocks on the file system.
    pub(crate) fn dry_run(&self, base: Option<BaseContent>) -> Result<DryRun, DockerConfigError> {
        self.check_path()?;
        let path = &self.settings.path;
        let here = match Target::open(path) {
            Ok(here) => Some(here),
            Err(error) if error.cause == Cause::Missing => None,
            Err(error) => return Err(error.into()),
        };
        let behind = here.as_ref().and_then(Target::behind_link);
        let target = behind.as_ref().or(here.as_ref());
        let operation = if here.is_some() { Operation::CreateTemp } else { Operation::CreateDirectory };
        let failed = |error: io::Error| FileError::new(operation, path, error);
        let missing;
        let existing = match target {
            Some(target) => &target.directory,
            None => {
                let place = directory_of(path).ancestors().find(|place| place.exists());
                missing = Directory::open(place.unwrap_or(Path::new("."))).map_err(failed)?;
                &missing
            }
        };
        let errno = |error: Errno| failed(error.into());
        accessat(existing, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty()).map_err(errno)?;
        if is_full(&fstatvfs(existing).map_err(errno)?) {
            return Err(FileError::new(Operation::Write, path, Errno::NOSPC.into()).into());
        }
        let content = base;
        let mut base = self.base.clone();
        let warning = base.as_mut().zip(content).and_then(|(base, content)| base.take(content));
        let mut warnings: Vec<_> = warning.into_iter().collect();
        let found = target.map_or(Ok(Found::Absent), read)?;
        warnings.extend(warnings_of(&found, base.as_ref()));
        Ok(DryRun {
            exists: !matches!(found, Found::Absent),
            uid: rustix::process::geteuid().as_raw(),
            gid: expected_group(existing, self.settings.group)?,
            mode: self.settings.mode.bits(),
            warnings,
        })
    }
}

/// File systems without such limits report zero of zero.
fn is_full(volume: &StatVfs) -> bool {
    (volume.f_blocks > 0 && volume.f_bavail == 0) || (volume.f_files > 0 && volume.f_favail == 0)
}

fn warnings_of(found: &Found, base: Option<&Base>) -> Vec<Warning> {
    match found {
        Found::Absent => Vec::new(),
        Found::Unfit(unfit) => vec![warning::would_be_set_aside(unfit)],
        Found::Other(what) => vec![warning::would_be_replaced(what)],
        Found::Config(..) => {
            let existing = found.document();
            let store = creds_store(&existing.top);
            let desired = CredentialSet::default();
            let merged = merge(existing, base, &desired);
            store.into_iter().chain(merged.warnings).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;
    use crate::output::file::DockerConfigSettings;

    fn dry_run(path: &Path) -> Result<DryRun, DockerConfigError> {
        let mode = "0640".parse().unwrap();
        DockerConfigFile::new(DockerConfigSettings { path: path.to_owned(), mode, group: None, base: None })
            .dry_run(None)
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("not/yet/config.json");
        let seen = dry_run(&path).unwrap();
        assert!(!seen.exists && seen.warnings.is_empty(), "{seen:?}");
        assert_eq!((seen.mode, seen.uid), (0o640, fs::metadata(folder.path()).unwrap().uid()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_unusable_file_is_reported_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        io::Write::write_all(&mut fs::File::create(&path).unwrap(), b"{torn").unwrap();
        let seen = dry_run(&path).unwrap();
        assert!(seen.exists && seen.warnings[0].message.starts_with("it would be set aside"), "{seen:?}");
        assert_eq!(fs::read(&path).unwrap(), b"{torn");
    }

    #[test]
    fn a_directory_in_the_place_of_the_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("x")).unwrap();
        assert!(matches!(dry_run(folder.path()), Err(DockerConfigError::IsADirectory { .. })));
    }
}
