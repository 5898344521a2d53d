//! `examples/cluster`, by the commands of its README, with this node in the place of a cluster of kind.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use test_support::{
    ImageConfig, Node, Process, clean_command, emulator_program, files::overwrite, free_port, libraries,
    markdown::blocks_of, output, program, release_program, wait_for,
};

use crate::{
    build::{ROOT, read},
    node::{
        consumers::{APPLETS, as_they_are, one_at_a_time},
        scene::Scene,
    },
    shell::{admin_shell, printed_by},
};

/// How long a command may take, and a rotation: half of a token's life, and what kubelet needs to hand a Secret over.
const DEADLINE: Duration = Duration::from_secs(300);

#[test]
fn the_quick_start_pulls_through_a_fault_and_a_rotation() {
    let Some(trial) = Trial::new() else { return };
    let commands = blocks_of("sh", &read("examples/cluster/README.md"));
    let [up, look, doctor, team, forward, throttle, recover, down] = &commands[..] else {
        panic!("{commands:?}")
    };

    trial.run(up);
    wait_for("both consumers to pull", DEADLINE, || {
        let said = trial.run(look);
        (said.contains("pulled 123456789012.") && said.contains("pulled oci://")).then_some(())
    });
    let report = trial.run(doctor);
    assert!(report.contains("team/app"), "{report}");
    trial.run(team);

    let control = format!("localhost:{}", free_port());
    let here = |command: &str| command.replace("localhost:8080", &control);
    let _forward = Process::spawn(&mut trial.shell(&forward.replace("8080", &control["localhost:".len()..])));
    trial.run(&here(&throttle.replace("-fsS", "-fsS --retry 9 --retry-connrefused")));
    wait_for("the reason to be shown", DEADLINE, || trial.run(look).contains("throttl").then_some(()));
    let before = trial.credentials();
    trial.run(&here(recover));
    wait_for("pulls with new credentials", DEADLINE, || {
        trial.credentials().iter().zip(&before).all(|(now, before)| now.len() > before.len()).then_some(())
    });
    trial.run(down);
}

struct Trial {
    scene: Scene,
    /// What the commands need of the repository, and programs.
    folder: TempDir,
}

