//! The stock manifests with a copy of a folder of `patches/`, built as a user builds them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use test_support::{clean_command, files::overwrite, output, program};

/// This repository.
pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const DEADLINE: Duration = Duration::from_secs(60);

/// Whose stock manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Product {
    Flux,
    ArgoCd,
}

impl Product {
    pub(crate) const ALL: [Self; 2] = [Self::Flux, Self::ArgoCd];

    /// The folder of `patches/`.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Flux => "flux",
            Self::ArgoCd => "argocd",
        }
    }

    pub(crate) fn namespace(self) -> &'static str {
        match self {
            Self::Flux => "flux-system",
            Self::ArgoCd => "argocd",
        }
    }

    /// The Deployments that may get a sidecar, each with its main container.
    pub(crate) fn deployments(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Flux => &[("image-reflector-controller", "manager"), ("source-controller", "manager")],
            Self::ArgoCd => &[("argocd-repo-server", "argocd-repo-server")],
        }
    }

    /// Sets of components, one of each kind that a README speaks of, and all at once.
    pub(crate) fn choices(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Flux => &[
                &["image-reflector-controller", "sidecar", "irsa"],
                &["image-reflector-controller", "sidecar"],
                &["source-controller", "sidecar", "web-identity"],
                &["image-reflector-controller", "source-controller", "sidecar", "static-keys"],
                &["image-reflector-controller", "sidecar", "irsa", "several-accounts"],
                &["image-reflector-controller", "sidecar", "irsa", "open-health"],
                &["image-reflector-controller", "sidecar", "irsa", "openshift"],
                &["image-reflector-controller", "sidecar", "irsa", "plain-container"],
                &[
                    "image-reflector-controller",
                    "source-controller",
                    "sidecar",
                    "web-identity",
                    "several-accounts",
                    "open-health",
                    "openshift",
                    "plain-container",
                ],
            ],
            Self::ArgoCd => &[
                &["sidecar", "irsa"],
                &["sidecar"],
                &["sidecar", "web-identity", "oci-sources"],
                &["sidecar", "static-keys"],
                &["sidecar", "irsa", "several-accounts"],
                &["sidecar", "irsa", "open-health"],
                &["sidecar", "irsa", "openshift"],
                &["sidecar", "irsa", "plain-container"],
                &["sidecar", "web-identity", "oci-sources", "open-health", "openshift", "plain-container"],
            ],
        }
    }

    fn stock(self) -> &'static str {
        match self {
            Self::Flux => "tests/data/stock/flux-v2.9.4",
            Self::ArgoCd => "tests/data/stock/argo-cd-v3.5.1",
        }
    }
}

/// A folder that `kubectl kustomize` builds.
pub(crate) struct Build {
    folder: TempDir,
}

impl Build {
    /// The stock manifests alone. `None` when kubectl is not here.
    pub(crate) fn stock(product: Product) -> Option<Self> {
        program("kubectl")?;
        let build = Self { folder: tempfile::tempdir().unwrap() };
        let stock = Path::new(ROOT).join(product.stock());
        let mut names: Vec<_> = fs::read_dir(&stock)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.iter().for_each(|name| {
            fs::copy(stock.join(name), build.at(name)).unwrap();
        });
        let (namespace, names) = (product.namespace(), names.join(", "));
        build.write("kustomization.yaml", &format!("namespace: {namespace}\nresources: [{names}]\n"));
        Some(build)
    }

    /// With the copied folder of `patches/`, as it is.
    pub(crate) fn patched(product: Product) -> Option<Self> {
        let build = Self::stock(product)?;
        build.copy(&format!("patches/{}", product.folder()), "ecr-sidecar");
        build.append("kustomization.yaml", "components: [ecr-sidecar]\n");
        Some(build)
    }

    /// With these components and no others, by the lines of its `kustomization.yaml`.
    pub(crate) fn chosen(product: Product, components: &[&str]) -> Option<Self> {
        let build = Self::patched(product)?;
        build.edit("ecr-sidecar/kustomization.yaml", |text| {
            let lines = text.lines().map(|line| match choice(line) {
                Some(name) if components.contains(&name) => format!("  - {name}\n"),
                Some(name) => format!("  # - {name}\n"),
                None => format!("{line}\n"),
            });
            let text: String = lines.collect();
            for name in components {
                assert!(text.contains(&format!("\n  - {name}\n")), "{name} is no choice of\n{text}");
            }
            text
        });
        Some(build)
    }

    /// `standalone/deployment` in the folder `deployment`, with its one choice.
    pub(crate) fn open_standalone() -> Self {
        let build = Self { folder: tempfile::tempdir().unwrap() };
        build.copy("patches/standalone/deployment", "deployment");
        build.edit("deployment/kustomization.yaml", |text| {
            let chosen = text.replace("# components: [open-health]", "components: [open-health]");
            assert_ne!(chosen, text);
            chosen
        });
        build
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        overwrite(&self.at(name), text);
    }

    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.at(name)).unwrap();
        self.write(name, &change(text));
    }

    pub(crate) fn append(&self, name: &str, more: &str) {
        self.edit(name, |text| text + more);
    }

    /// Copies a file or folder of this repository.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        let mut command = Command::new("cp");
        command.arg("-r").arg(Path::new(ROOT).join(from)).arg(self.at(to));
        assert!(output(&mut command, DEADLINE).status.success(), "can't copy {from}");
    }

    /// What it builds, as YAML.
    #[track_caller]
    pub(crate) fn yaml(&self) -> String {
        kustomize(self.folder.path())
    }

    /// What it builds.
    #[track_caller]
    pub(crate) fn objects(&self) -> Objects {
        Objects::parse(&self.yaml())
    }
}

/// The component that a line of `kustomization.yaml` names, whether it is chosen or not.
pub(crate) fn choice(line: &str) -> Option<&str> {
    let name = line.strip_prefix("  - ").or_else(|| line.strip_prefix("  # - "))?;
    (!name.contains([':', '.'])).then_some(name)
}

/// `kubectl kustomize` of a folder.
#[track_caller]
pub(crate) fn kustomize(folder: &Path) -> String {
    let kubectl = program("kubectl").expect("the caller has seen to it");
    let output = output(clean_command(kubectl, folder).arg("kustomize").arg(folder), DEADLINE);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Kubernetes objects of one text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Objects(pub(crate) Vec<Value>);

impl Objects {
    #[track_caller]
    pub(crate) fn parse(yaml: &str) -> Self {
        let objects: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
        Self(objects.into_iter().filter(|object| !object.is_null()).collect())
    }

    pub(crate) fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.0.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
    }

    #[track_caller]
    pub(crate) fn get(&self, kind: &str, name: &str) -> &Value {
        self.find(kind, name).unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// The pod spec of a Deployment.
    #[track_caller]
    pub(crate) fn pod(&self, deployment: &str) -> &Value {
        &self.get("Deployment", deployment)["spec"]["template"]["spec"]
    }
}

/// The container of that name in a pod spec, and whether it is among the init containers.
pub(crate) fn container<'a>(pod: &'a Value, name: &str) -> Option<(&'a Value, bool)> {
    let among = |key: &str| {
        let list = pod[key].as_array()?;
        list.iter().find(|container| container["name"] == name)
    };
    among("initContainers").map(|c| (c, true)).or_else(|| Some((among("containers")?, false)))
}

/// A file of this repository.
#[track_caller]
pub(crate) fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}
