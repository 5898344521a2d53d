//! The programs that read a docker `config.json` pull through the one that the real binary wrote: by the
//! registries' true names, from a real registry behind a token check, before and after a rotation.
//!
//! Each test pulls from two regions and from ECR Public, under the policies in patches/iam, and shows that it can
//! fail: with no credentials, and with the revoked ones, the same pull is refused; and without an action of the
//! policy that it needs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use ecr_emulator::{Reason, Service, Settings};
use test_support::{
    DockerRegistry, Dockerd, Harness, Running, clean_command,
    files::{overwrite, replace},
    harness::{DEADLINE, KEYS},
    iam::{allow_all_but, allow_what_we_ship},
    output, program, wait_for,
};

const BINARY: &str = env!("CARGO_BIN_EXE_ecr-sidecar");

const HOSTS: [&str; 3] = [
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
    "123456789012.dkr.ecr.us-east-1.amazonaws.com",
    "public.ecr.aws",
];
const IMAGE: (&str, &str) = ("team/app", "v1");
const CHART: (&str, &str, &str) = ("charts", "web", "0.1.0");

/// How a pull without credentials is refused: skopeo 1.9 then sends an empty user name and password.
const NO_CREDENTIALS: [Reason; 2] = [Reason::NoCredentials, Reason::NotAws];

#[test]
fn crane_pulls_before_and_after_a_rotation() {
    let Some(crane) = program("crane") else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check(|pull| {
        let mut command = pull.command(&crane);
        command.args(["pull", &image(pull.host)]).arg(pull.folder.join("image.tar"));
        command
    });
}

#[test]
fn helm_3_pulls_before_and_after_a_rotation() {
    helm_pulls("helm3");
}

#[test]
fn helm_4_pulls_before_and_after_a_rotation() {
    helm_pulls("helm4");
}

#[test]
fn helm_3_builds_dependencies_before_and_after_a_rotation() {
    helm_builds_dependencies("helm3");
}

#[test]
fn helm_4_builds_dependencies_before_and_after_a_rotation() {
    helm_builds_dependencies("helm4");
}

#[test]
fn skopeo_finds_the_file_by_docker_config() {
    let Some(skopeo) = program("skopeo") else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check(|pull| skopeo_copy(&skopeo, pull));
}

#[test]
fn skopeo_finds_the_file_by_registry_auth_file() {
    let Some(skopeo) = program("skopeo") else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check(|pull| {
        let mut command = skopeo_copy(&skopeo, pull);
        command.env_remove("DOCKER_CONFIG").env("REGISTRY_AUTH_FILE", pull.config.join("config.json"));
        command
    });
}

#[test]
fn docker_pulls_before_and_after_a_rotation() {
    let Some(setting) = Setting::new() else { return };
    let Some(daemon) = Dockerd::start(setting.network()) else { return };
    let docker_pull = |pull: &Pull<'_>| {
        let mut command = daemon.docker(pull.config);
        command.args(["pull", &image(pull.host)]);
        command
    };
    setting.check_with(&setting.config(), docker_pull);
    // It has the layers by now, and asks for none of them again.
    setting.check_needs(&["ecr:BatchGetImage"], docker_pull);
}

#[test]
fn what_once_wrote_is_enough_for_a_pull() {
    let Some(crane) = program("crane") else { return };
    let Some(setting) = Setting::with_sidecar("once") else { return };
    assert!(setting.sidecar.wait_exit(DEADLINE).success());
    for host in HOSTS {
        setting.pull(host, &setting.config(), |pull| {
            let mut command = pull.command(&crane);
            command.args(["digest", &image(pull.host)]);
            command
        });
    }
}

#[test]
fn crane_asks_the_credential_helper() {
    let Some(crane) = program("crane") else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check_helper(|pull| {
        let mut command = pull.command(&crane);
        command.args(["digest", &image(pull.host)]);
        command
    });
}

#[test]
fn helm_3_asks_the_credential_helper() {
    helm_asks("helm3");
}

#[test]
fn helm_4_asks_the_credential_helper() {
    helm_asks("helm4");
}

