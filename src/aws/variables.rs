//! Every variable that this program reads in order to reach AWS, held against its form. Others of the SDKs, such as
//! `AWS_RETRY_MODE`, have no effect here, whatever their value.
//!
//! An empty variable is an unset one. Anything else that does not parse is reported with the variable's name; the value of
//! a credential never is.

use super::{
    endpoint::EndpointUrl,
    key_material::{KeyMaterial, access_key_id},
};
use crate::{
    env::Environment,
    failure::shown_value::{is_key_like, quoted},
    registry::{AccountId, Region},
};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} is {found}, expected: {expected}")]
pub struct InvalidSetting {
    /// The variable, or the property of a profile.
    pub place: String,
    /// What was found there, without secrets.
    pub found: String,
    pub expected: String,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    Endpoint,
    Region,
    Boolean,
    IpVersion,
    RoleArn,
    SessionName,
    ExternalId,
    Account,
    /// A name without control characters.
    Name,
    /// Printable ASCII, which is never shown.
    Header,
    AccessKeyId,
    Secret,
}

use Form::{
    AccessKeyId as KeyId, Boolean, Endpoint, Header, IpVersion, Name, Region as RegionName, RoleArn, Secret,
    SessionName,
};

const TABLE: &[(&str, Form)] = &[
    ("AWS_REGION", RegionName),
    ("AWS_DEFAULT_REGION", RegionName),
    ("AWS_ENDPOINT_URL", Endpoint),
    ("AWS_ENDPOINT_URL_ECR", Endpoint),
    ("AWS_ENDPOINT_URL_ECR_PUBLIC", Endpoint),
    ("AWS_ENDPOINT_URL_STS", Endpoint),
    ("AWS_ENDPOINT_URL_SSO", Endpoint),
    ("AWS_ENDPOINT_URL_SSO_OIDC", Endpoint),
    ("AWS_EC2_METADATA_SERVICE_ENDPOINT", Endpoint),
    ("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", IpVersion),
    ("AWS_EC2_METADATA_DISABLED", Boolean),
    ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", Boolean),
    ("AWS_USE_FIPS_ENDPOINT", Boolean),
    ("AWS_USE_DUALSTACK_ENDPOINT", Boolean),
    ("AWS_SDK_UA_APP_ID", Name),
    ("AWS_PROFILE", Name),
    ("AWS_ROLE_ARN", RoleArn),
    ("AWS_ROLE_SESSION_NAME", SessionName),
    ("AWS_ACCESS_KEY_ID", KeyId),
    ("AWS_SECRET_ACCESS_KEY", Secret),
    ("AWS_SESSION_TOKEN", Secret),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN", Header),
];

/// What the SDK reads from the process whatever it is given, as the value is.
const RAW: [&str; 1] = ["AWS_EXECUTION_ENV"];

/// The SDK panics when this one names no readable file of partitions, also when it is empty.
const CUSTOM_PARTITION: &str = "SMITHY_CLIENT_SDK_CUSTOM_PARTITION";

pub(super) fn check(env: &Environment) -> Vec<InvalidSetting> {
    let ignores_endpoints = env.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").and_then(boolean) == Some(true);
    let counts = |name: &str| !(ignores_endpoints && name.starts_with("AWS_ENDPOINT_URL"));
    let set = TABLE.iter().filter(|(name, _)| counts(name));
    let set = set.filter_map(|(name, form)| Some((*name, *form, env.get(name)?)));
    let mut invalid: Vec<_> = set.filter_map(|(name, form, value)| form.check(name, value).err()).collect();
    let raw = RAW.iter().filter_map(|name| Some((*name, env.raw(name)?)));
    invalid.extend(raw.filter_map(|(name, value)| Header.check(name, value).err()));
    if env.raw(CUSTOM_PARTITION).is_some() {
        invalid.push(InvalidSetting {
            place: CUSTOM_PARTITION.into(),
            found: "a value".into(),
            expected: "nothing: partitions of your own are not supported; unset it".into(),
        });
    }
    invalid.extend(env.not_unicode().iter().filter(|name| is_read_here(name)).map(|name| InvalidSetting {
        place: name.clone(),
        found: "a value that is not UTF-8".into(),
        expected: "UTF-8 text".into(),
    }));
    invalid
}

fn is_read_here(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    ["AWS_", "ECR_SIDECAR_", "KUBERNETES_SERVICE_"].iter().any(|prefix| name.starts_with(prefix))
        || ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"].contains(&upper.as_str())
        || ["HOME", "SSL_CERT_FILE", "KUBECONFIG"].contains(&name)
}

