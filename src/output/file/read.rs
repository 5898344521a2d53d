//! Reading a docker config: what is there, and whether it can be used.

use std::{fs::Metadata, io, os::unix::fs::FileTypeExt};

use rustix::io::Errno;
use zeroize::Zeroizing;

use super::error::DockerConfigError;
use crate::{
    docker_config::{Document, LARGEST, Unfit, entry_of},
    fs::{
        atomic_file::{FileError, Operation, Target},
        read::{ReadError, read_open},
    },
};

pub(super) enum Found {
    Absent,
    Config(Zeroizing<String>, Metadata),
    /// A file that is no docker config, or cannot be read.
    Unfit(Unfit),
    /// Something without content that a file replaces.
    Other(&'static str),
}

impl Found {
    pub(super) fn document(&self) -> Document<'_> {
        match self {
            Self::Config(text, _) => Document::parse(text).unwrap_or_default(),
            Self::Absent | Self::Unfit(_) | Self::Other(_) => Document::default(),
        }
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
    // It may have become another file since: each of these calls notices that.
    let file = match target.directory.read(&target.name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let uid = rustix::process::geteuid().as_raw();
            return Ok(Found::Unfit(Unfit::NoPermission { uid }));
        }
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => return Ok(Found::Other(LINK)),
        Err(error) => return Err(failed(error).into()),
    };
    let metadata = file.metadata().map_err(failed)?;
    match read_open(file, LARGEST) {
        Ok(mut content) => {
            let Ok(text) = String::from_utf8(std::mem::take(&mut *content)) else {
                return Ok(Found::Unfit(Unfit::NotText));
            };
            let text = Zeroizing::new(text);
            let unfit = entry_of(&text, "").err();
            Ok(unfit.map_or_else(|| Found::Config(text, metadata), Found::Unfit))
        }
        Err(ReadError::TooLarge { limit }) => Ok(Found::Unfit(Unfit::TooLarge { limit })),
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
