//! Puts this program where the kubelet looks for it: for a DaemonSet that keeps it up to date, whose image has no other
//! program.
//!
//! The kubelet may run the old one at any time: it sees the old or the new one, whole
//! (`a_node_s_program_is_replaced_while_it_runs_and_only_by_another_one`).

use std::{fs::File, path::Path};

use crate::{
    failure::shown_value::clean_path,
    fs::{
        atomic_file::{
            FileError, FileMode, Operation, Replaced, Replacement, Target, expected_group, remove_stale,
        },
        read::{ReadError, read_now, read_open},
    },
};

const NAME: &str = "ecr-sidecar";
const OURSELVES: &str = "/proc/self/exe";
/// More than this is no build of this program.
const LARGEST: usize = 1 << 30;

#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
    #[error("cannot read this program at {OURSELVES}: {0}")]
    Ourselves(#[source] ReadError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{0}` was replaced by another process meanwhile: have one process install it")]
    Another(String),
}

/// Copies this program into `folder`, unless it is there. A sentence that says which.
pub(super) fn install(folder: &Path) -> Result<String, InstallError> {
    let path = folder.join(NAME);
    let ourselves = File::open(OURSELVES).map_err(ReadError::from).and_then(|file| read_open(file, LARGEST));
    let ourselves = ourselves.map_err(InstallError::Ourselves)?;
    let target = Target::open(&path)?;
    let _ = remove_stale(&target); // of an install that was killed
    let seen = target.version()?;
    if read_now(&path, ourselves.len()).is_ok_and(|there| *there == *ourselves) && is_runnable(&path) {
        return Ok(format!("{} is up to date", clean_path(&path)));
    }
    let (mode, group) = (FileMode::PROGRAM, expected_group(&target.directory, None)?);
    let replacement = Replacement { target: &target, mode, group, seen, set_aside: &[] };
    match replacement.run(|out| out.write_all(&ourselves))? {
        Replaced::Done { unsynced: Some(error), .. } => {
            Err(FileError::new(Operation::Sync, &path, error).into())
        }
        Replaced::Done { .. } => Ok(format!("{} is installed", clean_path(&path))),
        Replaced::ChangedMeanwhile => Err(InstallError::Another(clean_path(&path))),
    }
}

fn is_runnable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}
