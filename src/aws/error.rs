//! What a failed call to AWS means: when to try again, and what to do about it.
//!
//! AWS's own error codes decide both (the service models of ECR, STS and SSO); messages are only searched where AWS uses
//! one code for several causes: a clock that is off is an `InvalidSignatureException`, like a wrong key. Held by
//! `codes_have_their_class_and_diagnosis`.

use std::{error::Error, time::SystemTime};

use aws_smithy_runtime_api::{
    client::{orchestrator::HttpResponse, result::SdkError},
    http::Headers,
};
use aws_smithy_types::{DateTime, date_time::Format, error::metadata::ProvideErrorMetadata};

use crate::failure::{
    Class, Diagnose, chain, classify_transport,
    diagnosis::{Diagnosis, Remedy},
    foreign_text::clean_of,
};

/// How the SDK's endpoint rules begin to say that variables contradict each other.
const INVALID_CONFIGURATION: &str = "Invalid Configuration";
const WEB_IDENTITY: &str = "sts:AssumeRoleWithWebIdentity";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {detail}")]
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
        let ((class, diagnosis), detail) = match error {
            SdkError::ServiceError(context) => {
                let code = context.err().code();
                let message = context.err().message().unwrap_or_default();
                let status = context.raw().status().as_u16();
                let meaning = meaning(operation, code.unwrap_or_default(), message, status);
                (meaning, service_detail(code, message, status, error, secrets))
            }
            SdkError::ResponseError(_) => {
                let status = response.map_or(0, |response| response.status().as_u16());
                let raw = chain(error);
                let detail =
                    format!("HTTP {status}, but not an answer from AWS: {}", clean_of(&raw, secrets));
                (meaning_of_status(status, &raw), detail)
            }
            _ => {
                let raw = chain(error);
                // The SDK's endpoint rules; they have no code.
                let meaning = match raw.contains(INVALID_CONFIGURATION) {
                    true => (Class::Denied, Diagnosis::EndpointConflict),
                    false => (Class::Transient, classify_transport(&raw)),
                };
                (meaning, clean_of(&raw, secrets))
            }
        };
        Self { operation, detail, class, diagnosis, skew }
    }
}

impl Diagnose for AwsFailure {
    fn class(&self) -> Class {
        self.class
    }

    fn remedy(&self) -> Remedy {
        match self.skew.filter(|_| self.diagnosis == Diagnosis::ClockOff) {
            Some(seconds) => Remedy::with(self.diagnosis, skew(seconds)),
            None => self.diagnosis.into(),
        }
    }
}

/// What `operation` failed with: the first row that fits.
fn meaning(operation: &str, code: &str, message: &str, status: u16) -> (Class, Diagnosis) {
    use Class::{Clock, Denied, StaleCredentials, StaleInput, Throttled, Transient};
    match code {
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "SlowDown" => (Throttled, Diagnosis::Throttled),
        "InvalidIdentityToken" if message.contains("audience") => (StaleInput, Diagnosis::WrongAudience),
        "InvalidIdentityToken" => (StaleInput, Diagnosis::OidcProviderMissing),
        "ExpiredTokenException" | "ExpiredToken" if operation == WEB_IDENTITY => {
            (StaleInput, Diagnosis::WebIdentityExpired)
        }
        "ExpiredTokenException" | "ExpiredToken" => (StaleCredentials, Diagnosis::SessionExpired),
        "RequestExpired" | "RequestTimeTooSkewed" => (Clock, Diagnosis::ClockOff),
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "AuthFailure"
            if message.contains("not yet current") || message.contains("expired") =>
        {
            (Clock, Diagnosis::ClockOff)
        }
        "UnrecognizedClientException" | "InvalidClientTokenId" | "AuthFailure" => {
            (Denied, Diagnosis::UnknownKey)
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "IncompleteSignature" => {
            (Denied, Diagnosis::WrongSecretKey)
        }
        "MissingAuthenticationToken" | "MissingAuthenticationTokenException" => (Denied, Diagnosis::Unsigned),
        "RegionDisabledException" | "OptInRequired" => (Denied, Diagnosis::RegionDisabled),
        "IDPRejectedClaim" => (Denied, Diagnosis::WrongAudience),
        "AccessDenied" | "AccessDeniedException" => (Denied, denial_of(operation)),
        "InvalidParameterException"
        | "ValidationError"
        | "UnsupportedCommandException"
        | "MalformedPolicyDocument"
        | "PackedPolicyTooLarge" => (Denied, Diagnosis::Denied),
        // STS answers: what it cannot reach is the issuer of the token.
        "IDPCommunicationError" => (Transient, Diagnosis::OidcProviderMissing),
        "ServerException"
        | "InternalFailure"
        | "InternalError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout" => (Transient, Diagnosis::Unreachable),
        // The words are AWS's, and prove nothing about the transport.
        _ => meaning_of_status(status, ""),
    }
}

fn meaning_of_status(status: u16, message: &str) -> (Class, Diagnosis) {
    match status {
        429 => (Class::Throttled, Diagnosis::Throttled),
        200..=299 => (Class::BadAnswer, Diagnosis::NotAws),
        400..=499 if status != 408 => (Class::Denied, Diagnosis::Denied),
        _ => (Class::Transient, classify_transport(message)),
    }
}

fn denial_of(operation: &str) -> Diagnosis {
    match operation {
        WEB_IDENTITY => Diagnosis::TrustWebIdentity,
        "sts:AssumeRole" => Diagnosis::TrustAssumeRole,
        "ecr-public:GetAuthorizationToken" => Diagnosis::EcrPublicDenied,
        "ecr:GetAuthorizationToken" => Diagnosis::EcrDenied,
        _ => Diagnosis::Denied,
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
            format!("HTTP {status}, but not an answer from AWS: {}", clean(&chain(error)))
        }
        (None, _) => format!("HTTP {status} without an error code"),
    }
}

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
            // STS answers: what it could not reach is the issuer.
            (
                web,
                Some("IDPCommunicationError"),
                "no certificate",
                400,
                Class::Transient,
                D::OidcProviderMissing,
            ),
            (ecr, Some("ServerException"), "a certificate of a proxy", 500, Class::Transient, D::Unreachable),
            (ecr, Some("SomethingNew"), "a certificate of a proxy", 500, Class::Transient, D::Unreachable),
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
            let found = meaning(operation, code.unwrap_or_default(), message, *status);
            assert_eq!(found, (*class, *diagnosis), "{operation} {code:?} {status}");
        }
    }
}
