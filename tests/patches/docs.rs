//! What the READMEs show, run in a folder as the text supposes it: a `console` block prints what it shows, the commands of
//! a `sh` block are taken by a real API server, where node/ does not run them on a real node, or iam.rs against IAM.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use ecr_emulator::{ACCESS_KEY_ID, Emulator, SECRET_ACCESS_KEY, Settings};
use tempfile::TempDir;
use test_support::{ApiServer, clean_command, output, program};

use crate::{
    build::{Build, Product, ROOT, read},
    containers::BINARY,
};

/// A folder with a clone of this repository, a repository of Flux's, and Argo CD's plain install.
fn surroundings() -> Option<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    symlink(ROOT, at("ecr-sidecar")).unwrap();
    fs::create_dir_all(at("fleet/clusters/my-cluster")).unwrap();
    let flux = Build::stock(Product::Flux)?;
    flux.write("gotk-components.yaml", &flux.yaml());
    let fleet = at("fleet/clusters/my-cluster/flux-system");
    fs::create_dir(&fleet).unwrap();
    fs::copy(flux.at("gotk-components.yaml"), fleet.join("gotk-components.yaml")).unwrap();
    write(
        &fleet.join("gotk-sync.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sync, namespace: flux-system}\n",
    );
    let kustomization = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
                         resources:\n- gotk-components.yaml\n- gotk-sync.yaml\n";
    write(&fleet.join("kustomization.yaml"), kustomization);
    let argocd = Build::stock(Product::ArgoCd)?;
    fs::create_dir(at("argocd")).unwrap();
    for name in ["kustomization.yaml", "repo-server.yaml"] {
        fs::copy(argocd.at(name), at("argocd").join(name)).unwrap();
    }
    Some(folder)
}

#[expect(clippy::disallowed_methods, reason = "nobody reads it meanwhile")]
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

/// The commands of all `console` blocks, each with what is shown of its output.
fn commands(markdown: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for block in markdown.split("```console\n").skip(1) {
        let (block, _) = block.split_once("```").expect("the end of the block");
        for line in block.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command.to_owned(), String::new())),
                (None, Some((_, shown))) => *shown += &format!("{line}\n"),
                (None, None) => panic!("a block begins with a command: {line}"),
            }
        }
    }
    commands
}

/// What each command prints, in one shell.
fn run(commands: &[(String, String)], start: &Path) -> Vec<String> {
    const END: &str = "--- end of command";
    let script: String =
        commands.iter().map(|(command, _)| format!("{command}\nprintf '%s\\n' '{END}'\n")).collect();
    let mut shell = clean_command("bash", start);
    shell.args(["-euc", &script]).current_dir(start);
    let done = output(shell.env("PATH", path()), Duration::from_secs(120));
    let printed = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{printed}\n{}", String::from_utf8_lossy(&done.stderr));
    printed.split(&format!("{END}\n")).map(str::to_owned).collect()
}

#[test]
fn what_the_readmes_show_is_what_is_printed() {
    for (readme, start, least) in [
        ("README.md", "", 9),
        ("patches/flux/README.md", "", 6),
        ("patches/argocd/README.md", "", 9),
        ("patches/argocd-helm/README.md", "", 2),
        ("patches/standalone/README.md", "ecr-sidecar/patches/standalone", 2),
    ] {
        let Some(folder) = surroundings() else { return };
        let mut start = folder.path().join(start);
        if start.ends_with("standalone") {
            let copy = folder.path().join("standalone");
            let mut cp = std::process::Command::new("cp");
            assert!(output(cp.arg("-r").arg(&start).arg(&copy), Duration::from_secs(60)).status.success());
            start = copy;
        }
        let commands = commands(&read(readme));
        assert!(commands.len() >= least, "{readme}: {} commands", commands.len());
        for ((command, shown), printed) in commands.iter().zip(run(&commands, &start)) {
            assert_eq!(printed, *shown, "{readme}: {command}");
        }
    }
}

/// The blocks of these READMEs that are run elsewhere: on a node, whose pods they ask, or by the AWS CLI.
const ELSEWHERE: [(&str, &str); 3] = [
    ("rollout status deployment/image-reflector-controller", "node/flux.rs"),
    ("rollout status deployment/argocd-repo-server", "node/argocd.rs"),
    ("rollout status deployment/ecr-sidecar", "node/standalone.rs"),
];

