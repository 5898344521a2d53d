//! The HTTP server of the health endpoint.
//!
//! It stays small whatever clients do: requests are GET or HEAD, heads of at most [`HEAD_LIMIT`] that arrive
//! within [`HEAD_TIMEOUT`], one request a connection, at most [`SILENT`] that have said nothing yet, which cost
//! next to nothing, and [`TALKING`] others at a time. The newest connection always gets in, the oldest goes:
//! so a crowd can't hold up a probe (`five_thousand_idle_connections_hold_up_no_probe`). No secret is in
//! reach of this module.

use std::{collections::VecDeque, convert::Infallible, io, net::SocketAddr, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::{
    metrics::{self, Format},
    process::Figures,
    verdict::{self, Verdict},
};
use crate::{
    clock::Clock,
    status::{Status, StatusBoard},
};

/// The largest request head. hyper's minimum.
const HEAD_LIMIT: usize = 8 << 10;
/// A request's head has to arrive within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection lasts no longer than this.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// Connections at a time that have said nothing yet.
const SILENT: usize = 512;
/// What each of them has at least to say something, also in a flood: a probe may be held up between its connection
/// and its request. So a flood of 10,000 a second delays nobody, and a burst of 5,000 for half a second.
const TURN: Duration = Duration::from_millis(50);
/// Connections at a time that have. A probe's request is one piece, and is answered in one turn.
const TALKING: usize = 64;
/// Connections that may wait to be accepted: one too many would wait for a second, longer than a probe does.
const BACKLOG: u32 = 4096;
/// After a failed accept (no file descriptors left), wait this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for the health endpoint: {source}; choose another address by health.listen or ECR_SIDECAR_HEALTH_LISTEN"
)]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// What answers are made of.
#[derive(Clone)]
pub struct Health {
    /// What is known.
    pub status: StatusBoard,
    /// The time of day.
    pub clock: Clock,
}

/// Opens the endpoint.
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
    let mut silent = Crowd::of(SILENT);
    let mut talking = Crowd::of(TALKING);
    loop {
        let room_at = silent.has_room_at();
        tokio::select! {
            biased;
            Some(_) = talking.next() => {}
            Some(stream) = silent.next() => {
                if let Some(stream) = stream {
                    talking.admit(connection(stream, health.clone()));
                }
            }
            accepted = accept(&listener, room_at) => match accepted {
                Ok((stream, _)) => silent.admit(first_words(stream)),
                Err(error) => {
                    tracing::debug!(%error, "health endpoint: accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
        // Who was admitted has its turn before the next one is: a request that is here already is answered.
        tokio::task::yield_now().await;
    }
}

async fn accept(listener: &TcpListener, at: Instant) -> io::Result<(TcpStream, SocketAddr)> {
    // A timer takes a millisecond even for a time that is past.
    if at > Instant::now() {
        tokio::time::sleep_until(at).await;
    }
    listener.accept().await
}

/// Connections, at most so many: the newest gets in, the oldest goes.
struct Crowd<T> {
    limit: usize,
    tasks: JoinSet<Option<T>>,
    order: VecDeque<(Instant, AbortHandle)>,
}

impl<T: Send + 'static> Crowd<T> {
    fn of(limit: usize) -> Self {
        Self { limit, tasks: JoinSet::new(), order: VecDeque::new() }
    }

    fn admit(&mut self, connection: impl Future<Output = Option<T>> + Send + 'static) {
        if self.order.len() >= self.limit
            && let Some((_, oldest)) = self.order.pop_front()
        {
            oldest.abort();
        }
        self.order.push_back((Instant::now(), self.tasks.spawn(connection)));
    }

    /// When the next one may get in: at once, or when the oldest has had its [`TURN`].
    fn has_room_at(&self) -> Instant {
        let is_full = self.order.len() >= self.limit;
        self.order.front().filter(|_| is_full).map_or_else(Instant::now, |(since, _)| *since + TURN)
    }

    /// What one that ended has left; `None` when there is no one.
    async fn next(&mut self) -> Option<Option<T>> {
        let ended = self.tasks.join_next().await?;
        self.order.retain(|(_, connection)| !connection.is_finished());
        match ended {
            Ok(left) => Some(left),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Some(None), // it had to go
        }
    }
}

/// The connection, once its client has said something.
async fn first_words(stream: TcpStream) -> Option<TcpStream> {
    tokio::time::timeout(HEAD_TIMEOUT, stream.readable()).await.ok()?.ok()?;
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
    // A client that misbehaves is its own problem: nothing to tell anybody.
    let _ = tokio::time::timeout(CONNECTION_LIMIT, serving).await;
    None
}

fn respond(request: &Request<Incoming>, health: &Health) -> Response<Full<Bytes>> {
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
    let ask = |verdict: &dyn Fn(&Status) -> Verdict| told(&health.status.read(verdict), verbose);
    match request.uri().path() {
        "/livez" | "/healthz" => ask(&|status| verdict::live(status, Instant::now())),
        "/readyz" => ask(&|status| verdict::ready(status, now)),
        "/startupz" => ask(&|status| verdict::started(status, now)),
        "/status" => status(health),
        "/metrics" => metrics(request.headers(), health),
        _ => text(StatusCode::NOT_FOUND, "/livez /readyz /startupz /status /metrics\n".into()),
    }
}

fn told(verdict: &Verdict, verbose: bool) -> Response<Full<Bytes>> {
    let code = if verdict.is_good() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(code, verdict.text(verbose))
}

fn status(health: &Health) -> Response<Full<Bytes>> {
    match health.status.read(serde_json::to_string) {
        Ok(json) => with_type(StatusCode::OK, "application/json", json + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn metrics(headers: &HeaderMap, health: &Health) -> Response<Full<Bytes>> {
    let accepted: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accepted.join(","));
    let (now, process) = (health.clock.now(), Figures::read());
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
