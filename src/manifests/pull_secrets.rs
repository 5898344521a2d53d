//! The admission policy that names the pull Secret in pods that need it.
//!
//! The API server evaluates it, so the sidecar gets no right on pods. It reaches as far as the Secret does: its binding
//! has the output's own choice of namespaces. It acts on the creation of a pod only, because `imagePullSecrets` cannot be
//! changed afterwards. Mirror pods are left out: the API server rejects one that names a Secret.
//!
//! It adds by JSONPatch: the list is atomic, so an apply configuration may not change it. A host is compared as kubelet
//! compares it with the keys of the Secret: whole, with its port, case-sensitive. It is looked up in the list of hosts: a
//! loop over a thousand of them for each image exceeds what an expression may cost, and a policy that fails is ignored.
//!
//! Which pods get the entry, and that other entries stay: `tests/secrets/pull_secrets.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Account, ManifestsError, list};
use crate::{
    config::{Config, Registries},
    output::{
        OutputConfig,
        label_selector::LabelSelector,
        secret_settings::{DockerConfigSecretSettings, NamespaceName, Namespaces},
    },
};

/// The label that the API server gives each namespace: its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A policy and its binding for each name of a pull Secret.
pub(crate) fn yaml(config: &Config, account: &Account) -> Result<String, ManifestsError> {
    let outputs: Vec<_> = config
        .outputs
        .iter()
        .filter_map(|output| match output {
            OutputConfig::DockerConfigSecret(settings) => Some(settings),
            _ => None,
        })
        .collect();
    if outputs.is_empty() {
        return Err(ManifestsError::NoPullSecret);
    }
    let Registries::Listed(registries) = &config.registries else {
        return Err(ManifestsError::ImagesUnknown);
    };
    let hosts: Vec<_> = registries.iter().map(|registry| registry.host.to_string()).collect();
    let hosts = list(&hosts);
    let expressions = expressions(&outputs, account)?;
    Ok(expressions
        .iter()
        .map(|(secret, expressions)| {
            let name = format!("{}-{secret}", account.role());
            policy(&name, secret, &hosts) + &binding(&name, expressions)
        })
        .collect())
}

/// By the name of the Secret: the requirements on the labels of a namespace.
fn expressions<'a>(
    outputs: &[&'a DockerConfigSecretSettings],
    account: &'a Account,
) -> Result<BTreeMap<&'a str, Vec<String>>, ManifestsError> {
    let mut named: BTreeMap<&str, BTreeSet<&NamespaceName>> = BTreeMap::new();
    let mut expressions = BTreeMap::new();
    for settings in outputs {
        let secret = settings.name.as_str();
        match &settings.namespaces {
            Namespaces::Own => {
                named.entry(secret).or_default().insert(&account.namespace);
            }
            Namespaces::Names(names) => named.entry(secret).or_default().extend(names),
            // Of outputs with the same name, only those with named namespaces pass the configuration.
            Namespaces::All { exclude } if exclude.is_empty() => {
                expressions.insert(secret, Vec::new());
            }
            Namespaces::All { exclude } => {
                expressions.insert(secret, vec![of_names("NotIn", exclude)]);
            }
            Namespaces::Selector(selector) => {
                expressions.insert(secret, of_selector(selector)?);
            }
        }
    }
    let of_names = named.into_iter().map(|(secret, names)| (secret, vec![of_names("In", names)]));
    expressions.extend(of_names);
    Ok(expressions)
}

fn of_names<'a>(operator: &str, names: impl IntoIterator<Item = &'a NamespaceName>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| name.as_str().to_owned()).collect();
    format!("{{key: {NAME_LABEL}, operator: {operator}, values: [{}]}}", list(&names))
}

fn of_selector(selector: &LabelSelector) -> Result<Vec<String>, ManifestsError> {
    let expressions = selector
        .match_expressions()
        .ok_or_else(|| ManifestsError::SelectorCompares { selector: selector.as_str().to_owned() })?;
    Ok(expressions
        .into_iter()
        .map(|(key, operator, values)| match values {
            [] => format!("{{key: '{key}', operator: {operator}}}"),
            values => format!("{{key: '{key}', operator: {operator}, values: [{}]}}", list(values)),
        })
        .collect())
}

fn policy(name: &str, secret: &str, hosts: &str) -> String {
    format!(
        "---
# Adds the Secret {secret} to the imagePullSecrets of each new pod that has an image of these registries, in the
# namespaces of the binding. Pods are created as they are if the policy fails. Requires Kubernetes 1.36 or later; in older
# clusters, name the Secret in the service account of the pods:
#   kubectl -n NAMESPACE patch serviceaccount default -p '{{\"imagePullSecrets\": [{{\"name\": \"{secret}\"}}]}}'
# The container that `kubectl debug` adds to a running pod pulls with what the pod was created with.
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata:
  name: '{name}'
spec:
  failurePolicy: Ignore
  reinvocationPolicy: IfNeeded
  matchConstraints:
    resourceRules:
      - apiGroups: [\"\"]
        apiVersions: [v1]
        operations: [CREATE]
        resources: [pods]
  matchConditions:
    - name: not-of-a-static-pod
      expression: >-
        !has(object.metadata.annotations) || !('kubernetes.io/config.mirror' in object.metadata.annotations)
    - name: not-named-yet
      expression: >-
        !has(object.spec.imagePullSecrets)
        || !object.spec.imagePullSecrets.exists(entry, has(entry.name) && entry.name == '{secret}')
  variables:
    - name: containers
      expression: >-
        object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : [])
    - name: volumes
      expression: >-
        has(object.spec.volumes) ? object.spec.volumes : []
    - name: images
      expression: >-
        variables.containers.filter(container, has(container.image)).map(container, container.image)
        + variables.volumes.filter(volume, has(volume.image) && has(volume.image.reference))
        .map(volume, volume.image.reference)
    - name: ours
      expression: >-
        variables.images.exists(image, image.contains('/') && image.split('/')[0] in [{hosts}])
  mutations:
    - patchType: JSONPatch
      jsonPatch:
        expression: >-
          !variables.ours ? []
          : has(object.spec.imagePullSecrets)
          ? [JSONPatch{{op: 'add', path: '/spec/imagePullSecrets/-', value: {{'name': '{secret}'}}}}]
          : [JSONPatch{{op: 'add', path: '/spec/imagePullSecrets', value: [{{'name': '{secret}'}}]}}]
"
    )
}

fn binding(name: &str, expressions: &[String]) -> String {
    let expressions = match expressions {
        [] => " []".to_owned(),
        expressions => {
            expressions.iter().map(|expression| format!("\n        - {expression}")).collect::<String>()
        }
    };
    format!(
        "---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata:
  name: '{name}'
spec:
  policyName: '{name}'
  matchResources:
    namespaceSelector:
      matchExpressions:{expressions}
"
    )
}
