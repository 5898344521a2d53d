use std::{
    io::{Read, Write},
    net::TcpStream,
};

use rustix::process::{Rlimit, setrlimit};
use tokio::{sync::watch, task::yield_now};

use super::*;
use crate::{clock::Clock, status::StatusBoard};

/// Until the server has nothing more to do. Time stands still meanwhile.
async fn let_it_serve() {
    for _ in 0..10 * SILENT {
        yield_now().await;
    }
}

fn ask(client: &mut TcpStream) {
    client.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
}

fn hear(mut client: TcpStream) -> io::Result<String> {
    client.set_nonblocking(true)?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn the_limits_follow_those_of_the_process() {
    for (files, silent, talking) in [
        (None, SILENT, TALKING),
        (Some(1024), SILENT, TALKING),
        (Some(64), 18, 6),
        (Some(48), 6, 2),
        (Some(8), 2, 1),
    ] {
        let limits = Limits::of(files);
        assert_eq!((limits.silent, limits.talking), (silent, talking), "{files:?}");
        // A flood of ten thousand a second is through its turns in time, whatever the limit is.
        assert!(limits.turn / silent as u32 <= Duration::from_micros(100), "{limits:?}");
    }
    assert_eq!(Limits::of(None).turn, FIRST_BYTE_GUARANTEE);
}

#[tokio::test(start_paused = true)]
async fn in_a_flood_each_has_its_turn_and_then_the_oldest_is_closed() {
    let files = getrlimit(Resource::Nofile); // the flood takes two for each
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let clock = Clock::System;
    let (_names, hosts) = watch::channel(Vec::new());
    let health = Health { status: StatusBoard::new(clock.now()), clock, hosts };
    let server = tokio::spawn(serve(listener, health));
    let connect = || TcpStream::connect(address).unwrap();

    let (mut early, mut slow) = (connect(), connect());
    let silent: Vec<_> = (0..SILENT).map(|_| connect()).collect();
    let_it_serve().await;
    ask(&mut early);
    let_it_serve().await;
    assert!(hear(early).unwrap().starts_with("HTTP/1.1 200 OK"));

    let mut late = connect();
    tokio::time::advance(FIRST_BYTE_GUARANTEE).await;
    let_it_serve().await;
    ask(&mut slow);
    ask(&mut late);
    let_it_serve().await;
    assert!(hear(slow).is_ok_and(|answer| answer.is_empty()));
    assert!(hear(late).unwrap().starts_with("HTTP/1.1 200 OK"));
    drop(silent);
    server.abort();
}
