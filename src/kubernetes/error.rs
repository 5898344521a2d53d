//! What can go wrong between us and the API server, and there, and the remedy.
//!
//! Invariants:
//! * Of a refusal the message decides before the code, since webhooks choose their codes:
//!   `a_refusal_is_judged_by_its_message`, and against a real API server `tests/secrets/admission.rs`.
//! * Text of the API server is shown clean: `no_answer_panics_or_shows_more_than_clean_text`.

mod refusal;

use std::error::Error;

use self::refusal::Kind;
pub(super) use self::refusal::Refusal;
use crate::{
    failure::{
        Class, Diagnose, Problem, classify_transport,
        diagnosis::{Diagnosis, Remedy},
        foreign_text::clean,
    },
    kubernetes::rbac::VERBS,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("this pod's service account cannot be used: {0}")]
    InCluster(String),
    /// The kubeconfig cannot be used. Without the parser's text, which may quote a token.
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(String),
    /// A key of the kubeconfig cannot be used, or is not supported. Without its value, which may be a secret.
    #[error("the kubeconfig cannot be used: `{key}` {reason}")]
    Key { key: &'static str, reason: String },
    /// The plugin of the kubeconfig issues no credentials. Without its output, which may be a secret.
    #[error("the plugin {name} of the kubeconfig issues no credentials: {reason}")]
    Plugin { name: String, reason: String },
    /// Tokens are not sent in clear.
    #[error("the API server's address {0} does not begin with https://")]
    NotHttps(String),
    #[error("the client for the API server cannot be made: {0}")]
    Client(&'static str),
    #[error("the process is ending")]
    Stopping,
}

impl ConnectError {
    pub(super) fn key(key: &'static str, reason: &str) -> Self {
        Self::Key { key, reason: clean(reason) }
    }

    pub(super) fn client(error: kube::Error) -> Self {
        Self::Client(match error {
            kube::Error::Auth(_) => "the token or password cannot be sent",
            _ => "the certificate authority or client certificate does not parse",
        })
    }
}

impl Diagnose for ConnectError {
    fn class(&self) -> Class {
        Class::Denied
    }

    fn remedy(&self) -> Remedy {
        match self {
            Self::InCluster(_) => Diagnosis::ServiceAccountToken,
            Self::Kubeconfig(_) | Self::Key { .. } | Self::NotHttps(_) => Diagnosis::Kubeconfig,
            Self::Plugin { .. } | Self::Client(_) => Diagnosis::ApiServerCredentials,
            Self::Stopping => Diagnosis::Fault,
        }
        .into()
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the API server refused: {0}")]
    Refused(Refusal),
    /// The request did not reach it, or its answer not us. The text is clean.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the API server did not respond within {} s", super::REQUEST_LIMIT.as_secs())]
    NoAnswer,
    /// The answer, or an event of a watch, has more bytes than this.
    #[error("the API server's answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer ended early, or is without end. The text is clean.
    #[error("the API server's answer was cut off: {0}")]
    Cut(String),
    #[error("the API server's answer does not parse (line {line} column {column})")]
    Garbled { line: usize, column: usize },
}

impl ApiError {
    pub(super) fn transport(error: &kube::Error) -> Self {
        let mut text = String::new();
        // kube's own words come first, and add no more than that it is an error.
        let mut next: Option<&(dyn Error + 'static)> = error.source().or(Some(error));
        while let Some(cause) = next {
            let line = cause.to_string();
            if !text.contains(&line) {
                text = if text.is_empty() { line } else { format!("{text}: {line}") };
            }
            next = cause.source();
        }
        Self::Unreachable(clean(&text))
    }

    pub(super) fn cut(error: impl std::fmt::Display) -> Self {
        Self::Cut(clean(&error.to_string()))
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is(Kind::Gone)
    }

    /// Whether a watch that goes on from the last version would meet the same again.
    pub(super) fn is_unreadable(&self) -> bool {
        matches!(self, Self::TooLong(_) | Self::Garbled { .. })
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.is(Kind::NotFound)
    }

    fn is(&self, kind: Kind) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.kind == kind)
    }

    /// What `verb` on `what` needs.
    pub(crate) fn problem(&self, what: &Wanted<'_>) -> Problem {
        let (class, remedy) = match self {
            Self::Refused(refusal) => refused(refusal, what),
            Self::Unreachable(text) => unreachable(text),
            Self::NoAnswer | Self::TooLong(_) | Self::Cut(_) | Self::Garbled { .. } => {
                (Class::Transient, Diagnosis::ApiServerUnreachable.into())
            }
        };
        Problem { message: format!("{what}: {self}"), remedy, class }
    }
}

fn refused(refusal: &Refusal, what: &Wanted<'_>) -> (Class, Remedy) {
    let remedy = match refusal.kind {
        Kind::Unauthenticated => Diagnosis::ApiServerLogin.into(),
        Kind::RightMissing => missing_right(&refusal.message, what),
        Kind::NotFound | Kind::NamespaceEnding => Remedy::with(Diagnosis::NamespaceMissing, what.namespace),
        Kind::AdmissionDenied => Diagnosis::AdmissionDenied.into(),
        Kind::QuotaExceeded => Diagnosis::QuotaExceeded.into(),
        Kind::Immutable => {
            let Wanted { namespace, name, .. } = what;
            let command = format!("kubectl -n {namespace} delete secret {name}");
            Remedy::with(Diagnosis::SecretImmutable, command)
        }
        Kind::TooLarge => Diagnosis::SecretTooLarge.into(),
        Kind::Selector => Diagnosis::SelectorRejected.into(),
        Kind::Invalid => Diagnosis::SecretInvalid.into(),
        Kind::Rejected => Diagnosis::RequestRejected.into(),
        Kind::Conflict => return (Class::Transient, Diagnosis::SecretConflict.into()),
        Kind::WebhookFailing => return (Class::Transient, Diagnosis::WebhookFailing.into()),
        Kind::Throttled => return (Class::Throttled, Diagnosis::ApiServerThrottled.into()),
        Kind::Gone | Kind::ServerError => return (Class::Transient, Diagnosis::ApiServerUnreachable.into()),
    };
    (Class::Denied, remedy)
}

/// The words are those of rustls, for its errors and for the alerts that the server sends.
fn unreachable(text: &str) -> (Class, Remedy) {
    const OUR_CERTIFICATE: [&str; 5] = [
        "fatal alert: CertificateRequired",
        "fatal alert: BadCertificate",
        "fatal alert: CertificateUnknown",
        "fatal alert: CertificateExpired",
        "fatal alert: UnknownCA",
    ];
    if classify_transport(text) == Diagnosis::TooManyOpenFiles {
        (Class::Transient, Diagnosis::TooManyOpenFiles.into())
    } else if text.contains("invalid peer certificate") {
        (Class::Denied, Diagnosis::ApiServerCertificate.into())
    } else if OUR_CERTIFICATE.iter().any(|alert| text.contains(alert)) {
        (Class::Denied, Diagnosis::ApiServerCredentials.into())
    } else {
        (Class::Transient, Diagnosis::ApiServerUnreachable.into())
    }
}

fn missing_right(message: &str, what: &Wanted<'_>) -> Remedy {
    let verbs = if what.resource == "secrets" { VERBS.join(", ") } else { "list, watch".to_owned() };
    let creating = if message.contains("cannot create") {
        "create the Secret beforehand, since it does not exist and the sidecar may not create it; "
    } else {
        ""
    };
    let rule = rule(what.namespace, what.resource, what.name, &verbs);
    Remedy::with(Diagnosis::RightMissing, format!("{creating}{rule}"))
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// What was to be done, such as `apply`.
    pub verb: &'static str,
    pub resource: &'static str,
    /// In which namespace; empty for all of them.
    pub namespace: &'a str,
    /// Which one; empty for all of them.
    pub name: &'a str,
}

impl std::fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        match (self.namespace, self.name) {
            ("", "") => Ok(()),
            ("", name) => write!(f, " {name} in all namespaces"),
            (namespace, name) => write!(f, " {namespace}/{name}"),
        }
    }
}

