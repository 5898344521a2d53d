//! Replacing a file so that a reader sees the old one or the new one, whole, with the right mode and group.

mod mode;

pub use mode::{FileMode, FileModeError};
