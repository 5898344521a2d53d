//! What a failed call means: its class, which decides when to try again, and the mend, which tells a
//! person what to do.
//!
//! AWS's own error codes decide the class (`facts`: the service models of ECR and STS); messages are only
//! searched where AWS uses one code for several causes (a clock that is off is an
//! `InvalidSignatureException` like a wrong key). Held by the test `codes_have_their_class`.

use std::{error::Error, fmt, time::SystemTime};

use aws_smithy_runtime_api::{
    client::{orchestrator::HttpResponse, result::SdkError},
    http::Headers,
};
use aws_smithy_types::{DateTime, date_time::Format, error::metadata::ProvideErrorMetadata};
use serde::Serialize;

/// How the SDK's endpoint rules begin to say that variables contradict each other.
const INVALID_CONFIGURATION: &str = "Invalid Configuration";

/// When it makes sense to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
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
    /// Policy, trust, keys or configuration: only a person can mend it.
    Denied,
}

impl Class {
    /// Every class.
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

    /// Whether waiting alone won't mend it: it is polled slowly, and tried at once when an input changes.
    pub fn needs_a_person(self) -> bool {
        matches!(self, Self::Denied | Self::StaleInput | Self::StaleCredentials)
    }

    /// Whether one more try at once may succeed, since what it rests on is read anew.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What failed, where and why: one sentence.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
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
    code: Option<String>,
    detail: String,
    class: Class,
    skew: Option<i64>,
}

impl AwsFailure {
    /// What `error` of `operation` (for example `sts:AssumeRole`) means; `now` tells the clock's skew.
    pub fn new<E>(operation: &'static str, error: &SdkError<E, HttpResponse>, now: SystemTime) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let response = error.raw_response();
        let skew = response.and_then(|response| skew_seconds(response.headers(), now));
        match error {
            SdkError::ServiceError(context) => {
                let code = context.err().code().map(str::to_owned);
                let message = context.err().message().unwrap_or_default();
                let status = context.raw().status().as_u16();
                let class = classify(operation, code.as_deref(), message, status);
                let detail = service_detail(code.as_deref(), message, status, error);
                Self { operation, code, detail, class, skew }
            }
            SdkError::ResponseError(_) => {
                let status = response.map_or(0, |response| response.status().as_u16());
                let class = by_status(status);
                let detail = format!("HTTP {status}, but no answer of AWS's: {}", causes(error));
                Self { operation, code: None, detail, class, skew }
            }
            _ => {
                let detail = causes(error);
                // The SDK's endpoint rules; they have no code.
                let is_refused_here = detail.contains(INVALID_CONFIGURATION);
                let class = if is_refused_here { Class::Denied } else { Class::Transient };
                Self { operation, code: None, detail, class, skew }
            }
        }
    }

    /// Decides when to try again.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What a person can do about it.
    pub fn remedy(&self) -> String {
        let code = self.code.as_deref().unwrap_or_default();
        match self.class {
            Class::Clock => format!(
                "set this machine's clock{}: AWS refuses requests whose time is off by 5 minutes",
                self.skew.map(|s| format!(", it is {} s {}", s.abs(), if s < 0 { "ahead" } else { "behind" })).unwrap_or_default()
            ),
            Class::Throttled => "nothing to do: it is tried again after a pause; if it lasts, too many callers share this account and region".into(),
            Class::BadAnswer => "something between here and AWS answers in its place: check the endpoint, the proxy, and captive portals".into(),
            Class::StaleCredentials => "the AWS credentials have expired: renew them at their source".into(),
            Class::StaleInput => "check that kubelet renews the service account token, and that the IAM OIDC provider of this cluster exists and its issuer is reachable by AWS".into(),
            Class::Transient => transient_remedy(&self.detail).into(),
            Class::Denied if self.detail.contains(INVALID_CONFIGURATION) => {
                "unset AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT, or the endpoint that AWS_ENDPOINT_URL or the profile names".into()
            }
            Class::Denied => denied_remedy(self.operation, code).into(),
        }
    }
}

impl fmt::Display for AwsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.detail)
    }
}

impl Error for AwsFailure {}