/// The rule that gives those rights, and where it belongs.
pub(crate) fn rule(namespace: &str, resource: &str, name: &str, verbs: &str) -> String {
    let (kind, place) = match namespace {
        "" => ("ClusterRole", String::new()),
        namespace => ("Role", format!(" in namespace {namespace}")),
    };
    let names = if name.is_empty() { String::new() } else { format!("resourceNames: [{name}], ") };
    format!("{kind}{place}: {{apiGroups: [\"\"], resources: [{resource}], {names}verbs: [{verbs}]}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted<'_> = Wanted { verb: "patch", resource: "secrets", namespace: "apps", name: "ecr" };

    #[test]
    fn each_refusal_has_its_diagnosis() {
        let refused = |code: u16, reason: &str| {
            let status = format!(r#"{{"reason": "{reason}", "status": "Failure"}}"#);
            ApiError::Refused(Refusal::parse(code, status.as_bytes())).problem(&WANTED)
        };
        for (code, reason, diagnosis, class) in [
            (401, "Unauthorized", Diagnosis::ApiServerLogin, Class::Denied),
            (403, "Forbidden", Diagnosis::RightMissing, Class::Denied),
            (404, "NotFound", Diagnosis::NamespaceMissing, Class::Denied),
            (413, "RequestEntityTooLarge", Diagnosis::SecretTooLarge, Class::Denied),
            (422, "Invalid", Diagnosis::SecretInvalid, Class::Denied),
            (429, "TooManyRequests", Diagnosis::ApiServerThrottled, Class::Throttled),
            (500, "InternalError", Diagnosis::ApiServerUnreachable, Class::Transient),
        ] {
            let problem = refused(code, reason);
            assert_eq!((problem.remedy.diagnosis, problem.class), (diagnosis, class), "{code}");
        }
        let client = ConnectError::Client("the client certificate does not parse").problem();
        assert_eq!(client.remedy.diagnosis, Diagnosis::ApiServerCredentials);
        let rule = refused(403, "Forbidden").remedy.to_string();
        assert!(
            rule.contains("Role in namespace apps: {") && rule.contains("resourceNames: [ecr]"),
            "{rule}"
        );
    }

    /// The texts are those of rustls, as hyper hands them on.
    #[test]
    fn what_only_a_person_can_fix_in_tls_is_denied() {
        for (text, diagnosis, class) in [
            (
                "client error (Connect): invalid peer certificate: UnknownIssuer",
                Diagnosis::ApiServerCertificate,
                Class::Denied,
            ),
            (
                "invalid peer certificate: certificate not valid for name \"10.0.0.1\"",
                Diagnosis::ApiServerCertificate,
                Class::Denied,
            ),
            ("received fatal alert: CertificateRequired", Diagnosis::ApiServerCredentials, Class::Denied),
            ("received fatal alert: HandshakeFailure", Diagnosis::ApiServerUnreachable, Class::Transient),
            ("tcp connect error: Connection refused", Diagnosis::ApiServerUnreachable, Class::Transient),
        ] {
            let problem = ApiError::Unreachable(text.into()).problem(&WANTED);
            assert_eq!((problem.remedy.diagnosis, problem.class), (diagnosis, class), "{text}");
        }
    }

    #[test]
    fn only_an_immutable_field_calls_for_a_deletion() {
        let remedy = |code, message: &str| {
            let status = serde_json::json!({"message": message}).to_string();
            ApiError::Refused(Refusal::parse(code, status.as_bytes())).problem(&WANTED).remedy.to_string()
        };
        let immutable =
            "Secret \"ecr\" is invalid: data: Forbidden: field is immutable when `immutable` is set";
        assert!(remedy(422, immutable).ends_with("(kubectl -n apps delete secret ecr)"));
        for other in [
            "Secret \"ecr\" is invalid: metadata.labels: Invalid value: \"-\"",
            "secrets \"ecr\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            "",
        ] {
            assert!(!remedy(422, other).contains("kubectl -n"), "{other}");
        }
    }
}
