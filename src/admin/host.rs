//! Is a request meant for this endpoint? Answered by its `Host`.
//!
//! A page of another origin can make its DNS name resolve to an address of ours (DNS rebinding), and then its scripts may
//! read what we answer: the browser sends them with that name as `Host`. So the endpoint serves addresses, `localhost`,
//! which no DNS answers, and the names of `health.hosts`. The port is ignored: a forwarded one differs.

use std::net::IpAddr;

use hyper::{
    Request, Version,
    header::{HOST, HeaderValue},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejected {
    /// Not one `Host`, or not readable.
    Malformed,
    Unknown,
}

/// Checks the `Host` of a request, and the authority of its target where it has one. HTTP/1.0 knows no `Host`.
pub(super) fn check<B>(request: &Request<B>, names: &[String]) -> Result<(), Rejected> {
    let target = request.uri().host();
    let mut headers = request.headers().get_all(HOST).iter();
    let host = match (headers.next(), headers.next()) {
        (Some(host), None) => Some(host_of(host).ok_or(Rejected::Malformed)?),
        (None, _) if request.version() == Version::HTTP_10 => None,
        _ => return Err(Rejected::Malformed),
    };
    let is_served = |host: &str| is_local(host) || names.iter().any(|name| name.eq_ignore_ascii_case(host));
    let all = [target, host].into_iter().flatten().all(|host| is_served(host.trim_end_matches('.')));
    all.then_some(()).ok_or(Rejected::Unknown)
}

fn host_of(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok()?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (_, port) = rest.split_once(']')?;
            (&text[..text.len() - port.len()], port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    (!host.is_empty() && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))).then_some(host)
}

fn is_local(host: &str) -> bool {
    let address = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        // An address of one link has a zone.
        Some(v6) => {
            v6.split('%').next().and_then(|v6| v6.parse().ok()).is_some_and(|ip: IpAddr| ip.is_ipv6())
        }
        None => host.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4()),
    };
    address || host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checked(target: &str, version: Version, hosts: &[&str]) -> Result<(), Rejected> {
        let mut request = Request::builder().uri(target).version(version);
        for host in hosts {
            request = request.header(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        check(&request.body(()).unwrap(), &["ecr-sidecar.monitoring.svc".to_owned()])
    }

    #[test]
    fn addresses_localhost_and_configured_names_are_served_and_no_other() {
        let host = |host: &str| checked("/", Version::HTTP_11, &[host]);
        for served in [
            "10.0.0.7:9808", // kubelet, Prometheus
            "127.0.0.1",
            "[::1]:9808",
            "[fd00:10::7]:9808",
            "[fe80::1%2]:9808",
            "localhost:8080", // kubectl port-forward
            "LOCALHOST",
            "localhost.",
            "ecr-sidecar.monitoring.svc:9808",
            "ECR-Sidecar.monitoring.svc.",
        ] {
            assert_eq!(host(served), Ok(()), "{served}");
        }
        for unknown in [
            "evil.example",
            "evil.example:9808",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil.localhost", // some resolvers ask DNS for it
            "monitoring.svc",
            "x.ecr-sidecar.monitoring.svc",
            "127.1",      // a browser writes it as 127.0.0.1
            "2130706433", // and this one
            "0x7f.0.0.1",
            "[127.0.0.1]",
            "[evil.example]",
            "::1",
        ] {
            assert!(host(unknown).is_err(), "{unknown}");
        }
        for malformed in
            ["", ":9808", "a:b", "[::1", "[::1]x", "localhost:123456", "evil.example@localhost:1:2"]
        {
            assert_eq!(host(malformed), Err(Rejected::Malformed), "{malformed}");
        }
    }

    #[test]
    fn http_1_0_needs_no_host_and_what_is_said_twice_must_be_served_both_times() {
        assert_eq!(checked("/", Version::HTTP_10, &[]), Ok(()));
        assert_eq!(checked("/", Version::HTTP_10, &["evil.example"]), Err(Rejected::Unknown));
        assert_eq!(checked("/", Version::HTTP_11, &[]), Err(Rejected::Malformed));
        assert_eq!(checked("/", Version::HTTP_11, &["localhost", "evil.example"]), Err(Rejected::Malformed));
        let target = "http://evil.example/status";
        assert_eq!(checked(target, Version::HTTP_11, &["localhost"]), Err(Rejected::Unknown));
        assert_eq!(checked(target, Version::HTTP_10, &[]), Err(Rejected::Unknown));
        assert_eq!(checked("http://127.0.0.1:1/status", Version::HTTP_11, &["localhost"]), Ok(()));
        assert_eq!(checked("http://[::1]:1/status", Version::HTTP_11, &["[::1]"]), Ok(()));
    }

    proptest! {
        #[test]
        fn no_name_with_a_letter_behind_its_last_dot_is_served(name in "[a-z0-9.%:@\\[-]{0,20}\\.[a-z][a-z0-9]{0,9}") {
            prop_assert!(checked("/", Version::HTTP_11, &[&name]).is_err());
        }
    }
}