/// The whole chain of causes in one line, without what is said twice.
pub fn causes(error: &(dyn Error + 'static)) -> String {
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

fn service_detail(code: Option<&str>, message: &str, status: u16, error: &(dyn Error + 'static)) -> String {
    match (code, message.trim()) {
        (Some(code), "") => format!("{code} (HTTP {status})"),
        (Some(code), message) => format!("{code}: {message}"),
        (None, _) if (200..=299).contains(&status) => {
            format!("HTTP {status}, but no answer of AWS's: {}", causes(error))
        }
        (None, _) => format!("HTTP {status} without an error code"),
    }
}

fn transient_remedy(detail: &str) -> &'static str {
    if detail.contains("UnknownIssuer") || detail.contains("certificate") {
        "name the certificate authority that signed the endpoint's certificate by AWS_CA_BUNDLE"
    } else if detail.contains("dns error") || detail.contains("failed to lookup") {
        "check the endpoint's name and this pod's DNS; a VPC endpoint resolves only inside its VPC"
    } else if detail.contains("proxy") || detail.contains("tunnel") {
        "check HTTPS_PROXY and NO_PROXY, and that the proxy lets this host through"
    } else if detail.contains("CA bundle") {
        "mount a bundle of certificate authorities, or name one by AWS_CA_BUNDLE or SSL_CERT_FILE"
    } else {
        "it is tried again by itself; if it lasts, check that this pod can reach the endpoint (egress, proxy, VPC endpoint)"
    }
}

fn denied_remedy(operation: &str, code: &str) -> &'static str {
    match (operation, code) {
        (_, "UnrecognizedClientException" | "InvalidClientTokenId" | "AuthFailure") => {
            "the access key is unknown to AWS: it was deleted, or belongs to another partition (aws-cn, aws-us-gov)"
        }
        (_, "InvalidSignatureException" | "SignatureDoesNotMatch" | "IncompleteSignature") => {
            "the secret access key does not belong to the access key id: check both files or variables"
        }
        (_, "MissingAuthenticationToken" | "MissingAuthenticationTokenException") => {
            "the request arrived unsigned: a proxy may strip headers"
        }
        (_, "RegionDisabledException" | "OptInRequired") => {
            "the region is not enabled for this account: enable it, or set stsRegion to one that is"
        }
        (_, "IDPRejectedClaim") => {
            "check the token's audience (sts.amazonaws.com) and the conditions of the IAM OIDC provider"
        }
        ("sts:AssumeRoleWithWebIdentity", _) => {
            "let the role's trust policy admit this service account: its OIDC provider, `aud` = sts.amazonaws.com and `sub` = system:serviceaccount:NAMESPACE:NAME"
        }
        ("sts:AssumeRole", _) => {
            "let the role's trust policy admit the calling principal (and externalId, if it asks for one), and allow the caller sts:AssumeRole on it"
        }
        ("ecr-public:GetAuthorizationToken", _) => {
            "allow the principal ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken on resource *"
        }
        ("ecr:GetAuthorizationToken", _) => "allow the principal ecr:GetAuthorizationToken on resource *",
        _ => "check the principal's policies and the configuration",
    }
}

/// Seconds that this machine's clock is behind AWS's, by the answer's `Date`.
fn skew_seconds(headers: &Headers, now: SystemTime) -> Option<i64> {
    let date = DateTime::from_str(headers.get("date")?, Format::HttpDate).ok()?;
    let now = DateTime::from(now);
    Some(date.secs() - now.secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_class() {
        let ecr = "ecr:GetAuthorizationToken";
        let web = "sts:AssumeRoleWithWebIdentity";
        let table: &[(&str, Option<&str>, &str, u16, Class)] = &[
            (ecr, Some("ThrottlingException"), "Rate exceeded", 400, Class::Throttled),
            (ecr, None, "", 429, Class::Throttled),
            (ecr, Some("ServerException"), "", 500, Class::Transient),
            (ecr, None, "", 503, Class::Transient),
            (ecr, None, "", 408, Class::Transient),
            (ecr, None, "", 200, Class::BadAnswer),
            (ecr, Some("ExpiredTokenException"), "", 400, Class::StaleCredentials),
            (web, Some("ExpiredTokenException"), "", 400, Class::StaleInput),
            (web, Some("InvalidIdentityToken"), "", 400, Class::StaleInput),
            (web, Some("IDPCommunicationError"), "", 400, Class::Transient),
            (web, Some("IDPRejectedClaim"), "", 403, Class::Denied),
            (web, Some("AccessDenied"), "", 403, Class::Denied),
            (ecr, Some("InvalidSignatureException"), "Signature expired: …", 403, Class::Clock),
            (ecr, Some("InvalidSignatureException"), "Signature not yet current: …", 403, Class::Clock),
            (ecr, Some("InvalidSignatureException"), "The signature does not match", 403, Class::Denied),
            (ecr, Some("RequestExpired"), "", 400, Class::Clock),
            (ecr, Some("UnrecognizedClientException"), "", 400, Class::Denied),
            (ecr, Some("SomethingNew"), "", 400, Class::Denied),
            (ecr, Some("SomethingNew"), "", 500, Class::Transient),
        ];
        for (operation, code, message, status, class) in table {
            assert_eq!(classify(operation, *code, message, *status), *class, "{operation} {code:?} {status}");
        }
    }
}
