//! OpenShift: `argocd-operator/`, and what the others need there.

use std::time::Duration;

use serde_json::{Value, json};
use test_support::{ApiServer, wait_for};

use crate::{
    build::{Build, Objects, Product, container, read},
    containers::Ours,
    kustomize::operator_build,
    scc, values,
};

const DEADLINE: Duration = Duration::from_secs(60);
const FOLDER: &str = "patches/argocd-operator";
const REPO_SERVER: &str = "argocd-repo-server";
const REFLECTOR: &str = "image-reflector-controller";

/// What the Argo CD Operator makes of `spec.repo`, with the other objects: `controllers/argocd/repo_server.go` of its
/// repository. The rest of the pod is that of Argo CD's own manifests.
pub(crate) fn by_argocd_operator() -> Option<Objects> {
    let mut objects = Build::stock(Product::ArgoCd)?.objects();
    objects.0.retain(|object| object["kind"] == "Deployment");
    let repo =
        Objects::parse(&read(&format!("{FOLDER}/argocd.yaml"))).get("ArgoCD", "argocd")["spec"]["repo"]
            .clone();
    let pod = &mut objects.0[0]["spec"]["template"]["spec"];
    pod["automountServiceAccountToken"] = repo["mountsatoken"].clone();
    pod["serviceAccountName"] = repo["serviceaccount"].clone();
    values::extend(&mut pod["containers"][0]["env"], &repo["env"]);
    values::extend(&mut pod["containers"][0]["volumeMounts"], &repo["volumeMounts"]);
    values::extend(&mut pod["volumes"], &repo["volumes"]);
    values::extend(&mut pod["initContainers"], &repo["initContainers"]);
    objects.0.extend(Objects::parse(&read(&format!("{FOLDER}/service-account.yaml"))).0);
    Some(objects)
}

/// The Argo CD Operator's resource, of which its definition here has `spec.repo`.
pub(crate) fn apply_definition(server: &ApiServer) {
    let text = read("tests/data/stock/argocd-operator-2026-07/argocds-crd-spec-repo.yaml");
    let mut definition = Objects::parse(&text).0.swap_remove(0);
    let spec = definition.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
    // A rule about fields that are left out.
    spec.as_object_mut().unwrap().remove("x-kubernetes-validations").unwrap();
    server.apply_with(["--server-side"], &definition.to_string());
    let one = "{apiVersion: argoproj.io/v1beta1, kind: ArgoCD, metadata: {name: probe, namespace: default}}";
    wait_for("the definition to count", DEADLINE, || {
        server.apply_with(["--dry-run=server"], one).status.success().then_some(())
    });
}

#[test]
fn the_operators_definition_has_every_field_of_the_resource() {
    let Some(server) = ApiServer::shared() else { return };
    apply_definition(&server);
    server.apply("{apiVersion: v1, kind: Namespace, metadata: {name: argocd}}");
    let text = read(&format!("{FOLDER}/argocd.yaml"));
    let apply = |text: &str| {
        let answer = server.apply_with(["--dry-run=server", "--validate=strict"], text);
        (answer.status.success(), String::from_utf8(answer.stderr).unwrap())
    };
    let (taken, said) = apply(&text);
    assert!(taken && !said.contains("Warning"), "{said}");
    let (taken, said) = apply(&text.replace("mountsatoken", "mountSAToken"));
    assert!(!taken && said.contains("mountSAToken"), "{said}");
}

/// What `argocd/` was shown to do on a node, this does too; its uid is the cluster's choice, hence the mode.
#[test]
fn the_operators_container_is_that_of_the_kustomize_component() {
    let Some(by_operator) = by_argocd_operator() else { return };
    let by_component = Build::chosen(Product::ArgoCd, &["sidecar", "web-identity", "openshift"]).unwrap();
    let [mut by_operator, by_component] = [by_operator, by_component.objects()].map(|objects| {
        let mut pod = objects.pod(REPO_SERVER).clone();
        for container in pod["initContainers"].as_array_mut().unwrap() {
            let env = container["env"].as_array_mut().into_iter().flatten();
            let mut env: Vec<_> = env.map(|entry| entry.clone()).collect();
            env.sort_by_key(|entry| entry["name"].to_string());
            container["env"] = json!(env);
        }
        for (list, key) in [("initContainers", "name"), ("volumes", "name")] {
            pod[list].as_array_mut().unwrap().sort_by_key(|entry| entry[key].to_string());
        }
        pod
    });
    let ours = by_operator["initContainers"].as_array_mut().unwrap().iter_mut();
    let ours = ours.into_iter().find(|container| container["name"] == "ecr-sidecar").unwrap();
    let mode = json!({"name": "ECR_SIDECAR_FILE_MODE", "value": "0644"});
    let env = ours["env"].as_array_mut().unwrap();
    assert!(env.contains(&mode));
    env.retain(|entry| *entry != mode);
    for key in ["initContainers", "volumes", "automountServiceAccountToken", "serviceAccountName"] {
        assert_eq!(by_operator[key], by_component[key], "{key}");
    }
}

