//! File access on volumes that other users share.

pub mod atomic_file;
pub mod directory;
pub mod read;
pub mod version;
pub mod watch;
