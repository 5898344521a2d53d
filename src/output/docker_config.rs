//! A docker `config.json`, kept current for those who read it.
//!
//! [`DockerConfigFile::reconcile`] compares what is desired with what is there, and replaces the file when they
//! differ in bytes, mode or group. What the file should say is decided in `merge`; how it is replaced, in
//! [`atomic_file`](super::atomic_file).
//!
//! Invariants:
//! * who is started again knows when the credentials end that it finds: `a_successor_knows_the_credentials_it_finds`
//! * nothing is written when nothing differs: `what_is_right_is_not_written`
//! * [`Report::in_place`] is what a reader of the file finds, whatever failed: `a_failed_write_reports_what_is_still_there`
//! * a file that cannot be used is set aside, never lost: `an_unusable_file_is_set_aside`
//! * a base that cannot be read never holds up our credentials: `a_broken_base_keeps_its_last_entries`
//! * a path that can never be replaced is refused at the start: `a_bind_mounted_file_is_refused`, `a_directory_is_refused`
//!
//! It blocks on the file system: call it from a thread that may wait.

pub(in crate::output) mod document;
mod error;
mod examine;
pub mod find;
mod memory;
pub(in crate::output) mod merge;
mod mount;
pub(in crate::output) mod read;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

pub use super::atomic_file::{FileMode, FileModeError};
pub use error::{BadAuth, DockerConfigError, Unfit, Warning};
pub use examine::Examination;

use self::{
    document::Document,
    memory::Memory,
    merge::{BaseKeys, merge},
    read::{Base, Found, read},
};
use super::atomic_file::{
    FileError, Operation, Replaced, Replacement, Version, directory_of, expected_group, remove_stale,
};
use crate::{credentials::CredentialSet, registry::RegistryHost, token::Token};

/// Where the file is and how it has to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerConfigSettings {
    /// The file that consumers read. A symbolic link stays: what it leads to is replaced.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: FileMode,
    /// Its group; without one, that of a setgid directory, else the process's own.
    pub group: Option<u32>,
    /// A docker config whose entries and unknown keys are carried along, over those of the file.
    pub base: Option<PathBuf>,
}

/// One docker `config.json`: its settings, and what this process knows to have written.
#[derive(Debug)]
pub struct DockerConfigFile {
    settings: DockerConfigSettings,
    base: Option<Base>,
    /// The token of each host that this process last put into the file, or found there.
    known: BTreeMap<RegistryHost, Arc<Token>>,
    /// What the process before this one knew; none until the file is first looked at.
    memory: Option<Memory>,
    /// Mode and group that the file system shows, whatever is set.
    imposed: Option<(u32, u32)>,
    /// Temporary files may lie about.
    untidy: bool,
}

impl DockerConfigFile {
    /// Takes charge of the file; nothing is read or written yet.
    pub fn new(settings: DockerConfigSettings) -> Self {
        let base = settings.base.clone().map(Base::new);
        Self { settings, base, known: BTreeMap::new(), memory: None, imposed: None, untidy: true }
    }

    /// Refuses a path on which the file can never be replaced.
    ///
    /// What may heal by itself (a missing directory, missing rights, a full disk) is left to [`Self::reconcile`].
    pub fn preflight(&self) -> Result<(), DockerConfigError> {
        let _ = fs::create_dir_all(directory_of(&self.settings.path));
        self.refuse_hopeless()
    }

    fn refuse_hopeless(&self) -> Result<(), DockerConfigError> {
        let path = &self.settings.path;
        let Some(name) = path.file_name() else {
            return Err(DockerConfigError::NoFileName { path: path.clone() });
        };
        if let Ok(metadata) = fs::metadata(path) {
            if metadata.is_dir() {
                return Err(DockerConfigError::IsADirectory { path: path.clone() });
            }
            if !metadata.is_file() {
                return Err(DockerConfigError::NotAFile { path: path.clone() });
            }
        }
        let by_directory = fs::canonicalize(directory_of(path)).map(|directory| directory.join(name));
        for real in [by_directory, fs::canonicalize(path)].into_iter().flatten() {
            if mount::is_mount_point(&real) {
                return Err(DockerConfigError::SingleFileMount { path: path.clone() });
            }
        }
        Ok(())
    }

