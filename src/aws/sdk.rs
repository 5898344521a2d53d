//! The AWS SDK's settings, from variables and the profile in use.
//!
//! The SDK reads neither: it would take an empty endpoint for one and panic, repeat a whole request, tokens included, in
//! the error about an endpoint that is no URL, and read profile files without any limit. It is given what was parsed
//! here, with its own precedence: variable of the service, variable, service of the profile, profile.
//!
//! Invariants:
//! * What does not parse is an [`InvalidSetting`] (`a_setting_of_a_profile_is_held_against_its_form`,
//!   `what_does_not_parse_is_reported_by_name`).
//! * The SDK gets endpoints from here alone (`each_service_has_the_endpoint_that_is_said_most_closely`).

use std::{collections::BTreeMap, time::Duration};

use aws_config::{
    AppName, BehaviorVersion, SdkConfig, identity::IdentityCache, retry::RetryConfig,
    stalled_stream_protection::StalledStreamProtectionConfig, timeout::TimeoutConfig,
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};

pub use super::variables::InvalidSetting;
use super::{
    endpoint::EndpointUrl,
    profile_file::{ProfileFiles, Profiles, Section},
    variables::{self, Form},
};
use crate::{env::Environment, failure::shown_value::quoted, registry::Region};

/// Time-outs of a call to AWS: to connect, and in all.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// How long the start waits for the profile files: their volume may hang, and other identities need none.
const FILES_LIMIT: Duration = Duration::from_secs(2);

/// The services that are called: their ids in AWS's models, and the names of their settings in variables and profiles.
const SERVICES: [(&str, &str, &str); 5] = [
    ("ECR", "ECR", "ecr"),
    ("ECR PUBLIC", "ECR_PUBLIC", "ecr_public"),
    ("STS", "STS", "sts"),
    ("SSO", "SSO", "sso"),
    ("SSO OIDC", "SSO_OIDC", "sso_oidc"),
];

/// The id under which the endpoint of the instance metadata service is kept.
pub(crate) const METADATA: &str = "EC2 METADATA";

#[derive(Debug, Clone, Default)]
pub struct SdkSettings {
    /// The region of `AWS_REGION`, `AWS_DEFAULT_REGION` or the profile.
    pub region: Option<Region>,
    /// What became of the profile files. Where they cannot be used, their settings are not among these.
    pub profile_files: ProfileFiles,
    use_fips: Option<bool>,
    use_dual_stack: Option<bool>,
    endpoints: Endpoints,
    app_name: Option<AppName>,
}

impl SdkSettings {
    /// Reads the variables and the profile that they select, or reports every setting that does not parse. Files that
    /// cannot be used are no error: an identity that rests on them has one.
    pub async fn load(env: &Environment) -> Result<Self, Vec<InvalidSetting>> {
        let read = tokio::time::timeout(FILES_LIMIT, Profiles::read_usable(env)).await;
        let profile_files = match &read {
            Ok(read) => ProfileFiles::of(read),
            Err(_) => ProfileFiles::Unusable {
                why: "the volume of the AWS profile files does not respond".into(),
                may_be_absent: false,
            },
        };
        let profiles = read.map(|(profiles, _)| profiles).unwrap_or_default();
        let settings = Self::of(env, &profiles)?;
        Ok(Self { profile_files, ..settings })
    }

    pub(crate) fn of(env: &Environment, profiles: &Profiles) -> Result<Self, Vec<InvalidSetting>> {
        let mut settings = Settings::new(env, profiles);
        let ignores_endpoints =
            settings.boolean("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "ignore_configured_endpoint_urls");
        let mut found = Self {
            region: settings.region(),
            profile_files: ProfileFiles::default(),
            use_fips: settings.boolean("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint"),
            use_dual_stack: settings.boolean("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint"),
            endpoints: if ignores_endpoints == Some(true) {
                Endpoints::default()
            } else {
                settings.endpoints()
            },
            app_name: settings.app_name(),
        };
        found.endpoints.0.extend(settings.metadata_endpoint().map(|url| (METADATA, url)));
        if settings.invalid.is_empty() { Ok(found) } else { Err(settings.invalid) }
    }

    /// The configuration of the SDK's clients: no retries, no credentials, and a region of `us-east-1` where none is
    /// set, since every client is given its own.
    pub fn config(&self, client: SharedHttpClient) -> SdkConfig {
        let region = self.region.clone().unwrap_or_else(Region::us_east_1);
        let timeouts =
            TimeoutConfig::builder().connect_timeout(CONNECT_LIMIT).operation_timeout(CALL_LIMIT).build();
        let mut builder = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(client)
            .region(aws_config::Region::new(region.to_string()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .identity_cache(IdentityCache::lazy().build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .service_config(self.endpoints.clone());
        builder.set_use_fips(self.use_fips);
        builder.set_use_dual_stack(self.use_dual_stack);
        builder.set_app_name(self.app_name.clone());
        builder.build()
    }

    pub fn sts_endpoint(&self) -> Option<&EndpointUrl> {
        self.endpoints.0.get("STS")
    }
}

/// The endpoint that is configured for the service of that id; `None` leaves it to the region.
pub(crate) fn endpoint_of(config: &SdkConfig, service_id: &str) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id(service_id)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    config.service_config()?.load_config(key)
}

#[derive(Debug, Clone, Default)]
struct Endpoints(BTreeMap<&'static str, EndpointUrl>);

impl LoadServiceConfig for Endpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let is_endpoint = key.env() == "AWS_ENDPOINT_URL";
        self.0.get(key.service_id()).filter(|_| is_endpoint).map(EndpointUrl::to_string)
    }
}

struct Settings<'a> {
    env: &'a Environment,
    name: &'a str,
    profile: Option<&'a Section>,
    services: Option<&'a Section>,
    invalid: Vec<InvalidSetting>,
}

impl<'a> Settings<'a> {
    fn new(env: &'a Environment, profiles: &'a Profiles) -> Self {
        let name = env.get("AWS_PROFILE").unwrap_or("default");
        let profile = profiles.profile(name);
        let services = profile
            .and_then(|profile| profile.get("services"))
            .and_then(|services| profiles.section("services", services));
        Self { env, name, profile, services, invalid: variables::check(env) }
    }

