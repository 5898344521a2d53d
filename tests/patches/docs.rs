//! What the READMEs show, run in a folder as the text supposes it: a `console` block prints what it shows, the commands of
//! a `sh` block are taken by a real API server, where node/ does not run them on a real node, or iam.rs against IAM.

use std::{ffi::OsString, fs, os::unix::fs::symlink, path::Path, time::Duration};

use ecr_emulator::{ACCESS_KEY_ID, Emulator, SECRET_ACCESS_KEY, Settings};
use tempfile::TempDir;
use test_support::{
    ApiServer, clean_command,
    files::overwrite,
    iam::allow_partner,
    markdown::{Block, Shown, blocks, blocks_of, commands, run_shown, scripts, section},
    output, program, release_program,
};

use crate::{
    build::{Build, Product, ROOT, read},
    containers::BINARY,
    openshift::apply_definition,
    shell::{admin_shell, path},
};

const USER: &str = "arn:aws:iam::123456789012:user/emulated";

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
    overwrite(
        &fleet.join("gotk-sync.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sync, namespace: flux-system}\n",
    );
    let kustomization = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
                         resources:\n- gotk-components.yaml\n- gotk-sync.yaml\n";
    overwrite(&fleet.join("kustomization.yaml"), kustomization);
    let argocd = Build::stock(Product::ArgoCd)?;
    fs::create_dir(at("argocd")).unwrap();
    for name in ["kustomization.yaml", "repo-server.yaml"] {
        fs::copy(argocd.at(name), at("argocd").join(name)).unwrap();
    }
    Some(folder)
}

/// What each command prints, in one shell that starts there.
fn run(commands: &[Shown], start: &Path) -> Vec<String> {
    let mut shell = clean_command("bash", start);
    run_shown(shell.current_dir(start).env("PATH", with_ours()), commands)
}

#[test]
fn what_the_readmes_show_is_what_is_printed() {
    for (readme, start, least) in [
        ("README.md", "", 6),
        ("patches/flux/README.md", "", 5),
        ("patches/argocd/README.md", "", 8),
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
        let mut count = 0;
        // Each walk begins anew.
        for section in read(readme).split("\n## ") {
            let commands: Vec<_> = blocks(section).iter().flat_map(steps).collect();
            count += commands.len();
            for (shown, printed) in commands.iter().zip(run(&commands, &start)) {
                assert!(shown.is(&printed), "{readme}: {shown:?} prints {printed}");
            }
        }
        assert!(count >= least, "{readme}: {count} commands");
    }
}

/// What a block has one do: its commands, or its edit of the file that its first line names.
fn steps(block: &Block) -> Vec<Shown> {
    match block.info.as_str() {
        "console" => commands(&block.text),
        "diff" => vec![Shown { command: edit(&block.text), output: String::new() }],
        _ => Vec::new(),
    }
}

/// Replaces each removed line, which has to be there, by the added one after it; other added lines go to the end.
fn edit(diff: &str) -> String {
    let (file, lines) = diff.split_once('\n').unwrap();
    let file = file.strip_prefix("# ").unwrap();
    let mut script = String::new();
    let mut removed = None;
    for line in lines.lines() {
        assert!(!line.contains('\''), "{line}");
        let (sign, line) = line.split_at(1);
        match (sign, removed.take()) {
            ("-", None) => removed = Some(line),
            ("+", None) => script += &format!("printf '%s\\n' '{line}' >> {file}\n"),
            ("+", Some(old)) => {
                script += &format!(
                    "text=$(<{file}); [[ $text == *'{old}'* ]]; printf '%s\\n' \"${{text/'{old}'/'{line}'}}\" > {file}\n"
                );
            }
            _ => panic!("{diff}"),
        }
    }
    script
}

/// What the blocks begin with that ask pods: node/ runs them, on a real node.
const ON_A_NODE: [&str; 3] = [
    "kubectl -n flux-system rollout status deployment/image-reflector-controller",
    "kubectl -n argocd rollout status deployment/argocd-repo-server",
    "kubectl -n ecr-sidecar rollout status deployment/ecr-sidecar",
];