#[test]
fn what_the_readmes_tell_to_apply_is_taken_and_undone() {
    let Some(server) = ApiServer::start() else { return };
    let Some(folder) = surroundings() else { return };
    let at = |name: &str| folder.path().join(name);
    server.apply(
        "{apiVersion: v1, kind: Namespace, metadata: {name: flux-system}}\n---\n\
         {apiVersion: v1, kind: Namespace, metadata: {name: argocd}}\n",
    );
    let shell = |readme: &str, from: &str, to: &str, run: &str| {
        let script = format!("cp -r ecr-sidecar/{from} {to}; cd {to}\n{run}");
        let done = bash(&script, folder.path(), &server, &[]);
        assert!(done.status.success(), "{readme}: {run}\n{}", String::from_utf8_lossy(&done.stderr));
    };
    let blocks = |readme: &str| {
        let elsewhere = |block: &String| ELSEWHERE.iter().any(|(part, _)| block.contains(part));
        let (elsewhere, here): (Vec<_>, Vec<_>) = sh_blocks(&read(readme)).into_iter().partition(elsewhere);
        assert_eq!(elsewhere.len(), 1, "{readme}");
        here
    };

    for (product, least) in [(Product::Flux, 2), (Product::ArgoCd, 1)] {
        let readme = format!("patches/{}/README.md", product.folder());
        let place = match product {
            Product::Flux => "fleet/clusters/my-cluster/flux-system",
            Product::ArgoCd => "argocd",
        };
        let blocks = blocks(&readme);
        assert!(blocks.len() >= least, "{readme}");
        let kustomization = at(place).join("kustomization.yaml");
        let stock = fs::read_to_string(&kustomization).unwrap();
        let component = format!("patches/{}", product.folder());
        write(&kustomization, &format!("{stock}components: [ecr-sidecar]\n"));
        shell(&readme, &component, &format!("{place}/ecr-sidecar"), &format!("cd ..\n{}", blocks[0]));
        write(&kustomization, &stock);
        for undo in &blocks[1..] {
            shell(&readme, &component, &format!("{place}/unused"), &format!("cd ..\n{undo}"));
            assert_eq!(server.get("secret", "flux-system", "ecr-credentials"), None);
        }
    }

    let readme = "patches/standalone/README.md";
    for block in blocks(readme) {
        shell(
            readme,
            "patches/standalone",
            "applied",
            &format!("cd ../ecr-sidecar/patches/standalone\n{block}"),
        );
    }
    assert_eq!(server.get("deployment", "ecr-sidecar", "ecr-sidecar"), None);

    server.apply(FLUX_INSTANCE);
    let readme = "patches/flux-operator/README.md";
    for block in blocks(readme) {
        shell(
            readme,
            "patches/flux-operator",
            "operator",
            &format!("cd ../ecr-sidecar/patches/flux-operator\n{block}"),
        );
    }
    assert!(server.get("fluxinstance", "flux-system", "flux").is_some());
    assert_eq!(server.get("secret", "flux-system", "ecr-credentials"), None);

    helm_takes_the_values(&blocks("patches/argocd-helm/README.md"), &folder, &server);
}

/// The Flux Operator's resource, of which the API server here knows no more than the name.
const FLUX_INSTANCE: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fluxinstances.fluxcd.controlplane.io}
spec:
  group: fluxcd.controlplane.io
  names: {kind: FluxInstance, plural: fluxinstances, singular: fluxinstance}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

