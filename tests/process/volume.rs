//! Whoever shares the volume: links, special files, deleted directories, and edits without end.

mod directories;
mod edits;
mod links;
mod special_files;
mod times;

use std::fs;

use test_support::{
    Harness,
    files::auth,
    harness::{DEADLINE, HOST},
    wait_for,
};

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, DEADLINE, || holds().then_some(()));
}

fn is_ours(harness: &Harness) -> bool {
    fs::symlink_metadata(harness.file()).is_ok_and(|metadata| metadata.is_file())
        && auth(&harness.file(), HOST).is_some()
}
