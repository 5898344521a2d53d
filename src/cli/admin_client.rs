//! Queries a running sidecar's endpoint: the exec probe and `wait`.
//!
//! Another program may have the port. Its answer takes bounded time and memory, and steers no terminal
//! (`a_program_that_has_the_port_neither_holds_up_a_command_nor_steers_the_terminal`).

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::failure::foreign_text::plain;

/// What one question may take: the usual probe's `timeoutSeconds` is 1.
const TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_LIMIT: u64 = 1 << 20;
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub yes: bool,
    pub text: String,
}

pub fn ask(listen: SocketAddr, path: &str) -> io::Result<Answer> {
    let address = reachable(listen);
    let until = Instant::now() + TIMEOUT;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    Until { stream, until }.take(ANSWER_LIMIT).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split_ascii_whitespace().nth(1);
    Ok(Answer { yes: status == Some("200"), text: plain(body) })
}

/// A stream that is read until then, however often something comes.
struct Until {
    stream: TcpStream,
    until: Instant,
}

impl Read for Until {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

pub fn wait(listen: SocketAddr, path: &str, timeout: Duration) -> io::Result<Answer> {
    let deadline = Instant::now() + timeout;
    loop {
        let answer = ask(listen, path);
        let yes = answer.as_ref().is_ok_and(|answer| answer.yes);
        if yes || Instant::now() + PAUSE >= deadline {
            return answer;
        }
        std::thread::sleep(PAUSE);
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
