//! Every `console` block of the READMEs, run in a folder as the text supposes it, prints what it shows.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use tempfile::TempDir;
use test_support::{clean_command, output, program};

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
    let kubectl = program("kubectl").expect("the caller has seen to it");
    let folders = [kubectl.parent().unwrap(), Path::new(BINARY).parent().unwrap()];
    let path = folders.map(|folder| folder.display().to_string()).join(":");
    let mut shell = clean_command("bash", start);
    shell.args(["-euc", &script]).current_dir(start);
    shell.env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap()));
    let done = output(&mut shell, Duration::from_secs(120));
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
