//! compose.yaml and compose.aws.yaml, brought up by the real docker compose, in a network that leads nowhere.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use ecr_emulator::{ACCESS_KEY_ID, IMAGE, SECRET_ACCESS_KEY};
use serde_json::Value;
use tempfile::TempDir;
use test_support::{clean_command, files::overwrite, libraries, output, program, wait_for};

use crate::{DEADLINE, Machine, said, succeeded};

const REGISTRY: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

/// What compose.aws.yaml needs as variables.
const VARIABLES: [(&str, &str); 4] =
    [("AWS_PROFILE", "me"), ("AWS_REGION", "eu-west-1"), ("ECR_REGISTRY", REGISTRY), ("ECR_IMAGE", IMAGE)];

/// Puts an emulator where compose.aws.yaml expects AWS; the program's own keys are in the profile only.
const EMULATED: &str = "
services:
  emulator:
    image: ecr-emulator
    command: [--https-listen=0.0.0.0:443, --token-lifetime=24, --ca-file=/ca/ca.pem, --policy=/policy.json]
    tmpfs: [/tmp]
    volumes: ['trust:/ca', './patches/iam/pull-policy.json:/policy.json:ro']
    networks:
      default:
        aliases:
          - sts.eu-west-1.amazonaws.com
          - api.ecr.eu-west-1.amazonaws.com
          - 123456789012.dkr.ecr.eu-west-1.amazonaws.com
  ecr-sidecar: {environment: {AWS_CA_BUNDLE: /ca/ca.pem}, volumes: ['trust:/ca:ro']}
  consumer: {environment: {SSL_CERT_FILE: /ca/ca.pem}, volumes: ['trust:/ca:ro']}
volumes:
  trust: {driver_opts: {type: tmpfs, device: tmpfs, o: 'uid=65534'}}
";

#[test]
fn the_trial_pulls_before_and_after_a_rotation_and_leaves_nothing() {
    let Some(compose) = Compose::new(&["compose.yaml"]) else { return };
    let Some(machine) = Machine::with_networks() else { return };
    let Some(()) = import_consumer(&machine) else { return };
    compose.up(&machine);
    assert_eq!(compose.health_of_the_sidecar(&machine), "healthy");
    compose.wait_for_pulls_with_two_credentials(&machine);

    compose.run(&machine, &["down", "--volumes"]);
    for left in [&["ps", "--all", "--quiet"][..], &["volume", "ls", "--quiet"]] {
        assert_eq!(machine.docker(left), "");
    }
}

#[test]
fn a_profile_of_ones_own_takes_the_place_of_the_emulator() {
    let folder = tempfile::tempdir().unwrap();
    let emulated = folder.path().join("compose.emulated.yaml");
    overwrite(&emulated, EMULATED);
    let files = ["compose.yaml", "compose.aws.yaml", emulated.to_str().unwrap()];
    let Some(mut compose) = Compose::new(&files) else { return };
    let Some(machine) = Machine::with_networks() else { return };
    let Some(()) = import_consumer(&machine) else { return };
    compose.variables.extend(VARIABLES);
    compose.write_profile();
    compose.up(&machine);
    compose.wait_for_pulls_with_two_credentials(&machine);
    compose.run(&machine, &["down", "--volumes"]);
}

