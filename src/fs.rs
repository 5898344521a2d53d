//! File access that withstands whoever shares the volume.

pub mod atomic_file;
pub mod directory;
pub mod read;
pub mod version;
pub mod watch;
