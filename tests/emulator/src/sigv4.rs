//! Is that request signed by whom it claims, for this service and region, and just now?
//!
//! AWS Signature Version 4 in the `Authorization` header, as the AWS General Reference describes it.
//! Pre-signed URLs and SigV4a aren't understood, since no client of these services sends them.

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST};
use ring::{digest, hmac};

use crate::clock;
use crate::iam::{Iam, Principal};
use crate::random::hex;
use crate::request::Inbound;

const TOLERANCE_SECONDS: i64 = 5 * 60;
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What the `Authorization` header claims, not verified yet.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) access_key_id: String,
    pub(crate) region: String,
    date: String,
    service: String,
    signed_headers: Vec<String>,
    signature: String,
}

/// Why a signature isn't accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    Missing,
    Incomplete(String),
    UnknownKey,
    /// The AWS message about the time.
    Time(String),
    /// What AWS repeats of the request.
    Mismatch(Signed),
    /// The AWS message about the scope.
    Scope(String),
    ExpiredSession,
}

/// What a signature is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) canonical: String,
    pub(crate) to_sign: String,
}

impl Rejection {
    /// A mismatch, whatever the signature of the request is.
    pub(crate) fn mismatch(request: &Inbound) -> Self {
        let claim = match Claim::read(&request.headers) {
            Ok(claim) => claim,
            Err(rejection) => return rejection,
        };
        Self::Mismatch(claim.signed(request, request.header("x-amz-date").unwrap_or_default()))
    }

    /// A header that lacks a parameter, whatever the request has.
    pub(crate) fn incomplete(headers: &HeaderMap) -> Self {
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        lacks("Signature", header)
    }
}

impl Claim {
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Rejection> {
        let header = headers.get(AUTHORIZATION).ok_or(Rejection::Missing)?;
        let text = header.to_str().map_err(|_| incomplete("Authorization is no text"))?;
        let fields = text.strip_prefix(ALGORITHM).ok_or(Rejection::Missing)?;
        let field = |name: &str| {
            let found = fields.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
            found.ok_or_else(|| lacks(name, text))
        };
        let scope: Vec<_> = field("Credential")?.split('/').collect();
        let [access_key_id, date, region, service, "aws4_request"] = scope[..] else {
            return Err(incomplete("Credential must have exactly 5 slash-delimited elements"));
        };
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            region: region.to_owned(),
            date: date.to_owned(),
            service: service.to_owned(),
            signed_headers: field("SignedHeaders")?.split(';').map(str::to_owned).collect(),
            signature: field("Signature")?.to_owned(),
        })
    }

    /// The principal behind the claim.
    pub(crate) fn verify(
        &self,
        request: &Inbound,
        service: &str,
        region: Option<&str>,
        iam: &Iam,
        now: i64,
    ) -> Result<Principal, Rejection> {
        let key = iam.key(&self.access_key_id, now).ok_or(Rejection::UnknownKey)?;
        let sent =
            request.header("x-amz-date").ok_or_else(|| incomplete("requires 'X-Amz-Date' or 'Date'"))?;
        if request.header("x-amz-security-token") != key.session_token.as_deref() {
            return Err(Rejection::UnknownKey);
        }
        self.check_scope(service, region)?;
        self.check_time(sent, now)?;
        self.check_signed_headers(&request.headers)?;
        let signed = self.signed(request, sent);
        if hex(hmac(&self.signing_key(&key.secret), &signed.to_sign).as_ref()) != self.signature {
            return Err(Rejection::Mismatch(signed));
        }
        if key.expired { Err(Rejection::ExpiredSession) } else { Ok(key.principal) }
    }

    fn signed(&self, request: &Inbound, sent: &str) -> Signed {
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let canonical = canonical_request(request, &self.signed_headers);
        let to_sign = format!("{ALGORITHM}\n{sent}\n{scope}\n{}", sha256(canonical.as_bytes()));
        Signed { canonical, to_sign }
    }

    fn check_scope(&self, service: &str, region: Option<&str>) -> Result<(), Rejection> {
        if self.service != service {
            return Err(Rejection::Scope(format!(
                "Credential should be scoped to correct service: '{service}'. "
            )));
        }
        if region.is_some_and(|region| region != self.region) || !crate::hosts::is_region(&self.region) {
            return Err(Rejection::Scope("Credential should be scoped to a valid region. ".to_owned()));
        }
        Ok(())
    }

    fn check_time(&self, sent: &str, now: i64) -> Result<(), Rejection> {
        let time =
            clock::parse_basic(sent).ok_or_else(|| incomplete("Date must be in ISO-8601 'basic format'."))?;
        if !sent.starts_with(&self.date) {
            return Err(Rejection::Scope(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: \
                 '{}' != '{}', from '{sent}'.",
                self.date,
                sent.get(..8).unwrap_or(sent)
            )));
        }
        if time < now - TOLERANCE_SECONDS {
            let limit = clock::basic(now - TOLERANCE_SECONDS);
            let now = clock::basic(now);
            return Err(Rejection::Time(format!(
                "Signature expired: {sent} is now earlier than {limit} ({now} - 5 min.)"
            )));
        }
        if time > now + TOLERANCE_SECONDS {
            let limit = clock::basic(now + TOLERANCE_SECONDS);
            let now = clock::basic(now);
            return Err(Rejection::Time(format!(
                "Signature not yet current: {sent} is still later than {limit} ({now} + 5 min.)"
            )));
        }
        Ok(())
    }

    /// The headers that make up the request's meaning must be covered.
    fn check_signed_headers(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        for name in [HOST.as_str(), "x-amz-date", "x-amz-target", "x-amz-security-token"] {
            if headers.contains_key(name) && !self.signed_headers.iter().any(|signed| signed == name) {
                return Err(incomplete(&format!(
                    "'{name}' must be a 'SignedHeader' in the AWS Authorization."
                )));
            }
        }
        Ok(())
    }

    fn signing_key(&self, secret: &str) -> Vec<u8> {
        let date = hmac(format!("AWS4{secret}").as_bytes(), &self.date);
        let region = hmac(date.as_ref(), &self.region);
        let service = hmac(region.as_ref(), &self.service);
        hmac(service.as_ref(), "aws4_request").as_ref().to_vec()
    }
}

