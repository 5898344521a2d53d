//! What did the client ask, once it is all here?

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};

const LIMIT: usize = 1024 * 1024;

/// A request with its whole body.
pub(crate) struct Inbound {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Inbound {
    /// Reads the body; none when it breaks off or exceeds 1 MB.
    pub(crate) async fn collect(parts: Parts, body: Incoming) -> Option<Self> {
        let body = Limited::new(body, LIMIT).collect().await.ok()?.to_bytes();
        Some(Self {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            headers: parts.headers,
            body,
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn host(&self) -> &str {
        self.header(HOST.as_str()).unwrap_or_default()
    }

    /// The parameters of a Query-protocol request: the form in the body, or the query of a GET.
    pub(crate) fn form(&self) -> Form {
        let text = if self.method == Method::GET {
            self.query.clone().unwrap_or_default()
        } else {
            String::from_utf8_lossy(&self.body).into_owned()
        };
        Form(text.split('&').filter_map(|pair| pair.split_once('=')).map(decode_pair).collect())
    }

    #[cfg(test)]
    pub(crate) fn for_test(method: &str, path: &str, headers: HeaderMap, body: &'static str) -> Self {
        let method = method.parse().unwrap();
        Self { method, path: path.to_owned(), query: None, headers, body: body.into() }
    }
}

/// Decoded `application/x-www-form-urlencoded` pairs.
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn decode_pair((name, value): (&str, &str)) -> (String, String) {
    (decode(name), decode(value))
}

fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next().unwrap_or(b'?'), bytes.next().unwrap_or(b'?')];
                let digits = std::str::from_utf8(&digits).unwrap_or("??");
                u8::from_str_radix(digits, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let body = "Action=AssumeRole&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fa&Note=a+b%20c&Bad=%zz%1";
        let form = Inbound::for_test("POST", "/", HeaderMap::new(), body).form();
        assert_eq!(form.value("Action"), Some("AssumeRole"));
        assert_eq!(form.value("RoleArn"), Some("arn:aws:iam::1:role/a"));
        assert_eq!(form.value("Note"), Some("a b c"));
        assert_eq!(form.value("Bad"), Some("??"));
        assert_eq!(form.value("Missing"), None);
    }
}
