//! What a running sidecar's `/status` tells, as far as `ecr-sidecar status` shows it.
//!
//! The answer is distrusted: it may come from another version, or from another program that has the port. Unknown
//! fields are passed over, a missing one is empty, and text loses every character that a terminal would obey
//! (`what_a_terminal_would_obey_is_taken_out`). A time that is no time is none.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, de::IgnoredAny};

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Seen {
    pub version: Text,
    #[serde(default)]
    pub started_at: Moment,
    /// Whether it has been ready since.
    #[serde(default)]
    pub has_been_ready: bool,
    #[serde(default)]
    pub configuration: Configuration,
    pub tokens: Vec<Token>,
    pub outputs: Vec<Output>,
}

/// The state of the configuration file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Configuration {
    /// Why the last change was refused, if it was.
    pub last_error: Option<Text>,
}

/// The state of one token.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Token {
    pub identity: Text,
    /// `ecr` or `ecr-public`.
    pub service: Text,
    /// The region that is asked.
    pub region: Text,
    /// A URL in place of the region's usual endpoint.
    pub endpoint: Option<Text>,
    /// The registries that it serves.
    pub registries: Vec<Served>,
    pub principal: Option<Principal>,
    /// When the token in hand was obtained.
    pub obtained_at: Moment,
    /// When the token in hand ends.
    pub expires_at: Moment,
    /// When AWS is asked next.
    pub next_attempt: Moment,
    /// What is wrong with the token's dates.
    pub clock_fault: Option<IgnoredAny>,
    /// Attempts that failed since the last success.
    pub failures_in_a_row: u64,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<Problem>,
}

/// A registry that a token serves.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Served {
    pub host: Text,
    /// Whether readiness depends on it.
    pub required: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Principal {
    /// The source of the first credentials.
    pub source: Text,
    /// The ARN, once AWS has said it.
    pub arn: Option<Text>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// What failed, where and why.
    pub message: Text,
    /// What to do about it.
    pub remedy: Text,
    /// When it makes sense to try again.
    pub class: Text,
}

/// The state of one output.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Output {
    #[serde(rename = "type")]
    pub kind: Text,
    pub target: Text,
    /// For each registry whose credential is really there: when that credential ends.
    pub in_place: BTreeMap<Text, Moment>,
    /// What a consumer may stumble over.
    pub warnings: Vec<Text>,
    /// Why the last reconciliation failed, if it did.
    pub last_error: Option<Problem>,
    /// The Secrets of an output that keeps Secrets.
    pub targets: Option<Targets>,
}

/// The Secrets of an output.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Targets {
    pub total: u64,
    /// How many are as desired.
    pub in_sync: u64,
    /// The first of those that are not, for a reason.
    pub failing: Vec<Target>,
    /// How many more of them there are.
    pub more_failing: u64,
}

/// A Secret that is not as desired.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Target {
    /// Namespace and name.
    pub name: Text,
    /// Why its last reconciliation failed.
    pub last_error: Problem,
}

impl Seen {
    /// Takes an answer of `/status`.
    pub fn parse(answer: &str) -> serde_json::Result<Self> {
        serde_json::from_str(answer)
    }
}

/// Text that a terminal can be given: line breaks, and nothing else that it would obey.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(String);

impl Text {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(found: &str) -> Self {
        Self(found.chars().filter(|char| *char == '\n' || !is_obeyed(*char)).collect())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|found| Self::from(found.as_str()))
    }
}

/// Control characters, and those that turn the direction of writing.
fn is_obeyed(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A time, if there is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Option<SystemTime>);

impl Moment {
    /// How long until then; nothing when it is past.
    pub fn after(self, now: SystemTime) -> Option<Duration> {
        self.0?.duration_since(now).ok().filter(|left| !left.is_zero())
    }

    /// How long since then; nothing when it is still to come.
    pub fn before(self, now: SystemTime) -> Option<Duration> {
        now.duration_since(self.0?).ok()
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let said = Option::<String>::deserialize(deserializer)?;
        let time = said.and_then(|said| said.parse::<jiff::Timestamp>().ok());
        Ok(Self(time.map(SystemTime::from)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_taken_out() {
        let text = Text::from("a\u{1b}[2J\u{7}b\r\n\tc\u{9b}31m\u{202e}d\u{7f}ü");
        assert_eq!(text.as_str(), "a[2Jb\nc31mdü");
    }

    #[test]
    fn another_version_is_understood_and_another_program_is_not() {
        let newer = r#"{"version":"9","tokens":[{"identity":"a","new":[1],"expires_at":"never"}],"outputs":[{}],"x":{}}"#;
        let seen = Seen::parse(newer).unwrap();
        assert_eq!((seen.tokens[0].identity.as_str(), seen.tokens[0].expires_at), ("a", Moment(None)));
        for other in ["", "<html>", "{}", "[]", "null", r#"{"status":"ok"}"#, r#"{"version":"1","tokens":"#] {
            assert!(Seen::parse(other).is_err(), "{other}");
        }
    }

    #[test]
    fn our_own_status_is_understood() {
        let board = crate::status::StatusBoard::new(SystemTime::UNIX_EPOCH);
        let text = board.read(|status| serde_json::to_string(status).unwrap());
        let seen = Seen::parse(&text).unwrap();
        assert_eq!(seen.started_at, Moment(Some(SystemTime::UNIX_EPOCH)));
        assert_eq!(seen.version.as_str(), env!("CARGO_PKG_VERSION"));
    }
}
