//! By the proxy, true names lead to the emulator, under a certificate that its authority vouches for.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use ecr_emulator::{Emulator, Fault, Service, Settings};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::common::{Answer, Ask, parse};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn trusting(emulator: &Emulator) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(emulator.ca_file()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// One exchange by TLS on a connected stream. The peer's name is verified by rustls.
fn by_tls(emulator: &Emulator, stream: TcpStream, name: &str, ask: &Ask) -> std::io::Result<Answer> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut tls = StreamOwned::new(ClientConnection::new(trusting(emulator), name).unwrap(), stream);
    tls.write_all(ask.render(HOST).as_bytes())?;
    let mut bytes = Vec::new();
    match tls.read_to_end(&mut bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(error),
        _ => parse(bytes),
    }
}

fn connect(emulator: &Emulator, target: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(emulator.proxy().trim_start_matches("http://")).unwrap();
    write!(stream, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).unwrap())
}

#[test]
fn connect_to_any_name_reaches_the_emulator_by_tls() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    for name in [HOST, "api.ecr.eu-west-1.amazonaws.com"] {
        let (stream, head) = connect(&emulator, &format!("{name}:443"));
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let answer = by_tls(&emulator, stream, name, &Ask::new("GET", "/v2/")).unwrap();
        assert_eq!(answer.status, 401);
    }
    assert_eq!(emulator.connects().get(HOST), Some(&1));
}

#[test]
fn the_tls_listener_answers_to_its_address_and_to_names() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let address = emulator.https_endpoint().replace("https://", "");
    for name in ["127.0.0.1", "localhost", HOST] {
        let stream = TcpStream::connect(&address).unwrap();
        assert_eq!(by_tls(&emulator, stream, name, &Ask::new("GET", "/v2/")).unwrap().status, 401, "{name}");
    }
}

#[test]
fn a_certificate_of_another_emulator_is_not_trusted() {
    let (emulator, other) = [0; 2].map(|_| Emulator::start(Settings::default()).unwrap()).into();
    let stream = TcpStream::connect(emulator.https_endpoint().replace("https://", "")).unwrap();
    let error = by_tls(&other, stream, HOST, &Ask::new("GET", "/v2/")).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[test]
fn a_reset_reaches_through_tls() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    emulator.set_fault(Service::Registry, Fault::Reset);
    let (stream, _) = connect(&emulator, &format!("{HOST}:443"));
    let error = by_tls(&emulator, stream, HOST, &Ask::new("GET", "/v2/")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_plain_request_by_the_proxy_is_answered_here() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let answer = Ask::new("GET", &format!("http://{HOST}/v2/")).send(&emulator.proxy()).unwrap();
    assert_eq!(answer.status, 401);
    assert_eq!(emulator.refusals()[0].host, HOST);
}

#[test]
fn the_proxy_can_refuse() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    emulator.refuse_proxy(Some(407));
    let (_, head) = connect(&emulator, &format!("{HOST}:443"));
    assert!(head.starts_with("HTTP/1.1 407 ") && head.contains("Proxy-Authenticate: Basic"), "{head}");
    emulator.refuse_proxy(Some(403));
    assert!(connect(&emulator, &format!("{HOST}:443")).1.starts_with("HTTP/1.1 403 "));
    emulator.refuse_proxy(None);
    assert!(connect(&emulator, &format!("{HOST}:443")).1.starts_with("HTTP/1.1 200 "));
    assert_eq!(emulator.connects()[HOST], 3);
}