#[test]
fn what_the_readmes_tell_to_apply_is_taken_and_undone() {
    let Some(server) = ApiServer::start() else { return };
    let Some(folder) = surroundings() else { return };
    for name in ["flux-system", "argocd"] {
        server.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}"));
    }
    let run = |block: &str, place: &str| {
        let done = bash(block, &folder, place, &server, &[]);
        assert!(done.status.success(), "{place}: {block}\n{}", String::from_utf8_lossy(&done.stderr));
    };
    let pull_secret = || server.get("secret", "flux-system", "ecr-credentials");

    let fleet = "fleet/clusters/my-cluster/flux-system";
    let blocks = blocks_for_a_server("patches/flux/README.md");
    let [apply, undo] = blocks.as_slice() else { panic!("{blocks:?}") };
    let stock = take_in(Product::Flux, &folder.path().join(fleet));
    run(apply, fleet);
    assert!(pull_secret().is_some());
    overwrite(&folder.path().join(fleet).join("kustomization.yaml"), &stock);
    run(undo, fleet);
    assert_eq!(pull_secret(), None);

    take_in(Product::ArgoCd, &folder.path().join("argocd"));
    let applied = blocks_for_a_server("patches/argocd/README.md");
    applied.iter().for_each(|block| run(block, "argocd"));
    assert!(server.get("deployment", "argocd", "argocd-repo-server").is_some());

    for block in blocks_for_a_server("patches/standalone/README.md") {
        run(&block, "ecr-sidecar/patches/standalone");
    }
    assert_eq!(server.get("deployment", "ecr-sidecar", "ecr-sidecar"), None);

    server.apply(FLUX_INSTANCE);
    for block in blocks_for_a_server("patches/flux-operator/README.md") {
        run(&block, "ecr-sidecar/patches/flux-operator");
    }
    assert!(server.get("fluxinstance", "flux-system", "flux").is_some());
    assert_eq!(pull_secret(), None);

    apply_definition(&server);
    let blocks = blocks_for_a_server("patches/argocd-operator/README.md");
    let [apply, undo, oci_sources] = blocks.as_slice() else { panic!("{blocks:?}") };
    let account = || server.get("serviceaccount", "argocd", "argocd-repo-server");
    server.kubectl(["delete", "serviceaccount", "argocd-repo-server", "-n", "argocd"]);
    for block in [apply, oci_sources] {
        run(block, "ecr-sidecar/patches/argocd-operator");
    }
    let sidecar =
        server.get("argocd", "argocd", "argocd").unwrap()["spec"]["repo"]["initContainers"][0].clone();
    let has =
        |list: &str, name: &str| sidecar[list].as_array().unwrap().iter().any(|entry| entry["name"] == name);
    assert!(has("env", "ECR_SIDECAR_ARGOCD_NAMESPACE") && has("volumeMounts", "kubernetes-api"), "{sidecar}");
    assert!(account().is_some());
    run(undo, "ecr-sidecar/patches/argocd-operator");
    assert_eq!(account(), None);
    server.kubectl(["delete", "-f", &format!("{ROOT}/patches/argocd/oci-sources/rights.yaml")]);

    helm_takes_the_values(&blocks_for_a_server("patches/argocd-helm/README.md"), &folder, &server);
}

/// Puts the component next to a `kustomization.yaml` and into it; hands over what that was.
fn take_in(product: Product, place: &Path) -> String {
    let mut copy = std::process::Command::new("cp");
    copy.arg("-r").arg(format!("{ROOT}/patches/{}", product.folder())).arg(place.join("ecr-sidecar"));
    assert!(output(&mut copy, Duration::from_secs(60)).status.success());
    let kustomization = place.join("kustomization.yaml");
    let stock = fs::read_to_string(&kustomization).unwrap();
    overwrite(&kustomization, &format!("{stock}components: [ecr-sidecar]\n"));
    stock
}

