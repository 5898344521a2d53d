//! Free ports on loopback.

use std::{
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_port_is_not_one_that_linux_hands_out() {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        let port = steady_port();
        assert!(port < first && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok(), "{port} {first}");
    }
}
