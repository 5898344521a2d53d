//! Plain HTTP, of the good and of the bad kind.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use super::DEADLINE;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub code: u16,
    /// The headers, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Sends a request and reads the answer to the end of the connection.
pub fn try_request(address: SocketAddr, method: &str, path: &str) -> io::Result<Answer> {
    try_request_with(address, method, path, "")
}

/// The same with further headers, each with its end of line.
pub fn try_request_with(address: SocketAddr, method: &str, path: &str, more: &str) -> io::Result<Answer> {
    let mut stream = connect(address)?;
    ask(&mut stream, method, path, more)?;
    answer(stream)
}

/// A connection whose answers are waited for no longer than [`DEADLINE`].
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Sends a request, in one piece.
pub fn ask(stream: &mut TcpStream, method: &str, path: &str, more: &str) -> io::Result<()> {
    let host = stream.peer_addr()?;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes())
}

/// Reads the answer to the end of the connection.
pub fn answer(mut stream: TcpStream) -> io::Result<Answer> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { code, head: head.to_lowercase(), body: body.to_owned() })
}

/// The same, which must not fail.
#[track_caller]
pub fn request(address: SocketAddr, method: &str, path: &str) -> Answer {
    try_request(address, method, path).unwrap_or_else(|error| panic!("{method} {address}{path}: {error}"))
}

/// `GET` of a path, in the format that is accepted.
#[track_caller]
pub fn accepting(address: SocketAddr, path: &str, accept: &str) -> Answer {
    try_request_with(address, "GET", path, &format!("accept: {accept}\r\n"))
        .unwrap_or_else(|error| panic!("GET {address}{path}: {error}"))
}

/// Status and body of a path.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = request(address, "GET", path);
    (answer.code, answer.body)
}
