//! Plain HTTP on loopback: one request a connection, in one piece or in several.

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::harness::DEADLINE;

#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The headers, in lower case.
    pub head: String,
    pub body: String,
}

/// `GET http://address/path`: the status code and the body.
///
/// # Errors
/// When nothing listens there, when the answer takes more than 5 seconds, and when it is not whole.
pub fn http_get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    http_get_with(address, path, &[])
}

/// The same with these headers.
///
/// # Errors
/// As [`http_get`].
pub fn http_get_with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> io::Result<(u16, String)> {
    let answer = exchange(address, Duration::from_secs(5), "GET", path, headers)?;
    Ok((answer.code, answer.body))
}

/// Sends a request and reads the answer to the end of the connection.
///
/// # Errors
/// As [`http_get`], with [`DEADLINE`] as the limit.
pub fn try_request(address: SocketAddr, method: &str, path: &str) -> io::Result<Answer> {
    exchange(address, DEADLINE, method, path, &[])
}

/// The same, which must not fail.
#[track_caller]
pub fn request(address: SocketAddr, method: &str, path: &str) -> Answer {
    try_request(address, method, path).unwrap_or_else(|error| panic!("{method} {address}{path}: {error}"))
}

/// `GET` with these headers, which must not fail.
#[track_caller]
pub fn get_with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    exchange(address, DEADLINE, "GET", path, headers)
        .unwrap_or_else(|error| panic!("GET {address}{path}: {error}"))
}

/// Status and body of a path.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = request(address, "GET", path);
    (answer.code, answer.body)
}

/// The address of an endpoint, `http://ADDRESS`.
#[track_caller]
pub fn address(endpoint: &str) -> SocketAddr {
    endpoint.trim_start_matches("http://").parse().unwrap_or_else(|error| panic!("{endpoint}: {error}"))
}

/// A connection whose answers are waited for no longer than [`DEADLINE`].
///
/// # Errors
/// When nothing listens there.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    connect_within(DEADLINE, address)
}

/// Sends a request, in one piece. Its `Host` is the address, unless the headers have another.
///
/// # Errors
/// When the connection is closed.
pub fn send(stream: &mut TcpStream, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<()> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        let _ = write!(request, "Host: {}\r\n", stream.peer_addr()?);
    }
    for (name, value) in headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    stream.write_all((request + "\r\n").as_bytes())
}

/// Reads the answer to a `GET` to the end of the connection.
///
/// # Errors
/// When it is not a whole one.
pub fn answer(stream: TcpStream) -> io::Result<Answer> {
    read(stream, "GET")
}

fn exchange(
    address: SocketAddr,
    limit: Duration,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<Answer> {
    let mut stream = connect_within(limit, address)?;
    send(&mut stream, method, path, headers)?;
    read(stream, method)
}

fn connect_within(limit: Duration, address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

fn read(mut stream: TcpStream, method: &str) -> io::Result<Answer> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    parse(&text, method).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("not a plain HTTP response: {text:?}"))
    })
}

/// A whole response with a `Content-Length`, or with a body that ends with the connection.
fn parse(response: &str, method: &str) -> Option<Answer> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let code = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("transfer-encoding")
            || method != "HEAD"
                && name.eq_ignore_ascii_case("content-length")
                && value.trim() != body.len().to_string()
        {
            return None;
        }
    }
    Some(Answer { code, head: head.to_lowercase(), body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, TcpListener},
        thread,
    };

    use super::*;
    use crate::net::free_port;

    #[test]
    fn the_status_and_the_body_come_back() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nno\n").unwrap();
            String::from_utf8(request).unwrap()
        });
        assert_eq!(http_get(addr, "/readyz?verbose").unwrap(), (503, "no\n".to_owned()));
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /readyz?verbose HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nHost: {addr}\r\n")), "{request}");
    }

    #[test]
    fn a_port_that_nothing_listens_on_is_an_error() {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        assert!(http_get(addr, "/").is_err());
    }

    #[test]
    fn half_a_response_is_not_taken_for_a_whole_one() {
        for response in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            "SSH-2.0-x\r\n\r\n",
        ] {
            assert!(parse(response, "GET").is_none(), "{response:?}");
        }
        assert!(parse("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD").is_some());
    }
}
