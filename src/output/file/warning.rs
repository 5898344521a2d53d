//! What the user should know of the file, each with its sentence; no value is ever shown.

use std::{io, path::Path};

use super::expiry_store::NotKept;
use crate::{
    docker_config::Unfit,
    failure::{Diagnose, Warning, diagnosis::Diagnosis},
    fs::atomic_file::{FileError, FileMode, Operation},
};

pub(super) fn set_aside(path: &Path, aside: &Path, reason: &Unfit) -> Warning {
    let message = format!("`{}` was set aside as `{}`: {reason}", path.display(), aside.display());
    Warning::new(message, Diagnosis::FileSetAside)
}

pub(super) fn would_be_set_aside(reason: &Unfit) -> Warning {
    Warning::new(format!("it would be set aside: {reason}"), Diagnosis::FileSetAside)
}

pub(super) fn replaced(path: &Path, what: &str) -> Warning {
    Warning::new(
        format!("`{}` was {what}; it was replaced by a file", path.display()),
        Diagnosis::PathReplaced,
    )
}

pub(super) fn would_be_replaced(what: &str) -> Warning {
    Warning::new(format!("it would be replaced: it is {what}"), Diagnosis::PathReplaced)
}

/// After a restart the credentials in the file would be of unknown expiry.
pub(super) fn expiries_not_stored(error: &NotKept) -> Warning {
    let message = format!("the expiries of the credentials are not stored for the next start: {error}");
    Warning::new(message, Diagnosis::ExpiriesNotStored)
}

/// Whatever is set, the file system shows `found`: a mode and a group.
pub(super) fn mode_not_kept(path: &Path, wanted: (FileMode, u32), found: (u32, u32)) -> Warning {
    let message = format!(
        "the file system does not keep the mode and group of `{}`: it shows {:04o} and group {} for {} and group {}",
        path.display(),
        found.0,
        found.1,
        wanted.0,
        wanted.1
    );
    Warning::new(message, Diagnosis::ModeNotKept)
}

pub(super) fn only_ours(path: &Path, mode: FileMode) -> Warning {
    let uid = rustix::process::geteuid().as_raw();
    let message = format!("only user {uid} may read `{}`, by its mode {mode}", path.display());
    Warning::new(message, Diagnosis::ConsumerCannotRead)
}

/// The new file is there, and may not be after a power failure.
pub(super) fn not_synced(directory: &Path, error: io::Error) -> Warning {
    let error = FileError::new(Operation::Sync, directory, error);
    Warning::new(format!("the new file may be lost in a power failure: {error}"), error.remedy())
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn what_is_not_synced_has_the_remedy_of_its_cause() {
        for (errno, diagnosis) in
            [(Errno::IO, Diagnosis::VolumeBroken), (Errno::NOSPC, Diagnosis::VolumeFull)]
        {
            let warning = not_synced(Path::new("/out"), errno.into());
            assert_eq!(warning.remedy, Some(diagnosis.into()), "{warning:?}");
            assert!(warning.message.contains("`/out`"), "{warning:?}");
        }
    }
}
