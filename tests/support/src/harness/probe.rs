//! Does the health endpoint go on answering, whatever clients do?

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{DEADLINE, Running};
use crate::{http, wait::wait_for};

/// What a flood may add to the sidecar's resident memory, in KiB.
const GROWTH: u64 = 3 << 10;
/// What the sidecar leaves each connection in a crowd to say something.
const TURN: Duration = Duration::from_millis(50);

/// Asks for `/livez`. `None` if this client was held up so long that its turn may have been over, and it had no answer.
fn probe(address: SocketAddr) -> Option<io::Result<u16>> {
    let started = Instant::now();
    let stream = http::connect(address).and_then(|mut stream| {
        http::send(&mut stream, "GET", "/livez", &[])?;
        Ok(stream)
    });
    let in_turn = started.elapsed() < TURN;
    let code = stream.and_then(http::answer).map(|answer| answer.code);
    (in_turn || code.is_ok()).then_some(code)
}

impl Running {
    /// Asks again and again while `bad` goes on, and at least a hundred times; every time there is an answer.
    #[track_caller]
    pub fn answers_during(&self, bad: impl Fn(SocketAddr) + Sync) {
        let address = self.health();
        for _ in 0..100 {
            assert_eq!(http::get(address, "/livez").0, 200); // all that it will ever need is in memory
        }
        let before = self.rss_kib();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                bad(address);
                over.store(true, Ordering::Release);
            });
            let mut probes = 0;
            // At the pace of `wait_for`, lest this machine run out of ports for it.
            wait_for("the end of the bad clients", DEADLINE, || {
                let code = probe(address)?;
                assert!(code.as_ref().is_ok_and(|code| *code == 200), "probe {probes}: {code:?}");
                let grown = self.rss_kib().saturating_sub(before);
                assert!(grown < GROWTH, "{grown} KiB more after {probes} probes");
                probes += 1;
                (probes > 100 && over.load(Ordering::Acquire)).then_some(())
            });
        });
        assert_eq!(self.exit_status(), None);
    }
}
