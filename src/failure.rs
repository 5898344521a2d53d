//! What a failure means: its class, which decides when to try again, and its diagnosis, which says what to do.

pub mod diagnosis;
pub mod foreign_text;
pub(crate) mod reminder;
pub(crate) mod shown_value;

use std::{error::Error, fmt, io};

use rustix::io::Errno;

use self::foreign_text::clean;
use diagnosis::{Diagnosis, Remedy};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Network, time-out, 5xx: waiting is enough.
    Transient,
    /// AWS asked us to slow down.
    Throttled,
    /// The answer was no answer of AWS's: something in between, or an emulator.
    BadAnswer,
    /// A web-identity token or key file is too old: a newer one may be on disk.
    StaleInput,
    /// The AWS credentials expired early: resolve them again.
    StaleCredentials,
    /// This machine's clock and AWS's differ.
    Clock,
    /// Policy, trust, keys or configuration: only a person can fix it.
    Denied,
}

impl Class {
    pub const ALL: [Self; 7] = [
        Self::Transient,
        Self::Throttled,
        Self::BadAnswer,
        Self::StaleInput,
        Self::StaleCredentials,
        Self::Clock,
        Self::Denied,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::BadAnswer => "bad-answer",
            Self::StaleInput => "stale-input",
            Self::StaleCredentials => "stale-credentials",
            Self::Clock => "clock",
            Self::Denied => "denied",
        }
    }

    /// Whether waiting alone won't fix it: it is polled slowly, and tried at once when an input changes.
    pub fn needs_intervention(self) -> bool {
        matches!(self, Self::Denied | Self::StaleInput | Self::StaleCredentials)
    }

    /// Whether one more try at once may succeed, since its inputs are read again.
    pub fn is_worth_one_more_try(self) -> bool {
        matches!(self, Self::StaleInput | Self::StaleCredentials | Self::Clock)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What failed, where and why: one sentence.
    pub message: String,
    pub remedy: Remedy,
    pub class: Class,
}

impl Problem {
    /// One that only a person can fix.
    pub fn denied(message: String, remedy: impl Into<Remedy>) -> Self {
        Self { message, remedy: remedy.into(), class: Class::Denied }
    }

    /// A fault of this program.
    pub fn fault(message: String) -> Self {
        Self { message, remedy: Diagnosis::Fault.into(), class: Class::Transient }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.remedy)
    }
}

/// What stopped nothing, and may keep a consumer from working.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What was found, where, and what it causes: one sentence.
    pub message: String,
    /// None where nothing is to be done: what clients would have taken for our entry has been removed already, and the
    /// count of further warnings is about them.
    pub remedy: Option<Remedy>,
}

impl Warning {
    pub fn new(message: String, remedy: impl Into<Remedy>) -> Self {
        Self { message, remedy: Some(remedy.into()) }
    }

    pub fn without_remedy(message: String) -> Self {
        Self { message, remedy: None }
    }
}

/// An error that says when to try again and what to do about it.
pub trait Diagnose: fmt::Display {
    fn class(&self) -> Class;

    fn remedy(&self) -> Remedy;

    fn problem(&self) -> Problem {
        Problem { message: self.to_string(), remedy: self.remedy(), class: self.class() }
    }
}

/// Logs a [`Problem`] with its diagnosis and remedy, after the fields of the event: what it is about.
macro_rules! log_problem {
    ($level:ident, $problem:expr, { $($($fields:tt)+)? }, $message:literal) => {{
        let problem: &$crate::failure::Problem = &$problem;
        tracing::$level!(
            $($($fields)+,)? error = problem.message, diagnosis = problem.remedy.diagnosis.id(), remedy = %problem.remedy,
            $message
        );
    }};
}
pub(crate) use log_problem;

/// The whole chain of causes of an error that is not of this program, fit to be shown.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    clean(&chain(error))
}

/// The whole chain of causes as it is, without repetitions: for errors of this program.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let line = cause.to_string();
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        next = cause.source();
    }
    text
}

/// Whether there is no descriptor left for this process, or for the node.
pub fn is_file_limit(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// What has gone wrong in transport, by the messages of the libraries below us, which have no codes.
pub fn classify_transport(detail: &str) -> Diagnosis {
    // First: without a descriptor neither the bundle nor the name can be read.
    if detail.contains("(os error 24)") || detail.contains("(os error 23)") {
        Diagnosis::TooManyOpenFiles
    } else if detail.contains("CA bundle") || detail.contains("bundle of certificate") {
        Diagnosis::NoCaBundle
    } else if detail.contains("UnknownIssuer") || detail.contains("certificate") {
        Diagnosis::UnknownCa
    } else if detail.contains("dns error") || detail.contains("failed to lookup") {
        Diagnosis::NameUnresolved
    } else if detail.contains("proxy") || detail.contains("tunnel") {
        Diagnosis::ProxyRefuses
    } else {
        Diagnosis::Unreachable
    }
}
