//! AWS and its registry, at the level of HTTP: what a fault does to a request, and what was issued and asked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ecr_sidecar::clock::Clock;

use crate::{HOST, HOUR, LIFETIME};

/// What AWS does to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    ServerError,
    Throttled,
    Denied,
    ExpiredCredentials,
    Html,
    EmptyList,
    NotBase64,
    Hang,
    Refused,
    Slow,
    ExpiredOnArrival,
}

pub(crate) const FAULTS: [Fault; 11] = [
    Fault::ServerError,
    Fault::Throttled,
    Fault::Denied,
    Fault::ExpiredCredentials,
    Fault::Html,
    Fault::EmptyList,
    Fault::NotBase64,
    Fault::Hang,
    Fault::Refused,
    Fault::Slow,
    Fault::ExpiredOnArrival,
];

/// AWS: what it does next, and what it has issued.
#[derive(Debug)]
pub(crate) struct Aws {
    pub(crate) fault: Fault,
    pub(crate) clock: Clock,
    pub(crate) issued: BTreeMap<String, SystemTime>,
    /// Of the API.
    pub(crate) calls: u64,
    pub(crate) registry: Registry,
}

/// What the registry does, and when it was asked for which path with which `auth`.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) fault: Option<RegistryFault>,
    pub(crate) asked: Vec<(SystemTime, String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RegistryFault {
    Denied,
    NoSuchTag,
    Throttled,
    Unavailable,
    Redirect,
    Html,
    Hang,
    Refused,
}

pub(crate) const REGISTRY_FAULTS: [RegistryFault; 8] = [
    RegistryFault::Denied,
    RegistryFault::NoSuchTag,
    RegistryFault::Throttled,
    RegistryFault::Unavailable,
    RegistryFault::Redirect,
    RegistryFault::Html,
    RegistryFault::Hang,
    RegistryFault::Refused,
];

#[derive(Debug, Clone)]
pub(crate) struct AwsConnector(pub(crate) Arc<Mutex<Aws>>);

impl HttpConnector for AwsConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut aws = self.0.lock().unwrap();
        if let Some(path) = request.uri().strip_prefix(&format!("https://{HOST}")) {
            return aws.serve(path, request.headers().get("authorization").unwrap_or_default());
        }
        aws.calls += 1;
        let error =
            |status, code: &str| answer(status, format!(r#"{{"__type":"{code}","message":"simulated"}}"#));
        let response = match aws.fault {
            Fault::None | Fault::Slow | Fault::ExpiredOnArrival => aws.issue(),
            Fault::ServerError => error(500, "ServerException"),
            Fault::Throttled => error(400, "ThrottlingException"),
            Fault::Denied => error(400, "AccessDeniedException"),
            Fault::ExpiredCredentials => error(400, "ExpiredTokenException"),
            Fault::Html => answer(200, "<html>hello</html>".into()),
            Fault::EmptyList => answer(200, r#"{"authorizationData":[]}"#.into()),
            Fault::NotBase64 => {
                answer(200, r#"{"authorizationData":[{"authorizationToken":"-","expiresAt":9e9}]}"#.into())
            }
            Fault::Hang => return HttpConnectorFuture::new(std::future::pending()),
            Fault::Refused => {
                return HttpConnectorFuture::ready(Err(ConnectorError::io("connection refused".into())));
            }
        };
        let delay = if aws.fault == Fault::Slow { Duration::from_secs(8) } else { Duration::ZERO };
        HttpConnectorFuture::new(async move {
            tokio::time::sleep(delay).await;
            Ok(response)
        })
    }
}

impl Aws {
    fn issue(&mut self) -> HttpResponse {
        let now = self.clock.now();
        let expires = if self.fault == Fault::ExpiredOnArrival { now - HOUR } else { now + LIFETIME };
        let auth = STANDARD.encode(format!("AWS:password-{}", self.issued.len()));
        self.issued.insert(auth.clone(), expires);
        let said = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        answer(
            200,
            format!(r#"{{"authorizationData":[{{"authorizationToken":"{auth}","expiresAt":{said}}}]}}"#),
        )
    }

    /// What the registry answers.
    fn serve(&mut self, path: &str, authorization: &str) -> HttpConnectorFuture {
        let auth = authorization.strip_prefix("Basic ").unwrap_or_default().to_owned();
        self.registry.asked.push((self.clock.now(), path.to_owned(), auth.clone()));
        let error = |status, code: &str| {
            answer(status, format!(r#"{{"errors":[{{"code":"{code}","message":"simulated"}}]}}"#))
        };
        HttpConnectorFuture::ready(Ok(match self.registry.fault {
            Some(RegistryFault::Hang) => return HttpConnectorFuture::new(std::future::pending()),
            Some(RegistryFault::Refused) => {
                return HttpConnectorFuture::ready(Err(ConnectorError::io("connection refused".into())));
            }
            _ if !self.lets_in(&auth) => error(401, "DENIED"),
            None => answer(200, r#"{"schemaVersion":2,"layers":[]}"#.into()),
            Some(RegistryFault::Denied) => error(403, "DENIED"),
            Some(RegistryFault::NoSuchTag) => error(404, "MANIFEST_UNKNOWN"),
            Some(RegistryFault::Throttled) => error(429, "TOOMANYREQUESTS"),
            Some(RegistryFault::Unavailable) => error(503, "UNAVAILABLE"),
            Some(RegistryFault::Redirect) => {
                let mut redirect = answer(302, String::new());
                redirect.headers_mut().insert("location", "https://evil.example/v2/");
                redirect
            }
            Some(RegistryFault::Html) => answer(200, "<html>hello</html>".into()),
        }))
    }

    pub(crate) fn lets_in(&self, auth: &str) -> bool {
        self.issued.get(auth).is_some_and(|expires| *expires > self.clock.now())
    }
}

fn answer(status: u16, body: String) -> HttpResponse {
    HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from(body))
}
