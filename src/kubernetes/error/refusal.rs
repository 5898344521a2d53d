//! An answer of the API server that is not a success: pure.

use std::fmt;

use serde::Deserialize;

use crate::failure::foreign_text::clean;

/// What the API server, or something in its place, answered instead of a success. The text is clean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(super) kind: Kind,
    pub(super) message: String,
    code: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Unauthenticated,
    RightMissing,
    NotFound,
    NamespaceEnding,
    AdmissionDenied,
    QuotaExceeded,
    WebhookFailing,
    Immutable,
    Invalid,
    TooLarge,
    Selector,
    Conflict,
    Gone,
    Throttled,
    Rejected,
    ServerError,
}

/// The part of a `Status` that is used; of anything else, nothing.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: u16,
    reason: String,
    message: String,
    details: Option<Details>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Details {
    causes: Option<Vec<Cause>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Cause {
    reason: String,
}

impl Refusal {
    /// What an answer with that HTTP status and body means: a proxy may answer in the API server's place, with
    /// anything.
    pub(in crate::kubernetes) fn parse(code: u16, body: &[u8]) -> Self {
        Self::of(code, serde_json::from_slice(body).unwrap_or_default())
    }

    /// The same of an event of a watch, which carries its code in the body.
    pub(in crate::kubernetes) fn of_event(status: &str) -> Self {
        let status: Status = serde_json::from_str(status).unwrap_or_default();
        Self::of(status.code, status)
    }

    fn of(code: u16, status: Status) -> Self {
        let Status { reason, message, details, .. } = status;
        let causes = details.and_then(|details| details.causes).unwrap_or_default();
        let is_ending = causes.iter().any(|cause| cause.reason == "NamespaceTerminating");
        let kind = if is_ending { Kind::NamespaceEnding } else { classify(code, &reason, &message) };
        let message = clean(if message.is_empty() { &reason } else { &message });
        Self { kind, message, code }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            write!(f, "HTTP {}", self.code)
        } else {
            write!(f, "{} (HTTP {})", self.message, self.code)
        }
    }
}

/// By the message first: a webhook chooses the code that the API server passes on, and the API server has one code for
/// a missing right, a quota and a policy. The words are those of k8s.io/apiserver and its admission plugins.
fn classify(code: u16, reason: &str, message: &str) -> Kind {
    by_message(code, message).unwrap_or_else(|| by_code(code, reason, message))
}

fn by_message(code: u16, message: &str) -> Option<Kind> {
    let says = |text: &str| message.contains(text);
    if says("admission webhook") && says("denied the request")
        || says("ValidatingAdmissionPolicy") && says("denied request")
    {
        Some(Kind::AdmissionDenied)
    } else if says("failed calling webhook") || code >= 500 && (says("webhook") || says("admission plugin")) {
        Some(Kind::WebhookFailing)
    } else if says("exceeded quota") || says("failed quota") || says("unknown for quota") {
        Some(Kind::QuotaExceeded)
    } else if says("because it is being terminated") {
        Some(Kind::NamespaceEnding)
    } else if says("field is immutable") {
        Some(Kind::Immutable)
    } else if says("request is too large") || says("Too long: may not be more than") {
        Some(Kind::TooLarge)
    } else {
        None
    }
}

