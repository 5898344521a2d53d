//! Every command that the pages of `docs/` show is run: by the real program with an emulated AWS, with a real API server,
//! and what a `console` block shows is what is printed.
//!
//! A block that can't be run says so behind its language, `sh not run: REASON`, and is listed in [`NOT_RUN`].

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use ecr_emulator::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use tempfile::TempDir;
use test_support::{
    ApiServer, Harness, Running, clean_command,
    files::replace,
    harness::{HOST, configured_by},
    markdown::{self, Block, Shown},
    output, program, steady_port,
};

use crate::{
    BINARY,
    pages::{self, Page, ROOT},
};

/// The blocks that are not run: page and first line.
const NOT_RUN: [&str; 1] = ["docs/security.md: cosign verify ghcr.io/ecr-sidecar/ecr-sidecar:0.1.0 \\"];

/// What the text takes for granted in the cluster.
const SURROUNDINGS: &str = include_str!("surroundings.yaml");
/// From here on it is resources whose kinds come before.
const OF_OTHERS: &str = "# Of these kinds";

#[test]
fn what_the_pages_show_is_what_is_printed() {
    let mut not_run = Vec::new();
    let mut commands = 0;
    let Some(scene) = Scene::new() else { return };
    for page in pages::docs() {
        let blocks = markdown::blocks(&page.text);
        not_run.extend(blocks.iter().filter_map(|block| unrun(&page, block)));
        commands += scene.run(&page, &blocks);
    }
    println!("{commands} commands run, not run: {not_run:?}");
    assert_eq!(not_run, NOT_RUN);
    assert!(commands > 35, "{commands}");
}

/// A block that says that it is not run is at least a script, and says why.
fn unrun(page: &Page, block: &Block) -> Option<String> {
    let place = format!("{}:{}", page.name, block.line);
    let (language, reason) = block.info.split_once(" not run: ").unwrap_or((&block.info, ""));
    let is_marked = block.info.contains(' ');
    match language {
        "sh" | "console" if is_marked => assert!(!reason.is_empty(), "{place}: why is it not run?"),
        "sh" | "console" | "yaml" => return None,
        "" => {
            let shows_command = block.text.lines().any(|line| line.starts_with("$ "));
            assert!(!shows_command, "{place}: a command outside of `sh` and `console`");
            return None;
        }
        other => panic!("{place}: a block in `{other}`"),
    }
    let lines = block.text.lines().map(|line| line.trim_start_matches("$ "));
    let script: String = lines.map(|line| format!("{line}\n")).collect();
    let mut bash = clean_command("bash", Path::new("/nonexistent"));
    let parsed = output(bash.args(["-nc", &script]), Duration::from_secs(10));
    assert!(parsed.status.success(), "{place}: {}", String::from_utf8_lossy(&parsed.stderr));
    Some(format!("{}: {}", page.name, block.text.lines().next().unwrap_or_default()))
}

/// An AWS, an API server with what the pages suppose, and the sidecars of two pods.
struct Scene {
    harness: Harness,
    server: Arc<ApiServer>,
    kubectl: PathBuf,
    _sidecars: [Running; 2],
}

