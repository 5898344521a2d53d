//! An API server with one Secret, whose watch sends as many events as it is asked for: a real one is not fast enough.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring, pki_types::PrivateKeyDer};
use serde_json::{Map, Value, json};

use crate::measure::Outcome;

type Stream = BufReader<StreamOwned<ServerConnection, TcpStream>>;

pub(crate) struct Cluster {
    state: Arc<(Mutex<State>, Condvar)>,
    kubeconfig: PathBuf,
}

#[derive(Default)]
struct State {
    /// The Secret; null until it is applied.
    secret: Value,
    version: u64,
    writes: usize,
    sent: usize,
}

impl Cluster {
    pub(crate) fn start(folder: &Path) -> Outcome<Self> {
        let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der())?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let authority = folder.join("api-server.pem");
        fs::File::create(&authority)?.write_all(issued.cert.pem().as_bytes())?;
        let kubeconfig = folder.join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {
                "server": format!("https://{}", listener.local_addr()?), "certificate-authority": authority,
            }}],
            "users": [{"name": "bench", "user": {"token": "bench"}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        });
        fs::File::create(&kubeconfig)?.write_all(text.to_string().as_bytes())?;
        let cluster = Self { state: Arc::default(), kubeconfig };
        let (state, config) = (Arc::clone(&cluster.state), Arc::new(config));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Ok(connection) = ServerConnection::new(Arc::clone(&config)) else { return };
                let state = Arc::clone(&state);
                // A client that goes away ends its thread with an error.
                thread::spawn(move || serve(BufReader::new(StreamOwned::new(connection, stream)), &state));
            }
        });
        Ok(cluster)
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Changes a label of the Secret, so many times.
    pub(crate) fn touch(&self, times: u64) {
        let (state, changed) = &*self.state;
        lock(state).version += times;
        changed.notify_all();
    }

    /// Requests that wrote.
    pub(crate) fn writes(&self) -> usize {
        lock(&self.state.0).writes
    }

    /// Events that a watch took.
    pub(crate) fn sent(&self) -> usize {
        lock(&self.state.0).sent
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: Stream, shared: &(Mutex<State>, Condvar)) -> io::Result<()> {
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.to_ascii_lowercase());
        }
        let first = lines.first().cloned().unwrap_or_default();
        let length = lines.iter().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        if first.contains("watch=true") {
            return watch(&mut stream, shared);
        }
        let (code, answer) = answer(&first, &body, &mut lock(&shared.0));
        let answer = answer.to_string();
        write!(
            stream.get_mut(),
            "HTTP/1.1 {code} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        )?;
        stream.get_mut().flush()?;
    }
}

fn answer(first: &str, body: &[u8], state: &mut State) -> (u16, Value) {
    let secret = || state.secret.clone();
    if first.starts_with("patch ") {
        let applied = serde_json::from_slice(body).unwrap_or_default();
        state.writes += 1;
        state.version += 1;
        state.secret = stored(applied, state.version);
        (200, state.secret.clone())
    } else if !first.starts_with("get ") {
        (201, json!({"status": {"allowed": true}}))
    } else if first.contains("/secrets?") {
        let items: Vec<_> = Some(secret()).filter(|secret| !secret.is_null()).into_iter().collect();
        let metadata = json!({"resourceVersion": state.version.to_string()});
        (200, json!({"apiVersion": "v1", "kind": "SecretList", "metadata": metadata, "items": items}))
    } else if first.contains("/secrets/") && !state.secret.is_null() {
        (200, secret())
    } else {
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound",
            "message": "not found",
        });
        (404, status)
    }
}

/// What a server-side apply makes of what was applied, with what says who did it.
fn stored(mut secret: Value, version: u64) -> Value {
    let mut fields = secret.clone();
    if let Some(fields) = fields.as_object_mut() {
        fields.retain(|key, _| !["apiVersion", "kind"].contains(&key.as_str()));
    }
    if let Some(metadata) = fields["metadata"].as_object_mut() {
        metadata.retain(|key, _| ["annotations", "labels"].contains(&key.as_str()));
    }
    secret["metadata"]["uid"] = json!("f7d8b0b2-1fd7-4b51-a7a9-1a1d6b5f4e51");
    secret["metadata"]["resourceVersion"] = json!(version.to_string());
    secret["metadata"]["managedFields"] = json!([{
        "manager": "ecr-sidecar", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": owned(&fields),
    }]);
    secret
}

fn owned(value: &Value) -> Value {
    let fields = value.as_object().into_iter().flatten();
    Value::Object(fields.map(|(key, value)| (format!("f:{key}"), owned(value))).collect::<Map<_, _>>())
}

/// Sends every version that the Secret has from now on, for as long as the client takes them.
fn watch(stream: &mut Stream, (state, changed): &(Mutex<State>, Condvar)) -> io::Result<()> {
    let out = stream.get_mut();
    write!(out, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")?;
    out.flush()?;
    let mut sent = lock(state).version;
    loop {
        let waiting = changed.wait_while(lock(state), |state| state.version == sent);
        let (mut secret, version) = {
            let state = waiting.unwrap_or_else(PoisonError::into_inner);
            (state.secret.clone(), state.version)
        };
        let events = (sent + 1)..=version;
        let count = version - sent;
        let mut batch = Vec::new();
        for version in events {
            secret["metadata"]["resourceVersion"] = json!(version.to_string());
            secret["metadata"]["labels"]["touched"] = json!(version.to_string());
            let kind = if secret["data"].is_null() { "ADDED" } else { "MODIFIED" };
            writeln!(batch, "{}", json!({"type": kind, "object": secret}))?;
        }
        write!(out, "{:x}\r\n", batch.len())?;
        out.write_all(&batch)?;
        out.write_all(b"\r\n")?;
        out.flush()?;
        sent = version;
        lock(state).sent += count as usize;
    }
}
