//! Why there are no credentials, and what to do about it.

use std::path::PathBuf;

use crate::{
    aws::{error::AwsFailure, key_material::MalformedKey, profile_file::ProfileFileError},
    failure::{
        Class, Diagnose,
        diagnosis::{Diagnosis, Remedy},
        shown_value::clean_path,
    },
    fs::read::ReadError,
    registry::AccountId,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    pub source: &'static str,
    /// What would have announced it.
    pub looked_for: String,
    pub saw: String,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("identity `{identity}`: no AWS credentials found: {}", list(looked))]
    NothingFound { identity: String, looked: Vec<Looked>, diagnosis: Diagnosis },
    #[error("the identity source `{source_name}` is incomplete: {missing} is unset")]
    Incomplete { source_name: &'static str, missing: &'static str },
    #[error("cannot read the {what} in {}: {source}", clean_path(path))]
    File { what: &'static str, path: PathBuf, source: ReadError },
    #[error("the {what} in {} is empty", clean_path(path))]
    EmptyFile { what: &'static str, path: PathBuf },
    #[error(transparent)]
    MalformedKey(#[from] MalformedKey),
    #[error("the profile `{profile}` has no credentials: {detail}")]
    ProfileNotFound { profile: String, detail: String },
    #[error("the profile `{profile}` is broken: {detail}")]
    Profile { profile: String, detail: String, class: Class },
    #[error(transparent)]
    ProfileFile(#[from] ProfileFileError),
    #[error("the profile `{profile}` uses `aws login` (login_session), which is not supported")]
    LoginSession { profile: String },
    #[error("{variable} is {shown}: {why}")]
    AgentUrl {
        variable: &'static str,
        /// Its value, unless that may hold a password.
        shown: String,
        why: &'static str,
    },
    #[error(
        "the container authorization token of {variable} cannot be sent: it holds characters that no header may hold"
    )]
    AgentToken { variable: &'static str },
    #[error("the credentials agent {url} cannot be reached: {why}")]
    AgentUnreachable { url: String, why: String },
    #[error("the credentials agent {url} answers HTTP {status}: {message}")]
    AgentRefused { url: String, status: u16, message: String },
    #[error("the instance metadata service returns no credentials: {detail}")]
    Imds { detail: String },
    #[error("{failure} (for {subject})")]
    Sts { subject: String, failure: AwsFailure },
    #[error("{operation} answered without complete credentials")]
    NoCredentialsInAnswer { operation: &'static str },
    #[error("identity `{identity}` is {arn} of account {account}, but expectAccount says {expected}")]
    WrongAccount { identity: String, expected: AccountId, account: String, arn: String },
}

impl Diagnose for IdentityError {
    fn class(&self) -> Class {
        match self {
            Self::Sts { failure, .. } => failure.class(),
            Self::Profile { class, .. } => *class,
            Self::File { source, .. } if source.is_file_limit() => Class::Transient,
            Self::ProfileFile(error) if error.is_timeout() || error.is_file_limit() => Class::Transient,
            Self::AgentUnreachable { .. } | Self::Imds { .. } => Class::Transient,
            Self::AgentRefused { status, .. } if *status == 429 => Class::Throttled,
            Self::AgentRefused { status, .. } if *status >= 500 => Class::Transient,
            Self::NoCredentialsInAnswer { .. } => Class::BadAnswer,
            _ => Class::Denied,
        }
    }

    fn remedy(&self) -> Remedy {
        let diagnosis = match self {
            Self::NothingFound { diagnosis, .. } => *diagnosis,
            Self::Incomplete { missing, .. } => return Remedy::with(Diagnosis::SourceIncomplete, *missing),
            Self::File { source, .. } if source.is_permission_denied() => Diagnosis::InputUnreadable,
            Self::File { source: ReadError::TimedOut, .. } => Diagnosis::VolumeHangs,
            Self::File { source, .. } if source.is_file_limit() => Diagnosis::TooManyOpenFiles,
            Self::File { source, .. } if source.is_malformed() => Diagnosis::InputMalformed,
            Self::File { .. } | Self::EmptyFile { .. } => Diagnosis::InputMissing,
            Self::MalformedKey(_) => Diagnosis::InputMalformed,
            Self::ProfileNotFound { .. } => Diagnosis::ProfileMissing,
            Self::Profile { .. } => Diagnosis::ProfileBroken,
            Self::ProfileFile(error) if error.is_timeout() => Diagnosis::VolumeHangs,
            Self::ProfileFile(error) if error.is_file_limit() => Diagnosis::TooManyOpenFiles,
            Self::ProfileFile(_) => Diagnosis::ProfileFile,
            Self::LoginSession { .. } => Diagnosis::LoginSession,
            Self::AgentUrl { .. } | Self::AgentToken { .. } => Diagnosis::AgentUrl,
            Self::AgentUnreachable { .. } => Diagnosis::AgentUnreachable,
            Self::AgentRefused { status, .. } if *status == 429 || *status >= 500 => Diagnosis::AgentBusy,
            Self::AgentRefused { .. } => Diagnosis::NoAssociation,
            Self::Imds { .. } => Diagnosis::NoImds,
            Self::Sts { failure, .. } => return failure.remedy(),
            Self::NoCredentialsInAnswer { .. } => Diagnosis::NotAws,
            Self::WrongAccount { .. } => Diagnosis::WrongAccount,
        };
        diagnosis.into()
    }
}

fn list(looked: &[Looked]) -> String {
    let text = |it: &Looked| format!("{}: looked for {}, {}", it.source, it.looked_for, it.saw);
    looked.iter().map(text).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_file_that_no_descriptor_is_left_for_is_not_said_to_be_missing() {
        for code in [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error) {
            let source = || ReadError::Io(io::Error::from_raw_os_error(code));
            let path = || PathBuf::from("/token");
            for error in [
                IdentityError::File { what: "web-identity token", path: path(), source: source() },
                ProfileFileError::Read { path: path(), variable: None, source: source() }.into(),
            ] {
                assert_eq!(error.remedy().diagnosis, Diagnosis::TooManyOpenFiles, "{error}");
                assert_eq!(error.class(), Class::Transient, "{error}");
            }
        }
    }
}