#[test]
fn with_a_profile_there_is_no_emulator_and_nothing_of_the_profile_is_written_to() {
    let Some(mut compose) = Compose::new(&["compose.yaml", "compose.aws.yaml"]) else { return };
    compose.variables.extend(VARIABLES);
    let config = compose.config();
    let services: Vec<&str> = config["services"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(services, ["consumer", "ecr-sidecar"]);
    let sidecar = &config["services"]["ecr-sidecar"];
    let profile = sidecar["volumes"].as_array().unwrap().iter().find(|volume| volume["type"] == "bind");
    let profile = profile.expect("the folder of the profile");
    assert_eq!(profile["source"].as_str().map(Path::new), Some(&*compose.home.path().join(".aws")));
    assert_eq!(profile["read_only"], true);
    for (name, _) in sidecar["environment"].as_object().unwrap() {
        assert!(!name.contains("KEY") && name != "AWS_CA_BUNDLE", "{name} is the emulator's");
    }
}

#[test]
fn what_is_missing_for_a_profile_is_reported() {
    for missing in VARIABLES.map(|(name, _)| name) {
        let Some(mut compose) = Compose::new(&["compose.yaml", "compose.aws.yaml"]) else { return };
        compose.variables.extend(VARIABLES.into_iter().filter(|(name, _)| *name != missing));
        let refused = output(compose.command().arg("config"), DEADLINE);
        assert!(!refused.status.success());
        let said = said(&refused);
        assert!(said.contains(&format!("{missing} is missing a value: name ")), "{missing}: {said}");
    }
}

#[test]
fn every_container_of_both_is_restricted() {
    for files in [&["compose.yaml"][..], &["compose.yaml", "compose.aws.yaml"]] {
        let Some(mut compose) = Compose::new(files) else { return };
        compose.variables.extend(VARIABLES);
        for (name, service) in compose.config()["services"].as_object().unwrap() {
            assert_eq!(service["read_only"], true, "{name}");
            assert_eq!(service["cap_drop"][0], "ALL", "{name}");
            assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{name}");
        }
    }
}

/// `docker compose` with some files, in this checkout, and a home folder of its own.
struct Compose {
    program: PathBuf,
    files: Vec<String>,
    variables: Vec<(&'static str, &'static str)>,
    home: TempDir,
}

impl Compose {
    fn new(files: &[&str]) -> Option<Self> {
        // A token has to live for 20 seconds to be renewed at half of that.
        let variables = [
            ("COMPOSE_PROJECT_NAME", "trial"),
            ("CONSUMER_IMAGE", "consumer"),
            ("TOKEN_LIFETIME", "24"),
            ("PULL_EVERY", "1"),
        ];
        Some(Self {
            program: program("docker-compose")?,
            files: files.iter().map(|&file| file.to_owned()).collect(),
            variables: variables.to_vec(),
            home: tempfile::tempdir().unwrap(),
        })
    }

    fn up(&self, machine: &Machine) {
        self.run(machine, &["up", "--detach", "--wait", "--no-build", "--pull", "never"]);
    }

    fn health_of_the_sidecar(&self, machine: &Machine) -> String {
        let id = self.run(machine, &["ps", "--quiet", "ecr-sidecar"]);
        machine.docker(["inspect", "--format={{.State.Health.Status}}", id.trim()]).trim().to_owned()
    }

    /// What the consumer says is that no pull fails, and that it goes on with credentials that are new.
    fn wait_for_pulls_with_two_credentials(&self, machine: &Machine) {
        wait_for("pulls with two credentials", DEADLINE, || {
            let log = self.run(machine, &["logs", "--no-log-prefix", "consumer"]);
            assert!(!log.contains("could not pull"), "{log}");
            let pulls = log.lines().filter_map(|line| line.split_once(" with credentials "));
            let pulled = format!(" pulled {REGISTRY}/{IMAGE}");
            let credentials = pulls.filter(|(what, _)| what.ends_with(&pulled)).map(|(_, which)| which);
            (credentials.collect::<BTreeSet<_>>().len() > 1).then_some(())
        });
    }

    /// What compose makes of the files.
    fn config(&self) -> Value {
        serde_json::from_str(&succeeded(self.command().args(["config", "--format", "json"]))).unwrap()
    }

    /// `~/.aws` with the profile `me`, for its owner alone, who is the default `AWS_UID`.
    fn write_profile(&self) {
        let folder = self.home.path().join(".aws");
        fs::create_dir(&folder).unwrap();
        let keys =
            format!("aws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n");
        overwrite(&folder.join("config"), "[profile me]\noutput = json\n");
        overwrite(&folder.join("credentials"), &format!("[me]\n{keys}"));
        for (path, mode) in [("config", 0o600), ("credentials", 0o600), ("", 0o700)] {
            let path = folder.join(path);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            chown(&path, Some(1000), Some(1000)).unwrap();
        }
    }

    #[track_caller]
    fn run(&self, machine: &Machine, arguments: &[&str]) -> String {
        let mut command = machine.daemon.client(&self.program, self.home.path());
        succeeded(self.prepare(&mut command).args(arguments))
    }

    /// For what needs no docker.
    fn command(&self) -> Command {
        let mut command = clean_command(&self.program, self.home.path());
        self.prepare(&mut command);
        command
    }

    fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("HOME", self.home.path()).current_dir(env!("CARGO_MANIFEST_DIR"));
        command.envs(self.variables.iter().copied());
        command.args(self.files.iter().map(|file| format!("--file={file}")))
    }
}

/// Imports an image that is as `crane:debug` in what compose.yaml asks of it. `None` when its parts are not here.
fn import_consumer(machine: &Machine) -> Option<()> {
    let (busybox, crane) = (program("busybox")?, program("crane")?);
    let root = machine.folder.path().join("consumer");
    copy(&busybox, &root.join("busybox/sh"));
    for tool in ["cut", "date", "sha256sum", "sleep"] {
        symlink("sh", root.join("busybox").join(tool)).unwrap();
    }
    copy(&crane, &root.join("ko-app/crane"));
    for library in libraries(&crane) {
        copy(&library, &root.join(library.strip_prefix("/").unwrap()));
    }
    let archive = machine.folder.path().join("consumer.tar");
    let mut tar = Command::new("tar");
    succeeded(tar.arg("--create").arg("--file").arg(&archive).arg("--directory").arg(&root).arg("."));
    machine.docker(["import", archive.to_str().unwrap(), "consumer"]);
    Some(())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}