    /// The value of `variable`, which has been checked already, else of the profile's `property`, if it has that form.
    fn value(&mut self, variable: &str, property: &str, form: Form) -> Option<&'a str> {
        if let Some(value) = self.env.get(variable) {
            return Some(value);
        }
        let value = self.profile?.get(property)?;
        self.checked(format!("`{property}` of the AWS profile `{}`", self.name), value, form)
    }

    fn checked(&mut self, place: String, value: &'a str, form: Form) -> Option<&'a str> {
        form.check(&place, value).map_err(|invalid| self.invalid.push(invalid)).ok().map(|()| value)
    }

    fn boolean(&mut self, variable: &str, property: &str) -> Option<bool> {
        variables::boolean(self.value(variable, property, Form::Boolean)?)
    }

    fn region(&mut self) -> Option<Region> {
        let first = self.env.get("AWS_REGION");
        first.or_else(|| self.value("AWS_DEFAULT_REGION", "region", Form::Region))?.parse().ok()
    }

    fn app_name(&mut self) -> Option<AppName> {
        let name = self.value("AWS_SDK_UA_APP_ID", "sdk_ua_app_id", Form::Name)?;
        let invalid = || InvalidSetting {
            place: "AWS_SDK_UA_APP_ID or `sdk_ua_app_id` of the AWS profile".into(),
            found: quoted(name),
            expected: "letters, digits and !#$%&'*+-.^_`|~".into(),
        };
        AppName::new(name.to_owned()).map_err(|_| self.invalid.push(invalid())).ok()
    }

    fn endpoints(&mut self) -> Endpoints {
        let of_profile = self.profile.and_then(|profile| profile.get("endpoint_url"));
        let of_profile = of_profile.and_then(|url| {
            self.checked(format!("`endpoint_url` of the AWS profile `{}`", self.name), url, Form::Endpoint)
        });
        let mut endpoints = BTreeMap::new();
        for (id, variable, property) in SERVICES {
            let by_variable = self.env.get(&format!("AWS_ENDPOINT_URL_{variable}"));
            let by_variable = by_variable.or_else(|| self.env.get("AWS_ENDPOINT_URL"));
            let url = by_variable.or_else(|| self.of_service(property).or(of_profile));
            if let Some(url) = url.and_then(|url| url.parse().ok()) {
                endpoints.insert(id, url);
            }
        }
        Endpoints(endpoints)
    }

    /// The SDKs' own documents write the service with `_`, some SDKs look for `-`.
    fn of_service(&mut self, service: &str) -> Option<&'a str> {
        let services = self.services?;
        let url = services
            .sub_property(service, "endpoint_url")
            .or_else(|| services.sub_property(&service.replace('_', "-"), "endpoint_url"))?;
        let place = format!("`{service}: endpoint_url` in the services of the AWS profile `{}`", self.name);
        self.checked(place, url, Form::Endpoint)
    }

