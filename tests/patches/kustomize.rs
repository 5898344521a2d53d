//! `flux/`, `flux-operator/` and `argocd/`: what is built.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};

use crate::build::{Build, Objects, Product, ROOT, choice, container, read};

#[test]
fn every_choice_leaves_the_main_container_first_and_all_else_as_it_was() {
    for product in Product::ALL {
        let Some(stock) = Build::stock(product) else { return };
        let stock = stock.objects();
        for components in product.choices() {
            let built = Build::chosen(product, components).unwrap().objects();
            let mut injected = 0;
            for (name, main) in product.deployments() {
                if container(built.pod(name), "ecr-sidecar").is_none() {
                    assert_eq!(built.pod(name), stock.pod(name), "{components:?}");
                    continue;
                }
                injected += 1;
                let pod = built.pod(name);
                assert_eq!(pod["containers"][0]["name"], *main, "{components:?}");
                assert_eq!(
                    without_ours(pod.clone()),
                    without_ours(stock.pod(name).clone()),
                    "{components:?}"
                );
                assert_eq!(in_main(pod), ["/var/run/ecr-sidecar"; 2], "{components:?}");
            }
            assert!(injected > 0, "{components:?}");
            untouched(&stock, &built, product);
        }
    }
}

/// The pod without what `patches/` adds to it.
fn without_ours(mut pod: Value) -> Value {
    let drop = |list: &mut Value, key: &str, ours: &[&str]| {
        if let Some(list) = list.as_array_mut() {
            list.retain(|entry| !ours.iter().any(|name| entry[key] == **name));
        }
    };
    let volumes = ["ecr-credentials", "aws-token", "aws-keys", "ecr-sidecar-config", "kubernetes-api"];
    drop(&mut pod["volumes"], "name", &volumes);
    drop(&mut pod["containers"], "name", &["ecr-sidecar"]);
    drop(&mut pod["containers"][0]["env"], "name", &["DOCKER_CONFIG"]);
    drop(&mut pod["containers"][0]["volumeMounts"], "name", &["ecr-credentials"]);
    drop(&mut pod["initContainers"], "name", &["ecr-sidecar"]);
    if pod["initContainers"].as_array().is_none_or(Vec::is_empty) {
        pod.as_object_mut().unwrap().remove("initContainers");
    }
    pod
}

/// What the main container has of ours: what it reads, and where the volume is, read-only.
fn in_main(pod: &Value) -> [&str; 2] {
    let main = &pod["containers"][0];
    let find = |list: &'static str, name: &'static str| {
        main[list].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap()
    };
    let mount = find("volumeMounts", "ecr-credentials");
    assert_eq!(mount["readOnly"], true);
    [find("env", "DOCKER_CONFIG")["value"].as_str().unwrap(), mount["mountPath"].as_str().unwrap()]
}

/// All objects of the stock are there, and those without a sidecar are as they were.
#[track_caller]
fn untouched(stock: &Objects, built: &Objects, product: Product) {
    let names: Vec<_> = product.deployments().iter().map(|(name, _)| *name).collect();
    for object in &stock.0 {
        let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        let now = built.get(kind, name);
        if !(["Deployment", "ServiceAccount"].contains(&kind) && names.contains(&name)) {
            assert_eq!(now, object);
        }
    }
}

#[test]
fn every_component_is_a_choice_and_is_tried() {
    for product in Product::ALL {
        let folder = format!("patches/{}", product.folder());
        let text = read(&format!("{folder}/kustomization.yaml"));
        let offered: BTreeSet<_> = text.lines().filter_map(choice).map(str::to_owned).collect();
        let there = fs::read_dir(format!("{ROOT}/{folder}")).unwrap();
        let there: BTreeSet<_> = there
            .map(Result::unwrap)
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        assert_eq!(offered, there);
        let tried: BTreeSet<_> =
            product.choices().iter().copied().flatten().map(|name| (*name).to_owned()).collect();
        assert_eq!(tried, there);
        let readme = read(&format!("{folder}/README.md"));
        for name in
            there.iter().filter(|name| !["sidecar", "image-reflector-controller"].contains(&name.as_str()))
        {
            assert!(readme.contains(&format!("| `{name}` |")), "{folder}/README.md has no {name}");
        }
    }
}

#[test]
fn the_folder_as_it_is_is_the_first_choice() {
    for product in Product::ALL {
        let Some(build) = Build::patched(product) else { return };
        assert_eq!(build.yaml(), Build::chosen(product, product.choices()[0]).unwrap().yaml());
    }
}

