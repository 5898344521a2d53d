//! How do clients reach the emulator by the true names of AWS?
//!
//! An HTTP proxy: `CONNECT HOST:PORT` for any host ends at the emulator's own TLS (port 80: at its plain HTTP), and a
//! plain proxied request is answered by the emulator too. Nothing is ever forwarded to another machine.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::hosts::without_port;
use crate::locked;
use crate::server;
use crate::shared::Shared;

const HEAD_LIMIT: usize = 16 * 1024;
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// Serves one connection to the proxy.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let refusal = *locked(&shared.proxy.refuse);
    let mut first = [0];
    match stream.peek(&mut first).await {
        // A client that hangs up, or one whose request is cut short, gets no answer.
        Ok(0) | Err(_) => {}
        Ok(_) if first[0] == b'C' || refusal.is_some() => drop(tunnel(shared, stream, refusal).await),
        Ok(_) => server::serve(shared, stream).await,
    }
}

async fn tunnel(shared: Arc<Shared>, mut stream: TcpStream, refusal: Option<u16>) -> io::Result<()> {
    let head = read_head(&mut stream).await?;
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    if !target.is_empty() {
        *locked(&shared.proxy.connects).entry(without_port(target).to_ascii_lowercase()).or_default() += 1;
    }
    if let Some(status) = refusal {
        stream.write_all(refuse(status).as_bytes()).await?;
        return stream.shutdown().await;
    }
    stream.write_all(ESTABLISHED).await?;
    if target.ends_with(":80") {
        server::serve(shared, stream).await;
    } else {
        server::serve_tls(shared, stream).await;
    }
    Ok(())
}

/// Up to the blank line; a client sends nothing beyond it before it has its answer.
async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > HEAD_LIMIT || stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    String::from_utf8(head).map_err(io::Error::other)
}

fn refuse(status: u16) -> String {
    let (reason, challenge) = match status {
        407 => ("Proxy Authentication Required", "Proxy-Authenticate: Basic realm=\"emulator\"\r\n"),
        403 => ("Forbidden", ""),
        _ => ("Refused", ""),
    };
    format!("HTTP/1.1 {status} {reason}\r\n{challenge}Content-Length: 0\r\nConnection: close\r\n\r\n")
}
