//! Field by field: the chart renders what `patches/` has for the same configuration.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};

use super::{Helm, values};
use crate::build::{Build, Objects, ROOT, container, kustomize, read};

/// What Helm's users expect besides: the label of the release, and the pull policy, which is Kubernetes' default.
fn without_helms(objects: &Objects) -> Vec<Value> {
    let mut objects = objects.0.clone();
    for object in &mut objects {
        remove_everywhere(object, "app.kubernetes.io/instance", None);
        remove_everywhere(object, "imagePullPolicy", Some("IfNotPresent"));
    }
    objects
}

/// Removes that key, and a map that is empty then.
fn remove_everywhere(value: &mut Value, key: &str, expected: Option<&str>) {
    match value {
        Value::Object(map) => {
            if let Some(removed) = map.remove(key) {
                assert!(expected.is_none_or(|expected| removed == expected), "{key}: {removed}");
            }
            map.values_mut().for_each(|value| remove_everywhere(value, key, expected));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| remove_everywhere(value, key, expected)),
        _ => {}
    }
}

/// By kind and name; the text of a configuration is compared by what it says, labels only where others go by them.
fn by_name(objects: impl IntoIterator<Item = Value>) -> Vec<(String, Value)> {
    let mut named: Vec<_> = objects
        .into_iter()
        .map(|mut object| {
            if let Some(config) = object.pointer_mut("/data/config.yaml") {
                *config = Objects::parse(config.as_str().unwrap()).0.swap_remove(0);
            }
            let kind = object["kind"].as_str().unwrap().to_owned();
            if ["ServiceAccount", "ConfigMap"].contains(&kind.as_str()) {
                object["metadata"].as_object_mut().unwrap().remove("labels");
            }
            (format!("{kind} {}", object["metadata"]["name"]), object)
        })
        .collect();
    named.sort_by(|(left, _), (right, _)| left.cmp(right));
    named
}

fn standalone(folder: &str) -> Objects {
    Objects::parse(&kustomize(&Path::new(ROOT).join("patches/standalone").join(folder)))
}

#[test]
fn the_deployment_and_all_that_belongs_to_it_is_that_of_standalone() {
    let Some(helm) = Helm::newest() else { return };
    let mut rendered = helm.rendered(&values("selector"));
    rendered.0.retain(|object| object["kind"] != "Pod");
    let wanted = standalone("deployment").0.into_iter().filter(|object| object["kind"] != "Namespace");
    assert_eq!(by_name(without_helms(&rendered)), by_name(wanted));
}

#[test]
fn with_metrics_the_pod_is_that_of_open_health() {
    let Some(helm) = Helm::newest() else { return };
    let metrics = format!("{}metrics: {{enabled: true}}\n", values("selector"));
    let rendered = Objects(without_helms(&helm.rendered(&metrics)));
    let wanted = Objects::parse(&kustomize(&Build::open_standalone().at("deployment")));
    let template = |objects: &Objects| {
        let mut template = objects.get("Deployment", "ecr-sidecar")["spec"]["template"].clone();
        // The order of variables is of no interest here: none refers to another.
        let env = template["spec"]["containers"][0]["env"].as_array_mut().unwrap();
        env.sort_by_key(ToString::to_string);
        template
    };
    assert_eq!(template(&rendered), template(&wanted));
    let policy = |objects: &Objects, name: &str| objects.get("NetworkPolicy", name)["spec"].clone();
    let mut ours = policy(&rendered, "ecr-sidecar-health");
    let labels = ours["podSelector"]["matchLabels"].as_object_mut().unwrap();
    assert_eq!(labels.remove("app.kubernetes.io/name"), Some(json!("ecr-sidecar")));
    assert_eq!(ours, policy(&wanted, "allow-ecr-sidecar-health"));
}

