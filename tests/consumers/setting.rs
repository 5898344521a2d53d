//! AWS, a registry behind it, the sidecar, and the runs of a consumer between them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use ecr_emulator::{Reason, Settings};
use test_support::{
    DockerRegistry, Harness, Running, clean_command, files::overwrite, harness::DEADLINE,
    iam::allow_what_we_ship, output, wait_for,
};

use crate::{BINARY, CHART, HOSTS, IMAGE};

/// AWS, a registry behind it, and the sidecar between them and the consumer.
pub(crate) struct Setting {
    pub(crate) sidecar: Running,
    pub(crate) harness: Harness,
    _registry: DockerRegistry,
}

/// One run of a consumer.
pub(crate) struct Pull<'a> {
    setting: &'a Setting,
    pub(crate) host: &'a str,
    /// The folder that `config.json` is in.
    pub(crate) config: &'a Path,
    /// An empty one, of this run alone.
    pub(crate) folder: PathBuf,
}

impl Setting {
    /// With a running sidecar that has published everything. `None` when no registry is available.
    pub(crate) fn new() -> Option<Self> {
        let setting = Self::with_sidecar("run")?;
        wait_for("credentials of every registry", DEADLINE, || all_there(&setting.auths()));
        Some(setting)
    }

    pub(crate) fn with_sidecar(command_name: &str) -> Option<Self> {
        let registry = DockerRegistry::start()?;
        registry.push_image(IMAGE.0, IMAGE.1);
        registry.push_chart(CHART.0, CHART.1, CHART.2);
        let upstream = Some(format!("http://{}", registry.addr()));
        let aws = Settings { registry_upstream: upstream, ..Settings::default() };
        let harness = Harness::with(BINARY, aws);
        allow_what_we_ship(&harness.emulator);
        let sidecar = harness.spawn(BINARY, |command| {
            command.arg(command_name).env("ECR_SIDECAR_REGISTRIES", HOSTS.join(","));
        });
        Some(Self { sidecar, harness, _registry: registry })
    }

    /// A folder with a `config.json` that names the helper for each host and has no credential itself.
    pub(crate) fn helped_config(&self) -> PathBuf {
        let folder = self.harness.at("helped");
        fs::create_dir_all(&folder).unwrap();
        let helpers: BTreeMap<_, _> = HOSTS.into_iter().map(|host| (host, "ecr-sidecar")).collect();
        let config = serde_json::json!({ "credHelpers": helpers });
        overwrite(&folder.join("config.json"), &config.to_string());
        let link = folder.join("docker-credential-ecr-sidecar");
        if !link.exists() {
            symlink(BINARY, link).unwrap();
        }
        folder
    }

    /// Has `command` find the helper, and the helper the file.
    pub(crate) fn help(&self, command: &mut Command) {
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.harness.at("helped").display()));
        command.env("ECR_SIDECAR_REGISTRIES", HOSTS.join(","));
        command.env("ECR_SIDECAR_DOCKER_CONFIG", self.harness.file());
    }

    /// Runs `command`, which must succeed, and returns with which of the emulator's tokens.
    pub(crate) fn pull(&self, host: &str, config: &Path, command: impl Fn(&Pull<'_>) -> Command) -> u64 {
        let (succeeded, said) = self.run(host, config, command);
        assert!(succeeded, "{host}: {said}");
        let pulls = self.harness.emulator.pulls();
        let last = pulls.iter().rfind(|pull| pull.host == host).expect("a pull that the emulator knows of");
        last.token
    }

    /// Runs `command`, which must fail, and for one of `reasons`.
    pub(crate) fn refused(
        &self,
        host: &str,
        config: &Path,
        reasons: &[Reason],
        command: impl Fn(&Pull<'_>) -> Command,
    ) {
        let admitted_before = self.harness.emulator.pulls().len();
        let (succeeded, said) = self.run(host, config, command);
        assert!(!succeeded, "{host}: no client rejected this: {said}");
        assert_eq!(self.harness.emulator.pulls().len(), admitted_before, "{host}: {said}");
        let refusals = self.harness.emulator.refusals();
        let last = refusals.iter().rfind(|refusal| refusal.host == host).expect("a refusal");
        assert!(reasons.contains(&last.reason), "{host}: refused for {:?}: {said}", last.reason);
    }

    pub(crate) fn run(
        &self,
        host: &str,
        config: &Path,
        command: impl Fn(&Pull<'_>) -> Command,
    ) -> (bool, String) {
        let folder = tempfile::tempdir_in(self.harness.folder()).unwrap();
        let pull = Pull { setting: self, host, config, folder: folder.path().to_owned() };
        let output = output(&mut command(&pull), DEADLINE);
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Has the sidecar refresh everything now.
    pub(crate) fn rotate(&self) {
        let before = self.auths();
        self.sidecar.refresh();
        wait_for("new credentials of every registry", DEADLINE, || {
            let mut auths = self.auths();
            auths.retain(|host, auth| before.get(host) != Some(auth));
            all_there(&auths)
        });
    }

    /// The folder that the sidecar's `config.json` is in.
    pub(crate) fn config(&self) -> PathBuf {
        self.harness.at("out")
    }

    /// What the sidecar has published: host and `auth`.
    pub(crate) fn auths(&self) -> BTreeMap<String, String> {
        if self.harness.nothing_written() { BTreeMap::new() } else { self.harness.auths() }
    }

    /// The way to the emulator by the true names of AWS.
    pub(crate) fn network(&self) -> [(&'static str, String); 2] {
        let ca = self.harness.emulator.ca_file().to_str().unwrap().to_owned();
        [("HTTPS_PROXY", self.harness.emulator.proxy()), ("SSL_CERT_FILE", ca)]
    }
}

impl Pull<'_> {
    /// `program` with an empty home, which knows where the file is and how to reach the registry.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = clean_command(program, &self.folder);
        command.envs(self.setting.network()).env("DOCKER_CONFIG", self.config).current_dir(&self.folder);
        command
    }
}

fn all_there(auths: &BTreeMap<String, String>) -> Option<()> {
    HOSTS.iter().all(|host| auths.contains_key(*host)).then_some(())
}