    /// Brings the file to what is desired, if it is not there already. Blocks on the file system.
    pub fn reconcile(&mut self, desired: &CredentialSet) -> Report {
        let mut warnings: Vec<_> = self.base.as_mut().and_then(Base::refresh).into_iter().collect();
        warnings.extend(self.only_ours());
        let (result, in_place) = match self.bring_about(desired, &mut warnings) {
            Ok((written, left_as_it_was)) => {
                self.known = left_as_it_was;
                self.known.extend(desired.current.clone());
                self.base.iter_mut().for_each(Base::note_supplied);
                (Ok(written), expiries(&self.known))
            }
            Err(failure) => {
                let in_place = expiries(&failure.in_place);
                self.known.extend(failure.in_place);
                (Err(failure.error), in_place)
            }
        };
        self.untidy = result.is_err();
        Report { in_place, warnings, result }
    }

    /// The files whose change calls for another [`Self::reconcile`].
    pub fn watched(&self) -> Vec<PathBuf> {
        std::iter::once(&self.settings.path).chain(&self.settings.base).cloned().collect()
    }

    fn bring_about(
        &mut self,
        desired: &CredentialSet,
        warnings: &mut Vec<Warning>,
    ) -> Result<(Written, BTreeMap<RegistryHost, Arc<Token>>), Failure> {
        let target = follow(&self.settings.path)?;
        if self.untidy {
            // Whatever stays in the way of tidying stays in the way of writing, and is told there.
            let _ = remove_stale(&target);
            Memory::tidy(&target);
        }
        let mut in_place = BTreeMap::new();
        for _ in 0..TRIES {
            let seen = Version::at(&target)?;
            let found = read(&target)?;
            self.recall(&target, &found);
            match self.attempt(&target, seen, &found, desired) {
                Ok(Attempt::Over(written, said)) => {
                    warnings.extend(said);
                    let mut left_as_it_was = self.in_place(&found, desired);
                    left_as_it_was.retain(|host, _| {
                        !desired.current.contains_key(host) && !desired.retired.contains(host)
                    });
                    return Ok((written, left_as_it_was));
                }
                Ok(Attempt::Again) => in_place = self.in_place(&found, desired),
                Err(error) => return Err(Failure { error, in_place: self.in_place(&found, desired) }),
            }
        }
        let error = DockerConfigError::Contended { path: self.settings.path.clone(), tries: TRIES };
        Err(Failure { error, in_place })
    }

    /// One merge with what was found, written if it differs.
    fn attempt(
        &mut self,
        target: &Path,
        seen: Option<Version>,
        found: &Found,
        desired: &CredentialSet,
    ) -> Result<Attempt, DockerConfigError> {
        let (existing, unfit) = match found {
            Found::Absent => (Document::default(), None),
            Found::Unfit(unfit) => (Document::default(), Some(unfit.clone())),
            Found::Text(text, _) => match Document::parse(text) {
                Ok(document) => (document, None),
                Err(unfit) => (Document::default(), Some(unfit)),
            },
        };
        let nothing = BaseKeys::default();
        let supplied = self.base.as_ref().map_or(&nothing, Base::supplied);
        let mut merged = merge(existing, self.base.as_ref().and_then(Base::document), supplied, desired);
        let mut warnings = std::mem::take(&mut merged.warnings);
        if !merged.ours {
            return Ok(Attempt::Over(Written::Unchanged, warnings));
        }
        let directory = directory_of(target);
        if matches!(found, Found::Absent) {
            fs::create_dir_all(directory)
                .map_err(|error| FileError::new(Operation::CreateDirectory, directory, error))?;
        }
        let group = expected_group(directory, self.settings.group)?;
        if let Found::Text(text, metadata) = found
            && self.looks_right(metadata, group)
            && unfit.is_none()
            && merged.is(text)
        {
            return Ok(Attempt::Over(Written::Unchanged, warnings));
        }

        if let Some(memory) = &mut self.memory {
            let readers = (self.settings.mode, group);
            memory.keep(target, readers, self.known.values().chain(desired.current.values()));
        }
        let aside = unfit.is_some().then(|| aside_of(target));
        let mode = self.settings.mode;
        let replacement = Replacement { target, mode, group, seen, set_aside: aside.as_deref() };
        let Replaced::Done { metadata, unsynced } = replacement.run(|out| merged.write_to(out))? else {
            return Ok(Attempt::Again);
        };
        if let (Some(reason), Some(aside)) = (unfit, aside) {
            warnings.push(Warning::SetAside { path: self.settings.path.clone(), aside, reason });
        }
        if let Some(error) = unsynced {
            warnings.push(Warning::NotSynced { path: self.settings.path.clone(), error: error.kind() });
        }
        warnings.extend(self.look_again(target, metadata.ino(), group));
        Ok(Attempt::Over(Written::Changed, warnings))
    }