impl Trial {
    fn new() -> Option<Self> {
        let helm = program("helm4")?;
        let scene = Scene::new("ecr-trial", &[])?;
        import(&scene.node)?;
        let trial = Self { scene, folder: tempfile::tempdir().unwrap() };
        trial.copy_repository();
        trial.put_programs(&helm);
        trial.scene.use_machines_network();
        Some(trial)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The parts that are used, with this node's network.
    fn copy_repository(&self) {
        for part in ["examples/cluster", "charts/ecr-sidecar", "patches/argocd", "patches/iam"] {
            fs::create_dir_all(self.at(part).parent().unwrap()).unwrap();
            let mut copy = clean_command("cp", self.folder.path());
            copy.arg("-r").arg(Path::new(ROOT).join(part)).arg(self.at(part));
            assert!(output(&mut copy, DEADLINE).status.success());
        }
        let api = self.scene.node.addr();
        for file in
            ["values.yaml", "tag-scan.yaml", "repo-server/repo-server.yaml", "repo-server/kustomization.yaml"]
        {
            let file = self.at("examples/cluster").join(file);
            let text = fs::read_to_string(&file).unwrap().replace("aws.ecr-trial.svc", "127.0.0.1");
            // The variables of a sidecar stand before this one.
            let bundle = "- {name: AWS_CA_BUNDLE";
            let indent = text.lines().find_map(|line| line.find(bundle)).unwrap_or_default();
            let more = [
                ("ECR_SIDECAR_HEALTH_LISTEN", format!("127.0.0.1:{}", free_port())),
                ("KUBERNETES_SERVICE_HOST", api.ip().to_string()),
                ("KUBERNETES_SERVICE_PORT", api.port().to_string()),
            ]
            .map(|(name, value)| format!("- {{name: {name}, value: \"{value}\"}}\n{}", " ".repeat(indent)))
            .concat();
            overwrite(&file, &text.replace(bundle, &format!("{more}{bundle}")));
        }
    }

    /// helm, and in the place of docker and kind what does as if all had been built and loaded.
    fn put_programs(&self, helm: &Path) {
        fs::create_dir(self.at("bin")).unwrap();
        symlink(helm, self.at("bin/helm")).unwrap();
        for (name, script) in [("docker", "true"), ("kind", "if [[ $1 == get ]]; then echo ecr-trial; fi")] {
            overwrite(&self.at("bin").join(name), &format!("#!/bin/bash\n{script}\n"));
            fs::set_permissions(self.at("bin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        self.run(&format!(
            "cp '{}' kubeconfig; kubectl config rename-context \"$(kubectl config current-context)\" kind-ecr-trial",
            self.scene.node.kubeconfig().display()
        ));
    }

    /// Runs commands of the README as from a clone; hands over what they print.
    #[track_caller]
    fn run(&self, commands: &str) -> String {
        let (succeeds, printed) = printed_by(&mut self.shell(commands), DEADLINE);
        assert!(succeeds, "{printed}\n{}", self.what_pods_say());
        printed
    }

    fn shell(&self, commands: &str) -> Command {
        let mut shell = admin_shell(self.folder.path(), &self.at("kubeconfig"), commands);
        shell.current_dir(self.folder.path());
        shell
    }

    /// Which credentials the consumers have pulled with, never in vain.
    #[track_caller]
    fn credentials(&self) -> [BTreeSet<String>; 2] {
        [("app=tag-scan", "crane"), ("app=argocd-repo-server", "argocd-repo-server")].map(
            |(pod, container)| {
                let log = self.scene.logs(pod, container);
                assert!(!log.contains("could not pull"), "{log}");
                let used = log.lines().filter_map(|line| line.split_once(" with credential "));
                used.map(|(_, credential)| credential.to_owned()).collect()
            },
        )
    }

    fn what_pods_say(&self) -> String {
        let show = "kubectl -n ecr-trial get events; for pod in $(kubectl -n ecr-trial get pods -o name); do \
                    kubectl -n ecr-trial logs $pod --all-containers --tail=9 || true; done";
        printed_by(&mut self.shell(show), DEADLINE).1
    }
}

/// What the manifests name, made of this machine's programs; helm's image is there.
fn import(node: &Node) -> Option<()> {
    let (crane, registry, busybox) = (program("crane")?, program("docker-registry")?, program("busybox")?);
    let (sidecar, emulator) = (release_program(), emulator_program());
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yml");
    overwrite(
        &config,
        "{version: 0.1, storage: {filesystem: {rootdirectory: /var/lib/registry}}, http: {addr: ':5000'}}\n",
    );
    let _turn = one_at_a_time();
    let import = |name: &str, entrypoint: &[&str], files: &[(&str, &Path)]| {
        let libraries: Vec<_> = files.iter().flat_map(|(_, file)| libraries(file)).collect();
        let libraries = libraries.iter().map(|path| as_they_are(path));
        let config = ImageConfig { entrypoint, user: "65534:65534", ..ImageConfig::default() };
        node.import_image(name, files.iter().copied().chain(libraries), config);
    };
    let program = "/usr/local/bin/ecr-sidecar";
    import("docker.io/library/ecr-sidecar:trial", &[program], &[(program, &sidecar)]);
    let program = "/usr/local/bin/ecr-emulator";
    import("docker.io/library/ecr-emulator:trial", &[program], &[(program, &emulator)]);
    let files = [("/bin/registry", registry.as_path()), ("/bin/cat", &busybox), ("/etc/config.yml", &config)];
    import("docker.io/library/registry:2.8.3", &["/bin/registry", "serve", "/etc/config.yml"], &files);
    let applets = APPLETS.map(|applet| format!("/busybox/{applet}"));
    let applets = applets.iter().map(|path| (path.as_str(), busybox.as_path()));
    let files: Vec<_> = applets.chain([("/ko-app/crane", crane.as_path())]).collect();
    import("gcr.io/go-containerregistry/crane:debug", &["/ko-app/crane"], &files);
    Some(())
}
