//! Placeholder
use std::borrow::Cow;
/// Why the file could not be brought to what is desired.
#[derive(Debug, thiserror::Error)]
pub enum DockerConfigError {
    /// Placeholder.
    #[error("placeholder")]
    Placeholder,
}

impl DockerConfigError {
    /// What to do about it.
    pub fn remedy(&self) -> Cow<'static, str> {
        Cow::Borrowed("")
    }
}

/// Something that the user should know and that stopped nothing. `Display` is the sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Placeholder.
    #[error("placeholder")]
    Placeholder,
}