    fn metadata_endpoint(&mut self) -> Option<EndpointUrl> {
        let (variable, property) = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ec2_metadata_service_endpoint");
        if let Some(url) = self.value(variable, property, Form::Endpoint) {
            return url.parse().ok();
        }
        let (variable, property) = (format!("{variable}_MODE"), format!("{property}_mode"));
        let mode = self.value(&variable, &property, Form::IpVersion)?;
        mode.eq_ignore_ascii_case("IPv6").then(|| "http://[fd00:ec2::254]".parse().ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)], config: &str) -> Result<SdkSettings, Vec<InvalidSetting>> {
        let profiles = Profiles::of_texts(config, "").unwrap();
        SdkSettings::of(&Environment::from_pairs(variables.iter().copied()), &profiles)
    }

    fn endpoint<'a>(settings: &'a SdkSettings, service: &str) -> Option<&'a str> {
        settings.endpoints.0.get(service).map(EndpointUrl::as_str)
    }

    #[test]
    fn each_service_has_the_endpoint_that_is_said_most_closely() {
        let config = "[default]\nendpoint_url = http://profile\nservices = s\n\
                      [services s]\necr-public =\n  endpoint_url = http://service\n";
        let by_profile = settings(&[], config).unwrap();
        assert_eq!(endpoint(&by_profile, "ECR"), Some("http://profile"));
        assert_eq!(endpoint(&by_profile, "ECR PUBLIC"), Some("http://service"));
        let variables = [("AWS_ENDPOINT_URL", "http://variable\n"), ("AWS_ENDPOINT_URL_STS", "http://sts")];
        let by_variable = settings(&variables, config).unwrap();
        assert_eq!(endpoint(&by_variable, "ECR PUBLIC"), Some("http://variable"));
        assert_eq!(endpoint(&by_variable, "STS"), Some("http://sts"));
        let empty = [("AWS_ENDPOINT_URL", ""), ("AWS_ENDPOINT_URL_ECR", " ")];
        assert_eq!(endpoint(&settings(&empty, "[default]\nendpoint_url =\n").unwrap(), "ECR"), None);
        let ignored = [("AWS_ENDPOINT_URL", "http://x"), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
        assert_eq!(endpoint(&settings(&ignored, config).unwrap(), "ECR"), None);
        let unused = "[default]\nignore_configured_endpoint_urls = true\nendpoint_url = localhost:4566\n";
        assert_eq!(endpoint(&settings(&[], unused).unwrap(), "ECR"), None);
    }

    #[test]
    fn the_region_is_the_variables_or_the_profiles() {
        let config = "[default]\nregion = eu-west-1\n[profile me]\nregion = eu-west-2\n";
        let region = |variables: &[_]| settings(variables, config).unwrap().region.unwrap().to_string();
        assert_eq!(region(&[]), "eu-west-1");
        assert_eq!(region(&[("AWS_PROFILE", "me")]), "eu-west-2");
        assert_eq!(region(&[("AWS_DEFAULT_REGION", "eu-west-3"), ("AWS_REGION", "")]), "eu-west-3");
        assert_eq!(
            region(&[("AWS_DEFAULT_REGION", "eu-west-3"), ("AWS_REGION", "eu-west-4\n")]),
            "eu-west-4"
        );
    }

    #[test]
    fn a_setting_of_a_profile_is_held_against_its_form() {
        for (property, value) in [
            ("region", "eu"),
            ("endpoint_url", "localhost:4566"),
            ("endpoint_url", "https://me:hunter2@host"),
            ("use_fips_endpoint", "yes"),
            ("use_dualstack_endpoint", "\"true\""),
            ("ignore_configured_endpoint_urls", "2"),
            ("ec2_metadata_service_endpoint", "169.254.169.254"),
            ("sdk_ua_app_id", "a b"),
            ("services", "s\n[services s]\nsts =\n  endpoint_url = vpce-0abc"),
        ] {
            let invalid = settings(&[], &format!("[default]\n{property} = {value}\n")).unwrap_err();
            assert_eq!(invalid.len(), 1, "{property}: {invalid:?}");
            assert!(invalid[0].place.contains("profile"), "{invalid:?}");
            assert!(!format!("{invalid:?}").contains("hunter2"));
        }
    }

    #[test]
    fn the_sdk_is_given_what_was_parsed() {
        let variables = [("AWS_USE_FIPS_ENDPOINT", "True"), ("AWS_ENDPOINT_URL_ECR", "http://ecr")];
        let client = crate::aws::http::client(&Environment::default());
        let config = settings(&variables, "").unwrap().config(client);
        assert_eq!(
            (config.use_fips(), config.use_dual_stack(), config.endpoint_url()),
            (Some(true), None, None)
        );
        assert!(aws_sdk_ecr::config::Builder::from(&config).build().region().is_some());
    }

    proptest::proptest! {
        /// Whatever is set, clients can be made.
        #[test]
        fn no_environment_and_no_profile_panics(
            url in "\\PC{0,20}|https?://[a-z.:@/]{0,20}|\n", region in "\\PC{0,12}|[a-z]{2}-[a-z]{4}-1\n?",
            text in "[\\x00-\u{ff}]{0,20}", profile in "(\\[default\\]\n|endpoint_url|region|services| |=|\n|\\PC){0,30}"
        ) {
            let variables = [
                ("AWS_ENDPOINT_URL", &*url), ("AWS_ENDPOINT_URL_ECR", &*url), ("AWS_REGION", &*region),
                ("AWS_USE_FIPS_ENDPOINT", &*text), ("AWS_SDK_UA_APP_ID", &*text), ("AWS_PROFILE", &*text),
            ];
            for count in 0..variables.len() {
                let profiles = Profiles::of_texts(&profile, &text).unwrap_or_default();
                let env = Environment::from_pairs(variables[..count].iter().copied());
                if let Ok(settings) = SdkSettings::of(&env, &profiles) {
                    let config = settings.config(crate::aws::http::client(&Environment::default()));
                    drop(aws_sdk_ecr::Client::new(&config));
                    drop(aws_sdk_sts::Client::new(&config));
                }
            }
        }
    }
}
