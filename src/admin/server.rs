//! The HTTP server of the health endpoint.
//!
//! It stays small whatever clients do: requests are GET or HEAD, heads of at most [`HEAD_LIMIT`] that arrive
//! within [`HEAD_TIMEOUT`], one request a connection, at most [`SILENT`] that have sent nothing yet, which cost
//! next to nothing, and [`TALKING`] others at a time, fewer where the process may open few files ([`Limits`]):
//! `a_flood_leaves_descriptors_for_the_work`. The newest connection always gets in, the oldest goes:
//! so a flood cannot hold up a probe (`five_thousand_idle_connections_hold_up_no_probe`). No secret is in
//! reach of this module.

use std::{collections::VecDeque, convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};

use super::{
    host::{self, Rejected},
    metrics::{self, Format},
    process::ProcessMetrics,
    readiness::{self, ProbeResult},
};
use crate::{
    clock::Clock,
    failure::{diagnosis::Diagnosis, is_file_limit},
    status::{Status, StatusBoard, wire},
    tasks,
};

/// The largest request head. hyper's minimum.
const HEAD_LIMIT: usize = 8 << 10;
/// A request's head has to arrive within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection lasts no longer than this.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// Connections at a time that have sent nothing yet.
const SILENT: usize = 512;
/// What each of them has at least to send something, also in a flood: a probe may be held up between its connection
/// and its request, and so may this process, by a CPU limit. So a flood of 10,000 a second delays no probe, and a burst
/// of 5,000 for half a second.
const FIRST_BYTE_GUARANTEE: Duration = Duration::from_millis(50);
/// Connections at a time that have. A probe's request arrives in one piece, and is answered at once.
const TALKING: usize = 64;
/// Connections that may wait to be accepted: one too many would wait for a second, longer than a probe does.
const BACKLOG: u32 = 4096;
/// After a failed accept (no file descriptors left), wait this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Descriptors that are left to the rest of the process: AWS, Kubernetes, files.
const RESERVED: u64 = 40;
/// A failed accept is logged again after this time.
const REMINDER: Duration = Duration::from_secs(600);

/// How many connections there may be at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    silent: usize,
    talking: usize,
    turn: Duration,
}

impl Limits {
    /// Those of a process that may have `files` open; `None` is no limit.
    fn of(files: Option<u64>) -> Self {
        let spare = files.map_or(u64::MAX, |files| files.saturating_sub(RESERVED));
        let spare = usize::try_from(spare).unwrap_or(usize::MAX);
        let talking = (spare / 4).clamp(1, TALKING);
        let silent = spare.saturating_sub(talking).clamp(2, SILENT);
        // Where there are fewer turns at a time they are shorter, so that a flood waits no longer for its turns.
        let turn = FIRST_BYTE_GUARANTEE * u32::try_from(silent).unwrap_or(u32::MAX) / SILENT as u32;
        Self { silent, talking, turn }
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for the health endpoint: {source}; choose another address by health.listen or ECR_SIDECAR_HEALTH_LISTEN"
)]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

#[derive(Clone)]
pub struct Health {
    pub status: StatusBoard,
    pub clock: Clock,
    /// The names of `health.hosts`, which a reload may change.
    pub hosts: watch::Receiver<Vec<String>>,
}

pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?; // as TcpListener::bind does
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| BindError { address, source })
}

