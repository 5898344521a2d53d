//! Puts this program where the kubelet looks for it: for a DaemonSet that keeps it up to date, whose image has no other
//! program.
//!
//! The kubelet may run the old one at any time: it sees the old or the new one, whole
//! (`a_node_s_program_is_replaced_while_it_runs_and_only_by_another_one`).

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::{
    failure::shown_value::clean_path,
    fs::atomic_file::{
        FileError, FileMode, Operation, Replaced, Replacement, Target, expected_group, remove_stale,
    },
};

const NAME: &str = "ecr-sidecar";
const OURSELVES: &str = "/proc/self/exe";
const CHUNK: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
    #[error("cannot read this program at {OURSELVES}: {0}")]
    Ourselves(#[source] io::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{0}` was replaced by another process meanwhile: have one process install it")]
    Another(String),
}

/// Copies this program into `folder`, unless it is there. A sentence that says which.
pub(super) fn install(folder: &Path) -> Result<String, InstallError> {
    let path = folder.join(NAME);
    let ourselves = || File::open(OURSELVES).map_err(InstallError::Ourselves);
    let target = Target::open(&path)?;
    let _ = remove_stale(&target); // of an install that was killed
    let seen = target.version()?;
    let there = target.directory.read(OsStr::new(NAME));
    if there.is_ok_and(|there| is_installed(&there, &ourselves().ok())) {
        return Ok(format!("{} is up to date", clean_path(&path)));
    }
    let mut program = ourselves()?;
    let (mode, group) = (FileMode::PROGRAM, expected_group(&target.directory, None)?);
    let replacement = Replacement { target: &target, mode, group, seen, set_aside: &[] };
    match replacement.run(|out| io::copy(&mut program, out).map(drop))? {
        Replaced::Done { unsynced: Some(error), .. } => {
            Err(FileError::new(Operation::Sync, &path, error).into())
        }
        Replaced::Done { .. } => Ok(format!("{} is installed", clean_path(&path))),
        Replaced::ChangedMeanwhile => Err(InstallError::Another(clean_path(&path))),
    }
}

/// Whether it has the program's content, and its mode.
fn is_installed(there: &File, program: &Option<File>) -> bool {
    let (Some(program), Ok(metadata)) = (program, there.metadata()) else { return false };
    metadata.is_file()
        && metadata.mode() & 0o7777 == FileMode::PROGRAM.bits()
        && program.metadata().is_ok_and(|it| it.len() == metadata.len())
        && have_same_content(there, program).unwrap_or(false)
}

/// Of two files of one length.
fn have_same_content(mut one: &File, mut other: &File) -> io::Result<bool> {
    let (mut some, mut expected) = ([0; CHUNK], [0; CHUNK]);
    loop {
        let length = one.read(&mut some)?;
        if length == 0 {
            return Ok(true);
        }
        other.read_exact(&mut expected[..length])?;
        if some[..length] != expected[..length] {
            return Ok(false);
        }
    }
}
