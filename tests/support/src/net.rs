//! Free ports and plain HTTP on loopback.

use std::{
    hash::{BuildHasher, RandomState},
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// A loopback TCP port that nothing listened on a moment ago.
///
/// Another process may take it first. Prefer port 0 wherever a server can say which port it got.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
    listener.local_addr().expect("a bound address").port()
}

/// A loopback TCP port that nothing listened on a moment ago, and that no outgoing connection is given: a server
/// may leave it and come back to it.
pub fn steady_port() -> u16 {
    // Below 32768, where Linux begins to hand out ports, and above those with names.
    let candidates = (0_u64..).map(|i| 20_000 + (RandomState::new().hash_one(i) % 12_000) as u16);
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    candidates.take(1000).find(free).expect("a free port among a thousand")
}

/// `GET http://addr/path`: the status code and the body.
///
/// # Errors
/// When nothing listens there, when the answer takes more than 5 seconds, and when it is not HTTP.
pub fn http_get(addr: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let timeout = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&addr, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    parse(&response).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("not a plain HTTP response: {response:?}"))
    })
}

/// A whole response with a `Content-Length`, or with a body that ends with the connection.
fn parse(response: &str) -> Option<(u16, String)> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("transfer-encoding")
            || name.eq_ignore_ascii_case("content-length") && value.trim() != body.len().to_string()
        {
            return None;
        }
    }
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

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
        assert!(server.join().unwrap().starts_with("GET /readyz?verbose HTTP/1.1\r\n"));
    }

    #[test]
    fn a_port_that_nothing_listens_on_is_an_error() {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        assert!(http_get(addr, "/").is_err());
    }

    #[test]
    fn a_steady_port_is_not_one_that_linux_hands_out() {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        let port = steady_port();
        assert!(port < first && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok(), "{port} {first}");
    }

    #[test]
    fn half_a_response_is_not_taken_for_a_whole_one() {
        for response in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            "SSH-2.0-x\r\n\r\n",
        ] {
            assert_eq!(parse(response), None, "{response:?}");
        }
    }
}