/// Serves for ever; dropped to end.
pub async fn serve(listener: TcpListener, health: Health) -> Infallible {
    let limits = Limits::of(getrlimit(Resource::Nofile).current);
    let mut silent = ConnectionPool::of(limits.silent);
    let mut talking = ConnectionPool::of(limits.talking);
    let mut reminded: Option<Instant> = None;
    // Turns are of one length, so they end in the order of the connections: while one is free, the oldest had its own.
    let turns = Arc::new(Semaphore::new(limits.silent));
    loop {
        tokio::select! {
            biased;
            Some(_) = talking.next() => {}
            Some(stream) = silent.next() => {
                if let Some(stream) = stream {
                    talking.admit(connection(stream, health.clone()));
                }
            }
            accepted = accept(&listener, &turns) => match accepted {
                Ok((stream, turn)) => silent.admit(await_first_byte(stream, turn, limits.turn)),
                Err(error) => {
                    if reminded.is_none_or(|at| at.elapsed() >= REMINDER) {
                        reminded = Some(Instant::now());
                        log_failed_accept(&error);
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
        // Who was admitted has its turn before the next one is: a request that is here already is answered.
        tokio::task::yield_now().await;
    }
}

fn log_failed_accept(error: &io::Error) {
    let diagnosis = if is_file_limit(error) { Diagnosis::TooManyOpenFiles } else { Diagnosis::Fault };
    tracing::warn!(
        %error, diagnosis = diagnosis.id(), remedy = diagnosis.remedy(),
        "health endpoint: cannot accept a connection"
    );
}

async fn accept(
    listener: &TcpListener,
    turns: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let turn = Arc::clone(turns).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, turn))
}

/// Connections, at most so many: the newest gets in, the oldest goes.
struct ConnectionPool<T> {
    limit: usize,
    tasks: JoinSet<Option<T>>,
    order: VecDeque<AbortHandle>,
}

impl<T: Send + 'static> ConnectionPool<T> {
    fn of(limit: usize) -> Self {
        Self { limit, tasks: JoinSet::new(), order: VecDeque::new() }
    }

    fn admit(&mut self, connection: impl Future<Output = Option<T>> + Send + 'static) {
        if self.order.len() >= self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            oldest.abort();
        }
        self.order.push_back(self.tasks.spawn(connection));
    }

    /// What a finished one returned; `None` when there is none.
    async fn next(&mut self) -> Option<Option<T>> {
        let ended = self.tasks.join_next().await?;
        self.order.retain(|connection| !connection.is_finished());
        Some(tasks::joined(ended).flatten())
    }
}

/// The connection, once its client has sent something or closed.
async fn await_first_byte(
    stream: TcpStream,
    turn: OwnedSemaphorePermit,
    lasts: Duration,
) -> Option<TcpStream> {
    // Not `readable`, which is true of any accepted connection until a read finds nothing.
    let mut one = [0];
    // The turn ends after the connection was polled: what came while this process was held up is not missed.
    let in_turn = timeout(lasts, stream.peek(&mut one)).await;
    drop(turn);
    match in_turn {
        Ok(received) => received.ok()?,
        Err(_) => timeout(HEAD_TIMEOUT - lasts, stream.peek(&mut one)).await.ok()?.ok()?,
    };
    Some(stream)
}

async fn connection(stream: TcpStream, health: Health) -> Option<Infallible> {
    let answer = service_fn(move |request| {
        let response = respond(&request, &health);
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    // A client that misbehaves is not worth a log line.
    let _ = timeout(CONNECTION_LIMIT, serving).await;
    None
}

fn respond(request: &Request<Incoming>, health: &Health) -> Response<Full<Bytes>> {
    if let Err(rejected) = host::check(request, &health.hosts.borrow()) {
        return reject(rejected);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n".into());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let now = health.clock.now();
    let verbose = request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")));
    let ask = |verdict: &dyn Fn(&Status) -> ProbeResult| probe(&health.status.read(verdict), verbose);
    match request.uri().path() {
        "/livez" | "/healthz" => ask(&|status| readiness::live(status, Instant::now())),
        "/readyz" => ask(&|status| readiness::ready(status, now)),
        "/startupz" => ask(&|status| readiness::started(status, now)),
        "/status" => status(health),
        "/metrics" => metrics(request.headers(), health),
        _ => text(StatusCode::NOT_FOUND, "/livez /readyz /startupz /status /metrics\n".into()),
    }
}

fn reject(rejected: Rejected) -> Response<Full<Bytes>> {
    let (code, body) = match rejected {
        Rejected::Malformed => (StatusCode::BAD_REQUEST, "the request needs one valid Host header\n"),
        Rejected::Unknown => (
            StatusCode::MISDIRECTED_REQUEST,
            "unknown Host: use an IP address or localhost, or list the name in health.hosts\n",
        ),
    };
    text(code, body.to_owned())
}

fn probe(result: &ProbeResult, verbose: bool) -> Response<Full<Bytes>> {
    let code = if result.is_good() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(code, result.text(verbose))
}

fn status(health: &Health) -> Response<Full<Bytes>> {
    match health.status.read(|status| serde_json::to_string(&wire::Status::from(status))) {
        Ok(json) => with_type(StatusCode::OK, "application/json", json + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn metrics(headers: &HeaderMap, health: &Health) -> Response<Full<Bytes>> {
    let accepted: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accepted.join(","));
    let (now, process) = (health.clock.now(), ProcessMetrics::read());
    let body = health.status.read(|status| metrics::render(status, now, &process, format));
    with_type(StatusCode::OK, format.content_type(), body)
}

fn text(code: StatusCode, body: String) -> Response<Full<Bytes>> {
    with_type(code, "text/plain; charset=utf-8", body)
}

fn with_type(code: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
