//! What Argo CD's credential templates are called and what they contain, for each registry.
//!
//! The scheme of a URL counts when Argo CD matches a repository with a template, so each registry has two. Their names
//! follow from the host, so that they can be created beforehand: `ecr-123456789012-eu-west-1-helm`, `ecr-public-oci`,
//! and for any other host its own characters, with a hash where these are not unique.

use sha2::{Digest, Sha256};

use super::secret_settings::ObjectName;
use crate::registry::{Location, RegistryHost};

/// For which kind of source a template is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Flavour {
    /// Helm charts of a `repoURL` without scheme.
    Helm,
    /// `oci://` sources.
    Oci,
}

impl Flavour {
    pub(crate) const ALL: [Self; 2] = [Self::Helm, Self::Oci];

    /// The fields of a template next to user name and password, as Argo CD reads them.
    pub(crate) fn fields(self, host: &RegistryHost) -> Vec<(&'static str, String)> {
        match self {
            Self::Helm => {
                vec![("url", host.to_string()), ("type", "helm".into()), ("enableOCI", "true".into())]
            }
            Self::Oci => vec![("url", format!("oci://{host}")), ("type", "oci".into())],
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Helm => "helm",
            Self::Oci => "oci",
        }
    }
}

/// The name of a template: one a host and flavour, and the same for ever.
pub(crate) fn template_name(host: &RegistryHost, flavour: Flavour) -> ObjectName {
    let stem = match host.location() {
        Location::Public => "ecr-public".to_owned(),
        Location::Private(registry) if !registry.fips && !registry.dual_stack => {
            format!("ecr-{}-{}", registry.account.as_str(), registry.region.as_str())
        }
        Location::Private(_) | Location::Other => slug(host.as_str()),
    };
    let name = format!("{stem}-{}", flavour.suffix()).parse();
    #[expect(
        clippy::expect_used,
        reason = "letters, digits and dashes, no dash at the ends, at most 60 of them"
    )]
    name.expect("a valid name")
}

/// `ecr-` and the host's letters and digits, with a hash of the host, for other hosts may have the same ones.
fn slug(host: &str) -> String {
    let dashed = host.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let readable: String = dashed.take(40).collect();
    let hash: String = Sha256::digest(host).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("ecr-{}-{hash}", readable.trim_matches('-'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_host_and_flavour_has_a_name_of_its_own_that_can_be_known_beforehand() {
        let names = [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "ecr-123456789012-eu-west-1-helm"),
            ("public.ecr.aws", "ecr-public-helm"),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "ecr-123456789012-cn-north-1-helm"),
        ];
        for (host, name) in names {
            assert_eq!(template_name(&host.parse().unwrap(), Flavour::Helm).as_str(), name);
        }
        let hosts = [
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com",
            "123456789012.dkr-ecr.us-east-1.on.aws",
            "ecr.internal.example:8443",
            "ecr.internal.example:84",
            "ecr-internal.example:8443",
            "public.ecr.aws",
        ];
        let of_host =
            |host: &&str| Flavour::ALL.map(|flavour| template_name(&host.parse().unwrap(), flavour));
        let distinct: BTreeSet<_> = hosts.iter().flat_map(of_host).collect();
        assert_eq!(distinct.len(), hosts.len() * 2, "{distinct:?}");
        let long = format!("{}.example:8443", "a".repeat(60));
        assert!(template_name(&long.parse().unwrap(), Flavour::Oci).as_str().len() <= 63);
    }
}