impl Form {
    /// An error unless `value`, found in `place`, has this form.
    pub(crate) fn check(self, place: &str, value: &str) -> Result<(), InvalidSetting> {
        let unless = |fits: bool| (!fits).then(|| quoted(value));
        let hidden = || format!("a value of {} characters, not shown", value.chars().count());
        let (found, expected) = match self {
            Self::Endpoint => {
                (value.parse::<EndpointUrl>().err().map(|error| error.to_string()), EndpointUrl::EXPECTED)
            }
            Self::Region => (
                unless(value.parse::<Region>().is_ok()),
                "a region such as eu-west-1, in lower case and without a zone letter",
            ),
            Self::Boolean => (unless(boolean(value).is_some()), "true or false"),
            Self::IpVersion => {
                let versions = ["IPv4", "IPv6"];
                (unless(versions.iter().any(|it| it.eq_ignore_ascii_case(value))), "one of IPv4, IPv6")
            }
            Self::RoleArn => {
                (unless(is_role_arn(value)), "a role's ARN such as arn:aws:iam::123456789012:role/NAME")
            }
            Self::SessionName => (unless(is_session_name(value)), "2 to 64 letters, digits and _=,.@+-"),
            // It may serve as a shared secret.
            Self::ExternalId => {
                ((!is_external_id(value)).then(hidden), "2 to 1224 letters, digits and _+=,.@:/-")
            }
            Self::Account => (unless(value.parse::<AccountId>().is_ok()), "an account number of 12 digits"),
            Self::Name if value.contains(char::is_control) => (Some("control characters".into()), "a name"),
            Self::Name => (is_key_like(value).then(hidden), "a name"),
            Self::Header => {
                let fits = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
                let found = (!fits).then(|| "characters that are not printable ASCII".into());
                (found, "one line of ASCII text")
            }
            Self::AccessKeyId => {
                let found = access_key_id(value).err().map(|why| why.to_string());
                (found, "an access key id: letters and digits alone")
            }
            Self::Secret => {
                let found = KeyMaterial::parse(value).err().map(|why| why.to_string());
                (found, "the value alone, as AWS gave it")
            }
        };
        let invalid =
            |found| InvalidSetting { place: place.to_owned(), found, expected: expected.to_owned() };
        found.map_or(Ok(()), |found| Err(invalid(found)))
    }
}

/// `true` or `false`, in whatever case, as the SDKs have it.
pub(super) fn boolean(value: &str) -> Option<bool> {
    [("true", true), ("false", false)]
        .into_iter()
        .find_map(|(text, is)| text.eq_ignore_ascii_case(value).then_some(is))
}

/// `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`.
pub(crate) fn is_role_arn(text: &str) -> bool {
    let parts: Vec<_> = text.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts.as_slice() else { return false };
    partition.starts_with("aws")
        && account.parse::<AccountId>().is_ok()
        && resource.strip_prefix("role/").is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_/-".contains(&b))
        })
}

/// What STS accepts as the name of a session.
pub(crate) fn is_session_name(text: &str) -> bool {
    (2..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_=,.@+-".contains(&byte))
}

/// What STS accepts as an external id.
fn is_external_id(text: &str) -> bool {
    (2..=1224).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(name: &str, value: &str) -> Vec<InvalidSetting> {
        check(&Environment::from_pairs([(name, value)]))
    }

    #[test]
    fn empty_is_unset_and_white_space_around_a_value_is_none_of_it() {
        let usual = |form: Form| match form {
            Endpoint => "http://localhost:4566",
            RegionName => "eu-west-1",
            Boolean => "TRUE",
            IpVersion => "IPv4",
            RoleArn => "arn:aws-us-gov:iam::123456789012:role/path/name",
            SessionName => "me@example.com",
            Form::ExternalId => "team/1",
            Form::Account => "123456789012",
            Name => "my profile",
            Header => "Bearer abc",
            KeyId => "AKIAIOSFODNN7EXAMPLE",
            Secret => "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY=",
        };
        for (name, form) in TABLE {
            let usual = usual(*form);
            for value in ["", " \r\n", usual, &format!(" {usual}\n")] {
                assert_eq!(problems(name, value), [], "{name}={value:?}");
            }
        }
    }

    #[test]
    fn what_does_not_parse_is_reported_by_name() {
        for (name, value) in [
            ("AWS_REGION", "eu-west-1a"),
            ("AWS_DEFAULT_REGION", "\"eu-west-1\""),
            ("AWS_ENDPOINT_URL_STS", "sts.amazonaws.com"),
            ("AWS_USE_FIPS_ENDPOINT", "1"),
            ("AWS_ROLE_ARN", "arn:aws:iam::${ACCOUNT}:role/x"),
            ("AWS_ROLE_ARN", "ecr-pull"),
            ("AWS_ROLE_SESSION_NAME", "a b"),
            ("AWS_PROFILE", "a\nb"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "a\nHost: evil"),
            ("AWS_ACCESS_KEY_ID", "AKIA KEY"),
            ("AWS_SECRET_ACCESS_KEY", "'secret'"),
            ("AWS_SESSION_TOKEN", "tökén"),
            ("AWS_EXECUTION_ENV", "a\n"),
            ("SMITHY_CLIENT_SDK_CUSTOM_PARTITION", ""),
        ] {
            let problems = problems(name, value);
            assert_eq!(problems.len(), 1, "{name}={value:?}");
            assert_eq!(problems[0].place, name);
        }
    }

    /// A value in the wrong variable.
    #[test]
    fn no_key_or_token_is_shown() {
        let session_token = "IQoJb3JpZ2luX2VjEJr//////////wEaCXVzLWVhc3QtMSJHMEUCIQDx0".repeat(4);
        for secret in
            ["wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "eyJhbGciOiJSUzI1NiJ9.e30.c2ln", &session_token]
        {
            for (name, _) in TABLE {
                let shown = format!("{:?}", problems(name, secret));
                assert!(!shown.contains(&secret[..16]), "{name}: {shown}");
            }
        }
    }

    proptest::proptest! {
        /// Newlines, quotes and non-ASCII included; what a credential held is not in the message.
        #[test]
        fn no_value_panics_or_is_shown(value in "[\\x00-\u{ff}\u{202e}]{0,12}CANARY[\\x00-\u{ff}]{0,12}") {
            for (name, form) in TABLE {
                for InvalidSetting { found, expected, .. } in problems(name, &value) {
                    let message = found + &expected;
                    proptest::prop_assert!(!message.contains(char::is_control));
                    if matches!(form, KeyId | Secret | Header) {
                        proptest::prop_assert!(!message.contains("CANARY"));
                    }
                }
            }
        }
    }
}
