//! Reading a docker config: what is there, and whether it can be used.

use std::{
    fs::Metadata,
    io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use zeroize::Zeroizing;

use super::{
    document::{Document, Unfit},
    error::{DockerConfigError, Warning},
    merge::BaseKeys,
};
use crate::fs::{
    atomic_file::{FileError, Operation, Target},
    read::{ReadError, read_now, read_open},
};

/// More than this is no docker config.
pub(super) const LARGEST: usize = 8 << 20;

/// What was found under a name.
pub(super) enum Found {
    Absent,
    /// A file of text; it need not be a docker config.
    Text(Zeroizing<String>, Metadata),
    /// A file that cannot be used.
    Unfit(Unfit),
    /// Something without content that a file replaces.
    Other(&'static str),
}

impl Found {
    /// Whether it is a docker config.
    pub(super) fn is_usable(&self) -> bool {
        matches!(self, Self::Text(text, _) if Document::parse(text).is_ok())
    }
}

/// Reads what the target is, a symbolic link not followed.
pub(super) fn read(target: &Target) -> Result<Found, DockerConfigError> {
    let Some(metadata) = target.metadata()? else { return Ok(Found::Absent) };
    let kind = metadata.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        return Err(DockerConfigError::NotAFile { path: target.path() });
    }
    if let Some(other) = other(kind) {
        return Ok(Found::Other(other));
    }
    let failed = |error| FileError::new(Operation::Read, &target.path(), error);
    // It may have become another file since: each of these calls sees that for itself.
    let file = match target.directory.read(&target.name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(no_permission()),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => return Ok(Found::Other(LINK)),
        Err(error) => return Err(failed(error).into()),
    };
    let metadata = file.metadata().map_err(failed)?;
    match read_open(file, LARGEST) {
        Ok(mut content) => Ok(match String::from_utf8(std::mem::take(&mut *content)) {
            Ok(text) => Found::Text(Zeroizing::new(text), metadata),
            Err(_) => Found::Unfit(Unfit::NotText),
        }),
        Err(ReadError::TooLarge { limit }) => Ok(Found::Unfit(Unfit::TooLarge { limit: limit as u64 })),
        Err(ReadError::Io(error)) => Err(failed(error).into()),
        Err(_) => Ok(Found::Other(other(metadata.file_type()).unwrap_or("no regular file"))),
    }
}

const LINK: &str = "a symbolic link that is not followed";

fn other(kind: std::fs::FileType) -> Option<&'static str> {
    match () {
        () if kind.is_symlink() => Some(LINK),
        () if kind.is_fifo() => Some("a FIFO"),
        () if kind.is_socket() => Some("a socket"),
        () if kind.is_dir() => Some("an empty directory"), // another one cannot be replaced
        () => None,
    }
}

fn no_permission() -> Found {
    Found::Unfit(Unfit::NoPermission { uid: rustix::process::geteuid().as_raw() })
}

/// A docker config that is an input: links to it are followed, as kubelet makes them.
fn read_input(path: &Path) -> Result<Zeroizing<String>, String> {
    match read_now(path, LARGEST) {
        Ok(mut content) => String::from_utf8(std::mem::take(&mut *content))
            .map(Zeroizing::new)
            .map_err(|_| Unfit::NotText.to_string()),
        Err(error) if error.is_not_found() => Err("it does not exist".to_owned()),
        Err(ReadError::TooLarge { limit }) => Err(Unfit::TooLarge { limit: limit as u64 }.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// The file whose entries are carried along, as it was when it could be read last.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    path: PathBuf,
    text: Option<Zeroizing<String>>,
    /// The keys that it has supplied to the output and that may still be there.
    supplied: BaseKeys,
}

impl Base {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, text: None, supplied: BaseKeys::default() }
    }

    /// Reads it again; when it is not usable, what it said last still stands.
    pub(crate) fn refresh(&mut self) -> Option<Warning> {
        let reason = match read_input(&self.path) {
            Ok(text) => match Document::parse(&text) {
                Ok(_) => {
                    self.text = Some(text);
                    return None;
                }
                Err(unfit) => unfit.to_string(),
            },
            Err(reason) => reason,
        };
        Some(Warning::Base { path: self.path.clone(), reason })
    }

    pub(crate) fn document(&self) -> Option<Document<'_>> {
        Document::parse(self.text.as_deref()?).ok()
    }

    /// The keys that it has supplied up to now.
    pub(crate) fn supplied(&self) -> &BaseKeys {
        &self.supplied
    }

    /// Notes that the output now has what it said last, and nothing more of what it said before.
    pub(crate) fn note_supplied(&mut self) {
        if let Some(keys) = self.document().map(|base| BaseKeys::of(&base)) {
            self.supplied = keys;
        }
    }
}
