//! Reading a docker config: what is there, and whether it can be used.

use std::{
    fs::{Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{
    document::{Document, Unfit},
    error::{DockerConfigError, Warning},
    merge::BaseKeys,
};
use crate::output::atomic_file::{FileError, Operation};

/// More than this is no docker config.
pub(super) const LARGEST: u64 = 8 << 20;

/// What was found at a path.
pub(super) enum Found {
    /// No file.
    Absent,
    /// A file of text; it need not be a docker config.
    Text(Zeroizing<String>, Metadata),
    /// A file that cannot be used.
    Unfit(Unfit),
}

/// Reads the file, following symbolic links.
pub(super) fn read(path: &Path) -> Result<Found, DockerConfigError> {
    let failed = |operation| move |error| FileError::new(operation, path, error);
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) => return Err(failed(Operation::Look)(error).into()),
    };
    if metadata.is_dir() {
        return Err(DockerConfigError::IsADirectory { path: path.to_owned() });
    }
    if !metadata.is_file() {
        return Err(DockerConfigError::NotAFile { path: path.to_owned() });
    }
    // Should a pipe have taken its place, opening it must not wait for a writer.
    let options =
        OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).to_owned();
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let uid = rustix::process::geteuid().as_raw();
            return Ok(Found::Unfit(Unfit::NoPermission { uid }));
        }
        Err(error) => return Err(failed(Operation::Read)(error).into()),
    };
    let metadata = file.metadata().map_err(failed(Operation::Look))?;
    let capacity = usize::try_from(metadata.len().min(LARGEST)).unwrap_or(0) + 1;
    let mut bytes = Vec::with_capacity(capacity);
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed(Operation::Read))?;
    if bytes.len() as u64 > LARGEST {
        return Ok(Found::Unfit(Unfit::TooLarge { limit: LARGEST }));
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Found::Text(Zeroizing::new(text), metadata),
        Err(_) => Found::Unfit(Unfit::NotText),
    })
}

/// The file whose entries are carried along, as it was when it could be read last.
#[derive(Debug, Clone)]
pub(in crate::output) struct Base {
    path: PathBuf,
    text: Option<Zeroizing<String>>,
    /// The keys that it has supplied to the output and that may still be there.
    supplied: BaseKeys,
}

impl Base {
    pub(in crate::output) fn new(path: PathBuf) -> Self {
        Self { path, text: None, supplied: BaseKeys::default() }
    }

    /// Reads it anew; when it is not usable, what it said last still stands.
    pub(in crate::output) fn refresh(&mut self) -> Option<Warning> {
        let reason = match read(&self.path) {
            Ok(Found::Text(text, _)) => match Document::parse(&text) {
                Ok(_) => {
                    self.text = Some(text);
                    return None;
                }
                Err(unfit) => unfit.to_string(),
            },
            Ok(Found::Unfit(unfit)) => unfit.to_string(),
            Ok(Found::Absent) => "it does not exist".to_owned(),
            Err(error) => error.to_string(),
        };
        Some(Warning::Base { path: self.path.clone(), reason })
    }

    /// What it said last.
    pub(in crate::output) fn document(&self) -> Option<Document<'_>> {
        Document::parse(self.text.as_deref()?).ok()
    }

    /// The keys that it has supplied up to now.
    pub(in crate::output) fn supplied(&self) -> &BaseKeys {
        &self.supplied
    }

    /// Notes that the output now has what it said last, and nothing more of what it said before.
    pub(in crate::output) fn note_supplied(&mut self) {
        if let Some(keys) = self.document().map(|base| BaseKeys::of(&base)) {
            self.supplied = keys;
        }
    }
}
