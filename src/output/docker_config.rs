//! A docker `config.json`, kept current for those who read it.

mod error;

use std::{collections::BTreeMap, path::PathBuf, time::SystemTime};

pub use super::atomic_file::{FileMode, FileModeError};
pub use error::{DockerConfigError, Warning};

use crate::{credentials::CredentialSet, registry::RegistryHost};

/// Where the file is and how it has to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerConfigSettings {
    /// The file that consumers read.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: FileMode,
    /// Its group; without one, that of a setgid directory, else the process's own.
    pub group: Option<u32>,
    /// A docker config whose entries are carried along.
    pub base: Option<PathBuf>,
}

/// One docker `config.json`: its settings, and what this process knows to have written.
#[derive(Debug)]
pub struct DockerConfigFile {
    settings: DockerConfigSettings,
}

impl DockerConfigFile {
    /// Takes charge of the file; nothing is read or written yet.
    pub fn new(settings: DockerConfigSettings) -> Self {
        Self { settings }
    }

    /// Refuses a path on which the file can never be replaced.
    ///
    /// What may heal by itself (a missing directory, a full disk) is left to [`Self::reconcile`].
    pub fn preflight(&self) -> Result<(), DockerConfigError> {
        Ok(())
    }

    /// Brings the file to what is desired, if it is not there already. Blocks on the file system.
    pub fn reconcile(&mut self, desired: &CredentialSet) -> Report {
        let _ = desired;
        Report { in_place: BTreeMap::new(), warnings: Vec::new(), result: Ok(Written::Unchanged) }
    }

    /// The files whose change calls for another [`Self::reconcile`].
    pub fn watched(&self) -> Vec<PathBuf> {
        std::iter::once(&self.settings.path).chain(&self.settings.base).cloned().collect()
    }
}

/// What one [`DockerConfigFile::reconcile`] found and did.
#[derive(Debug)]
pub struct Report {
    /// The registries for which a consumer now finds one of our tokens in the file, and when that ends;
    /// true also when the write failed.
    pub in_place: BTreeMap<RegistryHost, SystemTime>,
    /// What to tell the user beside success or failure.
    pub warnings: Vec<Warning>,
    /// Whether the file now is as desired.
    pub result: Result<Written, DockerConfigError>,
}

/// What a successful reconcile did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The file was replaced.
    Changed,
    /// The file was right already.
    Unchanged,
}
