//! Why a text is not a registry host, a region or an account: what was found, and the remedy.
//!
//! What stands before an `@` may be a password and is never shown: `userinfo_is_not_shown`.

use thiserror::Error;

use super::RegistryHost;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{found} {reason}")]
pub struct Invalid {
    found: String,
    reason: String,
}

impl Invalid {
    /// Shows `found` in backquotes, in one line.
    pub(super) fn new(found: &str, reason: impl Into<String>) -> Self {
        const LONGEST: usize = 300;
        let shown: String = found.chars().take(LONGEST).flat_map(char::escape_debug).collect();
        Self { found: format!("`{shown}`"), reason: reason.into() }
    }

    pub(super) fn host(reason: impl Into<String>) -> Self {
        Self { found: "the registry host".into(), reason: reason.into() }
    }
}

/// Rejects whatever is no bare ASCII name. When the host within is bad as well, that is the error.
pub(super) fn reject_more_than_a_host(found: &str) -> Result<(), Invalid> {
    if let Some((_, host)) = found.rsplit_once('@')
        && !host.starts_with("sha256:")
    {
        let bare = bare_host(host)?;
        let reason = format!("stands before `@{bare}`: write only `{bare}`");
        return Err(Invalid { found: "a user name".into(), reason });
    }
    if let Some((_, rest)) = found.split_once("://") {
        return Err(Invalid::new(found, format!("has a scheme: write only `{}`", bare_host(rest)?)));
    }
    if let Some(character) = found.chars().find(|c| !c.is_ascii()) {
        let reason = format!(
            "has the character `{character}` (U+{:04X}), which is not ASCII: \
             type it again, or write an international name in its `xn--` form",
            u32::from(character)
        );
        return Err(Invalid::new(found, reason));
    }
    if found.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
        let reason =
            "has white space or a control character in it: write one host, without anything around it";
        return Err(Invalid::new(found, reason));
    }
    if found.contains(['/', '\\', '?', '#']) {
        return Err(Invalid::new(found, format!("has a path: write only `{}`", bare_host(found)?)));
    }
    Ok(())
}

/// The host at the start of `text`, in the form that would have been taken.
fn bare_host(text: &str) -> Result<String, Invalid> {
    let host = text.split(['/', '\\', '?', '#']).next().unwrap_or(text);
    let host = host.strip_suffix('.').unwrap_or(host);
    Ok(host.parse::<RegistryHost>()?.to_string())
}