impl Scene {
    /// `None` when there is no API server here.
    fn new() -> Option<Self> {
        let (server, kubectl) = (ApiServer::shared()?, program("kubectl")?);
        let (surroundings, of_others) = SURROUNDINGS.split_once(OF_OTHERS).unwrap();
        server.apply(surroundings);
        server.kubectl(["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
        server.apply(of_others);
        let harness = Harness::new(BINARY);
        let flux = server.service_account("flux-system", "image-reflector-controller");
        let variables =
            [("ECR_SIDECAR_REGISTRIES", HOST), ("ECR_SIDECAR_DOCKER_CONFIG_SECRET", "ecr-credentials")];
        let mut manifests = clean_command(BINARY, harness.folder());
        manifests.args(["manifests", "--namespace", "flux-system", "--service-account", flux.name()]);
        let printed = output(manifests.envs(variables), Duration::from_secs(60));
        server.apply(&String::from_utf8(printed.stdout).unwrap());
        let flux = sidecar(&harness, "flux", &flux.kubeconfig(), |command| {
            command.envs(variables);
        });
        let standalone = server.service_account("ecr-sidecar", "ecr-sidecar");
        let standalone = sidecar(&harness, "standalone", &standalone.kubeconfig(), |command| {
            configured_by(command, &Path::new(ROOT).join("patches/standalone/deployment/config.yaml"));
        });
        Some(Self { harness, server, kubectl, _sidecars: [flux, standalone] })
    }

    /// Runs the blocks of a page in one shell, in a folder of its own with a clone of this repository. How many commands
    /// there were.
    fn run(&self, page: &Page, blocks: &[Block]) -> usize {
        let mut shown = Vec::new();
        let mut compared = Vec::new();
        for block in blocks {
            match block.info.as_str() {
                "sh" => shown.push(Shown { command: block.text.clone(), output: String::new() }),
                "console" => {
                    let commands = markdown::commands(&block.text);
                    compared.extend(shown.len()..shown.len() + commands.len());
                    shown.extend(commands);
                }
                _ => {}
            }
        }
        for command in &mut shown {
            command.command = command.command.replace("127.0.0.1:9808", &self.health());
        }
        let home = tempfile::tempdir().unwrap();
        let printed = markdown::run_shown(&mut self.shell(&home), &shown);
        let file = self.harness.at("flux/out/config.json").display().to_string();
        for index in compared {
            let printed = printed[index].replace(&file, "/var/run/ecr-sidecar/config.json");
            let Shown { command, output } = &shown[index];
            assert!(
                shown[index].is(&printed),
                "{}: {command}\nshown:\n{output}\nprinted:\n{printed}",
                page.name
            );
        }
        shown.len()
    }

    /// The health endpoint of the sidecar next to Flux.
    fn health(&self) -> String {
        fs::read_to_string(self.harness.at("flux/health")).unwrap()
    }

    /// Standard error goes where standard output goes, as on a terminal.
    fn shell(&self, home: &TempDir) -> Command {
        let bin = home.path().join("bin");
        fs::create_dir(&bin).unwrap();
        symlink(BINARY, bin.join("ecr-sidecar")).unwrap();
        symlink(Path::new(ROOT).join("tests/docs/kubectl"), bin.join("kubectl")).unwrap();
        let place = home.path().join("here");
        fs::create_dir(&place).unwrap();
        symlink(ROOT, place.join("ecr-sidecar")).unwrap();
        let start = home.path().join("start");
        replace(&start, "exec 2>&1\n");
        let mut shell = clean_command("bash", home.path());
        shell.current_dir(place).env("BASH_ENV", start);
        shell.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
        shell.env("KUBECTL", &self.kubectl).env("KUBECONFIG", self.server.kubeconfig());
        shell.env("SIDECARS", self.harness.folder()).env("ECR_SIDECAR_HEALTH_LISTEN", self.health());
        shell.env("AWS_ENDPOINT_URL", self.harness.emulator.endpoint());
        shell.env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
        shell
    }
}

/// A sidecar whose folder shows the shell's `kubectl` where it listens and what it logs.
fn sidecar(harness: &Harness, name: &str, kubeconfig: &Path, prepare: impl FnOnce(&mut Command)) -> Running {
    let listen = format!("127.0.0.1:{}", steady_port());
    harness.put(&format!("{name}/health"), &listen);
    let folder = harness.at(name);
    harness.spawn("bash", |command| {
        command.args(["-c", "echo $$ >\"$1/pid\"; exec \"$0\" run 2>\"$1/log\"", BINARY]).arg(&folder);
        command.env("ECR_SIDECAR_DOCKER_CONFIG", folder.join("out/config.json"));
        command.env("ECR_SIDECAR_HEALTH_LISTEN", listen).env("KUBECONFIG", kubeconfig);
        // Who asks the registries finds them by their true names.
        command.env("HTTPS_PROXY", harness.emulator.proxy()).env("AWS_CA_BUNDLE", harness.emulator.ca_file());
        prepare(command);
    })
}
