//! What a cluster has to have beforehand for a configuration's Kubernetes outputs, and nothing more: the rights, and the
//! Secrets that the sidecar may not create itself.
//!
//! Who may create a Secret can make one of type `kubernetes.io/service-account-token`, and so obtain the token of any
//! service account of that namespace. So where the namespaces are known, there is no `create`: the Secrets are printed,
//! to be applied once. Where they are found out (`all`, `selector`), `create` is limited to the one name; server-side
//! apply is authorised by it (kube-apiserver, `endpoints/handlers/patch.go`), a plain POST is not. An admission policy
//! ([`policy`]) then holds the account to the type, which RBAC does not know.

mod policy;
pub(crate) mod pull_secrets;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::{
    config::{Config, Registries},
    kubernetes::rbac::{Right, VERBS},
    output::{
        OutputConfig,
        argocd_names::{Flavour, template_name},
        secret_settings::{NamespaceName, Namespaces, ObjectName, Which},
    },
    registry::RegistryHost,
};
use policy::Everywhere;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ManifestsError {
    #[error(
        "Argo CD's templates are named after their registries: list these, for the caller's own is known only to AWS"
    )]
    RegistriesUnknown,
    #[error(
        "no Secret to name in pods: the configuration keeps none. Add one, by --docker-config-secret NAME, \
         ECR_SIDECAR_DOCKER_CONFIG_SECRET or an output `type: docker-config-secret` in the configuration file"
    )]
    NoPullSecret,
    #[error(
        "whether an image needs the Secret depends on its registry: list the registries, for the caller's own is known \
         only to AWS"
    )]
    ImagesUnknown,
    #[error(
        "the selector `{selector}` cannot bind an admission policy, which compares no numbers: use =, !=, in, notin, KEY \
         or !KEY instead of > and <"
    )]
    SelectorCompares { selector: String },
}

/// The service account of the sidecar's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// Its namespace, which is the pod's.
    pub namespace: NamespaceName,
    pub name: ObjectName,
}

impl Account {
    /// What its roles are called: the sidecars of two service accounts must not share one.
    fn role(&self) -> String {
        format!("ecr-sidecar-{}-{}", self.namespace.as_str(), self.name.as_str())
    }
}

/// The manifests as YAML, for `kubectl apply -f -` and for Git.
pub(crate) fn yaml(config: &Config, account: &Account) -> Result<String, ManifestsError> {
    let mut needs = Needs::default();
    for output in &config.outputs {
        needs.add(output, &config.registries, account.namespace.as_str())?;
    }
    let mut text = format!(
        "# What ecr-sidecar needs as service account {} in namespace {}, printed by `ecr-sidecar manifests`.\n",
        account.name.as_str(),
        account.namespace.as_str()
    );
    if needs == Needs::default() {
        text.push_str(
            "# Its outputs are files: it needs nothing. For Secrets, give this command the variables, flags or --config\n\
             # that the sidecar has.\n",
        );
        return Ok(text);
    }
    let namespaces: BTreeSet<_> = needs.roles.keys().chain(&needs.by_labels).collect();
    for namespace in namespaces {
        let names = needs.roles.get(namespace).filter(|_| !needs.by_labels.contains(namespace));
        text.push_str(&role(namespace, names, account));
    }
    if !needs.everywhere.is_empty() {
        text.push_str(&cluster_role(&needs.everywhere, account));
        text.push_str(&policy::yaml(&needs, account));
    }
    needs.secrets.iter().for_each(|secret| text.push_str(secret));
    Ok(text)
}

/// The rights that an output needs of a sidecar in `own_namespace`, as [`yaml`] gives them.
pub(crate) fn rights(
    output: &OutputConfig,
    registries: &Registries,
    own_namespace: &str,
) -> Result<Vec<Right>, ManifestsError> {
    let mut needs = Needs::default();
    needs.add(output, registries, own_namespace)?;
    Ok(needs.rights())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    roles: BTreeMap<String, BTreeSet<String>>,
    /// The names that Secrets have wherever they are.
    everywhere: BTreeMap<String, Everywhere>,
    /// The namespaces in which Secrets are found by their labels.
    by_labels: BTreeSet<String>,
    secrets: BTreeSet<String>,
}