#[test]
fn skopeo_asks_the_credential_helper() {
    let Some(skopeo) = program("skopeo") else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check_helper(|pull| skopeo_copy(&skopeo, pull));
}

#[test]
fn docker_asks_the_credential_helper_and_its_logout_goes_on() {
    let Some(setting) = Setting::new() else { return };
    let Some(daemon) = Dockerd::start(setting.network()) else { return };
    setting.check_helper(|pull| {
        let mut command = daemon.docker(pull.config);
        command.args(["pull", &image(pull.host)]);
        command
    });
    let helped = setting.helped_config();
    let docker = |arguments: &[&str]| {
        let mut command = daemon.docker(&helped);
        setting.help(command.args(arguments));
        let output = output(&mut command, DEADLINE);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    for arguments in [vec!["logout", HOSTS[0]], vec!["pull", &image(HOSTS[0])]] {
        let (succeeded, said) = docker(&arguments);
        assert!(succeeded, "{arguments:?}: {said}");
    }
}

#[test]
fn skopeo_is_freed_of_an_old_entry_for_its_repository() {
    let Some(skopeo) = program("skopeo") else { return };
    let Some(setting) = Setting::new() else { return };
    for scope in [IMAGE.0, "team"] {
        setting.check_old_entries(scope, |pull| skopeo_copy(&skopeo, pull));
    }
}

/// Its library, go-containerregistry, prefers an entry of exactly the repository.
#[test]
fn crane_is_freed_of_an_old_entry_for_its_repository() {
    let Some(crane) = program("crane") else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check_old_entries(IMAGE.0, |pull| {
        let mut command = pull.command(&crane);
        command.args(["pull", &image(pull.host)]).arg(pull.folder.join("image.tar"));
        command
    });
}

/// Nothing runs and no file is there: the helper asks AWS, once for all that it is asked.
#[test]
fn the_credential_helper_is_enough_for_a_pull() {
    let Some(crane) = program("crane") else { return };
    let Some(setting) = Setting::with_sidecar("--version") else { return };
    let before = setting.harness.emulator.count(Service::Ecr);
    for _ in 0..3 {
        setting.pull(HOSTS[0], &setting.helped_config(), |pull| {
            let mut command = pull.command(&crane);
            command.args(["digest", &image(pull.host)]);
            setting.help(&mut command);
            command.env("ECR_SIDECAR_DOCKER_CONFIG", setting.harness.at("none.json"));
            command.env("XDG_CACHE_HOME", setting.harness.folder());
            command.env("AWS_ENDPOINT_URL", setting.harness.emulator.endpoint()).envs(KEYS);
            command
        });
    }
    assert_eq!(setting.harness.emulator.count(Service::Ecr), before + 1);
}

fn helm_asks(name: &str) {
    let Some(helm) = program(name) else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check_helper(|pull| helm_pull(&helm, pull));
}

fn helm_pulls(name: &str) {
    let Some(helm) = program(name) else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check(|pull| helm_pull(&helm, pull));
}

fn helm_pull(helm: &Path, pull: &Pull<'_>) -> Command {
    let (prefix, chart, version) = CHART;
    let mut command = pull.command(helm);
    let reference = format!("oci://{}/{prefix}/{chart}", pull.host);
    command.args(["pull", &reference, "--version", version, "-d"]).arg(&pull.folder);
    command
}

/// With a range of versions, so that tags are listed too: what Argo CD has helm do.
fn helm_builds_dependencies(name: &str) {
    let Some(helm) = program(name) else { return };
    let Some(setting) = Setting::new() else { return };
    let (prefix, chart, _) = CHART;
    let build = |pull: &Pull<'_>| {
        let umbrella = pull.folder.join("umbrella");
        fs::create_dir(&umbrella).unwrap();
        let repository = format!("oci://{}/{prefix}", pull.host);
        overwrite(
            &umbrella.join("Chart.yaml"),
            &format!(
                "apiVersion: v2\nname: umbrella\nversion: 1.0.0\n\
                 dependencies: [{{name: {chart}, version: 0.x, repository: '{repository}'}}]\n"
            ),
        );
        let mut command = pull.command(&helm);
        command.args(["dependency", "build"]).arg(umbrella);
        command
    };
    setting.check(build);
    setting.check_needs(&["ecr:ListImages"], build);
}

