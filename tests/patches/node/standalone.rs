//! `standalone/`: the Deployment, the CronJob and the init container, by the commands of their README.

use std::path::Path;

use serde_json::{Value, json};
use test_support::wait_for;

use crate::{
    build::{Objects, ROOT, kustomize, read},
    node::{
        consumers::HOST,
        scene::{DEADLINE, Scene},
    },
};

/// What the README says of a cluster without the webhook.
fn with_token(mut objects: Objects) -> Objects {
    let patch = read("patches/flux/web-identity/token.yaml")
        .replace("from settings.yaml", "arn:aws:iam::123456789012:role/ecr-pull");
    let patch = Objects::parse(&patch);
    let patch = &patch.0[0]["spec"]["template"]["spec"];
    for object in &mut objects.0 {
        let pod = match object["kind"].as_str() {
            Some("Deployment" | "Job") => &mut object["spec"]["template"]["spec"],
            Some("CronJob") => &mut object["spec"]["jobTemplate"]["spec"]["template"]["spec"],
            _ => continue,
        };
        let key = if pod["initContainers"].is_null() { "containers" } else { "initContainers" };
        let more = &patch["initContainers"][0];
        for list in ["env", "volumeMounts"] {
            extend(&mut pod[key][0][list], &more[list]);
        }
        extend(&mut pod["volumes"], &patch["volumes"]);
    }
    objects
}

fn extend(list: &mut Value, more: &Value) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().unwrap().extend(more.as_array().unwrap().iter().cloned());
}

fn built(folder: &str) -> Objects {
    with_token(Objects::parse(&kustomize(&Path::new(ROOT).join("patches/standalone").join(folder))))
}

#[test]
fn one_pod_keeps_a_secret_in_each_namespace_with_the_label() {
    let Some(scene) = Scene::new("ecr-sidecar", &["ecr-sidecar:ecr-sidecar"]) else { return };
    scene.apply_changed(built("deployment"));
    scene.roll_out("ecr-sidecar");
    let label = |value: &str| scene.node.kubectl(["label", "--overwrite", "namespace", "labelled", value]);
    scene.node.namespace("labelled");
    label("ecr=enabled");
    let secret = || scene.node.get("secret", "labelled", "ecr-credentials");
    wait_for("the Secret of the new namespace", DEADLINE, || secret().map(|_| ()));
    let pod = "app.kubernetes.io/name=ecr-sidecar";
    assert!(scene.ask(pod, &["health", "ready"]).contains("ok"), "{}", scene.ask(pod, &["health", "ready"]));
    scene.run_of_readme("patches/standalone/README.md", "**Verify:**");
    label("ecr=disabled");
    wait_for("its end, by prune", DEADLINE, || secret().is_none().then_some(()));
}

#[test]
fn a_job_of_the_cronjob_renews_the_secret_and_an_init_container_writes_a_file() {
    // A namespace of its own: what is Flux's is another test's.
    let Some(scene) = Scene::new("jobs", &["jobs:ecr-sidecar"]) else { return };
    let mut objects = built("cronjob");
    let in_jobs =
        |object: &Value| serde_json::from_str(&object.to_string().replace("flux-system", "jobs")).unwrap();
    objects.0 = objects.0.iter().map(in_jobs).collect();
    scene.apply_changed(objects);
    scene.run("kubectl -n jobs create job --from=cronjob/ecr-sidecar ecr-sidecar-now");
    scene.run("kubectl -n jobs wait --for=condition=complete --timeout=100s job/ecr-sidecar-now");
    assert_eq!(scene.hosts_in_secret("ecr-credentials"), [HOST]);

    let mut job = with_token(Objects::parse(&read("patches/standalone/init-container/job.yaml")));
    job.0[0]["metadata"]["namespace"] = json!("jobs");
    scene.apply_changed(job);
    scene.run("kubectl -n jobs wait --for=condition=complete --timeout=100s job/pulls-a-chart");
    assert!(scene.logs("job-name=pulls-a-chart", "helm").contains("Digest: sha256:"));
}
