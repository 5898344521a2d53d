//! Queries a running sidecar's endpoint: the exec probe and `wait`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// What one question may take, however its answer arrives: the usual probe's `timeoutSeconds` is 1.
const TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_LIMIT: u64 = 1 << 20;
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub yes: bool,
    pub text: String,
}

pub async fn ask(listen: SocketAddr, path: &str) -> io::Result<Answer> {
    let no_answer = || io::Error::new(io::ErrorKind::TimedOut, format!("no whole answer within {TIMEOUT:?}"));
    timeout(TIMEOUT, exchange(reachable(listen), path)).await.map_err(|_| no_answer())?
}

async fn exchange(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_LIMIT).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split_ascii_whitespace().nth(1);
    Ok(Answer { yes: status == Some("200"), text: body.to_owned() })
}

pub async fn wait(listen: SocketAddr, path: &str, timeout: Duration) -> io::Result<Answer> {
    let deadline = Instant::now() + timeout;
    loop {
        let answer = ask(listen, path).await;
        let yes = answer.as_ref().is_ok_and(|answer| answer.yes);
        if yes || Instant::now() + PAUSE >= deadline {
            return answer;
        }
        sleep(PAUSE).await;
    }
}

/// A server on the unspecified address is asked by loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_never_ends_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            while stream.write_all(b"a").await.is_ok() {
                sleep(TIMEOUT / 4).await;
            }
        });
        let error = ask(address, "/livez").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        server.abort();
    }
}