fn incomplete(message: &str) -> Rejection {
    Rejection::Incomplete(message.to_owned())
}

fn lacks(name: &str, header: &str) -> Rejection {
    incomplete(&format!("Authorization header requires '{name}' parameter. Authorization={header}"))
}

fn canonical_request(request: &Inbound, signed_headers: &[String]) -> String {
    let mut text = format!(
        "{}\n{}\n{}\n",
        request.method,
        encode(&request.path),
        canonical_query(request.query.as_deref().unwrap_or_default())
    );
    for name in signed_headers {
        let values: Vec<_> =
            request.headers.get_all(name).iter().map(|value| squeeze(value.as_bytes())).collect();
        text.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    text.push_str(&format!("\n{}\n{}", signed_headers.join(";"), sha256(&request.body)));
    text
}

/// Sorted `name=value` pairs; what is percent-encoded already stays so.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<String> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
        .collect();
    pairs.sort_unstable();
    pairs.join("&")
}

/// URI encoding; the path of a request is encoded once more than it is sent, which leaves plain paths alone.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
        if plain {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Without outer blanks, inner runs of blanks as one.
fn squeeze(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hmac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{SECRET_ACCESS_KEY, Settings, User};

    /// `get-vanilla` of the AWS Signature Version 4 test suite.
    fn vanilla() -> (Inbound, Iam) {
        let mut headers = HeaderMap::new();
        headers.insert("host", "example.amazonaws.com".parse().unwrap());
        headers.insert("x-amz-date", "20150830T123600Z".parse().unwrap());
        headers.insert(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
                .parse()
                .unwrap(),
        );
        let user = User {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: SECRET_ACCESS_KEY.replace("K7MDENG/bPxRfi", "K7MDENG+bPxRfi"),
            ..User::default()
        };
        let iam = Iam::new(&Settings { users: vec![user], ..Settings::default() });
        (Inbound::for_test("GET", "/", headers, ""), iam)
    }

    const NOW: i64 = 1_440_938_160; // 2015-08-30T12:36:00Z

    #[test]
    fn the_published_example_verifies() {
        let (request, iam) = vanilla();
        let claim = Claim::read(&request.headers).unwrap();
        assert_eq!(claim.region, "us-east-1");
        assert!(claim.verify(&request, "service", Some("us-east-1"), &iam, NOW).is_ok());
        assert!(claim.verify(&request, "service", None, &iam, NOW + 299).is_ok());
    }

    #[test]
    fn whatever_is_altered_no_longer_verifies() {
        let (request, iam) = vanilla();
        let claim = Claim::read(&request.headers).unwrap();
        let verify = |request: &Inbound, now| claim.verify(request, "service", None, &iam, now).unwrap_err();
        let altered = Inbound { body: "x".into(), ..vanilla().0 };
        assert!(matches!(verify(&altered, NOW), Rejection::Mismatch(_)));
        let altered = Inbound { path: "/x".to_owned(), ..vanilla().0 };
        assert!(matches!(verify(&altered, NOW), Rejection::Mismatch(_)));
        let mut altered = vanilla().0;
        altered.headers.insert("x-amz-target", "A.B".parse().unwrap());
        assert!(matches!(verify(&altered, NOW), Rejection::Incomplete(_)));
        altered.headers.insert("x-amz-security-token", "stolen".parse().unwrap());
        assert_eq!(verify(&altered, NOW), Rejection::UnknownKey);
        let Rejection::Time(late) = verify(&request, NOW + 301) else { panic!("late") };
        assert!(late.starts_with("Signature expired"), "{late}");
        let Rejection::Time(early) = verify(&request, NOW - 301) else { panic!("early") };
        assert!(early.starts_with("Signature not yet current"), "{early}");
        let scope = |service, region| claim.verify(&request, service, Some(region), &iam, NOW).unwrap_err();
        assert!(matches!(scope("ecr", "us-east-1"), Rejection::Scope(_)));
        assert!(matches!(scope("service", "eu-west-1"), Rejection::Scope(_)));
    }

    #[test]
    fn an_unsigned_request_is_told_apart_from_a_malformed_one() {
        let mut headers = HeaderMap::new();
        assert_eq!(Claim::read(&headers).unwrap_err(), Rejection::Missing);
        headers.insert("authorization", "Bearer x".parse().unwrap());
        assert_eq!(Claim::read(&headers).unwrap_err(), Rejection::Missing);
        headers.insert("authorization", "AWS4-HMAC-SHA256 Credential=a/b/c".parse().unwrap());
        assert!(matches!(Claim::read(&headers).unwrap_err(), Rejection::Incomplete(_)));
    }
}
