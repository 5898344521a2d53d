//! Everything that AWS answers the sidecar.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A relay to another address that keeps what comes back.
pub struct Tap {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tap {
    /// Relays to `http://ADDRESS` from now on, to the end of the process.
    pub fn on(endpoint: &str) -> Self {
        let target: SocketAddr = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tap = Self { address: listener.local_addr().unwrap(), heard: Arc::default() };
        let heard = Arc::clone(&tap.heard);
        thread::spawn(move || {
            for client in listener.incoming() {
                let heard = Arc::clone(&heard);
                let _ = relay(client.unwrap(), target, heard); // whoever hangs up, the other one notices
            }
        });
        tap
    }

    /// Where it listens, as an endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every text that stood between `before` and `after` in an answer.
    pub fn heard(&self, before: &str, after: &str) -> Vec<String> {
        let mut found = Vec::new();
        for answer in self.heard.lock().unwrap().iter() {
            let answer = String::from_utf8_lossy(answer);
            let parts = answer.split(before).skip(1).filter_map(|part| part.split_once(after));
            found.extend(parts.map(|(text, _)| text.to_owned()));
        }
        found
    }
}

fn relay(client: TcpStream, target: SocketAddr, heard: Arc<Mutex<Vec<Vec<u8>>>>) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    thread::spawn(move || answers(server, client, &heard));
    Ok(())
}

fn answers(mut server: TcpStream, mut client: TcpStream, heard: &Mutex<Vec<Vec<u8>>>) {
    let mut kept: Option<usize> = None;
    let mut chunk = [0; 16 << 10];
    while let Ok(read @ 1..) = server.read(&mut chunk) {
        {
            // Heard before it is passed on: who has an answer finds it here.
            let mut heard = heard.lock().unwrap();
            let index = *kept.get_or_insert_with(|| {
                heard.push(Vec::new());
                heard.len() - 1
            });
            heard[index].extend_from_slice(&chunk[..read]);
        }
        if client.write_all(&chunk[..read]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}
