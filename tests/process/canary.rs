//! No secret shows anywhere but where it belongs: the registry password in the docker config, the AWS keys nowhere. Not
//! at TRACE, when libraries log most; not in a piece or in another encoding; whatever goes wrong.

mod everywhere;
mod failures;
mod hostile;

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write,
    process::Command,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use ecr_emulator::{Fault, Service};

/// So long a piece of a secret is a leak.
const PIECE: usize = 24;
/// How the `auth` of any ECR token begins: base64 of `AWS:`.
const ANY_AUTH: &str = "QVdTO";
/// How the password of any token of the emulator begins, as of AWS's: base64 of `{"`.
const ANY_PASSWORD: &str = "eyJ";

/// Every way for a call of the service to go wrong.
fn faults(service: Service) -> Vec<Fault> {
    let error = |code: &str| Fault::Error { status: 400, code: code.into(), message: "no".into() };
    let faults = [
        Fault::Status(500),
        error("ServerException"),
        error("ExpiredTokenException"),
        error("InvalidSignatureException"),
        Fault::Throttled,
        Fault::AccessDenied,
        Fault::SignatureMismatch,
        Fault::IncompleteSignature,
        Fault::Echo,
        Fault::Hang,
        Fault::Reset,
        Fault::SlowBody(Duration::from_micros(100)),
        Fault::SlowBody(Duration::from_millis(50)),
        Fault::Garbage,
        Fault::Html,
        Fault::Huge,
        Fault::EmptyList,
        Fault::NoExpiry,
        Fault::NotBase64,
        Fault::NotAws,
        Fault::EmptyPassword,
        Fault::ColonPassword,
        Fault::ExpiredOnArrival,
        Fault::FarFuture,
    ];
    faults.into_iter().filter(|fault| fault.applies_to(service)).collect()
}

/// Keys with a session token, which are logged at TRACE if at all.
fn session_keys([id, key, token]: &[String; 3]) -> impl Fn(&mut Command) {
    move |command| {
        command.env("ECR_SIDECAR_LOG", "trace").env("AWS_ACCESS_KEY_ID", id);
        command.env("AWS_SECRET_ACCESS_KEY", key).env("AWS_SESSION_TOKEN", token);
    }
}

/// Secrets, cut to pieces in the forms in which they could show.
#[derive(Default)]
struct Canaries(HashMap<[u8; PIECE], &'static str>);

impl Canaries {
    fn add(&mut self, what: &'static str, secret: &str) {
        let mut forms = vec![secret.to_owned(), percent(secret, false), percent(secret, true)];
        for shift in 0..3 {
            // Without the ends, in which neighbours have a part.
            let bytes = [&b"xx"[..shift], secret.as_bytes()].concat();
            for encoded in [BASE64_STANDARD.encode(&bytes), BASE64_URL_SAFE_NO_PAD.encode(&bytes)] {
                forms.push(encoded[4..encoded.len() - 4].to_owned());
            }
        }
        for form in forms {
            let pieces: Vec<_> = form.as_bytes().windows(PIECE).step_by(PIECE / 2).collect();
            assert!(!pieces.is_empty(), "{what} is too short to be distinguished from chance");
            self.0.extend(pieces.into_iter().map(|piece| (piece.try_into().unwrap(), what)));
        }
    }

    fn of(secrets: &[&str]) -> Self {
        let mut canaries = Self::default();
        secrets.iter().for_each(|secret| canaries.add("a secret", secret));
        canaries
    }

    /// Nothing of them is in the text, nor anything that is like a token.
    #[track_caller]
    fn none_in(&self, place: &str, text: &str) {
        assert_eq!(self.in_text(text), BTreeSet::new(), "in {place}");
        for prefix in [ANY_AUTH, ANY_PASSWORD] {
            let line = text.lines().find(|line| line.contains(prefix));
            assert_eq!(line, None, "something like a token is in {place}");
        }
    }

    /// What of them is in the text.
    fn in_text(&self, text: &str) -> BTreeSet<&'static str> {
        text.as_bytes().windows(PIECE).filter_map(|window| self.0.get(window).copied()).collect()
    }
}

fn percent(text: &str, lower: bool) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        let _ = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.write_char(char::from(byte))
            }
            _ if lower => write!(encoded, "%{byte:02x}"),
            _ => write!(encoded, "%{byte:02X}"),
        };
    }
    encoded
}

#[test]
fn a_canary_is_found_in_every_form() {
    let secret = "sEcReT+with/odd=signs&such0123456789abcdef";
    let mut canaries = Canaries::default();
    canaries.add("a secret", secret);
    for text in [
        format!("error: {secret} is wrong"),
        format!("piece {}", &secret[3..40]),
        BASE64_STANDARD.encode(format!("AWS:{secret}")),
        BASE64_URL_SAFE_NO_PAD.encode(format!("x{secret}y")),
        format!("Token={}", percent(secret, false)),
        format!("Token={}", percent(secret, true)),
    ] {
        assert_eq!(canaries.in_text(&text), BTreeSet::from(["a secret"]), "{text}");
    }
    assert!(canaries.in_text("sEcReT+with/odd=sign and nothing more of it").is_empty());
}
