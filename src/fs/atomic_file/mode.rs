//! File modes, written in octal and nothing else.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// The permission bits of a file: the owner can read it, others cannot write it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileMode(u32);

impl FileMode {
    pub const PRIVATE: Self = Self(0o600);
    /// `0755`: a program that everyone may run.
    pub const PROGRAM: Self = Self(0o755);

    pub fn bits(self) -> u32 {
        self.0
    }
}

impl Default for FileMode {
    fn default() -> Self {
        Self(0o640)
    }
}

impl FromStr for FileMode {
    type Err = FileModeError;

    /// Takes `0640`, `640` and `0o640`.
    ///
    /// A class that may write or execute without reading is rejected: no one means it, and it is what an
    /// octal mode becomes when something wrote it in decimal on the way (0644 is `420`, 0660 is `432`).
    fn from_str(found: &str) -> Result<Self, FileModeError> {
        let digits = found.strip_prefix("0o").unwrap_or(found);
        let octal = (1..=7).contains(&digits.len()) && digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
        let bits = if octal { u32::from_str_radix(digits, 8).ok() } else { None };
        let unreadable = |class: u32| class & 0o4 == 0 && class & 0o3 != 0;
        let reason = match bits {
            None => "is not octal: write it in quotes, such as \"0640\"",
            Some(bits) if bits > 0o777 => {
                "has more than the nine permission bits: write at most \"0777\", such as \"0640\""
            }
            Some(bits) if bits & 0o002 != 0 => {
                "lets everyone change the file: write one such as \"0640\", or \"0644\" for all to read"
            }
            Some(bits) if bits & 0o400 == 0 => {
                "does not let the owner read the file: write one such as \"0640\""
            }
            Some(bits) if [bits >> 6, bits >> 3, bits].iter().any(|class| unreadable(class & 0o7)) => {
                "lets someone write or execute but not read, as happens when an octal mode is written in decimal: \
                 write it in octal and in quotes, such as \"0640\""
            }
            Some(bits) => return Ok(Self(bits)),
        };
        Err(FileModeError { found: found.chars().take(40).flat_map(char::escape_debug).collect(), reason })
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Debug for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileMode({self})")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the file mode `{found}` {reason}")]
pub struct FileModeError {
    found: String,
    reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_is_taken_in_three_spellings_and_shown_in_one() {
        for (text, shown) in [
            ("0640", "0640"),
            ("640", "0640"),
            ("0o640", "0640"),
            ("0600", "0600"),
            ("0444", "0444"),
            ("0775", "0775"),
            ("00644", "0644"),
        ] {
            let mode: FileMode = text.parse().unwrap();
            assert_eq!(mode.to_string(), shown);
            assert_eq!(shown.parse(), Ok(mode));
        }
        assert_eq!(FileMode::default().to_string(), "0640");
    }

    #[test]
    fn what_no_one_means_is_rejected() {
        let not_octal = "is not octal";
        let bits = "permission bits";
        let others = "lets everyone change";
        let owner = "does not let the owner read";
        let decimal = "written in decimal";
        let cases = [
            ("", not_octal),
            ("0o", not_octal),
            ("8", not_octal),
            ("384", not_octal),
            ("-640", not_octal),
            ("+640", not_octal),
            ("0x1a0", not_octal),
            (" 0640", not_octal),
            ("0640 ", not_octal),
            ("u=rw", not_octal),
            ("99999999999999999999", not_octal),
            ("11111111111111111111", not_octal),
            ("1640", bits),
            ("04755", bits),
            ("0666", others),
            ("0777", others),
            ("0642", others),
            ("416", others),
            ("0000", owner),
            ("0040", owner),
            ("256", others),
            ("420", decimal),
            ("432", others),
            ("511", decimal),
            ("0610", decimal),
        ];
        for (text, reason) in cases {
            let error = text.parse::<FileMode>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