fn by_code(code: u16, reason: &str, message: &str) -> Kind {
    let says = |text: &str| message.contains(text);
    match code {
        401 => Kind::Unauthenticated,
        // Whoever is anonymous has shown no credentials that the API server knows.
        403 if says("User \"system:anonymous\"") => Kind::Unauthenticated,
        // Without a reason it is no answer of an API server, and proves nothing about the Secret.
        403 | 404 | 409 if reason.is_empty() => Kind::Rejected,
        403 if message.is_empty() || says("\" cannot ") => Kind::RightMissing,
        403 => Kind::AdmissionDenied,
        404 if reason == "NotFound" && !says("could not find the requested resource") => Kind::NotFound,
        409 => Kind::Conflict,
        410 => Kind::Gone,
        413 => Kind::TooLarge,
        400 if says("unable to parse requirement") || says("found '") && says("', expected: ") => {
            Kind::Selector
        }
        422 => Kind::Invalid,
        429 => Kind::Throttled,
        408 | 500.. => Kind::ServerError,
        _ => Kind::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failure::foreign_text::LIMIT;

    #[test]
    fn a_refusal_is_judged_by_its_message() {
        let user = "User \"system:serviceaccount:flux:r\"";
        let cannot = format!("secrets \"ecr\" is forbidden: {user} cannot patch resource \"secrets\"");
        for (code, reason, message, kind) in [
            // Webhooks choose their code: Gatekeeper 403, Kyverno 400, and any other.
            (
                403,
                "Forbidden",
                "admission webhook \"validation.gatekeeper.sh\" denied the request: no",
                Kind::AdmissionDenied,
            ),
            (
                400,
                "",
                "admission webhook \"validate.kyverno.svc-fail\" denied the request: \n\nresource",
                Kind::AdmissionDenied,
            ),
            (401, "Unauthorized", "admission webhook \"a\" denied the request: x", Kind::AdmissionDenied),
            (404, "NotFound", "admission webhook \"a\" denied the request: x", Kind::AdmissionDenied),
            (
                410,
                "Gone",
                "admission webhook \"a\" denied the request without explanation",
                Kind::AdmissionDenied,
            ),
            (500, "", "admission webhook \"a\" denied the request: exceeded quota", Kind::AdmissionDenied),
            // 422 like an invalid Secret, and a policy may name any field.
            (
                422,
                "Invalid",
                "secrets \"ecr\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: field is immutable",
                Kind::AdmissionDenied,
            ),
            // Admission plugins of the API server itself: no right is missing.
            (
                403,
                "Forbidden",
                "secrets \"ecr\" is forbidden: exceeded quota: q, requested: secrets=1, used: secrets=1, limited: secrets=1",
                Kind::QuotaExceeded,
            ),
            (
                403,
                "Forbidden",
                "secrets \"ecr\" is forbidden: status unknown for quota: q, resources: secrets",
                Kind::QuotaExceeded,
            ),
            (
                403,
                "Forbidden",
                "secrets \"ecr\" is forbidden: not allowed on this node",
                Kind::AdmissionDenied,
            ),
            (
                403,
                "Forbidden",
                "unable to create new content in namespace a because it is being terminated",
                Kind::NamespaceEnding,
            ),
            (403, "Forbidden", cannot.as_str(), Kind::RightMissing),
            (403, "Forbidden", "User \"system:anonymous\" cannot list resource", Kind::Unauthenticated),
            (
                500,
                "InternalError",
                "Internal error occurred: failed calling webhook \"w\": Post \"https://127.0.0.1:1/\": connection refused",
                Kind::WebhookFailing,
            ),
            (
                504,
                "Timeout",
                "Timeout: request did not complete: admission plugin \"MutatingAdmissionWebhook\" failed to complete mutation in 13s",
                Kind::WebhookFailing,
            ),
            (500, "InternalError", "etcdserver: leader changed", Kind::ServerError),
            (
                422,
                "Invalid",
                "Secret \"ecr\" is invalid: data: Forbidden: field is immutable when `immutable` is set",
                Kind::Immutable,
            ),
            (
                422,
                "Invalid",
                "Secret \"ecr\" is invalid: type: Invalid value: \"Opaque\": field is immutable",
                Kind::Immutable,
            ),
            (
                422,
                "Invalid",
                "Secret \"ecr\" is invalid: data: Too long: may not be more than 1048576 bytes",
                Kind::TooLarge,
            ),
            (500, "", "etcdserver: request is too large", Kind::TooLarge),
            (422, "Invalid", "Secret \"ecr\" is invalid: metadata.labels", Kind::Invalid),
            (
                400,
                "BadRequest",
                "unable to parse requirement: found '=', expected: identifier",
                Kind::Selector,
            ),
            (
                400,
                "BadRequest",
                "unable to parse requirement: values[0][a]: Invalid value: \"-b\": a valid label must be",
                Kind::Selector,
            ),
            (400, "BadRequest", "found ',', expected: !, identifier, or 'end of string'", Kind::Selector),
            (400, "BadRequest", "the server rejected our request for an unknown reason", Kind::Rejected),
            (404, "NotFound", "namespaces \"apps\" not found", Kind::NotFound),
            (404, "NotFound", "the server could not find the requested resource", Kind::Rejected),
            // A proxy answers in the API server's place.
            (404, "", "", Kind::Rejected),
            (403, "", "", Kind::Rejected),
            (403, "", "RBAC: access denied", Kind::Rejected),
            (409, "", "", Kind::Rejected),
            (302, "", "", Kind::Rejected),
            (502, "", "", Kind::ServerError),
        ] {
            let body = serde_json::json!({"reason": reason, "message": message}).to_string();
            assert_eq!(Refusal::parse(code, body.as_bytes()).kind, kind, "{code} {message}");
        }
    }

    #[test]
    fn a_namespace_that_ends_is_known_by_its_cause() {
        let body = br#"{"code":403,"reason":"Forbidden","message":"x","details":{"causes":[{"reason":"NamespaceTerminating"}]}}"#;
        assert_eq!(Refusal::parse(403, body).kind, Kind::NamespaceEnding);
        // Go writes null for what is empty.
        let body = br#"{"reason":"Forbidden","message":"","details":{"causes":null}}"#;
        assert_eq!(Refusal::parse(403, body).kind, Kind::RightMissing);
    }

    proptest! {
        /// Neither bytes that are no JSON, nor a message of any length.
        #[test]
        fn no_answer_panics_or_shows_more_than_clean_text(
            code in any::<u16>(), body in any::<Vec<u8>>(), message in "(?s).{0,900}", reason in "(?s).{0,20}",
        ) {
            let canary = "c4n4ry".repeat(40);
            let message = format!("{message} {canary} {message}");
            let status = serde_json::json!({"code": code, "reason": reason, "message": message}).to_string();
            for body in [body.as_slice(), status.as_bytes()] {
                let shown = Refusal::parse(code, body).to_string();
                prop_assert!(shown.chars().count() <= LIMIT + " (HTTP 65535)".len());
                prop_assert!(!shown.contains(char::is_control));
                prop_assert!(!shown.contains(&canary));
            }
        }
    }
}
