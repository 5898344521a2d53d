//! The proxies of the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or not.
//!
//! They are parsed here, once, and the SDK's client is given the result: read by the client, a value that it does not
//! understand silently means a direct connection (`what_is_no_proxy_is_named`). A value in capitals goes before the
//! other, and an empty one is unset, as with curl and Go. No error shows a value: it may hold a password.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use aws_smithy_http_client::proxy::ProxyConfig;
use http::Uri;

use crate::{aws::variables::InvalidSetting, env::Environment};

#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exempt: Vec<Exempt>,
}

/// A proxy. Its URL may hold a password and is not shown.
#[derive(Clone)]
pub(super) struct Proxy {
    pub(super) config: ProxyConfig,
    pub(super) speaks_tls: bool,
}

const HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];
const URL_EXPECTED: &str = "the URL of an http or https proxy, such as http://proxy.example:3128";
const HOSTS_EXPECTED: &str = "`*`, or host names (a leading `.` or `*.` is allowed), IP addresses and CIDR ranges, each with a :port if needed, separated by commas";

impl Proxies {
    /// Those of the environment, or every variable that is invalid.
    pub fn of(env: &Environment) -> Result<Self, Vec<InvalidSetting>> {
        let mut invalid = Vec::new();
        let mut reject = |variable: &str, found: String, expected: &str| {
            invalid.push(InvalidSetting { place: variable.into(), found, expected: expected.into() });
        };
        let mut proxy = |names| {
            let (variable, text) = first(env, names)?;
            parse_proxy(text).map_err(|found| reject(variable, found, URL_EXPECTED)).ok()
        };
        let is_set = |names| first(env, names).is_some();
        let https = proxy(HTTPS);
        let http = proxy(HTTP);
        // Where both are set it says nothing, and is often of another kind.
        let all = if is_set(HTTPS) && is_set(HTTP) { None } else { proxy(ALL) };
        let is_proxied = is_set(HTTPS) || is_set(HTTP) || is_set(ALL);
        let mut exempt = Vec::new();
        if let Some((variable, text)) = first(env, ["NO_PROXY", "no_proxy"]).filter(|_| is_proxied) {
            for (index, entry) in
                text.split([',', ' ', '\t']).map(str::trim).filter(|entry| !entry.is_empty()).enumerate()
            {
                let Some(parsed) = Exempt::parse(entry) else {
                    let found = format!("a list whose entry {} is not understood", index + 1);
                    reject(variable, found, HOSTS_EXPECTED);
                    break;
                };
                exempt.push(parsed);
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        Ok(Self { http: http.or_else(|| all.clone()), https: https.or(all), exempt })
    }

    /// The proxy for requests of this URL's scheme, unless its host is exempt.
    pub(super) fn serving(&self, uri: &Uri) -> Option<&Proxy> {
        let is_https = uri.scheme_str() == Some("https");
        let host = uri.host()?;
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        if self.exempt.iter().any(|exempt| exempt.matches(host, port)) {
            return None;
        }
        if is_https { self.https.as_ref() } else { self.http.as_ref() }
    }

    /// The settings of a client for each [`Route`](super::Route).
    pub(super) fn routes(&self) -> [ProxyConfig; 3] {
        [None, self.http.as_ref(), self.https.as_ref()]
            .map(|proxy| proxy.map_or_else(ProxyConfig::disabled, |proxy| proxy.config.clone()))
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (http, https) = (self.http.is_some(), self.https.is_some());
        f.debug_struct("Proxies")
            .field("http", &http)
            .field("https", &https)
            .field("exempt", &self.exempt)
            .finish()
    }
}

fn first<'a>(env: &'a Environment, names: [&'static str; 2]) -> Option<(&'static str, &'a str)> {
    names.into_iter().find_map(|name| {
        let value = env.get(name)?.trim();
        (!value.is_empty()).then_some((name, value))
    })
}

/// The proxy of a URL, or what the text is instead.
fn parse_proxy(text: &str) -> Result<Proxy, String> {
    if text.contains(['"', '\'', '`']) {
        return Err("a value with quotes in it".into());
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("a value with white space in it".into());
    }
    // As with curl and Go, a URL without a scheme is one of http.
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let scheme = scheme.to_ascii_lowercase();
    if scheme.starts_with("socks") {
        return Err("a SOCKS proxy, which is not supported".into());
    }
    if !["http", "https"].contains(&scheme.as_str()) {
        return Err("a URL of another scheme".into());
    }
    let not_a_url = || "no URL".to_owned();
    let uri: Uri = format!("{scheme}://{rest}").parse().map_err(|_| not_a_url())?;
    let authority = uri.authority().ok_or_else(not_a_url)?.as_str();
    if authority.matches('@').count() > 1 {
        return Err("a URL with more than one @ (in a password it is %40)".into());
    }
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let has_port = host_and_port.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    if has_port && uri.port_u16().is_none_or(|port| port == 0) {
        return Err("a URL whose port is not a number from 1 to 65535".into());
    }
    if !is_host(uri.host().unwrap_or_default()) {
        return Err("a URL without a host name".into());
    }
    if !["", "/"].contains(&uri.path()) || uri.query().is_some() {
        return Err("a URL with a path".into());
    }
    let config = ProxyConfig::all(uri).map_err(|_| not_a_url())?;
    Ok(Proxy { config, speaks_tls: scheme == "https" })
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))),
        None => is_name(host),
    }
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(is_label)
}