#[test]
fn the_prometheus_operators_objects_are_those_of_monitoring() {
    let Some(helm) = Helm::newest() else { return };
    let rendered = helm.rendered(&values("monitoring"));
    let labels = json!({"app.kubernetes.io/name": "ecr-sidecar", "app.kubernetes.io/instance": "ecr-sidecar",
        "release": "kube-prometheus-stack"});
    for (kind, file) in [("PodMonitor", "pod-monitor"), ("PrometheusRule", "prometheus-rule")] {
        let ours = rendered.get(kind, "ecr-sidecar");
        assert_eq!(ours["metadata"]["labels"], labels, "{kind}");
        let mut ours = ours["spec"].clone();
        let mut wanted =
            Objects::parse(&read(&format!("patches/monitoring/{file}.yaml"))).0[0]["spec"].clone();
        if kind == "PodMonitor" {
            // The release's own pods, in its namespace.
            assert_eq!(wanted["namespaceSelector"].take(), json!({"any": true}));
            wanted.as_object_mut().unwrap().remove("namespaceSelector");
            let of_pods = rendered.pod_labels();
            let selected = ours["selector"]["matchLabels"].as_object_mut().unwrap();
            assert!(selected.iter().all(|(name, value)| of_pods[name] == *value), "{selected:?}");
            selected.retain(|name, _| !name.starts_with("app.kubernetes.io/"));
        }
        assert_eq!(ours, wanted, "{kind}");
    }
}

impl Objects {
    fn pod_labels(&self) -> &Value {
        &self.get("Deployment", "ecr-sidecar")["spec"]["template"]["metadata"]["labels"]
    }
}

/// Without the way that its configuration comes, which is a file here and variables there.
fn job(mut spec: Value) -> Value {
    let pod = &mut spec["template"]["spec"];
    pod.as_object_mut().unwrap().remove("volumes");
    let container = pod["containers"][0].as_object_mut().unwrap();
    container.remove("env");
    container.remove("volumeMounts");
    spec
}

#[test]
fn the_cronjob_is_that_of_standalone_and_a_job_like_it_runs_at_once() {
    let Some(helm) = Helm::newest() else { return };
    let rendered = Objects(without_helms(&helm.rendered(&values("cronjob"))));
    let wanted = standalone("cronjob");
    let spec = |objects: &Objects| {
        let mut spec = objects.get("CronJob", "ecr-sidecar")["spec"].clone();
        let job = job(spec["jobTemplate"]["spec"].take());
        (spec, job)
    };
    assert_eq!(spec(&rendered), spec(&wanted));
    let now = rendered.0.iter().find(|object| object["kind"] == "Job").unwrap();
    assert_eq!(now["spec"], rendered.get("CronJob", "ecr-sidecar")["spec"]["jobTemplate"]["spec"]);
    assert!(rendered.find("Deployment", "ecr-sidecar").is_none());
}

#[test]
fn a_job_has_another_name_when_anything_that_it_depends_on_changes() {
    let Some(helm) = Helm::newest() else { return };
    let name = |more: &str| job_name(&helm.rendered(&format!("{}{more}", values("cronjob"))));
    let changes = ["image: {tag: 0.1.1}", "podLabels: {a: b}", "extraEnv: [{name: AWS_REGION, value: x}]"];
    let mut names: BTreeSet<_> = changes.iter().map(|more| name(more)).collect();
    let first = name("");
    names.insert(first.clone());
    let other = helm.rendered(&values("cronjob").replace("eu-west-1", "eu-west-2"));
    names.insert(job_name(&other));
    assert_eq!(names.len(), 5, "{names:?}");
    assert_eq!(name("schedule: '0 * * * *'"), first, "a Job's pod knows no schedule");
}

fn job_name(objects: &Objects) -> String {
    let job = objects.0.iter().find(|object| object["kind"] == "Job").unwrap();
    job["metadata"]["name"].as_str().unwrap().to_owned()
}

/// Keys and tokens come as Flux's components bring them.
#[test]
fn tokens_and_keys_are_mounted_as_by_the_components() {
    let Some(helm) = Helm::newest() else { return };
    for (name, component) in [("names", "web-identity/token"), ("argocd", "static-keys/keys")] {
        let component = Objects::parse(&read(&format!("patches/flux/{component}.yaml")));
        let text = component.0[0]["spec"]["template"]["spec"].to_string();
        let wanted: Value = serde_json::from_str(
            &text.replace("from settings.yaml", "arn:aws:iam::123456789012:role/ecr-pull"),
        )
        .unwrap();
        let rendered = helm.rendered(&values(name));
        let pod = rendered.pod("ecr-sidecar");
        let ours = container(pod, "ecr-sidecar").unwrap().0;
        let more = &wanted["initContainers"][0];
        for (list, wanted) in [
            (&ours["env"], &more["env"]),
            (&ours["volumeMounts"], &more["volumeMounts"]),
            (&pod["volumes"], &wanted["volumes"]),
        ] {
            for entry in wanted.as_array().unwrap() {
                assert!(list.as_array().unwrap().contains(entry), "{name}: {entry} is not in {list}");
            }
        }
    }
}

