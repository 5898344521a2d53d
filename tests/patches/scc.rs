//! OpenShift's security context constraints, by its documentation and `apiserver-library-go`: what two of them make of a
//! pod, and what they reject. OpenShift's API server itself is not here.

use serde_json::{Value, json};

/// The namespace's range, as its annotations `openshift.io/sa.scc.uid-range` and `…supplemental-groups` give it.
pub(crate) const FIRST: u64 = 1_000_650_000;
const SIZE: u64 = 10_000;

const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// What every service account may use: one uid and fsGroup of the range for the whole pod.
pub(crate) fn restricted_v2(pod: &Value) -> Result<Value, String> {
    check(pod)?;
    let in_range = |uid: u64| (FIRST..FIRST + SIZE).contains(&uid);
    for (place, context) in contexts(pod) {
        if let Some(uid) = context["runAsUser"].as_u64().filter(|uid| !in_range(*uid)) {
            return Err(format!("{place}: runAsUser {uid} is not in the range"));
        }
        if let Some(group) = context["fsGroup"].as_u64().filter(|group| *group != FIRST) {
            return Err(format!("{place}: fsGroup {group} is not in the range"));
        }
        let profile = &context["seccompProfile"]["type"];
        if !profile.is_null() && profile != "RuntimeDefault" {
            return Err(format!("{place}: seccomp profile {profile}"));
        }
        if context["allowPrivilegeEscalation"] == true {
            return Err(format!("{place}: privilege escalation"));
        }
    }
    Ok(assigned(pod))
}

/// What `restricted-v2` sets where the pod sets nothing.
pub(crate) fn assigned(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let of_pod = object(&mut pod["securityContext"]);
    of_pod.entry("fsGroup").or_insert(json!(FIRST));
    of_pod.entry("seccompProfile").or_insert(json!({"type": "RuntimeDefault"}));
    for key in ["initContainers", "containers"] {
        for container in pod[key].as_array_mut().into_iter().flatten() {
            let context = object(&mut container["securityContext"]);
            context.entry("runAsUser").or_insert(json!(FIRST));
            context.entry("runAsNonRoot").or_insert(json!(true));
            context.entry("allowPrivilegeEscalation").or_insert(json!(false));
            context.entry("capabilities").or_insert(json!({"drop": ["ALL"]}));
        }
    }
    pod
}

/// What Flux's instructions give its controllers: any uid but root's, no seccomp profile.
pub(crate) fn nonroot(pod: &Value) -> Result<(), String> {
    check(pod)?;
    for (place, context) in contexts(pod) {
        if !context["seccompProfile"].is_null() {
            return Err(format!("{place}: seccomp may not be set"));
        }
        if context["runAsUser"] == 0 {
            return Err(format!("{place}: runAsUser 0"));
        }
    }
    Ok(())
}

/// What both reject.
fn check(pod: &Value) -> Result<(), String> {
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod[key] == true {
            return Err(key.to_owned());
        }
    }
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        if let Some(kind) = kinds.into_iter().find(|kind| !VOLUMES.contains(&kind.as_str())) {
            return Err(format!("a volume of kind {kind}"));
        }
    }
    for (place, context) in contexts(pod) {
        if context["privileged"] == true || !context["capabilities"]["add"].is_null() {
            return Err(format!("{place}: privileges"));
        }
    }
    Ok(())
}

/// The pod's security context, and that of each container.
fn contexts(pod: &Value) -> Vec<(String, &Value)> {
    let lists = ["initContainers", "containers"].iter().filter_map(|key| pod[key].as_array());
    let of_containers = lists
        .flatten()
        .map(|container| (container["name"].as_str().unwrap().to_owned(), &container["securityContext"]));
    std::iter::once(("the pod".to_owned(), &pod["securityContext"])).chain(of_containers).collect()
}

fn object(value: &mut Value) -> &mut serde_json::Map<String, Value> {
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut().unwrap()
}
