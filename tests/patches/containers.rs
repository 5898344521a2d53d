//! Every container of ours, wherever it stands: confined, limited, probed, pinned, and configured so that the program
//! understands it.

use std::{collections::BTreeMap, path::Path, process::Command, sync::LazyLock, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{files::overwrite, output};

use crate::{
    build::{Build, Objects, Product, ROOT, container, kustomize, read},
    chart,
    kustomize::operator_build,
    openshift::by_argocd_operator,
    scc, values,
};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ecr-sidecar");

/// A container of ours, and what it is part of.
pub(crate) struct Ours {
    /// For messages.
    pub(crate) place: String,
    /// All that is applied with it.
    pub(crate) objects: Objects,
    /// The pod spec.
    pub(crate) pod: Value,
    /// The namespace and the service account that it runs as.
    pub(crate) account: (String, String),
}

impl Ours {
    /// Every one that `patches/` and the chart have, in each of their choices. Empty when kubectl is not here.
    pub(crate) fn all() -> &'static [Self] {
        static ALL: LazyLock<Vec<Ours>> = LazyLock::new(Ours::build_all);
        &ALL
    }

    fn build_all() -> Vec<Self> {
        let mut all = Vec::new();
        for product in Product::ALL {
            for components in product.choices() {
                let Some(build) = Build::chosen(product, components) else { return all };
                let objects = build.objects();
                for (name, _) in product.deployments() {
                    let ours = Self::of(format!("{product:?} {components:?}"), &objects, "Deployment", name);
                    all.extend(match components.contains(&"openshift") {
                        true => ours.map(|ours| Self { pod: scc::assigned(&ours.pod), ..ours }),
                        false => ours,
                    });
                }
            }
        }
        let operator = operator_build(|_| {}).unwrap().objects();
        all.extend(Self::of("flux-operator".into(), &operator, "Deployment", "image-reflector-controller"));
        let operator = by_argocd_operator().unwrap();
        all.extend(Self::of("argocd-operator".into(), &operator, "Deployment", "argocd-repo-server"));
        for (place, objects) in values::all() {
            all.extend(Self::of(place, &objects, "Deployment", "argocd-repo-server"));
        }
        let open = Build::open_standalone();
        for (place, folder, kind) in [
            ("deployment", Path::new(ROOT).join("patches/standalone/deployment"), "Deployment"),
            ("deployment with open-health", open.at("deployment"), "Deployment"),
            ("cronjob", Path::new(ROOT).join("patches/standalone/cronjob"), "CronJob"),
        ] {
            let built = Objects::parse(&kustomize(&folder));
            all.extend(Self::of(place.into(), &built, kind, "ecr-sidecar"));
        }
        for (values, objects) in chart::all() {
            let kind = if values == "cronjob" { "CronJob" } else { "Deployment" };
            all.extend(Self::of(format!("deployment of the chart: {values}"), &objects, kind, "ecr-sidecar"));
        }
        let job = Objects::parse(&read("patches/standalone/init-container/job.yaml"));
        all.extend(Self::of("init-container".into(), &job, "Job", "pulls-a-chart"));
        all
    }

    fn of(place: String, objects: &Objects, kind: &str, name: &str) -> Option<Self> {
        let object = objects.get(kind, name);
        let job = if kind == "CronJob" { &object["spec"]["jobTemplate"] } else { object };
        let pod = job["spec"]["template"]["spec"].clone();
        container(&pod, "ecr-sidecar")?;
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
        let account = (namespace, pod["serviceAccountName"].as_str().unwrap().to_owned());
        Some(Self { place, objects: objects.clone(), pod, account })
    }

    pub(crate) fn container(&self) -> &Value {
        container(&self.pod, "ecr-sidecar").unwrap().0
    }

    /// `ecr-sidecar COMMAND` configured as this container is.
    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Output {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(BINARY);
        command.args(arguments).env_clear();
        for (name, value) in self.environment() {
            command.env(name, self.on_this_machine(&value, &folder));
        }
        output(&mut command, Duration::from_secs(30))
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let value = |entry: &Value| {
            let from = &entry["valueFrom"];
            match (&from["fieldRef"]["fieldPath"], &from["configMapKeyRef"]) {
                (Value::Null, Value::Null) => Some(entry["value"].as_str().expect("a value").to_owned()),
                (Value::Null, key) => {
                    let map = self.objects.find("ConfigMap", key["name"].as_str().unwrap());
                    let value = map.and_then(|map| map["data"][key["key"].as_str().unwrap()].as_str());
                    assert!(value.is_some() || key["optional"] == true, "{}: {key}", self.place);
                    value.map(str::to_owned)
                }
                (path, _) if path == "metadata.namespace" => Some(self.account.0.clone()),
                (path, _) => panic!("{path}"),
            }
        };
        let container = self.container();
        let mut environment = BTreeMap::new();
        for source in container["envFrom"].as_array().into_iter().flatten() {
            let name = source["configMapRef"]["name"].as_str().unwrap();
            if let Some(map) = self.objects.find("ConfigMap", name) {
                for (name, value) in map["data"].as_object().unwrap() {
                    environment.insert(name.clone(), value.as_str().unwrap().to_owned());
                }
            }
        }
        for entry in container["env"].as_array().unwrap() {
            let name = entry["name"].as_str().unwrap().to_owned();
            environment.extend(value(entry).map(|value| (name, value)));
        }
        environment
    }

    /// The configuration file of the ConfigMap is put where a process of this machine finds it.
    fn on_this_machine(&self, value: &str, folder: &TempDir) -> String {
        if value != "/etc/ecr-sidecar/config/config.yaml" {
            return value.to_owned();
        }
        let map = self.objects.get("ConfigMap", "ecr-sidecar");
        let path = folder.path().join("config.yaml");
        overwrite(&path, map["data"]["config.yaml"].as_str().unwrap());
        path.display().to_string()
    }
}