/// A chart in the place of argo-cd, which is not at hand: it renders the same keys, by the same functions.
fn helm_takes_the_values(blocks: &[String], folder: &TempDir, server: &ApiServer) {
    let (Some(helm), [upgrade]) = (program("helm3"), blocks) else { return };
    let chart = folder.path().join("helm/argo/argo-cd");
    fs::create_dir_all(chart.join("templates")).unwrap();
    write(&chart.join("Chart.yaml"), "apiVersion: v2\nname: argo-cd\nversion: 9.0.0\n");
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: rendered}\ndata:\n  pod: |\n\
        {{- range $key := list \"env\" \"volumes\" \"volumeMounts\" \"initContainers\" \"extraContainers\" }}\n\
        {{- with index $.Values.repoServer $key }}\n    {{ $key }}:\n{{ toYaml . | indent 6 }}\n{{- end }}\n{{- end }}\n\
        {{ range .Values.extraObjects }}\n---\n{{ tpl (toYaml .) $ }}\n{{ end }}\n";
    write(&chart.join("templates/rendered.yaml"), template);
    for value in ["values.yaml", "values-plain-container.yaml"] {
        let more = if value == "values.yaml" { " -f values-oci-sources.yaml" } else { "" };
        let upgrade = upgrade.trim().replace("-f values.yaml", &format!("-f {value}{more}"));
        let script = format!(
            "ln -sf '{}' helm/helm; PATH=$PWD/helm:$PATH; cp ecr-sidecar/patches/argocd-helm/*.yaml helm; cd helm\n\
             helm status argocd -n argocd >/dev/null 2>&1 || helm install argocd argo/argo-cd -n argocd --set repoServer.env=null\n\
             {upgrade}",
            helm.display()
        );
        let done = bash(&script, folder.path(), server, &[]);
        assert!(done.status.success(), "{upgrade}: {}", String::from_utf8_lossy(&done.stderr));
        let rendered = server.get("configmap", "argocd", "rendered").unwrap();
        let text = rendered["data"]["pod"].as_str().unwrap();
        assert!(text.contains("ecr-sidecar") && text.contains("defaultMode: 292"), "{text}");
    }
    assert!(server.get("role", "argocd", "ecr-sidecar-argocd-argocd-repo-server").is_some());
}

#[test]
fn the_laptops_commands_work() {
    let (Some(helm), Some(server)) = (program("helm4"), ApiServer::shared()) else { return };
    let aws = Emulator::start(Settings::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join(".aws")).unwrap();
    let keys =
        format!("[me]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n");
    write(&folder.path().join(".aws/credentials"), &keys);
    let readme = read("README.md");
    let (_, text) = readme.split_once("Once, on a laptop").unwrap();
    let block = sh_blocks(text).swap_remove(0);
    let (install, block) = block.split_once('\n').unwrap();
    assert_eq!(install, "cargo install --path .");
    // Whatever name is asked for, it stays on this machine.
    let ca = aws.ca_file().display().to_string();
    let proxy = aws.proxy();
    let environment = [("HTTPS_PROXY", proxy.as_str()), ("AWS_CA_BUNDLE", &ca), ("SSL_CERT_FILE", &ca)];
    let chart = block.replace("charts/app", "charts/hello");
    let script = format!("mkdir bin; ln -s '{}' bin/helm; PATH=$PWD/bin:$PATH\n{chart}", helm.display());
    let done = bash(&script, folder.path(), &server, &environment);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(folder.path().join("hello-1.0.0.tgz").exists());
}

fn sh_blocks(markdown: &str) -> Vec<String> {
    let blocks = markdown.split("```sh\n").skip(1);
    blocks.map(|block| block.split_once("```").expect("the end of the block").0.to_owned()).collect()
}

/// A shell in `start`, with the programs of the text and the API server's admin.
fn bash(script: &str, start: &Path, server: &ApiServer, more: &[(&str, &str)]) -> std::process::Output {
    let mut shell = clean_command("bash", start);
    // There is no controller here that ends a namespace.
    let delete =
        "kubectl() { if [[ $1 == delete ]]; then set -- \"$@\" --wait=false; fi; command kubectl \"$@\"; }";
    shell.args(["-eux", "-c", &format!("{delete}\n{script}")]).current_dir(start);
    shell.env("PATH", path()).env("KUBECONFIG", server.kubeconfig()).envs(more.iter().copied());
    output(&mut shell, Duration::from_secs(120))
}

/// This machine's programs, with kubectl and ours in front.
fn path() -> String {
    let kubectl = program("kubectl").expect("the caller has seen to it");
    let folders = [kubectl.parent().unwrap(), Path::new(BINARY).parent().unwrap()];
    let path = folders.map(|folder| folder.display().to_string()).join(":");
    format!("{path}:{}", std::env::var("PATH").unwrap())
}

/// A link to a file of the repository leads to one.
#[test]
fn links_lead_somewhere() {
    let mut readmes =
        vec!["README.md".to_owned(), "patches/README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for entry in fs::read_dir(format!("{ROOT}/patches")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name != "README.md" {
            readmes.push(format!("patches/{name}/README.md"));
        }
    }
    let mut links = 0;
    for readme in readmes {
        let folder = Path::new(ROOT).join(&readme);
        for link in read(&readme).split("](").skip(1) {
            let (link, _) = link.split_once(')').unwrap();
            let (file, _) = link.split_once('#').unwrap_or((link, ""));
            if !file.is_empty() && !file.contains("://") {
                assert!(folder.parent().unwrap().join(file).exists(), "{readme}: {link}");
                links += 1;
            }
        }
    }
    assert!(links > 20, "{links}");
}