    /// A mode for the owner alone: a consumer of another user goes without credentials, and may not say so.
    fn only_ours(&self) -> Option<Warning> {
        let DockerConfigSettings { path, mode, .. } = &self.settings;
        let uid = rustix::process::geteuid().as_raw();
        (mode.bits() & 0o044 == 0).then(|| Warning::OnlyOurs { path: path.clone(), mode: *mode, uid })
    }

    fn looks_right(&self, metadata: &fs::Metadata, group: u32) -> bool {
        let shown = shown_by(metadata);
        shown == (self.settings.mode.bits(), group) || Some(shown) == self.imposed
    }

    /// Learns what the file system makes of mode and group, lest the same file be written for ever.
    fn look_again(&mut self, target: &Path, inode: u64, group: u32) -> Option<Warning> {
        let shown =
            fs::symlink_metadata(target).ok().filter(|now| now.ino() == inode).as_ref().map(shown_by)?;
        let mode = self.settings.mode;
        self.imposed = (shown != (mode.bits(), group)).then_some(shown);
        let (found, found_group) = self.imposed?;
        Some(Warning::ModeNotKept {
            path: self.settings.path.clone(),
            wanted: mode,
            wanted_group: group,
            found: format!("{found:04o}"),
            found_group,
        })
    }

    /// At the first look: which of the tokens in the file are known from the process before this one.
    fn recall(&mut self, target: &Path, found: &Found) {
        if self.memory.is_some() {
            return;
        }
        let memory = Memory::load(target);
        if let Found::Text(text, _) = found
            && let Ok(document) = Document::parse(text)
        {
            self.known = memory.recall(&document);
        }
        self.memory = Some(memory);
    }

    /// The tokens that a reader of what was found gets, as far as they are ours.
    fn in_place(&self, found: &Found, desired: &CredentialSet) -> BTreeMap<RegistryHost, Arc<Token>> {
        let Found::Text(text, _) = found else { return BTreeMap::new() };
        let Ok(document) = Document::parse(text) else { return BTreeMap::new() };
        let mut in_place = BTreeMap::new();
        for (host, token) in self.known.iter().chain(&desired.current) {
            if document.auth_of(host.as_str()).is_some_and(|auth| auth == token.auth.expose().as_str()) {
                in_place.insert(host.clone(), Arc::clone(token));
            }
        }
        in_place
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

/// How often a file that others keep changing is merged anew before the next retry is left to the caller.
const TRIES: usize = 5;

enum Attempt {
    Over(Written, Vec<Warning>),
    Again,
}

struct Failure {
    error: DockerConfigError,
    in_place: BTreeMap<RegistryHost, Arc<Token>>,
}

/// An error before the file was read: what is in it is not known, and so not counted.
impl<E: Into<DockerConfigError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), in_place: BTreeMap::new() }
    }
}

fn expiries(tokens: &BTreeMap<RegistryHost, Arc<Token>>) -> BTreeMap<RegistryHost, SystemTime> {
    tokens.iter().map(|(host, token)| (host.clone(), token.expires_at)).collect()
}

/// Where the path leads: through symbolic links, unless they lead to nothing.
fn follow(path: &Path) -> Result<PathBuf, FileError> {
    if !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) {
        return Ok(path.to_owned());
    }
    match fs::canonicalize(path) {
        Ok(target) => Ok(target),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        Err(error) => Err(FileError::new(Operation::Look, path, error)),
    }
}

/// `config.json.invalid` beside `config.json`.
fn aside_of(target: &Path) -> PathBuf {
    let mut aside = OsString::from(target);
    aside.push(".invalid");
    aside.into()
}

/// Permission bits and group.
fn shown_by(metadata: &fs::Metadata) -> (u32, u32) {
    (metadata.mode() & 0o7777, metadata.gid())
}

#[cfg(test)]
mod tests;
