//! Which ECR tokens are out there, what does each open, and until when?

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::hosts::Place;
use crate::iam::Principal;
use crate::journal::Reason;
use crate::locked;
use crate::random;

/// Every token issued so far, by its password.
#[derive(Default)]
pub(crate) struct Tokens {
    issued: Mutex<HashMap<String, Token>>,
}

/// A token, without its password.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) serial: u64,
    pub(crate) principal: Principal,
    place: Place,
    expires: SystemTime,
    revoked: bool,
}

/// What a password looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As AWS makes them: base64 of a JSON text, so `+`, `/` and `=` but no `:` (the AWS CLI counts on that).
    Usual,
    /// With colons in it: nothing promises that there are none.
    WithColons,
}

impl Tokens {
    /// A new password that opens `place`.
    pub(crate) fn issue(
        &self,
        place: Place,
        principal: &Principal,
        expires: SystemTime,
        shape: Shape,
    ) -> String {
        let password = new_password(expires, shape);
        let mut issued = locked(&self.issued);
        let serial = issued.len() as u64 + 1;
        let token = Token { serial, principal: principal.clone(), place, expires, revoked: false };
        issued.insert(password.clone(), token);
        password
    }

    /// The token of that password, if it opens `place` at `now`.
    pub(crate) fn admit(&self, password: &str, place: &Place, now: SystemTime) -> Result<Token, Reason> {
        let issued = locked(&self.issued);
        let token = issued.get(password).ok_or(Reason::UnknownToken)?;
        if token.revoked {
            return Err(Reason::RevokedToken);
        }
        if token.expires <= now {
            return Err(Reason::ExpiredToken);
        }
        match (&token.place, place) {
            (one, other) if one == other => Ok(token.clone()),
            (Place::Region(region), Place::Region(_)) => Err(Reason::WrongRegion(region.clone())),
            _ => Err(Reason::WrongKind),
        }
    }

    pub(crate) fn revoke_all(&self) {
        for token in locked(&self.issued).values_mut() {
            token.revoked = true;
        }
    }
}

/// About 1.7 kB, never the same twice.
fn new_password(expires: SystemTime, shape: Shape) -> String {
    let seconds = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let text = serde_json::json!({
        "payload": random::mixed(900),
        "datakey": random::mixed(248),
        "version": "2",
        "type": "DATA_KEY",
        "expiration": seconds,
    });
    let password = STANDARD.encode(text.to_string());
    match shape {
        Shape::Usual => password,
        Shape::WithColons => format!("{}:{}:", &password[..600], &password[600..]),
    }
}
