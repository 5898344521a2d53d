//! From the file's registries to [`Registries`].

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{Origin, Registries, Registry, Violation, file, nearest},
    Purpose, Resolver, or_default,
};
use crate::{
    aws::{
        endpoint::EndpointUrl,
        profile_file::ProfileFiles,
        token::{Service, TokenKey},
    },
    failure::shown_value::quoted,
    pull::{ImageRef, Repository, Tag},
    pull_probe::{LONGEST, ProbeSettings, SHORTEST},
    registry::{Region, RegistryHost},
    units::parse_duration,
};

impl Resolver<'_> {
    pub(super) fn registries(
        &mut self,
        configured: &mut [Option<file::Registry>],
        identities: &BTreeMap<String, file::Identity>,
    ) -> Registries {
        if configured.is_empty() {
            let asked = match self.purpose {
                Purpose::Keep | Purpose::Answer(None) => None,
                Purpose::Answer(Some(host)) => Some(host).zip(TokenKey::from_host(host, "default")),
            };
            return match asked {
                Some((host, key)) => Registries::Listed(vec![Registry {
                    host: host.clone(),
                    key,
                    required: true,
                    probe: None,
                }]),
                None => self.own_registry(),
            };
        }
        let mut hosts = BTreeSet::new();
        let mut registries = Vec::new();
        for (index, registry) in configured.iter_mut().enumerate() {
            let path = format!("registries[{index}]");
            let Some(registry) = registry else { continue };
            let Some(registry) = self.registry(&path, registry, identities) else { continue };
            if hosts.insert(registry.host.clone()) {
                registries.push(registry);
            } else {
                self.reject(
                    &format!("{path}.host"),
                    format!("a second `{}`", registry.host),
                    "each host once",
                );
            }
        }
        Registries::Listed(registries)
    }

    fn own_registry(&mut self) -> Registries {
        let region = self.context.sdk.region.clone().unwrap_or_else(|| {
            if self.purpose == Purpose::Keep {
                let found = "nothing, and no region in AWS_REGION or the profile";
                let found = match &self.context.sdk.profile_files {
                    ProfileFiles::Unusable { why, .. } => format!("{found}: {why}"),
                    _ => found.to_owned(),
                };
                self.reject_unless_reported(
                    "registries",
                    found,
                    "registry hosts in ECR_SIDECAR_REGISTRIES, or AWS_REGION for your own registry",
                );
            }
            Region::us_east_1()
        });
        let implied = format!("the caller's own in {region} (from AWS_REGION)");
        self.origins.set("registries", Origin::Implied(implied));
        Registries::Own(private_key("default", region))
    }

    fn registry(
        &mut self,
        path: &str,
        registry: &mut file::Registry,
        identities: &BTreeMap<String, file::Identity>,
    ) -> Option<Registry> {
        let host: RegistryHost = self.parse(&format!("{path}.host"), &registry.host)?;
        registry.host = host.to_string();
        let identity = or_default(&mut registry.identity, "default");
        if identity != "default" && !identities.contains_key(identity) {
            let known: Vec<_> = identities.keys().map(String::as_str).chain(["default"]).collect();
            let mut violation = Violation::new(
                format!("{path}.identity"),
                quoted(identity),
                format!("one of {}", known.join(", ")),
            );
            violation.nearest = nearest(identity, known).map(str::to_owned);
            if self.is_complete(path) {
                self.violations.push(violation);
            }
        }
        let configured = match &registry.region {
            Some(region) => Some(self.parse::<Region>(&format!("{path}.region"), region)?),
            None => None,
        };
        let key = self.key(path, &host, configured, identity)?;
        registry.region = Some(key.region.to_string());
        let endpoint = registry.endpoint.as_deref().and_then(|url| self.endpoint(path, url));
        let probe =
            registry.probe.as_mut().and_then(|probe| self.probe(&format!("{path}.probe"), &host, probe));
        let key = TokenKey { endpoint, ..key };
        Some(Registry { host, key, required: !registry.optional, probe })
    }

    fn probe(&mut self, path: &str, host: &RegistryHost, probe: &mut file::Probe) -> Option<ProbeSettings> {
        let place = format!("{path}.repository");
        if probe.repository.split_once('/').is_some_and(|(first, _)| first == host.as_str()) {
            self.reject(&place, quoted(&probe.repository), "the repository without the host");
            return None;
        }
        let repository: Option<Repository> = self.parse(&place, &probe.repository);
        let tag = probe.tag.as_deref().map(|tag| self.parse::<Tag>(&format!("{path}.tag"), tag));
        let text = or_default(&mut probe.every, "15m");
        let every = parse_duration(text).ok().filter(|every| (SHORTEST..=LONGEST).contains(every));
        if every.is_none() {
            self.reject(&format!("{path}.every"), quoted(text), "a duration from 1m to 24h, such as 15m");
        }
        let tag = match tag {
            None => None,
            Some(tag) => Some(tag?),
        };
        Some(ProbeSettings { image: ImageRef::new(host.clone(), repository?, tag), every: every? })
    }

    fn key(
        &mut self,
        path: &str,
        host: &RegistryHost,
        region: Option<Region>,
        identity: &str,
    ) -> Option<TokenKey> {
        let place = format!("{path}.region");
        match (TokenKey::from_host(host, identity), region) {
            (Some(key), region) => {
                if let Some(region) = region.filter(|region| *region != key.region) {
                    let expected = format!("`{}`, as in the host, or nothing", key.region);
                    self.reject(&place, format!("`{region}`"), expected);
                }
                self.origins.set(place, Origin::Derived("the host"));
                Some(key)
            }
            (None, Some(region)) => Some(private_key(identity, region)),
            (None, None) => {
                let expected = match host.looks_like_ecr() {
                    Some(lookalike) => {
                        format!("{lookalike}; if it is meant, the AWS region of this registry")
                    }
                    None => {
                        "the AWS region of this registry, such as eu-west-1: its host doesn't name it".into()
                    }
                };
                self.reject_unless_reported(&place, "nothing", expected);
                None
            }
        }
    }

    fn endpoint(&mut self, path: &str, url: &str) -> Option<EndpointUrl> {
        match url.parse() {
            Ok(url) => Some(url),
            Err(error) => {
                self.reject(&format!("{path}.endpoint"), error.to_string(), EndpointUrl::EXPECTED);
                None
            }
        }
    }
}

fn private_key(identity: &str, region: Region) -> TokenKey {
    let identity = identity.to_owned();
    TokenKey { identity, service: Service::Ecr, region, endpoint: None, fips: None, dual_stack: None }
}