#[test]
fn a_later_patch_on_the_first_container_is_the_controllers() {
    for product in Product::ALL {
        let (name, main) = product.deployments()[0];
        for components in product.choices() {
            let Some(build) = Build::chosen(product, components) else { return };
            if container(build.objects().pod(name), "ecr-sidecar").is_none() {
                continue;
            }
            build.append(
                "kustomization.yaml",
                &format!(
                    "patches: [{{target: {{kind: Deployment, name: {name}}}, \
                     patch: '[{{\"op\": \"add\", \"path\": \"/spec/template/spec/containers/0/args/-\", \"value\": \"--late\"}}]'}}]\n"
                ),
            );
            let built = build.objects();
            let (main, _) = container(built.pod(name), main).unwrap();
            assert_eq!(main["args"].as_array().unwrap().last().unwrap(), "--late", "{components:?}");
        }
    }
}

#[test]
fn the_two_values_reach_every_place() {
    for product in Product::ALL {
        for identity in ["irsa", "web-identity"] {
            let mut components = product.choices()[0].to_vec();
            components.retain(|name| *name != "irsa");
            components.push(identity);
            let Some(build) = Build::chosen(product, &components) else { return };
            build.edit("ecr-sidecar/settings.yaml", |text| {
                text.replace("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "public.ecr.aws")
                    .replace("arn:aws:iam::123456789012:role/ecr-pull", "arn:aws:iam::111122223333:role/mine")
            });
            let text = build.yaml();
            assert!(text.contains("value: public.ecr.aws"), "{text}");
            assert!(text.contains(": arn:aws:iam::111122223333:role/mine"), "{text}");
            for left in ["from settings.yaml", "role/ecr-pull", "ecr-sidecar-settings"] {
                assert!(!text.contains(left), "{left} is left");
            }
        }
    }
}

#[test]
fn a_digest_has_its_place() {
    let digest = format!("sha256:{}", "0".repeat(64));
    for product in Product::ALL {
        let Some(build) = Build::patched(product) else { return };
        build.edit("ecr-sidecar/kustomization.yaml", |text| {
            let (before, rest) = text.split_once("    # digest: sha256:…").expect("a place for the digest");
            let (_, after) = rest.split_once('\n').unwrap();
            format!("{before}    digest: {digest}\n{after}")
        });
        let built = build.objects();
        let (ours, _) = container(built.pod(product.deployments()[0].0), "ecr-sidecar").unwrap();
        let image = ours["image"].as_str().unwrap();
        assert!(image.ends_with(&format!("@{digest}")), "{image}");
    }
}

/// The patches of a FluxInstance are kustomize's own.
#[test]
fn the_flux_operators_patches_make_the_same_pod() {
    let Some(operator) = operator_build(|_| {}) else { return };
    let by_operator = operator.objects();
    let by_component = Build::patched(Product::Flux).unwrap().objects();
    let name = "image-reflector-controller";
    assert_eq!(by_operator.pod(name), by_component.pod(name));
    let annotations =
        |objects: &Objects| objects.get("ServiceAccount", name)["metadata"]["annotations"].clone();
    assert_eq!(annotations(&by_operator), annotations(&by_component));
    for (kind, name) in [
        ("Role", "ecr-sidecar-flux-system-image-reflector-controller"),
        ("RoleBinding", "ecr-sidecar-flux-system-image-reflector-controller"),
        ("Secret", "ecr-credentials"),
    ] {
        assert_eq!(by_operator.get(kind, name), by_component.get(kind, name));
    }
}

#[test]
fn the_flux_operator_takes_the_components_files_as_further_patches() {
    for (file, component) in
        [("web-identity/token.yaml", "web-identity"), ("static-keys/keys.yaml", "static-keys")]
    {
        let text = read(&format!("patches/flux/{file}"))
            .replace("from settings.yaml", "arn:aws:iam::123456789012:role/ecr-pull");
        let Some(operator) = operator_build(|patches| {
            patches.pop(); // that for the ServiceAccount
            let target = patches[0]["target"].clone();
            patches.push(json!({"target": target, "patch": text}));
        }) else {
            return;
        };
        let components = ["image-reflector-controller", "sidecar", component];
        let by_component = Build::chosen(Product::Flux, &components).unwrap().objects();
        let name = "image-reflector-controller";
        assert_eq!(operator.objects().pod(name), by_component.pod(name));
    }
}

/// The stock with the patches of the FluxInstance, as the operator builds it, with the other objects.
pub(crate) fn operator_build(change: impl FnOnce(&mut Vec<Value>)) -> Option<Build> {
    let build = Build::stock(Product::Flux)?;
    let instance = Objects::parse(&read("patches/flux-operator/flux-instance.yaml"));
    let instance = instance.get("FluxInstance", "flux");
    let mut patches = instance["spec"]["kustomize"]["patches"].as_array().unwrap().clone();
    change(&mut patches);
    build.copy("patches/flux-operator/secret-and-rbac.yaml", "secret-and-rbac.yaml");
    build.edit("kustomization.yaml", |text| {
        text.replace("resources: [", "resources: [secret-and-rbac.yaml, ")
            + &format!("patches: {}\n", Value::from(patches))
    });
    Some(build)
}
