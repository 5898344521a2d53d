//! Which Secrets an output keeps, and what each is for: pure.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    super::{
        argocd_names::{Flavour, template_name},
        secret_settings::{Namespaces, Which},
    },
    Kind,
    desired::Content,
};
use crate::{credentials::CredentialSet, docker_config::Base, kubernetes::ObjectRef};

/// The Secrets of an output of a pod in namespace `own`; `discovered` are the namespaces, or the Secrets of one, that
/// its selector matches.
pub(super) fn targets(
    kind: &Kind,
    own: &str,
    discovered: &BTreeSet<String>,
    credentials: &CredentialSet,
    base: Option<&Arc<Base>>,
) -> Vec<(ObjectRef, Content)> {
    let discovered = discovered.iter().map(String::as_str);
    match kind {
        Kind::DockerConfig(settings) => {
            let content = Content::DockerConfig { adopt: settings.adopt, base: base.cloned() };
            let of = |namespace: &str| (ObjectRef::new(namespace, settings.name.as_str()), content.clone());
            match &settings.namespaces {
                Namespaces::Own => vec![of(own)],
                Namespaces::Names(names) => names.iter().map(|name| of(name.as_str())).collect(),
                Namespaces::All { .. } | Namespaces::Selector(_) => discovered.map(of).collect(),
            }
        }
        Kind::RepoCreds(settings) => {
            let CredentialSet { current, awaited, retired } = credentials;
            let hosts = current.keys().chain(awaited).chain(retired);
            let pairs = hosts.flat_map(|host| Flavour::ALL.map(|flavour| (host.clone(), flavour)));
            let of = |(host, flavour)| {
                let name = template_name(&host, flavour);
                let at = ObjectRef::new(settings.namespace.as_str(), name.as_str());
                (at, Content::Template { host, flavour })
            };
            pairs.map(of).collect()
        }
        Kind::Repositories(settings) => {
            let of = |name: &str| (ObjectRef::new(settings.namespace.as_str(), name), Content::Repository);
            match &settings.which {
                Which::Names(names) => names.iter().map(|name| of(name.as_str())).collect(),
                Which::Selector(_) => discovered.map(of).collect(),
            }
        }
    }
}
