//! How do connections come in, and how are they broken on purpose?
//!
//! Every listener is a task, every connection another one; a panic in any of them is kept for the handle to raise.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_rustls::server::TlsStream;

use crate::dispatch;
use crate::proxy;
use crate::reply::{Outcome, Reply, Sabotage};
use crate::shared::Shared;

const GARBAGE: &[u8] = b"\x16\x03\x01\x00\xffthis is no HTTP \xfe\xed\r\n\r\n";

/// What a listener speaks.
#[derive(Clone, Copy)]
pub(crate) enum Protocol {
    Http,
    Https,
    Proxy,
}

/// Starts to accept connections on a listener.
pub(crate) fn listen(
    runtime: &Handle,
    shared: &Arc<Shared>,
    listener: std::net::TcpListener,
    protocol: Protocol,
) {
    let state = shared.clone();
    watched(runtime, shared, async move {
        match TcpListener::from_std(listener) {
            Ok(listener) => accept(state, listener, protocol).await,
            Err(error) => panic!("a listener can't be used: {error}"),
        }
    });
}

/// Runs a task whose panic reaches the handle.
fn watched(runtime: &Handle, shared: &Arc<Shared>, task: impl Future<Output = ()> + Send + 'static) {
    let shared = shared.clone();
    let task = runtime.spawn(task);
    runtime.spawn(async move {
        if let Err(error) = task.await
            && let Ok(payload) = error.try_into_panic()
        {
            shared.record_panic(&*payload);
        }
    });
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, protocol: Protocol) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection(shared.clone(), stream, protocol);
                watched(&Handle::current(), &shared, connection);
            }
            // Out of file descriptors, say: the next accept may do better, but not at once.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, protocol: Protocol) {
    // A client that is gone again makes these fail; its connection then closes on its own.
    let _ = stream.set_nodelay(true);
    match protocol {
        Protocol::Http => serve(shared, stream).await,
        Protocol::Https => serve_tls(shared, stream).await,
        Protocol::Proxy => proxy::serve(shared, stream).await,
    }
}

/// TLS, then HTTP. A handshake that fails is the client's to report.
pub(crate) async fn serve_tls(shared: Arc<Shared>, stream: TcpStream) {
    let accepted = shared.authority.acceptor().accept(stream).await;
    if let Ok(stream) = accepted {
        serve(shared, stream).await;
    }
}

/// HTTP/1.1 until the connection ends or a fault breaks it.
pub(crate) async fn serve<T: Transport>(shared: Arc<Shared>, stream: T) {
    let service = service_fn(|request| Box::pin(handle(&shared, request)));
    let mut connection = http1::Builder::new()
        .auto_date_header(false)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service);
    let ended = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let stream = connection.into_parts().io.into_inner();
    let sabotage = ended.err().and_then(|error| error.source()?.downcast_ref::<Sabotage>().copied());
    // The client may be gone already; nothing is left to answer then.
    let _ = close(stream, sabotage).await;
}

async fn handle(shared: &Shared, request: Request<Incoming>) -> Result<Reply, Sabotage> {
    match dispatch::answer(shared, request).await {
        Outcome::Reply(reply) => Ok(reply),
        Outcome::Hang => std::future::pending().await,
        Outcome::Broken(sabotage) => Err(sabotage),
    }
}

async fn close<T: Transport>(mut stream: T, sabotage: Option<Sabotage>) -> io::Result<()> {
    match sabotage {
        Some(Sabotage::Reset) => return stream.tcp().set_zero_linger(),
        Some(Sabotage::Garbage) => stream.write_all(GARBAGE).await?,
        None => {}
    }
    stream.shutdown().await
}

/// A byte stream with a TCP connection at its bottom.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn tcp(&self) -> &TcpStream;
}

impl Transport for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl<T: Transport> Transport for TlsStream<T> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0.tcp()
    }
}
