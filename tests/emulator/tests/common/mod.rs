//! What every test here needs: an HTTP exchange with nothing hidden, AWS's signature, and other people's programs.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use ecr_emulator::{ACCESS_KEY_ID, Emulator, SECRET_ACCESS_KEY};
use ring::{digest, hmac};
use serde_json::Value;
pub(crate) use test_support::program;

/// A command with nothing in its environment but what it needs to run, and no way to leave the machine.
pub(crate) fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).env("TMPDIR", home).env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("AWS_MAX_ATTEMPTS", "1").env("NO_PROXY", "127.0.0.1");
    // A Python or Go tool may be a shim that wants these.
    for name in ["PATH", "PYENV_ROOT", "PYENV_VERSION"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// The same, with the keys of the default user and the emulator as its endpoint.
pub(crate) fn aws_command(program: &Path, home: &Path, emulator: &Emulator) -> Command {
    let mut command = command(program, home);
    command
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_DEFAULT_REGION", "eu-west-1")
        .env("AWS_ENDPOINT_URL", emulator.endpoint());
    command
}

pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The code of an error of STS (XML) or ECR (JSON).
    pub(crate) fn code(&self) -> String {
        let text = self.text();
        match text.split_once("<Code>") {
            Some((_, rest)) => rest.split('<').next().unwrap_or_default().to_owned(),
            None => self.json()["__type"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

/// A request that is sent as it stands, on a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Ask {
    pub(crate) fn new(method: &'static str, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body: String::new() }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: &str) -> Self {
        self.body = body.to_owned();
        self
    }

    /// `GetAuthorizationToken` of ECR or ECR Public, not signed yet.
    pub(crate) fn token(target: &str) -> Self {
        Self::new("POST", "/")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", &format!("{target}.GetAuthorizationToken"))
            .body("{}")
    }

    /// A Query-protocol request, not signed yet.
    pub(crate) fn sts(parameters: &str) -> Self {
        Self::new("POST", "/")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(&format!("Version=2011-06-15&{parameters}"))
    }

    pub(crate) fn send(&self, endpoint: &str) -> io::Result<Answer> {
        let address = endpoint.trim_start_matches("http://");
        let mut stream = self.open(address)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        parse(bytes)
    }

    /// Sends, and leaves the reading to the caller.
    pub(crate) fn open(&self, address: &str) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(self.render(address).as_bytes())?;
        Ok(stream)
    }

    pub(crate) fn render(&self, address: &str) -> String {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name == "host") {
            text.push_str(&format!("host: {address}\r\n"));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text + &format!("connection: close\r\ncontent-length: {}\r\n\r\n{}", self.body.len(), self.body)
    }
}

/// Takes an answer apart. A chunked one doesn't occur here.
pub(crate) fn parse(bytes: Vec<u8>) -> io::Result<Answer> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, String::from_utf8_lossy(&bytes).into_owned());
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(invalid)?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status =
        head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(invalid)?;
    Ok(Answer { status, head, body: bytes[end + 4..].to_vec() })
}

/// Who signs, for what, and when.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    pub(crate) key: String,
    pub(crate) secret: String,
    pub(crate) session_token: Option<String>,
    pub(crate) service: &'static str,
    pub(crate) region: &'static str,
    /// Seconds since 1970.
    pub(crate) time: i64,
}

impl Signer {
    /// The default user in eu-west-1, now.
    pub(crate) fn new(service: &'static str) -> Self {
        Self {
            key: ACCESS_KEY_ID.to_owned(),
            secret: SECRET_ACCESS_KEY.to_owned(),
            session_token: None,
            service,
            region: "eu-west-1",
            time: jiff::Timestamp::now().as_second(),
        }
    }

    pub(crate) fn sign(&self, mut ask: Ask, endpoint: &str) -> Ask {
        let stamp = jiff::Timestamp::from_second(self.time).unwrap().strftime("%Y%m%dT%H%M%SZ").to_string();
        if !ask.headers.iter().any(|(name, _)| name == "host") {
            ask = ask.header("host", endpoint.trim_start_matches("http://"));
        }
        ask = ask.header("x-amz-date", &stamp);
        if let Some(token) = &self.session_token {
            ask = ask.header("x-amz-security-token", token);
        }
        ask.headers.sort();
        let names: Vec<_> = ask.headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let lines: String = ask.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let canonical = format!("{}\n{}\n\n{lines}\n{names}\n{}", ask.method, ask.path, sha256(&ask.body));
        let scope = format!("{}/{}/{}/aws4_request", &stamp[..8], self.region, self.service);
        let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", sha256(&canonical));
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in scope.split('/') {
            key = mac(&key, part);
        }
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={}",
            self.key,
            hex(&mac(&key, &to_sign))
        );
        ask.header("authorization", &authorization)
    }

    pub(crate) fn send(&self, ask: Ask, endpoint: &str) -> Answer {
        self.sign(ask, endpoint).send(endpoint).unwrap()
    }
}

pub(crate) const ECR: &str = "AmazonEC2ContainerRegistry_V20150921";
pub(crate) const ECR_PUBLIC: &str = "SpencerFrontendService";

/// A good token of ECR: the value of `authorizationToken`.
pub(crate) fn ecr_token(emulator: &Emulator, region: &'static str) -> String {
    let signer = Signer { region, ..Signer::new("ecr") };
    let answer = signer.send(Ask::token(ECR), &emulator.endpoint()).json();
    answer["authorizationData"][0]["authorizationToken"].as_str().unwrap().to_owned()
}

/// A file of `patches/iam`, as it is.
pub(crate) fn shipped(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../patches/iam");
    std::fs::read_to_string(Path::new(folder).join(name)).unwrap()
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn sha256(text: &str) -> String {
    hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
