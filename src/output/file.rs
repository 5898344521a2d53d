//! A docker `config.json`, kept current for those who read it.
//!
//! [`DockerConfigFile::reconcile`] compares what is desired with what is there, and replaces the file when they
//! differ in bytes, mode or group. What the file should contain is decided in [`docker_config`](crate::docker_config); how it is replaced,
//! in [`atomic_file`](crate::fs::atomic_file).
//!
//! Invariants:
//! * after a restart it is known when the credentials in the file expire: `a_successor_knows_the_credentials_it_finds`
//! * nothing is written when nothing differs: `what_is_right_is_not_written`
//! * [`Report::in_place`] is what a reader of the file finds, whatever failed: `a_failed_write_reports_what_is_still_there`
//! * a file that cannot be used is set aside, never lost: `an_unusable_file_is_set_aside`
//! * nothing is done to what a link of another user leads to: `a_link_of_another_user_is_replaced`
//! * what is no file is replaced, with a warning: `what_is_no_file_is_replaced`
//! * a base that cannot be read never holds up our credentials: `a_broken_base_keeps_its_last_entries`,
//!   `a_base_that_hangs_keeps_no_credential_out_of_the_file`
//! * a path that can never be replaced is rejected at the start: `a_bind_mounted_file_is_rejected`, `a_directory_is_rejected`
//!
//! It blocks on the file system: call it from a thread that may wait.

mod check_path;
mod dry_run;
mod error;
mod expiry_store;
pub(crate) mod lookup;
mod mount;
mod read;
pub(super) mod reconciler;
mod warning;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub(crate) use crate::fs::atomic_file::FileMode;
pub(crate) use dry_run::DryRun;
pub(crate) use error::DockerConfigError;

