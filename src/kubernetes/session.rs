//! The client in use, and when another takes its place: when a file that it rests on has changed, when what a plugin
//! issued expires, and when the API server does not know its credentials (401).
//!
//! * What is in use stays until another one is there: `a_failed_renewal_keeps_the_session`.
//! * One renewal at a time, and of those that wait for it none repeats it; a plugin is not run at full speed by an API
//!   server that rejects what it issues: `a_rejected_session_is_renewed_once_in_a_while`.
//!
//! * What was sent to prove who we are is taken out of what comes back: `an_answer_that_echoes_our_token_is_redacted`.
//!
//! A watch goes on with the client that it began with, for some minutes at most.

use std::{
    collections::VecDeque,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Request, Response, header};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
    config::AuthInfo,
};
use serde_json::Value;
use tokio::{sync::Mutex as Gate, time::Instant};
use tower::limit::RateLimitLayer;
use zeroize::Zeroizing;

use super::{
    ApiError, CONNECT_LIMIT, ConnectError, REQUEST_LIMIT, REQUESTS_A_SECOND, access::Source, exec_plugin,
};
use crate::{
    clock::Clock,
    failure::{Diagnose, diagnosis::Diagnosis, log_problem},
    fs::read::within,
    secret::Secret,
    tasks::{self, locked},
};

/// How often the files are compared, at most, and how often a rejected session is renewed.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// What a plugin issued is renewed so long before its expiry.
const MARGIN: Duration = Duration::from_secs(60);

const MOST_SENT_BEFORE: usize = 16;

/// Stands for all files in which the system may have them: however often it connects, one thread waits for them.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl";

pub(super) struct Session {
    client: Client,
    /// The pod's own, or the kubeconfig's.
    namespace: String,
    digest: [u8; 32],
    expires_at: Option<SystemTime>,
    /// What it sends to prove who we are.
    secrets: Vec<Secret<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is time to compare.
    Due,
    /// The API server does not know the credentials.
    Rejected,
}

/// Makes a session in place of the one that is there, if that makes a difference.
type Connect = dyn Fn(Arc<Session>, Reason) -> Pin<Box<dyn Future<Output = Result<Option<Session>, ConnectError>> + Send>>
    + Send
    + Sync;

pub(super) struct Link {
    connect: Box<Connect>,
    state: Mutex<State>,
    /// Held by the one renewal.
    gate: Gate<()>,
}

struct State {
    session: Arc<Session>,
    /// What the sessions before it sent: a watch may go on with one of them, and their tokens be valid.
    sent_before: VecDeque<Secret<String>>,
    check_at: Instant,
    rejected_at: Option<Instant>,
    failure: Option<String>,
}

impl Session {
    pub(super) async fn open(source: &Source) -> Result<Self, ConnectError> {
        let opened = Self::renew(source, None, Reason::Due).await?;
        opened.ok_or(ConnectError::Stopping)
    }

    /// Another one; `None` when it would be like `known`.
    pub(super) async fn renew(
        source: &Source,
        known: Option<&Self>,
        reason: Reason,
    ) -> Result<Option<Self>, ConnectError> {
        let access = source.read().await?;
        let is_same = known.is_some_and(|known| known.digest == access.digest);
        let is_reissued = reason == Reason::Rejected || known.is_some_and(Self::is_expiring);
        if is_same && !(is_reissued && access.plugin.is_some()) {
            return Ok(None);
        }
        let issued = match &access.plugin {
            Some((plugin, cluster)) => Some(exec_plugin::run(plugin, cluster.as_ref()).await?),
            None => None,
        };
        let expires_at = issued.as_ref().and_then(|issued| issued.expires_at);
        let digest = access.digest;
        let config = access.config(issued);
        let namespace = config.default_namespace.clone();
        let secrets = secrets_of(&config.auth_info);
        Ok(Some(Self {
            client: client(config, CONNECT_LIMIT).await?,
            namespace,
            digest,
            expires_at,
            secrets,
        }))
    }

