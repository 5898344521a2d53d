//! The HTTP server of the health endpoint.
//!
//! It stays small whatever clients do: requests are GET or HEAD, heads of at most [`HEAD_LIMIT`] that arrive
//! within [`HEAD_TIMEOUT`], one request a connection, at most [`SILENT`] that have sent nothing yet, which cost
//! next to nothing, and [`TALKING`] others at a time, fewer where the process may open few files ([`Limits`]):
//! `a_flood_leaves_descriptors_for_the_work`. The newest connection always gets in, the oldest goes:
//! so a flood cannot hold up a probe (`five_thousand_idle_connections_hold_up_no_probe`). No secret is in
//! reach of this module.

use std::{collections::VecDeque, convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};

pub use super::answers::Health;
use super::answers::respond;
use crate::{
    failure::{Problem, diagnosis::Diagnosis, is_file_limit},
    tasks,
};

/// The largest request head. hyper's minimum.
const HEAD_LIMIT: usize = 8 << 10;
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
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

pub fn bind(address: SocketAddr) -> Result<TcpListener, Problem> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?; // as TcpListener::bind does
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| {
        let diagnosis =
            if is_file_limit(&error) { Diagnosis::TooManyOpenFiles } else { Diagnosis::HealthAddress };
        Problem::denied(format!("cannot listen on {address} for the health endpoint: {error}"), diagnosis)
    })
}

/// Whether a listener on one of them keeps us from listening on the other.
pub fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = |address: SocketAddr| address.ip().is_unspecified();
    one.port() == other.port() && (is_any(one) || is_any(other))
}

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

#[cfg(test)]
mod tests;