/// The patch for `oci://` sources makes what the component of that name makes.
#[test]
fn the_operators_patch_for_oci_sources_is_that_of_the_kustomize_component() {
    let patch = Objects::parse(&read(&format!("{FOLDER}/oci-sources.yaml"))).0.swap_remove(0);
    let added = |path: &str| {
        let operation = patch.as_array().unwrap().iter().find(|it| it["path"] == path);
        json!([operation.unwrap_or_else(|| panic!("{patch}"))["value"]])
    };
    let token = Objects::parse(&read("patches/argocd/oci-sources/token.yaml"));
    let pod = token.pod(REPO_SERVER);
    let (ours, _) = container(pod, "ecr-sidecar").unwrap();
    assert_eq!(added("/spec/repo/initContainers/0/env/-"), ours["env"]);
    assert_eq!(added("/spec/repo/initContainers/0/volumeMounts/-"), ours["volumeMounts"]);
    assert_eq!(added("/spec/repo/volumes/-"), pod["volumes"]);
}

#[test]
fn no_pod_with_a_sidecar_for_openshift_is_rejected_by_its_constraints() {
    let argocd = |components: &[&str]| Some(Build::chosen(Product::ArgoCd, components)?.objects());
    let Some(pinned) = argocd(&["sidecar", "irsa"]) else { return };
    let rejected = scc::restricted_v2(pinned.pod(REPO_SERVER)).unwrap_err();
    assert_eq!(rejected, "ecr-sidecar: runAsUser 999 is not in the range");
    for components in [
        &["sidecar", "irsa", "openshift"][..],
        &["sidecar", "static-keys", "oci-sources", "openshift"],
        &["sidecar", "web-identity", "several-accounts", "open-health", "openshift", "plain-container"],
    ] {
        accepted(&argocd(components).unwrap(), REPO_SERVER);
    }
    accepted(&by_argocd_operator().unwrap(), REPO_SERVER);

    // Without the two lines that a comment names.
    for file in ["values.yaml", "values-plain-container.yaml"] {
        let mut objects = values::stock();
        values::merge(&mut objects, &without_pinned_uid(&format!("patches/argocd-helm/{file}")), file);
        accepted(&objects, REPO_SERVER);
    }
    let job = Objects::parse(&without_pinned_uid("patches/standalone/init-container/job.yaml"));
    scc::restricted_v2(&job.get("Job", "pulls-a-chart")["spec"]["template"]["spec"]).unwrap();
    // The standalone ones, and those of the chart.
    let standalone = |ours: &&Ours| ["deployment", "cronjob"].iter().any(|it| ours.place.starts_with(it));
    let standalone: Vec<_> = Ours::all().iter().filter(standalone).collect();
    assert!(standalone.len() > 5, "{}", standalone.len());
    for ours in standalone {
        scc::restricted_v2(&ours.pod).unwrap_or_else(|said| panic!("{}: {said}", ours.place));
    }
}

/// The file without the two lines that its comment has one remove on OpenShift.
fn without_pinned_uid(file: &str) -> String {
    let text = read(file);
    let (_, of_comment) = text.split_once("On OpenShift,").unwrap_or_else(|| panic!("{file} names no lines"));
    let mut lines = of_comment.lines().skip_while(|line| !line.contains("runAs"));
    let pinned = [lines.next().unwrap(), lines.next().unwrap()];
    assert!(pinned[0].contains("runAsUser: ") && pinned[1].contains("runAsGroup: "), "{file}: {pinned:?}");
    text.replacen(&format!("{}\n{}\n", pinned[0], pinned[1]), "", 1)
}

#[track_caller]
fn accepted(objects: &Objects, deployment: &str) {
    scc::restricted_v2(objects.pod(deployment)).unwrap();
}

/// The Flux Operator's patches with `cluster.type: openshift` (`internal/builder/profiles.go` of its repository), which
/// come before those of a FluxInstance.
const FLUX_OPERATOR: &str = r#"
- {target: {kind: Deployment}, patch: '[{"op": "remove", "path": "/spec/template/spec/securityContext"},
  {"op": "remove", "path": "/spec/template/spec/containers/0/securityContext/seccompProfile"},
  {"op": "remove", "path": "/spec/template/spec/containers/0/securityContext/runAsNonRoot"}]'}
"#;

/// The patches of Flux's instructions for OpenShift, which grant its controllers the SCC `nonroot`.
const FLUX: &str = "
patches:
  - target: {kind: Deployment}
    patch: |
      apiVersion: apps/v1
      kind: Deployment
      metadata: {name: all}
      spec:
        template:
          spec:
            securityContext: {$patch: delete}
            containers:
              - name: manager
                securityContext: {runAsUser: 65534, seccompProfile: {$patch: delete}}
";

#[test]
fn flux_with_a_sidecar_is_taken_as_its_instructions_install_it() {
    let by_instructions = |components: &[&str]| {
        let build = Build::chosen(Product::Flux, components)?;
        build.append("kustomization.yaml", FLUX);
        Some(build.objects())
    };
    let Some(usual) = by_instructions(&["image-reflector-controller", "sidecar", "irsa"]) else { return };
    let rejected = scc::nonroot(usual.pod(REFLECTOR)).unwrap_err();
    assert_eq!(rejected, "ecr-sidecar: seccomp may not be set");
    for more in [&["openshift"][..], &["several-accounts", "open-health", "openshift", "plain-container"]] {
        let components = [&["image-reflector-controller", "sidecar", "web-identity"], more].concat();
        scc::nonroot(by_instructions(&components).unwrap().pod(REFLECTOR)).unwrap();
    }
    let operator = operator_build(|patches| {
        let first: Vec<Value> = serde_saphyr::from_str(FLUX_OPERATOR).unwrap();
        patches.splice(0..0, first);
    });
    accepted(&operator.unwrap().objects(), REFLECTOR);
}