/// An entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Exempt {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    /// Names without a dot.
    Local,
    /// The name and what is below it, in lower case.
    Below(String),
    /// Addresses with the same first bits.
    Range(IpAddr, u8),
}

impl Exempt {
    fn parse(entry: &str) -> Option<Self> {
        if let Some(hosts) = Hosts::parse(entry) {
            return Some(Self { hosts, port: None });
        }
        let (hosts, port) = entry.rsplit_once(':')?;
        // Without brackets it would be an IPv6 address that is none.
        let hosts = Hosts::parse(hosts).filter(|_| !hosts.contains(':') || hosts.ends_with(']'))?;
        Some(Self { hosts, port: Some(port.parse().ok()?) })
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        self.port.is_none_or(|only| only == port) && self.hosts.contain(host)
    }
}

/// The address that a text such as `169.254` begins, with zeros for the rest.
fn full_address(text: &str) -> Option<IpAddr> {
    let missing = 4_usize.checked_sub(text.split('.').count()).filter(|missing| *missing > 0)?;
    format!("{text}{}", ".0".repeat(missing)).parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

impl Hosts {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        if text == "<local>" {
            return Some(Self::Local); // as .NET and Windows write it
        }
        let unbracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = unbracketed.parse::<IpAddr>() {
            return Some(Self::Range(address, if address.is_ipv4() { 32 } else { 128 }));
        }
        if text.ends_with(".*") {
            let start = text.trim_end_matches(".*"); // 10.* is 10.0.0.0/8
            let bits = u8::try_from(start.split('.').count() * 8).ok()?;
            return full_address(start).map(|address| Self::Range(address, bits));
        }
        if let Some((address, bits)) = text.split_once('/') {
            let address = address.parse().ok().or_else(|| full_address(address))?;
            let bits = bits.parse().ok().filter(|bits| *bits <= if address.is_ipv4() { 32 } else { 128 })?;
            return Some(Self::Range(address, bits));
        }
        let name = text.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(text);
        let name = name.strip_prefix('.').unwrap_or(name);
        is_name(name).then(|| Self::Below(name.trim_end_matches('.').to_ascii_lowercase()))
    }

    fn contain(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        match (self, host.parse::<IpAddr>()) {
            (Self::All, _) => true,
            (Self::Local, Err(_)) => !host.contains('.'),
            (Self::Range(IpAddr::V4(range), bits), Ok(IpAddr::V4(address))) => {
                let differing = u64::from(range.to_bits() ^ address.to_bits());
                differing >> (32 - bits) == 0
            }
            (Self::Range(IpAddr::V6(range), bits), Ok(IpAddr::V6(address))) => {
                let differing = range.to_bits() ^ address.to_bits();
                differing.checked_shr(u32::from(128 - bits)).is_none_or(|differing| differing == 0)
            }
            (Self::Below(name), Err(_)) => {
                host.strip_suffix(name.as_str()).is_some_and(|front| front.is_empty() || front.ends_with('.'))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, Vec<InvalidSetting>> {
        Proxies::of(&Environment::from_pairs(variables.iter().copied()))
    }

    #[test]
    fn usual_forms_of_a_proxy_work() {
        for good in [
            "http://proxy.example:3128",
            "http://proxy.example:3128/",
            "HTTP://proxy.example",
            "https://proxy.example:8443",
            "proxy.example:3128",
            "proxy",
            "http://user:p%40ss@10.0.0.1:3128",
            "user:pass@proxy:3128",
            "http://[fd00::1]:3128",
            " http://proxy:3128\n",
        ] {
            assert!(proxies(&[("HTTPS_PROXY", good)]).unwrap().https.is_some(), "{good}");
        }
        assert!(proxies(&[("HTTPS_PROXY", "https://p")]).unwrap().https.unwrap().speaks_tls);
    }

    #[test]
    fn what_is_no_proxy_is_named() {
        for (value, reason) in [
            ("\"http://user:CANARY@proxy:3128\"", "quotes"),
            ("'http://proxy:3128", "quotes"),
            ("socks5://user:CANARY@proxy:1080", "SOCKS"),
            ("ftp://CANARY@proxy", "another scheme"),
            ("http:/CANARY:3128", "port"), // a slash is missing
            ("http://", "no URL"),
            ("http://:3128", "host name"),
            ("http://user:CANARY", "port"), // the host is missing
            ("http://user:CANARY@", "no URL"),
            ("http://user:CANARY@x@host", "more than one @"),
            ("http://proxy:0", "port"),
            ("http://proxy:99999", "port"),
            ("http://proxy:", "port"),
            ("http://proxy/CANARY", "path"),
            ("http://proxy?CANARY", "path"),
            ("http://a b", "white space"),
            ("http://pr\u{f6}xy", "no URL"),
            ("http://[CANARY]:1", "host name"),
        ] {
            let error = proxies(&[("https_proxy", value)]).expect_err(value)[0].to_string();
            assert!(error.starts_with("https_proxy is ") && error.contains(reason), "{value}: {error}");
            assert!(!error.contains("CANARY"), "{error}");
        }
        let several =
            proxies(&[("HTTPS_PROXY", "x://"), ("ALL_PROXY", "y://"), ("NO_PROXY", "a,?")]).unwrap_err();
        let named: Vec<_> = several.iter().map(|invalid| &invalid.place).collect();
        assert_eq!(named, ["HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]);
    }

    #[test]
    fn an_empty_variable_is_unset_and_capitals_go_first() {
        let is_set = |variables: &[(&str, &str)]| {
            let proxies = proxies(variables).unwrap();
            (proxies.http.is_some(), proxies.https.is_some())
        };
        assert_eq!(is_set(&[("HTTPS_PROXY", ""), ("https_proxy", "p:1")]), (false, true));
        assert_eq!(is_set(&[("HTTPS_PROXY", " \n"), ("HTTP_PROXY", "p:1")]), (true, false));
        assert_eq!(is_set(&[("all_proxy", "p:1")]), (true, true));
        // What is overruled is not judged.
        let all =
            [("https_proxy", "p:1"), ("http_proxy", "p:1"), ("all_proxy", "socks5://p:1"), ("no_proxy", "a")];
        assert_eq!(is_set(&all), (true, true));
        assert_eq!(is_set(&[("NO_PROXY", "a,?")]), (false, false));
        assert_eq!(is_set(&[("HTTPS_PROXY", "p:1"), ("https_proxy", "x://")]), (false, true));
    }

    #[test]
    fn no_proxy_has_the_usual_forms() {
        let by = |no_proxy: &str, url: &str| {
            let proxies = proxies(&[("ALL_PROXY", "p:1"), ("NO_PROXY", no_proxy)]).unwrap();
            proxies.serving(&url.parse().unwrap()).is_some()
        };
        let aws = "https://api.ecr.eu-west-1.amazonaws.com/";
        for (no_proxy, url) in [
            ("<local>", "https://registry/"),
            ("*", aws),
            ("*.amazonaws.com", aws),
            (".amazonaws.com", aws),
            ("amazonaws.com", aws),
            (" x , AmazonAWS.com.", aws),
            ("x amazonaws.com", aws),
            ("api.ecr.eu-west-1.amazonaws.com", aws),
            ("amazonaws.com:443", aws),
            ("x,", "http://x"),
            ("10.0.0.0/8", "http://10.1.2.3"),
            ("10.1.2.3", "http://10.1.2.3:81"),
            ("10.1.2.3:81", "http://10.1.2.3:81"),
            ("0.0.0.0/0", "http://10.1.2.3"),
            ("::/0", "http://[fd00::1]"),
            ("fd00::/8", "http://[fd00::1]"),
            ("[fd00::1]", "http://[fd00::1]"),
            ("fd00::1", "http://[fd00::1]"),
            ("[fd00::1]:80", "http://[fd00::1]"),
            ("127.1", "http://127.1:80"),
            ("10.*", "http://10.1.2.3"),
            ("192.168.*.*", "http://192.168.1.2"),
            ("169.254/16", "http://169.254.1.2"), // as macOS has it
        ] {
            assert!(!by(no_proxy, url), "{no_proxy} {url}");
        }
        for (no_proxy, url) in [
            ("<local>", "https://a.example/"),
            ("<local>", "https://[fd00::1]/"),
            ("onaws.com", aws),
            ("amazonaws.com:8443", aws),
            ("*.amazonaws.com.cn", aws),
            ("10.0.0.0/8", "http://11.1.2.3"),
            ("10.0.0.0/8", "http://[::1]"),
            ("fd00::/8", "http://[fe00::1]"),
            ("2.3", "http://10.1.2.3"),
            ("10.1.*", "http://10.2.2.3"),
            ("169.254/16", "http://169.255.1.2"),
            ("[fd00::1]:81", "http://[fd00::1]"),
        ] {
            assert!(by(no_proxy, url), "{no_proxy} {url}");
        }
    }

    #[test]
    fn other_forms_of_no_proxy_are_named() {
        for bad in [
            "http://CANARY@x",
            "10.x.*",
            "1.2.3.4.*",
            "*x",
            "a/b",
            "10.0.0.0/33",
            "x:port",
            "fd00::1:",
            "\"x\"",
            "<other>",
            "x;y",
        ] {
            let error = proxies(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", bad)]).expect_err(bad)[0].to_string();
            assert!(
                error.starts_with("NO_PROXY is a list whose entry 1") && !error.contains("CANARY"),
                "{error}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_panics_or_is_shown(value in "(http://)?[ -~]{0,8}CANARY[\\PC]{0,8}(@host)?(:[0-9]{0,6})?") {
            for variable in ["HTTPS_PROXY", "http_proxy", "ALL_PROXY", "NO_PROXY"] {
                match proxies(&[(variable, &value)]) {
                    Ok(proxies) if variable != "NO_PROXY" => {
                        let shown = format!("{proxies:?}");
                        proptest::prop_assert!(!shown.contains("CANARY"));
                    }
                    Ok(proxies) => {
                        proxies.serving(&Uri::from_static("https://[::1]:1/"));
                    }
                    Err(errors) => proptest::prop_assert!(!errors[0].to_string().contains("CANARY")),
                }
            }
        }
    }
}
