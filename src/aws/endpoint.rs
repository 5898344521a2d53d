//! URLs of AWS's APIs that the user configured: a variable, a profile, or the configuration file.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use crate::failure::shown_value::quoted;

/// An `http` or `https` URL with a host, and without user, query or fragment.
///
/// The SDK puts such a URL into requests, and panics or repeats the whole request, tokens included, when it is not one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointUrl(String);

/// The text is no such URL; displays as what was found, without what may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found}")]
pub struct EndpointError {
    found: String,
}

impl EndpointUrl {
    pub const EXPECTED: &str =
        "a URL such as https://vpce-0abc.api.ecr.eu-west-1.vpce.amazonaws.com, without user or query";

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_plain_http_beyond_loopback(&self) -> bool {
        let Ok(uri) = self.0.parse::<http::Uri>() else { return false };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_loopback = host.eq_ignore_ascii_case("localhost")
            || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        uri.scheme_str() == Some("http") && !is_loopback
    }
}

impl FromStr for EndpointUrl {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        let found = |found: &str| EndpointError { found: found.to_owned() };
        if text.contains('@') {
            return Err(found("a URL with a user name"));
        }
        if text.contains(['?', '#']) {
            return Err(found("a URL with a query or fragment"));
        }
        if has_text_for_a_port(text) {
            // A user and password whose host was forgotten look like this.
            return Err(found("a URL whose port is not a number"));
        }
        let is_url = text.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(is_host)
                && has_port_or_none(&uri)
        });
        match is_url {
            true => Ok(Self(text.to_owned())),
            false => Err(found(&quoted(text))),
        }
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An IPv6 address in brackets, or what an IPv4 address and a name consist of: [`http::Uri`] lets more through.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    }
}

fn has_text_for_a_port(text: &str) -> bool {
    let authority = text.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
    port.is_some_and(|port| {
        port.contains(|c: char| !c.is_ascii_digit()) && !port.contains(char::is_whitespace)
    })
}

/// `host:` and `host:99999` have neither.
fn has_port_or_none(uri: &http::Uri) -> bool {
    let Some(authority) = uri.authority() else { return false };
    let after_host = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    after_host.is_empty() || authority.port_u16().is_some_and(|port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_a_host_are_accepted() {
        for good in [
            "https://api.ecr.eu-west-1.amazonaws.com",
            "http://localhost:4566/",
            "http://127.0.0.1:4566",
            "https://[fd00::1]:8443/prefix",
            " https://host_with-all.the.letters \n",
        ] {
            assert!(good.parse::<EndpointUrl>().is_ok(), "{good}");
        }
    }

    #[test]
    fn whatever_else_is_found_is_named_without_its_secrets() {
        let found = |text: &str| text.parse::<EndpointUrl>().unwrap_err().to_string();
        for bad in [
            "localhost:4566",                        // the scheme is missing
            "vpce-0abc.ecr.eu-west-1.amazonaws.com", // a bare name
            "\"https://host\"",                      // quotes of a shell or of YAML
            "https://",
            "https:///path",
            "https://host:", // a template whose port is empty
            "https://host:99999",
            "https://host:0",
            "https://a b",
            "https://${HOST}", // a template that was not filled in
            "https://hôst",
            "https://[::1",
            "ftp://host",
            "https://a\nX-Header: b",
            "",
        ] {
            let found = found(bad);
            let is_named = found.starts_with('`') || found.ends_with("not shown");
            assert!(is_named && !found.contains('\n'), "{bad:?}: {found}");
        }
        assert!(found("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY").ends_with("not shown"));
        assert_eq!(found("https://me:hunter2@host"), "a URL with a user name");
        assert_eq!(found("me:hunter2@host"), "a URL with a user name");
        assert_eq!(found("https://me:hunter2"), "a URL whose port is not a number");
        assert_eq!(found("https://host/?token=hunter2"), "a URL with a query or fragment");
    }

    #[test]
    fn only_loopback_may_be_reached_in_clear() {
        let in_clear = |url: &str| url.parse::<EndpointUrl>().unwrap().is_plain_http_beyond_loopback();
        for url in ["https://host", "http://localhost:1", "http://127.1.2.3", "http://[::1]:1"] {
            assert!(!in_clear(url), "{url}");
        }
        for url in ["http://host", "http://10.0.0.1:4566", "http://localhost.example", "http://[fd00::1]"] {
            assert!(in_clear(url), "{url}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_url_or_an_error_of_one_line(text in "\\PC*|https?://[a-z@?:/\\[\\]0-9\n]{0,40}") {
            match text.parse::<EndpointUrl>() {
                Ok(url) => {
                    let uri: http::Uri = url.as_str().parse().unwrap();
                    proptest::prop_assert!(!uri.host().unwrap().is_empty() && uri.query().is_none());
                }
                Err(error) => proptest::prop_assert!(!error.to_string().contains(char::is_control)),
            }
        }
    }
}
