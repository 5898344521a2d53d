//! What a failed call means: its class, which decides when to try again, and its diagnosis, which tells a
//! person what to do.
//!
//! AWS's own error codes decide both (`facts`: the service models of ECR and STS); messages are only
//! searched where AWS uses one code for several causes (a clock that is off is an
//! `InvalidSignatureException` like a wrong key). Held by the test `codes_have_their_class_and_diagnosis`.

pub mod diagnosis;
pub mod foreign_text;
pub(crate) mod shown_value;

use std::{error::Error, fmt, io, time::SystemTime};

use aws_smithy_runtime_api::{
    client::{orchestrator::HttpResponse, result::SdkError},
    http::Headers,
};
use aws_smithy_types::{DateTime, date_time::Format, error::metadata::ProvideErrorMetadata};
use rustix::io::Errno;

use self::foreign_text::{clean, clean_of};
use diagnosis::{Diagnosis, Remedy};

/// How the SDK's endpoint rules begin to say that variables contradict each other.
const INVALID_CONFIGURATION: &str = "Invalid Configuration";

/// When it makes sense to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Network, time-out, 5xx: passes by itself.
    Transient,
    /// AWS asked us to slow down.
    Throttled,
    /// The answer was no answer of AWS's: something in between, or an emulator.
    BadAnswer,
    /// A web-identity token or key file is too old: a newer one may be on disk.
    StaleInput,
    /// The AWS credentials ended before their time: resolve them again.
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

    /// The class as it appears in logs and `/status`.
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

    /// Whether one more try at once may succeed, since what it rests on is read again.
    pub fn is_worth_one_more_try(self) -> bool {
        matches!(self, Self::StaleInput | Self::StaleCredentials | Self::Clock)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure as a person reads it, in a log line and in `/status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What failed, where and why: one sentence.
    pub message: String,
    /// What has gone wrong, and what to do about it.
    pub remedy: Remedy,
    /// When it makes sense to try again.
    pub class: Class,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.remedy)
    }
}

/// A call to an AWS API that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsFailure {
    operation: &'static str,
    detail: String,
    class: Class,
    diagnosis: Diagnosis,
    skew: Option<i64>,
}

impl AwsFailure {
    /// What `error` of `operation` (for example `sts:AssumeRole`) means; `now` shows the clock's skew. `secrets` are
    /// those that the request carried, which an answer may repeat.
    pub fn new<E>(
        operation: &'static str,
        error: &SdkError<E, HttpResponse>,
        now: SystemTime,
        secrets: &[&str],
    ) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let response = error.raw_response();
        let skew = response.and_then(|response| skew_seconds(response.headers(), now));
        match error {
            SdkError::ServiceError(context) => {
                let code = context.err().code();
                let message = context.err().message().unwrap_or_default();
                let status = context.raw().status().as_u16();
                let class = classify(operation, code, message, status);
                let detail = service_detail(code, message, status, error, secrets);
                let diagnosis = diagnose(operation, class, code.unwrap_or_default(), message);
                Self { operation, detail, class, diagnosis, skew }
            }
            SdkError::ResponseError(_) => {
                let status = response.map_or(0, |response| response.status().as_u16());
                let class = by_status(status);
                let raw = chain(error);
                let detail = format!("HTTP {status}, but no answer of AWS's: {}", clean_of(&raw, secrets));
                let diagnosis = diagnose(operation, class, "", &raw);
                Self { operation, detail, class, diagnosis, skew }
            }
            _ => {
                let raw = chain(error);
                let detail = clean_of(&raw, secrets);
                // The SDK's endpoint rules; they have no code.
                let is_refused_here = raw.contains(INVALID_CONFIGURATION);
                let (class, diagnosis) = match is_refused_here {
                    true => (Class::Denied, Diagnosis::EndpointConflict),
                    false => (Class::Transient, classify_transport(&raw)),
                };
                Self { operation, detail, class, diagnosis, skew }
            }
        }
    }

    /// Decides when to try again.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What has gone wrong, and what a person can do about it.
    pub fn remedy(&self) -> Remedy {
        match self.skew.filter(|_| self.diagnosis == Diagnosis::ClockOff) {
            Some(seconds) => Remedy::with(self.diagnosis, skew(seconds)),
            None => self.diagnosis.into(),
        }
    }
}

impl fmt::Display for AwsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.detail)
    }
}

impl Error for AwsFailure {}

/// The whole chain of causes of an error that is not of this program, fit to be shown.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    clean(&chain(error))
}

/// The whole chain of causes as it is, without what is said twice: for errors of this program.
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

fn classify(operation: &str, code: Option<&str>, message: &str, status: u16) -> Class {
    let Some(code) = code else { return by_status(status) };
    match code {
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "SlowDown" => Class::Throttled,
        "InvalidIdentityToken" => Class::StaleInput,
        "ExpiredTokenException" | "ExpiredToken" if operation == "sts:AssumeRoleWithWebIdentity" => {
            Class::StaleInput
        }
        "ExpiredTokenException" | "ExpiredToken" => Class::StaleCredentials,
        "RequestExpired" | "RequestTimeTooSkewed" => Class::Clock,
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "AuthFailure"
            if message.contains("not yet current") || message.contains("expired") =>
        {
            Class::Clock
        }
        "AccessDenied"
        | "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "AuthFailure"
        | "IDPRejectedClaim"
        | "RegionDisabledException"
        | "OptInRequired"
        | "InvalidParameterException"
        | "ValidationError"
        | "UnsupportedCommandException"
        | "MalformedPolicyDocument"
        | "PackedPolicyTooLarge" => Class::Denied,
        "IDPCommunicationError"
        | "ServerException"
        | "InternalFailure"
        | "InternalError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout" => Class::Transient,
        _ => by_status(status),
    }
}

/// For answers without a code that we know.
fn by_status(status: u16) -> Class {
    match status {
        429 => Class::Throttled,
        200..=299 => Class::BadAnswer,
        400..=499 if status != 408 => Class::Denied,
        _ => Class::Transient,
    }
}

fn service_detail(
    code: Option<&str>,
    message: &str,
    status: u16,
    error: &(dyn Error + 'static),
    secrets: &[&str],
) -> String {
    let clean = |text: &str| clean_of(text, secrets);
    match (code.map(clean), clean(message)) {
        (Some(code), message) if message.is_empty() => format!("{code} (HTTP {status})"),
        (Some(code), message) => clean(&format!("{code}: {message}")),
        (None, _) if (200..=299).contains(&status) => {
            format!("HTTP {status}, but no answer of AWS's: {}", clean(&chain(error)))
        }
        (None, _) => format!("HTTP {status} without an error code"),
    }
}

/// What has gone wrong, for an answer.
fn diagnose(operation: &str, class: Class, code: &str, message: &str) -> Diagnosis {
    match class {
        Class::Clock => Diagnosis::ClockOff,
        Class::Throttled => Diagnosis::Throttled,
        Class::BadAnswer => Diagnosis::NotAws,
        Class::StaleCredentials => Diagnosis::SessionExpired,
        Class::StaleInput if code != "InvalidIdentityToken" => Diagnosis::WebIdentityExpired,
        Class::StaleInput if message.contains("audience") => Diagnosis::WrongAudience,
        Class::StaleInput => Diagnosis::OidcProviderMissing,
        Class::Transient => classify_transport(message),
        Class::Denied => of_denial(operation, code),
    }
}

/// Whether there is no descriptor left for this process, or for the node.
pub fn is_file_limit(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// What has gone wrong on the way, by the words of the libraries below us, which have no codes.
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

fn of_denial(operation: &str, code: &str) -> Diagnosis {
    match (operation, code) {
        (_, "UnrecognizedClientException" | "InvalidClientTokenId" | "AuthFailure") => Diagnosis::UnknownKey,
        (_, "InvalidSignatureException" | "SignatureDoesNotMatch" | "IncompleteSignature") => {
            Diagnosis::WrongSecretKey
        }
        (_, "MissingAuthenticationToken" | "MissingAuthenticationTokenException") => Diagnosis::Unsigned,
        (_, "RegionDisabledException" | "OptInRequired") => Diagnosis::RegionDisabled,
        (_, "IDPRejectedClaim") => Diagnosis::WrongAudience,
        (_, code) if !code.starts_with("AccessDenied") => Diagnosis::Denied,
        ("sts:AssumeRoleWithWebIdentity", _) => Diagnosis::TrustWebIdentity,
        ("sts:AssumeRole", _) => Diagnosis::TrustAssumeRole,
        ("ecr-public:GetAuthorizationToken", _) => Diagnosis::EcrPublicDenied,
        ("ecr:GetAuthorizationToken", _) => Diagnosis::EcrDenied,
        _ => Diagnosis::Denied,
    }
}

/// How far this machine's clock is off, for people.
pub fn skew(seconds: i64) -> String {
    let direction = if seconds < 0 { "ahead" } else { "behind" };
    format!("it is {} s {direction}", seconds.unsigned_abs())
}

/// Seconds that this machine's clock is behind AWS's, by the answer's `Date`.
pub fn skew_seconds(headers: &Headers, now: SystemTime) -> Option<i64> {
    let date = DateTime::from_str(headers.get("date")?, Format::HttpDate).ok()?;
    let now = DateTime::from(now);
    Some(date.secs() - now.secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_class_and_diagnosis() {
        use Diagnosis as D;
        let ecr = "ecr:GetAuthorizationToken";
        let public = "ecr-public:GetAuthorizationToken";
        let web = "sts:AssumeRoleWithWebIdentity";
        type Row = (&'static str, Option<&'static str>, &'static str, u16, Class, Diagnosis);
        let table: &[Row] = &[
            (ecr, Some("ThrottlingException"), "Rate exceeded", 400, Class::Throttled, D::Throttled),
            (ecr, None, "", 429, Class::Throttled, D::Throttled),
            (ecr, Some("ServerException"), "", 500, Class::Transient, D::Unreachable),
            (ecr, None, "", 503, Class::Transient, D::Unreachable),
            (ecr, None, "", 408, Class::Transient, D::Unreachable),
            (ecr, None, "", 200, Class::BadAnswer, D::NotAws),
            (ecr, Some("ExpiredTokenException"), "", 400, Class::StaleCredentials, D::SessionExpired),
            (web, Some("ExpiredTokenException"), "", 400, Class::StaleInput, D::WebIdentityExpired),
            (
                web,
                Some("InvalidIdentityToken"),
                "No OpenIDConnect provider found",
                400,
                Class::StaleInput,
                D::OidcProviderMissing,
            ),
            (
                web,
                Some("InvalidIdentityToken"),
                "Incorrect token audience",
                400,
                Class::StaleInput,
                D::WrongAudience,
            ),
            (web, Some("IDPCommunicationError"), "", 400, Class::Transient, D::Unreachable),
            (web, Some("IDPRejectedClaim"), "", 403, Class::Denied, D::WrongAudience),
            (web, Some("AccessDenied"), "", 403, Class::Denied, D::TrustWebIdentity),
            (web, Some("RegionDisabledException"), "", 403, Class::Denied, D::RegionDisabled),
            (ecr, Some("AccessDeniedException"), "", 400, Class::Denied, D::EcrDenied),
            (public, Some("AccessDeniedException"), "", 400, Class::Denied, D::EcrPublicDenied),
            (ecr, None, "", 403, Class::Denied, D::Denied),
            (ecr, Some("InvalidSignatureException"), "Signature expired: …", 403, Class::Clock, D::ClockOff),
            (
                ecr,
                Some("InvalidSignatureException"),
                "Signature not yet current: …",
                403,
                Class::Clock,
                D::ClockOff,
            ),
            (
                ecr,
                Some("InvalidSignatureException"),
                "The signature does not match",
                403,
                Class::Denied,
                D::WrongSecretKey,
            ),
            (ecr, Some("RequestExpired"), "", 400, Class::Clock, D::ClockOff),
            (ecr, Some("UnrecognizedClientException"), "", 400, Class::Denied, D::UnknownKey),
            (ecr, Some("SomethingNew"), "", 400, Class::Denied, D::Denied),
            (ecr, Some("SomethingNew"), "", 500, Class::Transient, D::Unreachable),
        ];
        for (operation, code, message, status, class, diagnosis) in table {
            let found = classify(operation, *code, message, *status);
            assert_eq!(found, *class, "{operation} {code:?} {status}");
            let found = diagnose(operation, found, code.unwrap_or_default(), message);
            assert_eq!(found, *diagnosis, "{operation} {code:?} {status}");
        }
    }
}
