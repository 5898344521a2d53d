//! The answers of the health endpoint, by path.

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use tokio::{sync::watch, time::Instant};

use super::{
    host::{self, Rejected},
    metrics::{self, Format},
    process::ProcessMetrics,
    readiness::{self, ProbeResult},
};
use crate::{
    clock::Clock,
    status::{Status, StatusBoard, wire},
};

#[derive(Clone)]
pub struct Health {
    pub status: StatusBoard,
    pub clock: Clock,
    /// The names of `health.hosts`, which a reload may change.
    pub hosts: watch::Receiver<Vec<String>>,
}

pub(super) fn respond(request: &Request<Incoming>, health: &Health) -> Response<Full<Bytes>> {
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
    let ask = |result: &dyn Fn(&Status) -> ProbeResult| probe(&health.status.read(result), verbose);
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
