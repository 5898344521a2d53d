//! What would become of the file if it were written now, found out without writing.

use std::{io, path::Path};

use rustix::{
    fs::{Access, StatVfs, access, statvfs},
    io::Errno,
};

use super::{
    DockerConfigError, DockerConfigFile,
    document::Document,
    follow,
    merge::{BaseKeys, creds_store, merge},
    read::{Base, Found, read},
};
use crate::{
    credentials::CredentialSet,
    output::atomic_file::{FileError, Operation, directory_of, expected_group},
};

/// What the file would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// Whether there is one already.
    pub exists: bool,
    /// Its owner: this process.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// What consumers may stumble over.
    pub warnings: Vec<String>,
}

impl DockerConfigFile {
    /// Looks whether the file could be written now, and what it would be. Nothing is changed. Blocks on the file
    /// system.
    pub fn examine(&self) -> Result<Examination, DockerConfigError> {
        self.refuse_hopeless()?;
        let target = follow(&self.settings.path)?;
        let directory = directory_of(&target);
        let existing = directory.ancestors().find(|place| place.exists()).unwrap_or(Path::new("."));
        let operation =
            if existing == directory { Operation::CreateTemp } else { Operation::CreateDirectory };
        let failed = |error: Errno| FileError::new(operation, &target, error.into());
        access(existing, Access::WRITE_OK | Access::EXEC_OK).map_err(failed)?;
        if is_full(&statvfs(existing).map_err(failed)?) {
            return Err(FileError::new(Operation::Write, &target, io::Error::from(Errno::NOSPC)).into());
        }
        let mut base = self.settings.base.clone().map(Base::new);
        let mut warnings: Vec<_> =
            base.as_mut().and_then(Base::refresh).iter().map(ToString::to_string).collect();
        let found = read(&target)?;
        warnings.extend(flaws(&found, base.as_ref()));
        Ok(Examination {
            exists: !matches!(found, Found::Absent),
            uid: rustix::process::geteuid().as_raw(),
            gid: expected_group(existing, self.settings.group)?,
            mode: self.settings.mode.bits(),
            warnings,
        })
    }
}

/// File systems without such limits say zero of zero.
fn is_full(volume: &StatVfs) -> bool {
    (volume.f_blocks > 0 && volume.f_bavail == 0) || (volume.f_files > 0 && volume.f_favail == 0)
}

/// What is wrong with what is there.
fn flaws(found: &Found, base: Option<&Base>) -> Vec<String> {
    let text = match found {
        Found::Absent => return Vec::new(),
        Found::Unfit(unfit) => return vec![format!("it would be set aside: {unfit}")],
        Found::Text(text, _) => text,
    };
    match Document::parse(text) {
        Err(unfit) => vec![format!("it would be set aside: {unfit}")],
        Ok(existing) => {
            let nothing = BaseKeys::default();
            let store = creds_store(&existing.top);
            let desired = CredentialSet::default();
            let merged = merge(existing, base.and_then(Base::document), &nothing, &desired);
            store.iter().chain(&merged.warnings).map(ToString::to_string).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;
    use crate::output::docker_config::DockerConfigSettings;

    fn examine(path: &Path) -> Result<Examination, DockerConfigError> {
        let mode = "0640".parse().unwrap();
        DockerConfigFile::new(DockerConfigSettings { path: path.to_owned(), mode, group: None, base: None })
            .examine()
    }

    #[test]
    fn looking_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("not/yet/config.json");
        let seen = examine(&path).unwrap();
        assert!(!seen.exists && seen.warnings.is_empty(), "{seen:?}");
        assert_eq!((seen.mode, seen.uid), (0o640, fs::metadata(folder.path()).unwrap().uid()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_no_one_can_read_is_told_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        io::Write::write_all(&mut fs::File::create(&path).unwrap(), b"{torn").unwrap();
        let seen = examine(&path).unwrap();
        assert!(seen.exists && seen.warnings[0].starts_with("it would be set aside"), "{seen:?}");
        assert_eq!(fs::read(&path).unwrap(), b"{torn");
    }

    #[test]
    fn a_directory_in_the_place_of_the_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(examine(folder.path()), Err(DockerConfigError::IsADirectory { .. })));
    }
}