impl Needs {
    fn add(
        &mut self,
        output: &OutputConfig,
        registries: &Registries,
        own_namespace: &str,
    ) -> Result<(), ManifestsError> {
        match output {
            OutputConfig::DockerConfig(_) => {}
            OutputConfig::DockerConfigSecret(settings) => {
                let name = settings.name.as_str();
                match &settings.namespaces {
                    Namespaces::Own => self.add_secret(own_namespace, name, &docker_config),
                    Namespaces::Names(names) => {
                        names
                            .iter()
                            .for_each(|namespace| self.add_secret(namespace.as_str(), name, &docker_config));
                    }
                    Namespaces::All { exclude } => {
                        let excluded = exclude.iter().map(|namespace| namespace.as_str().to_owned());
                        self.add_everywhere(name, settings.prune, excluded.collect());
                    }
                    Namespaces::Selector(_) => self.add_everywhere(name, settings.prune, BTreeSet::new()),
                }
            }
            OutputConfig::ArgocdRepoCreds(settings) => {
                let Registries::Listed(registries) = registries else {
                    return Err(ManifestsError::RegistriesUnknown);
                };
                for registry in registries {
                    for flavour in Flavour::ALL {
                        let of_host =
                            |namespace: &str, name: &str| template(namespace, name, &registry.host, flavour);
                        let name = template_name(&registry.host, flavour);
                        self.add_secret(settings.namespace.as_str(), name.as_str(), &of_host);
                    }
                }
            }
            OutputConfig::ArgocdRepositories(settings) => {
                let namespace = settings.namespace.as_str().to_owned();
                match &settings.which {
                    Which::Names(names) => {
                        let names = names.iter().map(|name| name.as_str().to_owned());
                        self.roles.entry(namespace).or_default().extend(names);
                    }
                    Which::Selector(_) => {
                        self.by_labels.insert(namespace);
                    }
                }
            }
        }
        Ok(())
    }

    fn rights(&self) -> Vec<Right> {
        let right = |namespace: &str, resource, name: &str, verb| Right {
            namespace: namespace.to_owned(),
            resource,
            name: name.to_owned(),
            verb,
        };
        let mut rights = Vec::new();
        for (namespace, names) in &self.roles {
            for name in names {
                rights.extend(VERBS.map(|verb| right(namespace, "secrets", name, verb)));
            }
        }
        for namespace in &self.by_labels {
            rights.extend(VERBS.map(|verb| right(namespace, "secrets", "", verb)));
        }
        for (name, everywhere) in &self.everywhere {
            rights.extend(["list", "watch"].map(|verb| right("", "namespaces", "", verb)));
            rights.extend(VERBS.map(|verb| right("", "secrets", name, verb)));
            rights.push(right("", "secrets", name, "create"));
            rights.extend(everywhere.prune.then(|| right("", "secrets", name, "delete")));
        }
        rights
    }

    /// Of two outputs with that name, a namespace is left out only if both leave it out.
    fn add_everywhere(&mut self, name: &str, prune: bool, excluded: BTreeSet<String>) {
        let known = self.everywhere.entry(name.to_owned());
        let known = known.or_insert_with(|| Everywhere { prune, excluded: excluded.clone() });
        known.prune |= prune;
        known.excluded.retain(|namespace| excluded.contains(namespace));
    }

    fn add_secret(&mut self, namespace: &str, name: &str, manifest: &dyn Fn(&str, &str) -> String) {
        self.roles.entry(namespace.to_owned()).or_default().insert(name.to_owned());
        self.secrets.insert(manifest(namespace, name));
    }
}