/// The `sh` blocks of a README, but for the one that asks pods.
fn blocks_for_a_server(readme: &str) -> Vec<String> {
    let asks_pods = |block: &String| ON_A_NODE.iter().any(|begin| block.starts_with(begin));
    let (on_a_node, here): (Vec<_>, Vec<_>) = blocks_of("sh", &read(readme)).into_iter().partition(asks_pods);
    assert!(on_a_node.len() == 1 && !here.is_empty(), "{readme}");
    here
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
    let Some(helm) = program("helm3") else { return };
    let [upgrade, open_health, older_chart] = blocks else { panic!("{blocks:?}") };
    let chart = folder.path().join("helm/argo/argo-cd");
    fs::create_dir_all(chart.join("templates")).unwrap();
    overwrite(&chart.join("Chart.yaml"), "apiVersion: v2\nname: argo-cd\nversion: 9.0.0\n");
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: rendered}\ndata:\n  configs: {{ toJson $.Values.configs | quote }}\n  labels: {{ toJson $.Values.repoServer.podLabels | quote }}\n  pod: |\n\
        {{- range $key := list \"env\" \"volumes\" \"volumeMounts\" \"initContainers\" \"extraContainers\" }}\n\
        {{- with index $.Values.repoServer $key }}\n    {{ $key }}:\n{{ toYaml . | indent 6 }}\n{{- end }}\n{{- end }}\n\
        {{ range .Values.extraObjects }}\n---\n{{ tpl (toYaml .) $ }}\n{{ end }}\n";
    overwrite(&chart.join("templates/rendered.yaml"), template);
    for value in ["values.yaml", "values-plain-container.yaml"] {
        let more = if value == "values.yaml" { " -f values-oci-sources.yaml" } else { "" };
        let upgrade = upgrade.trim().replace("-f values.yaml", &format!("-f {value}{more}"));
        let on_path = "PATH=$PWD/helm:$PATH; cd helm";
        let script = format!(
            "ln -sf '{}' helm/helm; cp ecr-sidecar/patches/argocd-helm/*.yaml helm; {on_path}\n\
             helm status argocd -n argocd >/dev/null 2>&1 || helm install argocd argo/argo-cd -n argocd --set repoServer.env=null >/dev/null\n\
             {upgrade}",
            helm.display()
        );
        let done = bash(&script, folder, ".", server, &[]);
        assert!(done.status.success(), "{upgrade}: {}", String::from_utf8_lossy(&done.stderr));
        let [of_the_walk] = &scripts(section(&read("README.md"), "Argo CD"))[..] else {
            panic!("one upgrade")
        };
        assert!(of_the_walk.is(&String::from_utf8_lossy(&done.stdout)), "{of_the_walk:?}: {done:?}");
        let keeps_version = |done: &std::process::Output| {
            let traced = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(
                traced.contains("+ helm upgrade argocd argo/argo-cd -n argocd --version 9.0.0 "),
                "{traced}"
            );
        };
        keeps_version(&done);
        let rendered = server.get("configmap", "argocd", "rendered").unwrap();
        let text = rendered["data"]["pod"].as_str().unwrap();
        assert!(text.contains("ecr-sidecar") && text.contains("defaultMode: 292"), "{text}");
        for block in [older_chart, open_health] {
            let opened = bash(&format!("{on_path}\n{block}"), folder, ".", server, &[]);
            assert!(opened.status.success(), "{block}: {}", String::from_utf8_lossy(&opened.stderr));
            if block.contains("helm upgrade") {
                keeps_version(&opened);
            }
        }
        let rendered = server.get("configmap", "argocd", "rendered").unwrap();
        assert_eq!(rendered["data"]["pod"], text, "it changed a list");
        assert_eq!(rendered["data"]["configs"], r#"{"params":{"ecrsidecar.health.listen":"[::]:9808"}}"#);
        assert_eq!(rendered["data"]["labels"], r#"{"ecr-sidecar/health":"open"}"#);
    }
    for policy in ["allow-ecr-sidecar-health", "allow-argocd-repo-server"] {
        assert!(server.get("networkpolicy", "argocd", policy).is_some());
    }
    assert!(server.get("role", "argocd", "ecr-sidecar-argocd-argocd-repo-server").is_some());
}

#[test]
fn the_laptops_commands_work() {
    let (Some(helm), Some(crane), Some(server)) = (program("helm4"), program("crane"), ApiServer::shared())
    else {
        return;
    };
    let aws = Emulator::start(Settings::default()).unwrap();
    allow_partner(&aws, USER);
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join(".aws")).unwrap();
    let keys =
        format!("[me]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n");
    overwrite(&folder.path().join(".aws/credentials"), &keys);
    let readme = read("README.md");
    let steps = scripts(section(&readme, "A laptop or a CI job"));
    assert!(steps.len() > 2 && steps.iter().all(|step| !step.output.is_empty()), "{steps:?}");
    // Whatever name is asked for, it stays on this machine.
    let ca = aws.ca_file().display().to_string();
    let proxy = aws.proxy();
    let environment = [("HTTPS_PROXY", proxy.as_str()), ("AWS_CA_BUNDLE", &ca), ("SSL_CERT_FILE", &ca)];
    // What a release offers for download.
    let mut pack = std::process::Command::new(Path::new(ROOT).join("packaging/archive"));
    let packed =
        output(pack.arg(release_program()).arg(folder.path().join("release")), Duration::from_secs(120));
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    let curl = "curl() { local it; for it; do if [[ $it == https://*/v0.1.0/* ]]; then cp \"$HOME/release/${it##*/}\" .; \
                fi; done; }";
    let programs =
        format!("mkdir bin; ln -s '{}' bin/helm; ln -s '{}' bin/crane", helm.display(), crane.display());
    // The names of what the emulator's registry has.
    let ours = |text: &str| text.replace("charts/app", "charts/hello").replace("team/app", "app");
    let end = "--- end of step";
    let text: String = steps.iter().map(|step| format!("{}\necho '{end}'\n", ours(&step.command))).collect();
    let script = format!(
        "{curl}\n{programs}\nPATH=$PWD/bin:/usr/local/bin:/usr/bin:/bin\n{text}\n\
         [[ $(command -v ecr-sidecar) == \"$PWD/$name/ecr-sidecar\" ]]"
    );
    let done = bash(&script, &folder, ".", &server, &environment);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let printed = String::from_utf8(done.stdout).unwrap();
    for (step, printed) in steps.iter().zip(printed.split(&format!("{end}\n"))) {
        let shown = Shown { output: ours(&step.output), ..step.clone() };
        assert!(shown.is(printed), "{shown:?} prints {printed}");
    }
    assert!(folder.path().join("hello-1.0.0.tgz").exists());
    let pulls = aws.pulls();
    let by = |who: &str| pulls.iter().any(|pull| pull.path.contains("/app/") && pull.principal.contains(who));
    assert!(by("user/emulated") && by("999999999999:assumed-role/ecr-pull"), "{pulls:?}");
}

/// A shell at a place in its home, with the programs of the text and the API server's admin.
fn bash(
    script: &str,
    home: &TempDir,
    place: &str,
    server: &ApiServer,
    more: &[(&str, &str)],
) -> std::process::Output {
    // There is no controller here that ends a namespace.
    let delete =
        "kubectl() { if [[ $1 == delete ]]; then set -- \"$@\" --wait=false; fi; command kubectl \"$@\"; }";
    let mut shell = admin_shell(home.path(), &server.kubeconfig(), &format!("{delete}\n{script}"));
    shell.current_dir(home.path().join(place)).env("PATH", with_ours()).envs(more.iter().copied());
    output(&mut shell, Duration::from_secs(120))
}

/// The `PATH` of the text.
fn with_ours() -> OsString {
    path(Path::new(BINARY).parent().unwrap())
}
