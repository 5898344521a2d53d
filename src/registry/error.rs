//! Why a text is not a registry host, a region or an account: what was found, and the remedy.
//!
//! What stands before an `@` may be a password and is never shown: `userinfo_is_not_shown`.

use thiserror::Error;

use super::RegistryHost;

/// Why a text is not a registry host.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostError {
    /// There is nothing there.
    #[error(
        "the registry host is empty: write a host, such as `123456789012.dkr.ecr.eu-west-1.amazonaws.com`"
    )]
    Empty,
    /// A scheme comes before the host.
    #[error("`{found}` has a scheme: write only `{bare}`")]
    Scheme { found: String, bare: String },
    /// A user name, perhaps with a password, comes before the host.
    #[error("a user name stands before `@{bare}`: write only `{bare}`")]
    UserInfo { bare: String },
    /// A repository, a query or a fragment follows the host.
    #[error("`{found}` has a path: write only `{bare}`")]
    Path { found: String, bare: String },
    /// The host is written as a fully qualified DNS name.
    #[error("`{found}` has a trailing dot: write only `{bare}`")]
    TrailingDot {
        found: String,
        /// The host without the dot.
        bare: String,
    },
    /// White space or a control character, within or around.
    #[error(
        "`{found}` has white space or a control character in it: write the host alone, and each host by itself"
    )]
    Whitespace {
        /// The text, escaped.
        found: String,
    },
    /// A letter that is not ASCII, and may only look like one that is.
    #[error(
        "`{found}` has the character `{character}` (U+{:04X}), which is not ASCII: \
         type it again, or write an international name in its `xn--` form",
        u32::from(*.character)
    )]
    NotAscii {
        /// The text, escaped.
        found: String,
        character: char,
    },
    /// A pattern in place of a host.
    #[error("`{found}` is a pattern: name each registry host in full")]
    Glob { found: String },
    /// The port is not a number from 1 to 65535.
    #[error("`{found}` has the port `{port}`: write a number from 1 to 65535, or only `{bare}`")]
    Port {
        found: String,
        /// What stands where the port should.
        port: String,
        /// The host without the port.
        bare: String,
    },
    /// Two dots in a row, or one at the start.
    #[error("`{found}` has an empty part between its dots: take the surplus dot away")]
    EmptyLabel { found: String },
    /// A part that DNS does not allow.
    #[error(
        "`{label}` in `{found}` cannot be part of a host name: \
         it takes 1 to 63 letters, digits and hyphens, and no hyphen at either end"
    )]
    Label { found: String, label: String },
    /// Neither an IPv4 address nor an IPv6 address in brackets.
    #[error(
        "`{found}` is not an IP address: write four numbers up to 255 with dots, or IPv6 in brackets, as in `[::1]:5000`"
    )]
    Address { found: String },
    /// Longer than DNS allows.
    #[error("the registry host has {length} characters: a host name has 253 at most")]
    TooLong { length: usize },
}

/// Why a text is not a region.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{found}` is not an AWS region: write one like `eu-west-1`, in lower case and without a zone letter"
)]
pub struct RegionError {
    found: String,
}

impl RegionError {
    pub(super) fn new(found: &str) -> Self {
        Self { found: shown(found) }
    }
}

/// Why a text is not an account.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{found}` is not an AWS account: write its twelve digits, in quotes where a number would lose its leading zeros"
)]
pub struct AccountIdError {
    found: String,
}

impl AccountIdError {
    pub(super) fn new(found: &str) -> Self {
        Self { found: shown(found) }
    }
}

/// Refuses whatever is no bare ASCII name. When the host within is bad as well, that is the error.
pub(super) fn refuse_more_than_a_host(found: &str) -> Result<(), HostError> {
    if let Some((_, host)) = found.rsplit_once('@')
        && !host.starts_with("sha256:")
    {
        return Err(HostError::UserInfo { bare: bare_host(host)? });
    }
    if let Some((_, rest)) = found.split_once("://") {
        return Err(HostError::Scheme { bare: bare_host(rest)?, found: shown(found) });
    }
    if let Some(character) = found.chars().find(|c| !c.is_ascii()) {
        return Err(HostError::NotAscii { found: shown(found), character });
    }
    if found.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
        return Err(HostError::Whitespace { found: shown(found) });
    }
    if found.contains(['/', '\\', '?', '#']) {
        return Err(HostError::Path { bare: bare_host(found)?, found: shown(found) });
    }
    Ok(())
}

/// The host at the start of `text`, in the form that would have been taken.
fn bare_host(text: &str) -> Result<String, HostError> {
    let host = text.split(['/', '\\', '?', '#']).next().unwrap_or(text);
    let host = host.strip_suffix('.').unwrap_or(host);
    Ok(host.parse::<RegistryHost>()?.to_string())
}

/// Text of unknown origin, made fit for one line of a message.
fn shown(found: &str) -> String {
    const LONGEST: usize = 300;
    found.chars().take(LONGEST).flat_map(char::escape_debug).collect()
}
