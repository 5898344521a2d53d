//! A server on loopback under the API server's certificate: a webhook, or something in the API server's place.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::Value;
use test_support::ApiServer;

/// What it answers to a request for that path with that body.
type Answer = dyn Fn(&str, &Value) -> (u16, Value) + Send + Sync;

/// Ends with the test.
pub(crate) struct TlsServer {
    addr: SocketAddr,
    /// Its certificate's authority, in base64.
    ca: String,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TlsServer {
    pub(crate) fn start(
        server: &ApiServer,
        answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let certificates = CertificateDer::pem_file_iter(server.ca_file()).unwrap();
        let key = PrivateKeyDer::from_pem_file(server.ca_file().with_extension("key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates.map(Result::unwrap).collect(), key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let (config, answer, has_ended) = (Arc::new(config), Arc::new(answer), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if has_ended.load(Ordering::Relaxed) {
                    return;
                }
                let (config, answer) = (Arc::clone(&config), Arc::clone(&answer));
                // One that goes away is no failure.
                std::thread::spawn(move || serve(stream, config, &*answer));
            }
        });
        let ca = STANDARD.encode(std::fs::read(server.ca_file()).unwrap());
        Self { addr, ca, ends, thread: Some(thread) }
    }

    /// `https://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// The configuration by which it is asked for each write of a Secret in that namespace, as the webhook `name`;
    /// `kind`: Validating or Mutating.
    pub(crate) fn configuration(&self, kind: &str, name: &str, namespace: &str) -> String {
        let (url, ca) = (self.url(), &self.ca);
        format!(
            "apiVersion: admissionregistration.k8s.io/v1\nkind: {kind}WebhookConfiguration\nmetadata: {{name: {namespace}}}\n\
             webhooks:\n- name: {name}\n  clientConfig: {{url: '{url}/v1/admit', caBundle: {ca}}}\n  \
             admissionReviewVersions: [v1]\n  sideEffects: None\n  timeoutSeconds: 10\n  failurePolicy: Fail\n  \
             namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}\n  \
             rules: [{{apiGroups: [''], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [secrets]}}]\n"
        )
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.addr);
        self.thread.take().map(JoinHandle::join);
    }
}

/// One request, then the connection is closed.
fn serve(stream: TcpStream, config: Arc<ServerConfig>, answer: &Answer) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let (code, answer) = answer(&path, &serde_json::from_slice(&body).unwrap_or_default());
    let answer = answer.to_string();
    let stream = stream.get_mut();
    write!(
        stream,
        "HTTP/1.1 {code} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
        answer.len()
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}