fn skopeo_copy(skopeo: &Path, pull: &Pull<'_>) -> Command {
    let mut command = pull.command(skopeo);
    let source = format!("docker://{}", image(pull.host));
    let target = format!("dir:{}", pull.folder.join("image").display());
    command.args(["--insecure-policy", "copy", &source, &target]);
    command
}

fn image(host: &str) -> String {
    format!("{host}/{}:{}", IMAGE.0, IMAGE.1)
}

/// AWS, a registry behind it, and the sidecar between them and the consumer.
struct Setting {
    sidecar: Running,
    harness: Harness,
    _registry: DockerRegistry,
}

/// One run of a consumer.
struct Pull<'a> {
    setting: &'a Setting,
    host: &'a str,
    /// The folder that `config.json` is in.
    config: &'a Path,
    /// An empty one, of this run alone.
    folder: PathBuf,
}

impl Setting {
    /// With a running sidecar that has published everything. `None` when no registry is available.
    fn new() -> Option<Self> {
        let setting = Self::with_sidecar("run")?;
        wait_for("credentials of every registry", DEADLINE, || all_there(&setting.auths()));
        Some(setting)
    }

    fn with_sidecar(command_name: &str) -> Option<Self> {
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

    /// The promise: `command` is refused without credentials, admitted with the sidecar's, refused once these
    /// are revoked, and admitted again after the next refresh.
    fn check(&self, command: impl Fn(&Pull<'_>) -> Command) {
        self.check_with(&self.config(), &command);
        self.check_needs(&["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], command);
    }

    /// `command` is refused when one of these actions is taken out of the policy, and for that action.
    fn check_needs(&self, actions: &[&str], command: impl Fn(&Pull<'_>) -> Command) {
        for action in actions {
            allow_all_but(&self.harness.emulator, action);
            let (succeeded, said) = self.run(HOSTS[0], &self.config(), &command);
            assert!(!succeeded, "without {action}: {said}");
            let refusals = self.harness.emulator.refusals();
            let last = refusals.last().expect("a refusal");
            assert_eq!(last.reason, Reason::NotAllowed((*action).to_owned()), "{said}");
        }
        allow_what_we_ship(&self.harness.emulator);
    }

    /// The same by way of the credential helper, which reads the file of the sidecar.
    fn check_helper(&self, command: impl Fn(&Pull<'_>) -> Command) {
        self.check_with(&self.helped_config(), |pull| {
            let mut command = command(pull);
            self.help(&mut command);
            command
        });
    }

    /// A folder with a `config.json` that names the helper for each host and has no credential itself.
    fn helped_config(&self) -> PathBuf {
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
    fn help(&self, command: &mut Command) {
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.harness.at("helped").display()));
        command.env("ECR_SIDECAR_REGISTRIES", HOSTS.join(","));
        command.env("ECR_SIDECAR_DOCKER_CONFIG", self.harness.file());
    }

    fn check_with(&self, config: &Path, command: impl Fn(&Pull<'_>) -> Command) {
        let nothing = tempfile::tempdir().unwrap();
        for host in HOSTS {
            self.refused(host, nothing.path(), &NO_CREDENTIALS, &command);
        }
        let before = HOSTS.map(|host| self.pull(host, config, &command));

        self.harness.emulator.revoke_tokens();
        for host in HOSTS {
            self.refused(host, config, &[Reason::RevokedToken], &command);
        }
        self.rotate();
        for (host, before) in HOSTS.into_iter().zip(before) {
            let after = self.pull(host, config, &command);
            assert!(after > before, "{host}: token {after} after the rotation, token {before} before it");
        }
    }

    /// The promise: an old token in an entry for the repositories in `scope` has `command` refused, whatever the entry
    /// of the host says, unless a sidecar manages the file.
    fn check_old_entries(&self, scope: &str, command: impl Fn(&Pull<'_>) -> Command) {
        let old = self.auths();
        self.harness.emulator.revoke_tokens();
        self.rotate();
        let mut entries = self.auths();
        for host in HOSTS {
            entries.insert(format!("{host}/{scope}"), old[host].clone());
        }
        let entries: BTreeMap<_, _> =
            entries.iter().map(|(key, auth)| (key, serde_json::json!({ "auth": auth }))).collect();
        let config = serde_json::json!({ "auths": entries }).to_string();

        let unkept = tempfile::tempdir().unwrap();
        overwrite(&unkept.path().join("config.json"), &config);
        for host in HOSTS {
            self.refused(host, unkept.path(), &[Reason::RevokedToken], &command);
        }
        replace(&self.harness.file(), &config);
        wait_for("the entries of the hosts alone", DEADLINE, || {
            self.auths().keys().eq(old.keys()).then_some(())
        });
        for host in HOSTS {
            self.pull(host, &self.config(), &command);
        }
    }

    /// Runs `command`, which must succeed, and returns with which of the emulator's tokens.
    fn pull(&self, host: &str, config: &Path, command: impl Fn(&Pull<'_>) -> Command) -> u64 {
        let (succeeded, said) = self.run(host, config, command);
        assert!(succeeded, "{host}: {said}");
        let pulls = self.harness.emulator.pulls();
        let last = pulls.iter().rfind(|pull| pull.host == host).expect("a pull that the emulator knows of");
        last.token
    }

    /// Runs `command`, which must fail, and for one of `reasons`.
    fn refused(&self, host: &str, config: &Path, reasons: &[Reason], command: impl Fn(&Pull<'_>) -> Command) {
        let admitted_before = self.harness.emulator.pulls().len();
        let (succeeded, said) = self.run(host, config, command);
        assert!(!succeeded, "{host}: no client rejected this: {said}");
        assert_eq!(self.harness.emulator.pulls().len(), admitted_before, "{host}: {said}");
        let refusals = self.harness.emulator.refusals();
        let last = refusals.iter().rfind(|refusal| refusal.host == host).expect("a refusal");
        assert!(reasons.contains(&last.reason), "{host}: refused for {:?}: {said}", last.reason);
    }

    fn run(&self, host: &str, config: &Path, command: impl Fn(&Pull<'_>) -> Command) -> (bool, String) {
        let folder = tempfile::tempdir_in(self.harness.folder()).unwrap();
        let pull = Pull { setting: self, host, config, folder: folder.path().to_owned() };
        let output = output(&mut command(&pull), DEADLINE);
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Has the sidecar refresh everything now.
    fn rotate(&self) {
        let before = self.auths();
        self.sidecar.refresh();
        wait_for("new credentials of every registry", DEADLINE, || {
            let mut auths = self.auths();
            auths.retain(|host, auth| before.get(host) != Some(auth));
            all_there(&auths)
        });
    }

    /// The folder that the sidecar's `config.json` is in.
    fn config(&self) -> PathBuf {
        self.harness.at("out")
    }

    /// What the sidecar has published: host and `auth`.
    fn auths(&self) -> BTreeMap<String, String> {
        if self.harness.nothing_written() { BTreeMap::new() } else { self.harness.auths() }
    }

    /// The way to the emulator by the true names of AWS.
    fn network(&self) -> [(&'static str, String); 2] {
        let ca = self.harness.emulator.ca_file().to_str().unwrap().to_owned();
        [("HTTPS_PROXY", self.harness.emulator.proxy()), ("SSL_CERT_FILE", ca)]
    }
}

impl Pull<'_> {
    /// `program` with an empty home, which knows where the file is and how to reach the registry.
    fn command(&self, program: &Path) -> Command {
        let mut command = clean_command(program, &self.folder);
        command.envs(self.setting.network()).env("DOCKER_CONFIG", self.config).current_dir(&self.folder);
        command
    }
}

fn all_there(auths: &BTreeMap<String, String>) -> Option<()> {
    HOSTS.iter().all(|host| auths.contains_key(*host)).then_some(())
}
