//! `argocd-helm/`: values of the chart argo-cd.
//!
//! The chart is not at hand, what it renders by default is. Its documented keys are put into that as its template does
//! it: `initContainers` come after `copyutil`, `extraContainers` after the first one, `podLabels` are the pod's labels
//! too, `configs.params` is the ConfigMap `argocd-cmd-params-cm`, `extraObjects` are further objects.

use serde_json::{Value, json};

use crate::build::{Build, Objects, Product, container, read};

const FOLDER: &str = "patches/argocd-helm";
const VARIANTS: [&[&str]; 6] = [
    &["values.yaml"],
    &["values-plain-container.yaml"],
    &["values.yaml", "values-oci-sources.yaml"],
    &["values-plain-container.yaml", "values-oci-sources.yaml"],
    &["values.yaml", "values-open-health.yaml"],
    &["values-plain-container.yaml", "values-oci-sources.yaml", "values-open-health.yaml"],
];

/// What the chart renders by default.
pub(crate) fn stock() -> Objects {
    Objects::parse(&read("tests/data/stock/argo-cd-chart-10.1.1/repo-server.yaml"))
}

/// What the chart makes of each way to give the files.
pub(crate) fn all() -> Vec<(String, Objects)> {
    let stock = stock();
    VARIANTS.iter().map(|files| (files.join(" "), rendered(&stock, files))).collect()
}

fn rendered(stock: &Objects, files: &[&str]) -> Objects {
    let mut objects = stock.clone();
    for file in files {
        merge(&mut objects, &read(&format!("{FOLDER}/{file}")), file);
    }
    objects
}

/// Puts the values of one file in.
pub(crate) fn merge(objects: &mut Objects, text: &str, file: &str) {
    let values = Objects::parse(text);
    let [values] = values.0.as_slice() else { panic!("{file}: one document") };
    known_keys(values, file);
    for object in &mut objects.0 {
        match object["kind"].as_str().unwrap() {
            "Deployment" => into_deployment(&mut object["spec"]["template"], &values["repoServer"]),
            "ServiceAccount" if values["repoServer"]["serviceAccount"].is_object() => {
                object["metadata"]["annotations"] =
                    values["repoServer"]["serviceAccount"]["annotations"].clone();
            }
            _ => {}
        }
    }
    if values["configs"].is_object() {
        objects.0.push(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "argocd-cmd-params-cm", "namespace": "argocd"},
            "data": values["configs"]["params"],
        }));
    }
    objects.0.extend(values["extraObjects"].as_array().into_iter().flatten().cloned());
}

/// Helm takes any key and says nothing of one that the chart does not know.
fn known_keys(values: &Value, file: &str) {
    let top = ["repoServer", "extraObjects", "configs"];
    let repo_server = [
        "env",
        "volumes",
        "volumeMounts",
        "initContainers",
        "extraContainers",
        "serviceAccount",
        "podLabels",
        "rbac",
    ];
    let unknown = |object: &Value, known: &[&str]| {
        let keys = object.as_object().into_iter().flatten().map(|(key, _)| key.clone());
        keys.filter(|key| !known.contains(&key.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(unknown(values, &top), Vec::<String>::new(), "{file}");
    assert_eq!(unknown(&values["configs"], &["params"]), Vec::<String>::new(), "{file}");
    assert_eq!(unknown(&values["repoServer"], &repo_server), Vec::<String>::new(), "{file}");
    assert_eq!(
        unknown(&values["repoServer"]["serviceAccount"], &["annotations"]),
        Vec::<String>::new(),
        "{file}"
    );
}

fn into_deployment(template: &mut Value, repo_server: &Value) {
    for (name, value) in repo_server["podLabels"].as_object().into_iter().flatten() {
        template["metadata"]["labels"][name] = value.clone();
    }
    let pod = &mut template["spec"];
    let main = &mut pod["containers"][0];
    extend(&mut main["env"], &repo_server["env"]);
    extend(&mut main["volumeMounts"], &repo_server["volumeMounts"]);
    extend(&mut pod["volumes"], &repo_server["volumes"]);
    extend(&mut pod["initContainers"], &repo_server["initContainers"]);
    extend(&mut pod["containers"], &repo_server["extraContainers"]);
}

pub(crate) fn extend(list: &mut Value, more: &Value) {
    list.as_array_mut().unwrap().extend(more.as_array().into_iter().flatten().cloned());
}

#[test]
fn repo_server_stays_first_and_reads_what_the_sidecar_writes() {
    for (files, objects) in all() {
        let pod = objects.pod("argocd-repo-server");
        let main = &pod["containers"][0];
        assert_eq!(main["name"], "repo-server", "{files}");
        let entry = |list: &Value, name: &str| {
            list.as_array().unwrap().iter().find(|entry| entry["name"] == name).cloned().unwrap()
        };
        let folder = "/var/run/ecr-sidecar";
        assert_eq!(entry(&main["env"], "DOCKER_CONFIG")["value"], folder, "{files}");
        let mount = json!({"name": "ecr-credentials", "mountPath": folder, "readOnly": true});
        assert_eq!(entry(&main["volumeMounts"], "ecr-credentials"), mount, "{files}");
        let (ours, _) = container(pod, "ecr-sidecar").unwrap();
        assert_eq!(
            entry(&ours["env"], "ECR_SIDECAR_DOCKER_CONFIG")["value"],
            format!("{folder}/config.json")
        );
        assert_eq!(entry(&ours["volumeMounts"], "ecr-credentials")["mountPath"], folder, "{files}");
    }
}

#[test]
fn the_pod_starts_without_the_secret_with_keys() {
    for (files, objects) in all() {
        let volumes = &objects.get("Deployment", "argocd-repo-server")["spec"]["template"]["spec"]["volumes"];
        let keys = volumes.as_array().unwrap().iter().find(|volume| volume["name"] == "ecr-sidecar-aws");
        assert_eq!(keys.unwrap()["secret"]["optional"], true, "{files}");
    }
}

#[test]
fn both_variants_have_the_same_container() {
    let all = all();
    let Some(((_, native), (_, plain))) = all.first().zip(all.get(1)) else { return };
    let of =
        |objects: &Objects| container(objects.pod("argocd-repo-server"), "ecr-sidecar").unwrap().0.clone();
    let mut native = of(native);
    native.as_object_mut().unwrap().remove("restartPolicy");
    assert_eq!(native, of(plain));
}

/// What `argocd/` was shown to do on a node, these do too: it is the same container, with a way to keys and to further
/// settings.
#[test]
fn the_container_is_that_of_the_kustomize_component() {
    let Some(build) = Build::patched(Product::ArgoCd) else { return };
    let by_component = build.objects();
    let ours =
        |objects: &Objects| container(objects.pod("argocd-repo-server"), "ecr-sidecar").unwrap().0.clone();
    let mut by_values = ours(&all()[0].1);
    let more = by_values.as_object_mut().unwrap();
    assert_eq!(
        more.remove("envFrom"),
        Some(json!([{"configMapRef": {"name": "ecr-sidecar", "optional": true}}]))
    );
    let drop =
        |list: &mut Value, name: &str| list.as_array_mut().unwrap().retain(|entry| entry["name"] != name);
    assert_eq!(more.remove("ports"), Some(json!([{"name": "ecr-sidecar", "containerPort": 9808}])));
    drop(&mut more["env"], "AWS_SHARED_CREDENTIALS_FILE");
    drop(&mut more["env"], "ECR_SIDECAR_HEALTH_LISTEN");
    drop(&mut more["volumeMounts"], "ecr-sidecar-aws");
    assert_eq!(by_values, ours(&by_component));
}
