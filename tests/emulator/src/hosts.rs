//! Which registry, or which region's API, does a host name mean?

/// What a token opens, and what a registry host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Private registries of one region, of every account.
    Region(String),
    /// public.ecr.aws
    Public,
}

const SUFFIXES: [&str; 15] = [
    "amazonaws.com",
    "on.aws",
    "amazonaws.com.cn",
    "on.amazonwebservices.com.cn",
    "amazonaws.eu",
    "on.amazonwebservices.eu",
    "amazonwebservices.eu",
    "c2s.ic.gov",
    "on.aws.ic.gov",
    "sc2s.sgov.gov",
    "on.aws.scloud",
    "cloud.adc-e.uk",
    "on.cloud-aws.adc-e.uk",
    "csp.hci.ic.gov",
    "on.aws.hci.ic.gov",
];

/// The registry behind an AWS host name, with or without a port.
pub(crate) fn registry(host: &str) -> Option<Place> {
    let name = without_port(host).to_ascii_lowercase();
    if name == "public.ecr.aws" || name == "ecr-public.aws.com" {
        return Some(Place::Public);
    }
    let (account, rest) = name.split_once('.')?;
    let rest = ["dkr.ecr.", "dkr.ecr-fips.", "dkr-ecr.", "dkr-ecr-fips."]
        .iter()
        .find_map(|prefix| rest.strip_prefix(prefix))?;
    let (region, suffix) = rest.split_once('.')?;
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    (is_account && is_region(region) && SUFFIXES.contains(&suffix)).then(|| Place::Region(region.to_owned()))
}

/// The region of an API's true name: a signature must be scoped to it.
pub(crate) fn api_region(host: &str) -> Option<String> {
    let name = without_port(host).to_ascii_lowercase();
    if name == "sts.amazonaws.com" {
        return Some("us-east-1".to_owned());
    }
    let name = name.strip_prefix("api.").unwrap_or(&name);
    let rest = ["ecr.", "ecr-fips.", "ecr-public.", "sts.", "sts-fips."]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))?;
    let region = rest.split('.').next()?;
    is_region(region).then(|| region.to_owned())
}

/// Whether this could be the name of a region.
pub(crate) fn is_region(text: &str) -> bool {
    let mut parts = text.rsplit('-');
    let ends_in_number = parts.next().is_some_and(|part| part.parse::<u8>().is_ok());
    ends_in_number
        && parts.clone().count() >= 2
        && parts.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase()))
}

/// The host without `:PORT` and without the brackets of an IPv6 address.
pub(crate) fn without_port(host: &str) -> &str {
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_known_by_their_whole_name() {
        let region = |name: &str| Some(Place::Region(name.to_owned()));
        let cases = [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", region("eu-west-1")),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com:443", region("eu-west-1")),
            ("123456789012.DKR.ecr-fips.us-gov-west-1.amazonaws.com", region("us-gov-west-1")),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", region("eu-west-1")),
            ("public.ecr.aws", Some(Place::Public)),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", None),
            ("1234.dkr.ecr.eu-west-1.amazonaws.com", None),
            ("127.0.0.1:5000", None),
        ];
        for (host, expected) in cases {
            assert_eq!(registry(host), expected, "{host}");
        }
    }

    #[test]
    fn the_true_name_of_an_api_says_its_region() {
        assert_eq!(api_region("api.ecr.eu-west-1.amazonaws.com").as_deref(), Some("eu-west-1"));
        assert_eq!(api_region("sts.us-gov-east-1.amazonaws.com:443").as_deref(), Some("us-gov-east-1"));
        assert_eq!(api_region("sts.amazonaws.com").as_deref(), Some("us-east-1"));
        assert_eq!(api_region("127.0.0.1:4566"), None);
        assert_eq!(api_region("[::1]:4566"), None);
    }

    #[test]
    fn ports_and_brackets_are_set_aside() {
        assert_eq!(without_port("[::1]:80"), "::1");
        assert_eq!(without_port("localhost:80"), "localhost");
        assert_eq!(without_port("localhost"), "localhost");
    }
}
