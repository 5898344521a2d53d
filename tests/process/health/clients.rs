//! Clients over IPv6, and those that send too much, too slowly, or to a host that is not ours.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use test_support::{
    Harness,
    harness::{DEADLINE, HOST, configured_by},
    http, skip, wait_for,
};

use super::ask;
use crate::BINARY;

#[test]
fn it_listens_on_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        return skip("this machine has no IPv6");
    }
    for (listen, asked) in [("[::1]:0", "[::1]"), ("[::]:0", "[::]")] {
        let harness = Harness::new(BINARY);
        let sidecar = harness.run(|command| {
            command.env("ECR_SIDECAR_HEALTH_LISTEN", listen);
        });
        let port = sidecar.health().port();
        wait_for("readiness over IPv6", DEADLINE, || {
            (http::get(SocketAddr::new("::1".parse().unwrap(), port), "/readyz").0 == 200).then_some(())
        });
        let probe = ask(&["health", "ready", "--health-listen", &format!("{asked}:{port}")]);
        assert_eq!(probe.status.code(), Some(0), "{probe:?}");
    }
}

#[test]
fn headers_that_never_end_hold_up_no_probe() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    sidecar.answers_during(|address| {
        let mut clients: Vec<_> = (0..600).map(|_| TcpStream::connect(address).unwrap()).collect();
        for client in &mut clients {
            let _ = client.write_all(b"GET /livez HTTP/1.1\r\n"); // some are driven out already
        }
        // Each is cut off by the server, at its time or size limit.
        wait_for("the end of every client", DEADLINE, || {
            clients.retain_mut(|client| client.write_all(b"x-a: b\r\n").is_ok());
            clients.is_empty().then_some(())
        });
    });
}

#[test]
fn a_header_of_10_mb_is_rejected_and_not_kept() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    sidecar.answers_during(|address| {
        for _ in 0..20 {
            let mut client = TcpStream::connect(address).unwrap();
            client.set_read_timeout(Some(DEADLINE)).unwrap();
            let head = format!("GET /livez HTTP/1.1\r\nx-long: {}\r\n\r\n", "a".repeat(10_000_000));
            let sent = client.write_all(head.as_bytes());
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer); // a reset is an answer too
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(sent.is_err() || !answer.contains(" 200 "), "{answer}");
            assert!(answer.is_empty() || answer.contains(" 431 "), "{answer}");
        }
    });
}

/// A page of another origin whose name resolves to loopback, or to the pod, reads nothing (DNS rebinding).
#[test]
fn a_host_that_is_not_ours_gets_nothing_until_the_configuration_names_it() {
    let harness = Harness::new(BINARY);
    let file = |hosts: &str| {
        let text = format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config, path: '{}'}}]\nhealth: {{listen: '127.0.0.1:0', hosts: [{hosts}]}}\n",
            harness.file().display()
        );
        harness.put("ecr-sidecar.yaml", &text)
    };
    let path = file("");
    let sidecar = harness.run(|command| configured_by(command, &path));
    sidecar.wait_ready();
    let ask = |path: &str, host: &str| {
        let mut stream = http::connect(sidecar.health()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
        http::answer(stream).unwrap()
    };
    for path in ["/status", "/metrics", "/readyz?verbose", "/livez", "/"] {
        for host in
            ["evil.example", "evil.example:9808", "127.0.0.1.evil.example", "ecr-sidecar.flux-system.svc"]
        {
            let answer = ask(path, host);
            assert_eq!(answer.code, 421, "{path} {host}");
            assert!(answer.body.contains("health.hosts") && !answer.body.contains(HOST), "{}", answer.body);
        }
        let by_address = ask(path, &format!("10.0.0.7:{}", sidecar.health().port()));
        assert_ne!(by_address.code, 421, "{path}");
        assert_eq!(by_address.code, ask(path, "localhost").code);
    }
    // HTTP/1.0 knows no Host.
    let mut stream = http::connect(sidecar.health()).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(http::answer(stream).unwrap().code, 200);

    file("ecr-sidecar.flux-system.svc");
    wait_for("the name to be served", DEADLINE, || {
        (ask("/status", "ecr-sidecar.flux-system.svc:9808").code == 200).then_some(())
    });
    assert_eq!(ask("/status", "evil.example").code, 421);
}
