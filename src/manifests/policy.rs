//! The admission policy that holds a service account with `create` to the Secrets that the sidecar writes.
//!
//! RBAC limits `create` by name, and a Secret of any name may be of type `kubernetes.io/service-account-token`: the
//! token of any service account of the namespace is then written into it. So the policy checks the object: its name,
//! its type, its keys, and the metadata by which controllers know what a Secret is for. It is evaluated for every request
//! as the account, also by impersonation, and for no one else. What mutating webhooks of the cluster label or
//! annotate is not the account's doing, and allowed.
//!
//! What it denies, and that apply, adopt and prune still work: `tests/secrets/policy.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Account, Needs, list};

/// The Secrets of one name, wherever they are.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Everywhere {
    /// They are deleted where they are not wanted.
    pub(super) prune: bool,
    pub(super) excluded: BTreeSet<String>,
}

pub(super) fn yaml(needs: &Needs, account: &Account) -> String {
    let name = account.role();
    let user = format!("system:serviceaccount:{}:{}", account.namespace.as_str(), account.name.as_str());
    let names = list(needs.everywhere.keys());
    let validations: String = validations(needs)
        .into_iter()
        .map(|(message, expression)| {
            let expression = expression.trim().replace('\n', "\n        ");
            format!(
                "    - message: {message}\n      reason: Forbidden\n      expression: >-\n        {expression}\n"
            )
        })
        .collect();
    format!(
        "---
# Limits the account to Secrets of that type, whatever its roles allow. Without this policy, whoever may create a Secret
# can create one of type kubernetes.io/service-account-token, and so obtain the token of any service account. Requires
# Kubernetes 1.30 or later. It also limits anything else that runs as this account.
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: '{name}'
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - apiGroups: [\"\"]
        apiVersions: [\"*\"]
        operations: [CREATE, UPDATE, DELETE]
        resources: [secrets]
  matchConditions:
    - name: account
      expression: request.userInfo.username == '{user}'
  variables:
    - name: secret
      expression: >-
        request.operation == 'DELETE' ? oldObject : object
    - name: ours
      expression: variables.secret.metadata.name in [{names}]
    - name: exempt
      expression: request.operation == 'DELETE' || !variables.ours
    - name: oldLabels
      expression: >-
        request.operation == 'UPDATE' && has(oldObject.metadata.labels) ? oldObject.metadata.labels : {{}}
    - name: oldAnnotations
      expression: >-
        request.operation == 'UPDATE' && has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {{}}
    - name: oldData
      expression: >-
        request.operation == 'UPDATE' && has(oldObject.data) ? oldObject.data : {{}}
    - name: tracked
      expression: has(object.metadata.managedFields) && size(object.metadata.managedFields) > 0
    - name: managed
      expression: >-
        variables.tracked ? object.metadata.managedFields.filter(entry, has(dyn(entry).fieldsV1)
        && 'f:metadata' in dyn(entry).fieldsV1).map(entry, dyn(entry).fieldsV1['f:metadata']) : []
  validations:
{validations}---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: '{name}'
spec:
  policyName: '{name}'
  validationActions: [Deny]
"
    )
}

fn validations(needs: &Needs) -> Vec<(String, String)> {
    let names = list(needs.everywhere.keys()).replace('\'', "");
    let mut validations = vec![
        (
            format!("this account may write Secrets called {names}, and those that its Roles are for"),
            allowed(needs),
        ),
        (
            "this account may only write Secrets of type kubernetes.io/dockerconfigjson".to_owned(),
            "!variables.ours || variables.secret.type == 'kubernetes.io/dockerconfigjson'".to_owned(),
        ),
        (
            "this account may only set the key .dockerconfigjson, and may not make a Secret immutable"
                .to_owned(),
            "variables.exempt
|| (!has(object.data) || object.data.all(key, key == '.dockerconfigjson'
|| (key in variables.oldData && variables.oldData[key] == object.data[key])))
&& (!has(object.immutable) || !object.immutable || (request.operation == 'UPDATE' && has(oldObject.immutable)
&& oldObject.immutable))"
                .to_owned(),
        ),
        (
            "this account may only set the label app.kubernetes.io/managed-by and its own annotations"
                .to_owned(),
            format!(
                "variables.exempt\n|| ({})\n&& ({})",
                only(
                    "labels",
                    "oldLabels",
                    "key == 'app.kubernetes.io/managed-by'\n&& object.metadata.labels[key] == 'ecr-sidecar'"
                ),
                only("annotations", "oldAnnotations", "key.startsWith('ecr-sidecar/')")
            ),
        ),
        (
            "this account may set neither finalizers nor owners".to_owned(),
            "variables.exempt
|| (!has(object.metadata.finalizers) || (request.operation == 'UPDATE' && has(oldObject.metadata.finalizers)
&& object.metadata.finalizers == oldObject.metadata.finalizers))
&& (!has(object.metadata.ownerReferences) || (request.operation == 'UPDATE'
&& has(oldObject.metadata.ownerReferences)
&& object.metadata.ownerReferences == oldObject.metadata.ownerReferences))"
                .to_owned(),
        ),
    ];
    validations.extend(excluded(needs));
    validations
}

/// That the request sets nothing in that map of the metadata but what is `allowed`. A mutating webhook may add to it: the
/// API server records as managed what a request sets, before it calls any webhook.
fn only(map: &str, old: &str, allowed: &str) -> String {
    format!(
        "!has(object.metadata.{map}) || object.metadata.{map}.all(key, ({allowed})
|| (key in variables.{old} && variables.{old}[key] == object.metadata.{map}[key])
|| (variables.tracked && !variables.managed.exists(fields,
'f:{map}' in fields && ('f:' + key) in fields['f:{map}'])))"
    )
}

/// By name, or one of those whose name and namespace, or namespace alone, a Role gives; there is no `create` for these.
fn allowed(needs: &Needs) -> String {
    let mut allowed = "variables.ours".to_owned();
    for (namespace, names) in needs.roles.iter().filter(|(name, _)| !needs.by_labels.contains(*name)) {
        let names = list(names);
        allowed += &format!(
            "\n|| (request.operation == 'UPDATE' && request.namespace == '{namespace}'\n\
             && variables.secret.metadata.name in [{names}])"
        );
    }
    if !needs.by_labels.is_empty() {
        let namespaces = list(&needs.by_labels);
        allowed += &format!("\n|| (request.operation == 'UPDATE' && request.namespace in [{namespaces}])");
    }
    allowed
}

/// In a namespace that is left out there is nothing to write but what takes our own fields out again.
fn excluded(needs: &Needs) -> Vec<(String, String)> {
    let mut by_namespaces: BTreeMap<Vec<&String>, Vec<&String>> = BTreeMap::new();
    for (name, everywhere) in &needs.everywhere {
        let named =
            |namespace: &&String| needs.roles.get(*namespace).is_some_and(|names| names.contains(name));
        let excluded: Vec<_> = everywhere.excluded.iter().filter(|namespace| !named(namespace)).collect();
        if !excluded.is_empty() {
            by_namespaces.entry(excluded).or_default().push(name);
        }
    }
    let expression = |(namespaces, names): (Vec<&String>, Vec<&String>)| {
        let (names, namespaces) = (list(names), list(namespaces));
        let message = format!("this account may write no Secret in {}", namespaces.replace('\'', ""));
        let expression = format!(
            "!(variables.secret.metadata.name in [{names}]) || !(request.namespace in [{namespaces}])
|| (request.operation != 'CREATE' && has(oldObject.metadata.managedFields)
&& oldObject.metadata.managedFields.exists(entry, entry.manager == 'ecr-sidecar' && entry.operation == 'Apply'))"
        );
        (message, expression)
    };
    by_namespaces.into_iter().map(expression).collect()
}