/// Kubernetes would set variables for each Service of the namespace, some with our prefix. In a pod that is the main
/// container's this is not ours to change.
#[test]
fn a_pod_of_ours_is_not_given_the_variables_of_services() {
    for (file, pod) in [
        ("deployment/deployment.yaml", "/spec/template/spec"),
        ("cronjob/cronjob.yaml", "/spec/jobTemplate/spec/template/spec"),
    ] {
        let objects = Objects::parse(&read(&format!("patches/standalone/{file}"))).0;
        let pods: Vec<_> = objects.iter().filter_map(|object| object.pointer(pod)).collect();
        assert!(pods.len() == 1 && pods[0]["enableServiceLinks"] == false, "{file}: {pods:?}");
    }
}

#[test]
fn every_container_is_confined_limited_and_pinned() {
    for ours in Ours::all() {
        let (container, pod, place) = (ours.container(), &ours.pod, &ours.place);
        let of_pod = &pod["securityContext"];
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{place}");
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{place}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{place}");
        for key in ["runAsNonRoot", "seccompProfile"] {
            let value = if context[key].is_null() { &of_pod[key] } else { &context[key] };
            let wanted = if key == "runAsNonRoot" { json!(true) } else { json!({"type": "RuntimeDefault"}) };
            assert_eq!(*value, wanted, "{place}: {key}");
        }
        assert_eq!(container["image"], "ghcr.io/ecr-sidecar/ecr-sidecar:0.1.0", "{place}");
        let resources =
            json!({"requests": {"cpu": "5m", "memory": "24Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}});
        assert_eq!(container["resources"], resources, "{place}");
        for volume in
            pod["volumes"].as_array().into_iter().flatten().filter(|v| v["name"] == "ecr-credentials")
        {
            assert_eq!(volume["emptyDir"], json!({"medium": "Memory", "sizeLimit": "16Mi"}), "{place}");
        }
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            assert!(mount["subPath"].is_null(), "{place}");
            assert!(mount["name"] == "ecr-credentials" || mount["readOnly"] == true, "{place}: {mount}");
        }
    }
}

/// Keys and tokens for AWS are the sidecar's: a container next to it reads what it publishes. (With IRSA's annotation the
/// webhook gives every container a token of its own.)
#[test]
fn no_other_container_has_the_sidecars_keys() {
    let mut seen = 0;
    for ours in Ours::all() {
        for other in
            ["containers", "initContainers"].iter().filter_map(|key| ours.pod[key].as_array()).flatten()
        {
            let mounts = |name: &str| {
                other["volumeMounts"].as_array().into_iter().flatten().any(|mount| mount["name"] == name)
            };
            for volume in ["aws-token", "aws-keys", "ecr-sidecar-aws"] {
                if other["name"] == "ecr-sidecar" {
                    seen += usize::from(mounts(volume));
                } else {
                    assert!(!mounts(volume), "{}: {} mounts {volume}", ours.place, other["name"]);
                }
            }
        }
    }
    assert!(seen > 3 || Ours::all().is_empty());
}

#[test]
fn what_runs_on_is_probed_by_exec_and_a_native_sidecar_gates_by_its_startup_probe() {
    for ours in Ours::all() {
        let (container, place) = (ours.container(), &ours.place);
        let runs_on = container["args"] == json!(["run"]);
        let probe = |name: &str| container[name]["exec"]["command"].clone();
        if !runs_on {
            assert_eq!(container["args"][0], "once", "{place}");
            assert!(container["startupProbe"].is_null() && container["livenessProbe"].is_null(), "{place}");
            continue;
        }
        assert_eq!(probe("startupProbe"), json!(["ecr-sidecar", "health", "startup"]), "{place}");
        assert_eq!(probe("livenessProbe"), json!(["ecr-sidecar", "health", "live"]), "{place}");
        let seconds = |field: &str| container["startupProbe"][field].as_u64().unwrap();
        // By then /startupz has said yes (health.startupGrace): AWS being down never restarts the container.
        assert!(seconds("periodSeconds") * seconds("failureThreshold") > 60 + 30, "{place}");
        assert!(container["livenessProbe"]["periodSeconds"].as_u64().unwrap() >= 10, "{place}");
        let among_init = container_is_init(&ours.pod);
        assert_eq!(container["restartPolicy"] == "Always", among_init, "{place}");
        assert_eq!(
            among_init,
            !place.contains("plain-container") && !place.starts_with("deployment"),
            "{place}"
        );
    }
}

fn container_is_init(pod: &Value) -> bool {
    container(pod, "ecr-sidecar").unwrap().1
}

#[test]
fn the_program_understands_how_every_container_is_configured() {
    for ours in Ours::all() {
        let shown = ours.command(&["config"]);
        let said = String::from_utf8_lossy(&shown.stderr);
        assert!(shown.status.success(), "{}: {said}", ours.place);
        let text = String::from_utf8(shown.stdout).unwrap();
        assert!(text.contains("123456789012.dkr.ecr.eu-west-1.amazonaws.com"), "{}: {text}", ours.place);
    }
}
