//! File access that withstands whoever shares the volume.

pub mod directory;
pub mod read;