use self::{
    expiry_store::ExpiryStore,
    read::{Found, read},
};
use crate::{
    aws::token::Token,
    credentials::CredentialSet,
    docker_config::{Base, BaseContent, merge},
    failure::Warning,
    fs::{
        atomic_file::{
            Cause, FileError, Replaced, Replacement, Target, expected_group, made_here, remove_stale,
        },
        version::Version,
    },
    registry::RegistryHost,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerConfigSettings {
    /// The file that consumers read. A symbolic link to a docker config stays, and that file is replaced, if the link
    /// belongs to root or to this process's user and no other user may write to its directory; another link is replaced.
    pub path: PathBuf,
    pub mode: FileMode,
    /// Its group; without one, that of a setgid directory, else the process's own.
    pub group: Option<u32>,
    /// A docker config whose entries and unknown keys are carried along, over those of the file.
    pub base: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct DockerConfigFile {
    settings: DockerConfigSettings,
    base: Option<Base>,
    /// The token of each host that this process last put into the file, or found there.
    known: BTreeMap<RegistryHost, Arc<Token>>,
    /// What the process before this one knew; none before the first reconciliation.
    expiry_store: Option<ExpiryStore>,
    /// Mode and group that the file system shows, whatever is set.
    imposed: Option<(u32, u32)>,
    /// Temporary files may be left over.
    untidy: bool,
    /// The state that the file was left in.
    left: Option<Version>,
    /// Another process has changed it since.
    drifted: bool,
}

impl DockerConfigFile {
    pub(crate) fn new(settings: DockerConfigSettings) -> Self {
        let base = settings.base.clone().map(Base::new);
        Self {
            settings,
            base,
            known: BTreeMap::new(),
            expiry_store: None,
            imposed: None,
            untidy: true,
            left: None,
            drifted: false,
        }
    }

    /// What its base contains now, if it has one: on a volume of its own, which may hang.
    pub(crate) async fn read_base(&self, limit: Duration) -> Option<BaseContent> {
        match &self.base {
            Some(base) => Some(base.read(limit).await),
            None => None,
        }
    }

    /// Makes the file as desired, if it is not already. Blocks on the file system.
    pub(crate) fn reconcile(
        &mut self,
        base: Option<BaseContent>,
        desired: &CredentialSet,
        now: SystemTime,
    ) -> Report {
        let warning = self.base.as_mut().zip(base).and_then(|(base, content)| base.take(content));
        let mut warnings: Vec<_> = warning.into_iter().collect();
        warnings.extend(self.only_ours());
        let mut tokens = BTreeMap::new();
        let result = self.apply(desired, now, &mut tokens, &mut warnings);
        let found = expiries(&tokens, desired);
        if result.is_ok() {
            tokens.retain(|host, _| !desired.retired.contains(host));
            tokens.extend(desired.current.clone());
            self.known.clear();
            self.base.iter_mut().for_each(Base::note_supplied);
        }
        let in_place = expiries(&tokens, desired);
        self.known.extend(tokens);
        self.untidy = result.is_err();
        let drifted = std::mem::take(&mut self.drifted);
        Report { found, in_place, warnings, drifted, result }
    }

    /// The file, and those whose change calls for another [`Self::reconcile`].
    pub(crate) fn watched(&self) -> (PathBuf, Vec<PathBuf>) {
        (self.settings.path.clone(), self.settings.base.iter().cloned().collect())
    }

    /// Puts into `in_place` which tokens were there before, as far as the file could be read.
    fn apply(
        &mut self,
        desired: &CredentialSet,
        now: SystemTime,
        in_place: &mut BTreeMap<RegistryHost, Arc<Token>>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Written, DockerConfigError> {
        let path = self.settings.path.clone();
        let here = match Target::open(&path) {
            Err(error) if error.cause == Cause::Missing => {
                if desired.current.is_empty() && self.base.as_ref().and_then(Base::document).is_none() {
                    return Ok(Written::Unchanged);
                }
                Target::create(&path)?
            }
            opened => opened?,
        };
        let behind = here.behind_link();
        if self.untidy {
            let target = behind.as_ref().unwrap_or(&here);
            // What keeps it from being removed keeps the file from being written, and is reported then.
            let _ = remove_stale(target);
            ExpiryStore::tidy(target);
        }
        for _ in 0..TRIES {
            in_place.clear();
            let (target, seen, found) = inspect(&here, behind.as_ref())?;
            self.recall(target, &found, now);
            self.drifted |= self.left.is_some() && seen != self.left;
            *in_place = self.in_place(&found, desired);
            if let Some((written, more)) = self.attempt(target, seen, &found, desired)? {
                warnings.extend(more);
                return Ok(written);
            }
        }
        Err(DockerConfigError::Contended { path, tries: TRIES })
    }

    /// One merge with what was found, written if it differs. `None` if another process has changed the file meanwhile.
    fn attempt(
        &mut self,
        target: &Target,
        seen: Option<Version>,
        found: &Found,
        desired: &CredentialSet,
    ) -> Result<Option<(Written, Vec<Warning>)>, DockerConfigError> {
        let mut merged = merge(found.document(), self.base.as_ref(), desired);
        let mut warnings = std::mem::take(&mut merged.warnings);
        if !merged.ours {
            return Ok(Some((Written::Unchanged, warnings)));
        }
        let group = expected_group(&target.directory, self.settings.group)?;
        let is_right = matches!(found, Found::Config(text, metadata)
            if self.has_expected_mode(metadata, group) && merged.is(text));
        let mode = self.settings.mode;
        // What could not be stored before is tried again.
        let tokens = || desired.current.values();
        if let Some(store) = self.expiry_store.as_mut().filter(|store| !is_right || !store.has(tokens())) {
            let kept = store.keep(target, (mode, group), self.known.values().chain(tokens()));
            warnings.extend(kept.err().as_ref().map(warning::expiries_not_stored));
        }
        if is_right {
            self.left = seen;
            return Ok(Some((Written::Unchanged, warnings)));
        }
        let set_aside = if let Found::Unfit(_) = found { names_aside(target) } else { Vec::new() };
        let replacement = Replacement { target, mode, group, seen, set_aside: &set_aside };
        let replaced = replacement.run(|out| merged.write_to(out)).map_err(|error| self.refine(error))?;
        let Replaced::Done { metadata, aside, unsynced } = replaced else { return Ok(None) };
        let (path, directory) = (&self.settings.path, target.directory.path());
        if let Found::Other(what) = found {
            warnings.push(warning::replaced(path, what));
        }
        if let (Found::Unfit(reason), Some(aside)) = (found, aside) {
            warnings.push(warning::set_aside(path, &directory.join(aside), reason));
        }
        warnings.extend(unsynced.map(|error| warning::not_synced(directory, error)));
        warnings.extend(self.recheck_mode(target, &metadata, group));
        Ok(Some((Written::Changed, warnings)))
    }

    /// A directory that is not empty cannot be replaced.
    fn refine(&self, error: FileError) -> DockerConfigError {
        match error.cause {
            Cause::IsADirectory if error.path.file_name() == self.settings.path.file_name() => {
                DockerConfigError::IsADirectory { path: self.settings.path.clone() }
            }
            _ => error.into(),
        }
    }

    /// A mode for the owner alone: a consumer that runs as another user gets no credentials, and may not report it.
    fn only_ours(&self) -> Option<Warning> {
        let DockerConfigSettings { path, mode, .. } = &self.settings;
        (mode.bits() & 0o044 == 0).then(|| warning::only_ours(path, *mode))
    }

    fn has_expected_mode(&self, metadata: &Metadata, group: u32) -> bool {
        let shown = shown_by(metadata);
        shown == (self.settings.mode.bits(), group) || Some(shown) == self.imposed
    }

    /// Notes what the file system shows for mode and group, lest the same file be written again and again. Only the
    /// metadata from before the rename count: afterwards another process may have changed them already.
    fn recheck_mode(&mut self, target: &Target, written: &Metadata, group: u32) -> Option<Warning> {
        let now = target.metadata().ok().flatten();
        // What another process has put there since counts as drift, since the version before the rename never recurs.
        let written_version = Version::of(written);
        let left = now.as_ref().map(Version::of).filter(|now| now.has_content_of(&written_version));
        self.left = Some(left.unwrap_or(written_version));
        let shown = shown_by(written);
        let mode = self.settings.mode;
        self.imposed = (shown != (mode.bits(), group)).then_some(shown);
        self.imposed.map(|found| warning::mode_not_kept(&self.settings.path, (mode, group), found))
    }

    /// At the first reconcile: which of the tokens in the file are known from the process before this one.
    fn recall(&mut self, target: &Target, found: &Found, now: SystemTime) {
        if self.expiry_store.is_some() {
            return;
        }
        let expiry_store = ExpiryStore::load(target, now, || made_here(target).ok());
        self.known = expiry_store.recall(&found.document());
        self.expiry_store = Some(expiry_store);
    }

    /// The tokens that a reader of what was found gets, as far as they are ours.
    fn in_place(&self, found: &Found, desired: &CredentialSet) -> BTreeMap<RegistryHost, Arc<Token>> {
        let document = found.document();
        let mut in_place = BTreeMap::new();
        for (host, token) in self.known.iter().chain(&desired.current) {
            if document.auth_of(host.as_str()).is_some_and(|auth| auth == token.auth.expose().as_str()) {
                in_place.insert(host.clone(), Arc::clone(token));
            }
        }
        in_place
    }
}

#[derive(Debug)]
pub(crate) struct Report {
    /// The registries for which a consumer found one of our tokens before, and when that expires.
    pub found: BTreeMap<RegistryHost, SystemTime>,
    /// The registries for which a consumer now finds one of our tokens in the file, and when that expires;
    /// true also when the write failed.
    pub in_place: BTreeMap<RegistryHost, SystemTime>,
    /// Whether the file was not in the state that this process had left it in.
    pub drifted: bool,
    pub warnings: Vec<Warning>,
    pub result: Result<Written, DockerConfigError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Changed,
    Unchanged,
}

/// How often a file that another process keeps changing is merged again before the retry is left to the caller.
const TRIES: usize = 5;

const LAST_NAME_ASIDE: u32 = 9;

/// Of the registries that are configured: what is left of another is not kept, and expires.
fn expiries(
    tokens: &BTreeMap<RegistryHost, Arc<Token>>,
    desired: &CredentialSet,
) -> BTreeMap<RegistryHost, SystemTime> {
    let configured = tokens.iter().filter(|(host, _)| desired.may_be_configured(host));
    configured.map(|(host, token)| (host.clone(), token.expires_at)).collect()
}

/// What is to be replaced, its state, and its content: the file behind a link that is followed, if it is a docker config.
/// Another file is not moved out of the way through a link: the link is replaced.
fn inspect<'a>(
    here: &'a Target,
    behind: Option<&'a Target>,
) -> Result<(&'a Target, Option<Version>, Found), DockerConfigError> {
    for target in behind.into_iter().chain([here]) {
        let seen = target.version()?;
        let found = read(target)?;
        if matches!(found, Found::Config(..)) || std::ptr::eq(target, here) {
            return Ok((target, seen, found));
        }
    }
    Ok((here, here.version()?, read(here)?))
}

/// For `config.json`: `config.json.invalid`, then `config.json.invalid.1`, and so on. Something that keeps the first
/// name, such as a directory with something in it, must not keep our credential out.
fn names_aside(target: &Target) -> Vec<OsString> {
    let name = |number| {
        let mut name = target.name.clone();
        name.push(".invalid");
        if number > 0 {
            name.push(format!(".{number}"));
        }
        name
    };
    (0..=LAST_NAME_ASIDE).map(name).collect()
}

fn shown_by(metadata: &Metadata) -> (u32, u32) {
    (metadata.mode() & 0o7777, metadata.gid())
}

#[cfg(test)]
mod tests;