#[test]
fn the_test_pod_is_the_deployments_with_another_command() {
    let Some(helm) = Helm::newest() else { return };
    for name in ["selector", "names", "argocd"] {
        let rendered = helm.rendered(&values(name));
        let mut deployed = rendered.pod("ecr-sidecar").clone();
        deployed.as_object_mut().unwrap().remove("terminationGracePeriodSeconds");
        deployed["restartPolicy"] = json!("Never");
        let container = deployed["containers"][0].as_object_mut().unwrap();
        container.retain(|key, _| !key.ends_with("Probe"));
        container.insert("args".into(), json!(["doctor"]));
        assert_eq!(rendered.get("Pod", "ecr-sidecar-doctor")["spec"], deployed, "{name}");
    }
}

#[test]
fn what_the_values_say_of_pods_is_in_them() {
    let Some(helm) = Helm::newest() else { return };
    let text = values("names");
    let given = Objects::parse(&text).0.swap_remove(0);
    let rendered = helm.rendered(&text);
    let deployment = rendered.get("Deployment", "ecr-sidecar");
    let pod = rendered.pod("ecr-sidecar");
    assert_eq!(deployment["spec"]["replicas"], given["replicas"]);
    for key in [
        "imagePullSecrets",
        "nodeSelector",
        "tolerations",
        "affinity",
        "topologySpreadConstraints",
        "priorityClassName",
    ] {
        assert!(!given[key].is_null() && pod[key] == given[key], "{key}: {pod:#}");
    }
    let container = &pod["containers"][0];
    for (list, entry) in [
        (&pod["volumes"], &given["extraVolumes"][0]),
        (&container["env"], &given["extraEnv"][0]),
        (&container["volumeMounts"], &given["extraVolumeMounts"][0]),
    ] {
        assert_eq!(list.as_array().unwrap().last().unwrap(), entry);
    }
    let template = &deployment["spec"]["template"]["metadata"];
    assert_eq!(template["annotations"], given["podAnnotations"]);
    let labels = json!({"team": "platform", "app.kubernetes.io/name": "ecr-sidecar",
        "app.kubernetes.io/instance": "ecr-sidecar"});
    assert_eq!(template["labels"], labels, "a label that the Deployment goes by is the chart's");
    let account = &rendered.get("ServiceAccount", "ecr-sidecar")["metadata"];
    assert_eq!(account["annotations"], given["serviceAccount"]["annotations"]);
}

#[test]
fn names_and_images_follow_the_values() {
    let Some(helm) = Helm::newest() else { return };
    let digest = format!("sha256:{}", "0".repeat(64));
    for (values, name, account, image) in [
        ("", "ecr-sidecar", "ecr-sidecar", "ghcr.io/ecr-sidecar/ecr-sidecar:0.1.0"),
        (
            "nameOverride: pulls",
            "ecr-sidecar-pulls",
            "ecr-sidecar-pulls",
            "ghcr.io/ecr-sidecar/ecr-sidecar:0.1.0",
        ),
        (
            "{fullnameOverride: pulls, serviceAccount: {name: of-mine}, image: {tag: v2, repository: mirror.example/e}}",
            "pulls",
            "of-mine",
            "mirror.example/e:v2",
        ),
        (
            &format!("{{serviceAccount: {{create: false}}, image: {{tag: v2, digest: '{digest}'}}}}"),
            "ecr-sidecar",
            "default",
            &format!("ghcr.io/ecr-sidecar/ecr-sidecar@{digest}"),
        ),
    ] {
        let rendered = helm.rendered(values);
        let pod = rendered.pod(name);
        assert_eq!(pod["serviceAccountName"], account, "{values}");
        assert_eq!(pod["containers"][0]["image"], image, "{values}");
        assert_eq!(rendered.find("ServiceAccount", account).is_some(), !values.contains("create: false"));
        assert_eq!(pod["volumes"][0]["configMap"]["name"], name);
        rendered.get("ConfigMap", name);
        let binding = rendered.get("RoleBinding", &format!("ecr-sidecar-ecr-sidecar-{account}"));
        assert_eq!(binding["subjects"][0]["name"], account);
    }
}
