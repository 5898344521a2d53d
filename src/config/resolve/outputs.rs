//! From the file's outputs to [`OutputConfig`].

use std::{collections::BTreeSet, fmt::Display, str::FromStr};

use super::{
    super::{DEFAULT_DOCKER_CONFIG, Origin, Registries, file},
    Resolver, or_default,
};
use crate::{
    failure::shown_value::{clean_path, is_key_like},
    output::{
        OutputConfig,
        argocd_names::{Flavour, template_name},
        file::DockerConfigSettings,
        label_selector::LabelSelector,
        secret_settings::{
            DockerConfigSecretSettings, Namespaces, ObjectName, RepoCredsSettings, RepositoriesSettings,
            Which,
        },
    },
    registry::RegistryHost,
};

impl Resolver<'_> {
    pub(super) fn outputs(
        &mut self,
        outputs: &mut Vec<Option<file::Output>>,
        registries: &Registries,
    ) -> Vec<OutputConfig> {
        if outputs.is_empty() {
            let path = file::FilePath(DEFAULT_DOCKER_CONFIG.into());
            outputs.push(Some(file::Output::DockerConfig { path, mode: None, group: None, base: None }));
        }
        let mut resolved: Vec<(usize, OutputConfig)> = Vec::new();
        for (index, output) in outputs.iter_mut().enumerate() {
            let place = format!("outputs[{index}]");
            let Some(output) = output.as_mut().and_then(|output| self.output(&place, output)) else {
                continue;
            };
            if let Some((twin, _)) = resolved.iter().find(|(_, other)| other.collides_with(&output)) {
                let found = format!("what outputs[{twin}] keeps already");
                self.reject(&place, found, "each file and each Secret once");
            }
            resolved.push((index, output));
        }
        self.reject_names_of_templates(&resolved, registries);
        resolved.into_iter().map(|(_, output)| output).collect()
    }

    /// A template of Argo CD's that one output makes is no repository that another one may fill.
    fn reject_names_of_templates(&mut self, outputs: &[(usize, OutputConfig)], registries: &Registries) {
        let templates: Vec<_> = outputs
            .iter()
            .filter_map(|(index, output)| match output {
                OutputConfig::ArgocdRepoCreds(settings) => Some((index, &settings.namespace)),
                _ => None,
            })
            .collect();
        for (index, output) in outputs {
            let OutputConfig::ArgocdRepositories(settings) = output else { continue };
            let Some((maker, _)) = templates.iter().find(|(_, namespace)| **namespace == settings.namespace)
            else {
                continue;
            };
            let (key, found) = match &settings.which {
                Which::Selector(selector) if selects_templates(selector) => ("selector", "a selector"),
                Which::Names(names) if hosts(registries).any(|host| names_a_template(names, host)) => {
                    ("names", "names")
                }
                _ => continue,
            };
            self.reject(
                &format!("outputs[{index}].{key}"),
                format!("{found} of the credential templates of outputs[{maker}]"),
                "repositories alone, such as those with argocd.argoproj.io/secret-type=repository",
            );
        }
    }

    fn output(&mut self, place: &str, output: &mut file::Output) -> Option<OutputConfig> {
        let base_path = |base: &Option<file::FilePath>| base.as_ref().map(|base| base.0.clone());
        match output {
            file::Output::DockerConfig { path, mode, group, base } => {
                let mode = self.parse(&format!("{place}.mode"), or_default(mode, "0640"));
                let path = path.0.clone();
                if path.file_name().is_none() || is_key_like(&path.to_string_lossy()) {
                    self.reject(&format!("{place}.path"), clean_path(&path), "the path of a file");
                }
                let (mode, group, base) = (mode?, *group, base_path(base));
                Some(OutputConfig::DockerConfig(DockerConfigSettings { path, mode, group, base }))
            }
            file::Output::DockerConfigSecret { name, namespaces, base, adopt, prune } => {
                let name = self.parse(&format!("{place}.name"), name);
                let path = format!("{place}.namespaces");
                let namespaces = match namespaces {
                    None => {
                        self.origins.set(path, Origin::Implied("the pod's own".into()));
                        Some(Namespaces::Own)
                    }
                    Some(namespaces) => self.namespaces(&path, namespaces),
                };
                Some(OutputConfig::DockerConfigSecret(DockerConfigSecretSettings {
                    name: name?,
                    namespaces: namespaces?,
                    base: base_path(base),
                    adopt: *adopt.get_or_insert(false),
                    prune: *prune.get_or_insert(false),
                }))
            }
            file::Output::ArgocdRepoCreds { namespace } => {
                let namespace = self.parse(&format!("{place}.namespace"), namespace)?;
                Some(OutputConfig::ArgocdRepoCreds(RepoCredsSettings { namespace }))
            }
            file::Output::ArgocdRepositories { namespace, names, selector } => {
                let namespace = self.parse(&format!("{place}.namespace"), namespace);
                let which = match (names.is_empty(), selector) {
                    (false, None) => Which::Names(self.names(&format!("{place}.names"), names)?),
                    (true, Some(selector)) => {
                        Which::Selector(self.parse(&format!("{place}.selector"), selector)?)
                    }
                    (true, None) => {
                        self.reject_unless_reported(place, "neither names nor a selector", "one of them");
                        return None;
                    }
                    (false, Some(_)) => {
                        self.reject(place, "names and a selector", "one of them");
                        return None;
                    }
                };
                Some(OutputConfig::ArgocdRepositories(RepositoriesSettings { namespace: namespace?, which }))
            }
        }
    }

    fn namespaces(&mut self, path: &str, configured: &file::Namespaces) -> Option<Namespaces> {
        let file::Namespaces { names, all, exclude, selector } = configured;
        if !exclude.is_empty() && !*all {
            let place = format!("{path}.exclude");
            self.reject_unless_reported(&place, "a list", "this key only with `all: true`");
            return None;
        }
        match (names.is_empty(), all, selector) {
            (false, false, None) => Some(Namespaces::Names(self.names(&format!("{path}.names"), names)?)),
            (true, true, None) => {
                Some(Namespaces::All { exclude: self.names(&format!("{path}.exclude"), exclude)? })
            }
            (true, false, Some(selector)) => {
                Some(Namespaces::Selector(self.parse(&format!("{path}.selector"), selector)?))
            }
            (true, false, None) => {
                self.reject_unless_reported(
                    path,
                    "nothing",
                    "names, or `all: true`, or a selector; without `namespaces` the pod's own",
                );
                None
            }
            _ => {
                self.reject(path, "more than one of names, all and selector", "one of them");
                None
            }
        }
    }

    fn names<T: FromStr<Err: Display> + Ord>(&mut self, path: &str, names: &[String]) -> Option<BTreeSet<T>> {
        let parsed =
            names.iter().enumerate().map(|(index, name)| self.parse(&format!("{path}[{index}]"), name));
        // All of them, so that all violations are reported.
        parsed.collect::<Vec<_>>().into_iter().collect()
    }
}

fn selects_templates(selector: &LabelSelector) -> bool {
    let label = ("argocd.argoproj.io/secret-type", "repo-creds");
    // With the label of who made it, and without.
    selector.matches(&[label]) || selector.matches(&[label, ("app.kubernetes.io/managed-by", "ecr-sidecar")])
}

fn names_a_template(names: &BTreeSet<ObjectName>, host: &RegistryHost) -> bool {
    Flavour::ALL.iter().any(|flavour| names.contains(&template_name(host, *flavour)))
}

fn hosts(registries: &Registries) -> impl Iterator<Item = &RegistryHost> {
    let listed = match registries {
        Registries::Listed(registries) => registries.as_slice(),
        Registries::Own(_) => &[],
    };
    listed.iter().map(|registry| &registry.host)
}