/// `names`: the Secrets; `None` for all of the namespace.
fn role(namespace: &str, names: Option<&BTreeSet<String>>, account: &Account) -> String {
    let name = account.role();
    let (reason, names) = match names {
        Some(names) => (String::new(), format!("\n    resourceNames: [{}]", list(names))),
        None => (
            format!(
                "
# Repository Secrets are selected by label, and RBAC does not know labels: this role applies to every Secret in
# {namespace}, including those of Argo CD's admin and clusters. To limit it to some Secrets, list their names in the
# configuration (names: [...])."
            ),
            String::new(),
        ),
    };
    format!(
        "---{reason}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: '{name}'
  namespace: '{namespace}'
rules:
  - apiGroups: [\"\"]
    resources: [secrets]{names}
    verbs: [{}]
{}",
        VERBS.join(", "),
        binding("Role", &format!("\n  namespace: '{namespace}'"), account)
    )
}

fn cluster_role(names: &BTreeMap<String, Everywhere>, account: &Account) -> String {
    let name = account.role();
    let pruned: BTreeSet<_> = names.iter().filter(|(_, of)| of.prune).map(|(name, _)| name).collect();
    let delete = if pruned.is_empty() {
        String::new()
    } else {
        format!(
            "  - apiGroups: [\"\"]
    resources: [secrets]
    resourceNames: [{}]
    verbs: [delete]
",
            list(pruned)
        )
    };
    format!(
        "---
# The namespaces are discovered while it runs, so this role applies to all of them, including `create`. The policy below
# limits what may be created. Where it cannot be applied (before Kubernetes 1.30), treat this account as an administrator's,
# or name the namespaces in the configuration, which needs no such role. Whoever may label or create a namespace that is
# selected gets the pull token of every registry there.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: '{name}'
rules:
  - apiGroups: [\"\"]
    resources: [namespaces]
    verbs: [list, watch]
  - apiGroups: [\"\"]
    resources: [secrets]
    resourceNames: [{}]
    verbs: [{}, create]
{delete}{}",
        list(names.keys()),
        VERBS.join(", "),
        binding("ClusterRole", "", account)
    )
}

/// Binds the role of that kind, which is called like its binding, to the account.
fn binding(kind: &str, namespace: &str, account: &Account) -> String {
    let role = account.role();
    let Account { namespace: of_account, name } = account;
    format!(
        "---
apiVersion: rbac.authorization.k8s.io/v1
kind: {kind}Binding
metadata:
  name: '{role}'{namespace}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {kind}
  name: '{role}'
subjects:
  - kind: ServiceAccount
    name: '{}'
    namespace: '{}'
",
        name.as_str(),
        of_account.as_str()
    )
}

fn docker_config(namespace: &str, name: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Secret
metadata:
  name: '{name}'
  namespace: '{namespace}'
  labels:
    app.kubernetes.io/managed-by: ecr-sidecar
  annotations:
    # The type requires the key below; the sidecar maintains its value. With this annotation, Flux applies the Secret once
    # and never overwrites it. An Argo CD Application that contains the Secret needs:
    #   spec:
    #     ignoreDifferences:
    #       - kind: Secret
    #         name: '{name}'
    #         namespace: '{namespace}'
    #         jsonPointers: [/data, /metadata/annotations/ecr-sidecar~1expires]
    #     syncPolicy:
    #       syncOptions: [RespectIgnoreDifferences=true]
    # A Helm chart that contains it empties it at each upgrade, until the sidecar restores it within a second; with the
    # annotation helm.sh/hook: pre-install, Helm only creates it.
    kustomize.toolkit.fluxcd.io/ssa: IfNotPresent
type: kubernetes.io/dockerconfigjson
stringData:
  .dockerconfigjson: '{{\"auths\":{{}}}}'
"
    )
}

fn template(namespace: &str, name: &str, host: &RegistryHost, flavour: Flavour) -> String {
    let mut text = format!(
        "---
apiVersion: v1
kind: Secret
metadata:
  name: '{name}'
  namespace: '{namespace}'
  labels:
    argocd.argoproj.io/secret-type: repo-creds
type: Opaque
stringData: # `username` and `password` are the sidecar's
"
    );
    for (key, value) in flavour.fields(host) {
        let _ = writeln!(text, "  {key}: '{value}'"); // a String takes any text
    }
    text
}

/// Names of Kubernetes objects; one that YAML would read as a number is quoted.
fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}
