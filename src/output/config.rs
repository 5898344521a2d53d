//! One output as it is configured.

use super::{
    file::DockerConfigSettings,
    secret_settings::{
        DockerConfigSecretSettings, NamespaceName, Namespaces, RepoCredsSettings, RepositoriesSettings, Which,
    },
};
use crate::{failure::shown_value::clean_path, status::OutputId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputConfig {
    DockerConfig(DockerConfigSettings),
    DockerConfigSecret(DockerConfigSecretSettings),
    ArgocdRepoCreds(RepoCredsSettings),
    /// Argo CD's repositories that exist already.
    ArgocdRepositories(RepositoriesSettings),
}

impl OutputConfig {
    pub fn id(&self) -> OutputId {
        match self {
            Self::DockerConfig(settings) => OutputId::new("docker-config", clean_path(&settings.path)),
            Self::DockerConfigSecret(DockerConfigSecretSettings { name, namespaces, .. }) => {
                let name = name.as_str();
                let target = match namespaces {
                    Namespaces::Names(names) if names.len() == 1 => {
                        let namespace = names.first().map(NamespaceName::as_str).unwrap_or_default();
                        format!("{namespace}/{name}")
                    }
                    namespaces => format!("{name} in {namespaces}"),
                };
                OutputId::new("docker-config-secret", target)
            }
            Self::ArgocdRepoCreds(settings) => {
                OutputId::new("argocd-repo-creds", settings.namespace.as_str())
            }
            Self::ArgocdRepositories(settings) => OutputId::new(
                "argocd-repositories",
                format!("{} in {}", settings.which, settings.namespace.as_str()),
            ),
        }
    }

    /// Whether both would keep the same file or Secret.
    pub(crate) fn collides_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::DockerConfig(one), Self::DockerConfig(other)) => one.path == other.path,
            (Self::ArgocdRepoCreds(one), Self::ArgocdRepoCreds(other)) => one.namespace == other.namespace,
            (Self::DockerConfigSecret(one), Self::DockerConfigSecret(other)) => {
                let share_namespace = match (&one.namespaces, &other.namespaces) {
                    (Namespaces::Names(one), Namespaces::Names(other)) => !one.is_disjoint(other),
                    // The pod's own is not known before it runs.
                    (Namespaces::Own, Namespaces::Names(_)) | (Namespaces::Names(_), Namespaces::Own) => {
                        false
                    }
                    _ => true,
                };
                one.name == other.name && share_namespace
            }
            (Self::ArgocdRepositories(one), Self::ArgocdRepositories(other)) => {
                let share_name = match (&one.which, &other.which) {
                    (Which::Names(one), Which::Names(other)) => !one.is_disjoint(other),
                    // Labels are known to the API server only: two that set the same do no harm.
                    (one, other) => one == other,
                };
                one.namespace == other.namespace && share_name
            }
            (Self::DockerConfigSecret(one), Self::ArgocdRepositories(other))
            | (Self::ArgocdRepositories(other), Self::DockerConfigSecret(one)) => {
                let share_namespace =
                    matches!(&one.namespaces, Namespaces::Names(names) if names.contains(&other.namespace));
                share_namespace && matches!(&other.which, Which::Names(names) if names.contains(&one.name))
            }
            _ => false,
        }
    }
}
