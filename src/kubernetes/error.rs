//! What can go wrong on the way to the API server and there, and the mend.

use std::error::Error;

use kube::{
    config::{InClusterError, KubeconfigError},
    core::Status,
};

use crate::{
    diagnosis::{Diagnosis, Remedy},
    failure::{Class, Problem, causes, foreign_text::clean, of_the_way},
    manifests::VERBS,
};

/// Why the API server cannot even be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The pod has no service account.
    #[error("this pod's service account cannot be used: {0}")]
    InCluster(String),
    /// The kubeconfig cannot be used. Without the parser's text, which may quote a token.
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(String),
    /// Tokens are not sent in clear.
    #[error("the API server's address {0} does not begin with https://")]
    NotHttps(String),
    /// The HTTP client cannot be made.
    #[error("the client for the API server cannot be made: {0}")]
    Client(&'static str),
    /// The process ends.
    #[error("the process is ending")]
    Stopping,
}

impl ConnectError {
    pub(super) fn in_cluster(error: InClusterError) -> Self {
        Self::InCluster(causes(&error))
    }

    pub(super) fn kubeconfig(error: KubeconfigError) -> Self {
        Self::Kubeconfig(match &error {
            KubeconfigError::Parse(_) => "it is not valid YAML".into(),
            other => causes(other),
        })
    }

    pub(super) fn client(error: kube::Error) -> Self {
        Self::Client(match error {
            kube::Error::Auth(_) => {
                "its credentials cannot be read (token file, client certificate or plugin)"
            }
            _ => "the certificate authority or client certificate does not parse",
        })
    }

    /// The failure as a person reads it.
    pub fn problem(&self) -> Problem {
        let diagnosis = match self {
            Self::InCluster(_) => Diagnosis::ServiceAccountToken,
            Self::Kubeconfig(_) | Self::NotHttps(_) => Diagnosis::Kubeconfig,
            Self::Client(_) => Diagnosis::ApiServerCredentials,
            Self::Stopping => Diagnosis::Fault,
        };
        Problem { message: self.to_string(), remedy: diagnosis.into(), class: Class::Denied }
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The API server refused.
    #[error("the API server refused: {}", said(.0))]
    Refused(Box<Status>),
    /// The request did not reach it, or its answer not us.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// Nothing came in time.
    #[error("the API server gave no answer within {} s", super::REQUEST_LIMIT.as_secs())]
    NoAnswer,
    /// The answer ended early, or was too long.
    #[error("the API server's answer was cut off: {0}")]
    Cut(String),
    /// The answer is not what the API says.
    #[error("the API server's answer does not parse (line {line} column {column})")]
    Garbled {
        /// Where.
        line: usize,
        /// Where in it.
        column: usize,
    },
}

impl ApiError {
    pub(super) fn transport(error: &kube::Error) -> Self {
        let mut text = String::new();
        // kube's own words come first, and say no more than that it is an error.
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

    /// Whether somebody else wrote in between.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(status) if status.is_conflict())
    }

    /// Whether a watch has to begin anew with a list.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code == 410)
    }

    /// The failure as a person reads it: what `verbs` on `what` needs.
    pub fn problem(&self, what: &Wanted<'_>) -> Problem {
        let (class, remedy) = match self {
            Self::Refused(status) if status.is_forbidden() => (Class::Denied, forbidden_remedy(status, what)),
            Self::Refused(status) if status.code == 401 => (Class::Denied, Diagnosis::ApiServerLogin.into()),
            Self::Refused(status) if status.is_not_found() => {
                (Class::Denied, Remedy::with(Diagnosis::NamespaceMissing, what.namespace))
            }
            Self::Refused(status) if status.is_invalid() => {
                let Wanted { namespace, name, .. } = what;
                let command = format!("kubectl -n {namespace} delete secret {name}");
                (Class::Denied, Remedy::with(Diagnosis::SecretInvalid, command))
            }
            Self::Refused(status) if status.code == 429 => {
                (Class::Throttled, Diagnosis::ApiServerThrottled.into())
            }
            Self::Unreachable(why) if of_the_way(why) == Diagnosis::TooManyOpenFiles => {
                (Class::Transient, Diagnosis::TooManyOpenFiles.into())
            }
            _ => (Class::Transient, Diagnosis::ApiServerUnreachable.into()),
        };
        Problem { message: format!("{what}: {self}"), remedy, class }
    }
}

/// What a request was for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What was to be done, such as `apply`.
    pub verb: &'static str,
    /// The resource, such as `secrets`.
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

fn said(status: &Status) -> String {
    let text = if status.message.is_empty() { &status.reason } else { &status.message };
    // An admission webhook may say anything, at any length.
    format!("{} (HTTP {})", clean(text), status.code)
}

fn forbidden_remedy(status: &Status, what: &Wanted<'_>) -> Remedy {
    let is_ending = status
        .details
        .iter()
        .flat_map(|details| &details.causes)
        .any(|cause| cause.reason == "NamespaceTerminating");
    if is_ending {
        return Remedy::with(Diagnosis::NamespaceMissing, what.namespace);
    }
    let verbs = if what.resource == "secrets" { VERBS.join(", ") } else { "list, watch".to_owned() };
    let creating = if status.message.contains("cannot create") {
        "create the Secret beforehand, for it is not there and we may not create it; "
    } else {
        ""
    };
    let rule = rule(what.namespace, what.resource, what.name, &verbs);
    Remedy::with(Diagnosis::RightMissing, format!("{creating}{rule}"))
}

/// The rule that gives those rights, and where it belongs.
pub fn rule(namespace: &str, resource: &str, name: &str, verbs: &str) -> String {
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

    #[test]
    fn each_refusal_has_its_diagnosis() {
        let wanted = Wanted { verb: "patch", resource: "secrets", namespace: "apps", name: "ecr" };
        let refused = |code: u16, reason: &str| {
            let status: Status = serde_json::from_value(
                serde_json::json!({"code": code, "reason": reason, "status": "Failure"}),
            )
            .unwrap();
            ApiError::Refused(Box::new(status)).problem(&wanted)
        };
        for (code, reason, diagnosis, class) in [
            (401, "Unauthorized", Diagnosis::ApiServerLogin, Class::Denied),
            (403, "Forbidden", Diagnosis::RightMissing, Class::Denied),
            (404, "NotFound", Diagnosis::NamespaceMissing, Class::Denied),
            (422, "Invalid", Diagnosis::SecretInvalid, Class::Denied),
            (429, "TooManyRequests", Diagnosis::ApiServerThrottled, Class::Throttled),
            (500, "InternalError", Diagnosis::ApiServerUnreachable, Class::Transient),
        ] {
            let problem = refused(code, reason);
            assert_eq!((problem.remedy.diagnosis, problem.class), (diagnosis, class), "{code}");
        }
        let client = ConnectError::Client("the client certificate does not parse").problem();
        assert_eq!(client.remedy.diagnosis, Diagnosis::ApiServerCredentials);
        let no_descriptor = ApiError::Unreachable("tcp: Too many open files (os error 24)".into());
        assert_eq!(no_descriptor.problem(&wanted).remedy.diagnosis, Diagnosis::TooManyOpenFiles);
        let unreachable = ApiError::Unreachable("refused".into()).problem(&wanted);
        assert_eq!(unreachable.remedy.diagnosis, Diagnosis::ApiServerUnreachable);
        let rule = refused(403, "Forbidden").remedy.to_string();
        assert!(
            rule.contains("Role in namespace apps: {") && rule.contains("resourceNames: [ecr]"),
            "{rule}"
        );
    }
}