    fn is_expiring(&self) -> bool {
        self.expires_at.is_some_and(|expiry| expiry <= Clock::System.now() + MARGIN)
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, ApiError> {
        let sent = tokio::time::timeout(REQUEST_LIMIT, self.client.send(request));
        sent.await.map_err(|_| ApiError::NoAnswer)?.map_err(|error| ApiError::transport(&error))
    }
}

/// The token and the password, as they are and as they are sent.
fn secrets_of(user: &AuthInfo) -> Vec<Secret<String>> {
    // Without the crate of kube-rs's secrets, serialisation is the only access to their values.
    let Ok(Value::Object(mut user)) = serde_json::to_value(user) else { return Vec::new() };
    let mut take = |key| match user.remove(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let (name, password, token) = (take("username"), take("password"), take("token"));
    let basic =
        name.zip(password.as_ref()).map(|(name, password)| STANDARD.encode(format!("{name}:{password}")));
    [token, password, basic].into_iter().flatten().map(Secret::new).collect()
}

async fn client(mut config: Config, limit: Duration) -> Result<Client, ConnectError> {
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_LIMIT);
    let agent = concat!("ecr-sidecar/", env!("CARGO_PKG_VERSION"));
    config.headers.push((header::USER_AGENT, header::HeaderValue::from_static(agent)));
    if config.accept_invalid_certs {
        let (diagnosis, remedy) =
            (Diagnosis::ApiServerUnverified.id(), Diagnosis::ApiServerUnverified.remedy());
        tracing::warn!(
            diagnosis,
            remedy,
            "insecure-skip-tls-verify: the API server's certificate is not checked"
        );
    }
    // Without an authority of its own it reads the system's, on whatever volume that is.
    let reads_the_systems = config.root_cert.is_none();
    let build = move || ClientBuilder::try_from(config);
    let builder = match reads_the_systems {
        true => within(limit, Path::new(SYSTEM_AUTHORITIES), move || Ok(build())).await.ok(),
        false => tasks::blocking_within(limit, build).await,
    };
    let builder = builder
        .ok_or(ConnectError::Client("the system's certificate authorities cannot be read in time"))?
        .map_err(ConnectError::client)?;
    let rate = RateLimitLayer::new(REQUESTS_A_SECOND, Duration::from_secs(1));
    Ok(builder.with_layer(&rate).build())
}

impl Link {
    pub(super) fn new(session: Session, connect: Box<Connect>) -> Self {
        let state = State {
            session: Arc::new(session),
            sent_before: VecDeque::new(),
            check_at: Instant::now() + CHECK_INTERVAL,
            rejected_at: None,
            failure: None,
        };
        Self { connect, state: Mutex::new(state), gate: Gate::default() }
    }

    pub(super) fn namespace(&self) -> String {
        locked(&self.state).session.namespace.clone()
    }

    /// An answer without what we sent to prove who we are: whatever is in the API server's place may echo it.
    pub(super) fn redact(&self, answer: &[u8]) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::from_utf8_lossy(answer).into_owned());
        let state = locked(&self.state);
        for secret in state.session.secrets.iter().chain(&state.sent_before) {
            *text = text.replace(secret.expose().as_str(), "[redacted]");
        }
        text
    }

    /// Sends a request; once more with another session when its credentials are not known and another one has others.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, ApiError> {
        let session = self.session().await;
        let again = copy(&request);
        let response = session.send(request).await?;
        if response.status() != http::StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        match (self.after_rejection(&session).await, again) {
            (Some(newer), Some(again)) => newer.send(again).await,
            _ => Ok(response),
        }
    }

    /// The session in use. Whoever finds that it is time compares; others don't wait for that.
    async fn session(&self) -> Arc<Session> {
        let (session, is_due) = {
            let state = locked(&self.state);
            (Arc::clone(&state.session), Instant::now() >= state.check_at)
        };
        if !is_due {
            return session;
        }
        let Ok(_gate) = self.gate.try_lock() else { return session };
        self.renew(Reason::Due).await;
        self.current()
    }

    async fn after_rejection(&self, rejected: &Arc<Session>) -> Option<Arc<Session>> {
        let _gate = self.gate.lock().await;
        let is_in_use = Arc::ptr_eq(&self.current(), rejected);
        let is_early = locked(&self.state).rejected_at.is_some_and(|at| at.elapsed() < CHECK_INTERVAL);
        if is_in_use && !is_early {
            locked(&self.state).rejected_at = Some(Instant::now());
            self.renew(Reason::Rejected).await;
        }
        Some(self.current()).filter(|current| !Arc::ptr_eq(current, rejected))
    }

    /// Under the gate.
    async fn renew(&self, reason: Reason) {
        let renewed = (self.connect)(self.current(), reason).await;
        let mut state = locked(&self.state);
        state.check_at = Instant::now() + CHECK_INTERVAL;
        match renewed {
            Ok(None) => state.failure = None,
            Ok(Some(session)) => {
                tracing::info!(
                    "connecting to the API server again, with other credentials or another address"
                );
                let before = std::mem::replace(&mut state.session, Arc::new(session));
                state.sent_before.extend(before.secrets.iter().cloned());
                let excess = state.sent_before.len().saturating_sub(MOST_SENT_BEFORE);
                state.sent_before.drain(..excess);
                state.failure = None;
            }
            Err(error) => {
                let problem = error.problem();
                if state.failure.as_ref() != Some(&problem.message) {
                    log_problem!(
                        warn,
                        problem,
                        {},
                        "access to the API server cannot be renewed; keeping the current one"
                    );
                    state.failure = Some(problem.message);
                }
            }
        }
    }

    fn current(&self) -> Arc<Session> {
        Arc::clone(&locked(&self.state).session)
    }
}

/// The same request; `None` for one whose body is a stream.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

#[cfg(test)]
pub(super) mod tests;
