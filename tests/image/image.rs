//! The image alone: its content, and every command in it, as restricted as a cluster may have it.

use std::{
    env, fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use ecr_emulator::{ACCESS_KEY_ID, Emulator, SECRET_ACCESS_KEY, Settings};
use serde_json::{Value, json};
use test_support::{
    DockerRegistry, clean_command, files::overwrite, free_port, markdown::blocks_of, program,
    release_program, wait_for,
};

use crate::{DEADLINE, Machine, build_arguments, said, succeeded};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const STATE: &str = "/var/run/ecr-sidecar";

/// Of all layers together, compressed as a registry has them.
const SIZE_LIMIT: u64 = 6_000_000;

/// A user that no system has beforehand, as OpenShift gives one to each namespace, in group 0.
const ANY_USER: &str = "1000730000:0";

#[test]
fn it_says_what_it_is_and_runs_as_user_65534() {
    let Some(machine) = Machine::on_this_network() else { return };
    let image = &inspect(&machine, "ecr-sidecar")["Config"];
    assert_eq!(image["User"], "65534:65534");
    assert_eq!(image["Entrypoint"], json!(["/usr/local/bin/ecr-sidecar"]));
    assert_eq!(image["Cmd"], json!(["run"]));
    let probe = json!(["CMD", "/usr/local/bin/ecr-sidecar", "health", "ready"]);
    assert_eq!(image["Healthcheck"]["Test"], probe);
    let environment = image["Env"].as_array().unwrap();
    assert!(environment.iter().all(|entry| entry.as_str().unwrap().starts_with("PATH=")), "{environment:?}");

    let label = |name: &str| image["Labels"][format!("org.opencontainers.image.{name}")].clone();
    for (argument, value) in build_arguments() {
        assert_eq!(label(&argument.to_lowercase()), value);
    }
    assert_eq!((label("title"), label("licenses")), (json!("ecr-sidecar"), json!("Apache-2.0")));
    assert_eq!(label("description"), env!("CARGO_PKG_DESCRIPTION"));
}

#[test]
fn nothing_is_in_it_but_the_program_certificates_and_a_folder_for_the_credentials() {
    let Some(machine) = Machine::on_this_network() else { return };
    let layer = the_one_layer(&machine);
    let listed =
        succeeded(Command::new("tar").args(["--list", "--verbose", "--numeric-owner", "--file"]).arg(&layer));
    let mut entries: Vec<String> = listed.lines().map(mode_owner_and_name).collect();
    entries.retain(|entry| !entry.starts_with("drwxr-xr-x 0/0"));
    entries.sort_by_key(|entry| entry.rsplit(' ').next().unwrap().to_owned());
    assert_eq!(
        entries,
        [
            "-rw-r--r-- 0/0 etc/ssl/certs/ca-certificates.crt",
            "-rwxr-xr-x 0/0 usr/local/bin/docker-credential-ecr-sidecar",
            "hrwxr-xr-x 0/0 usr/local/bin/ecr-sidecar", // the same file
            "drwxrwx--x 65534/0 var/run/ecr-sidecar/",
        ]
    );
    succeeded(Command::new("gzip").arg(&layer));
    let compressed = layer.with_extension("tar.gz").metadata().unwrap().len();
    println!("compressed: {compressed} bytes");
    assert!(compressed < SIZE_LIMIT, "{compressed} bytes");
}

#[test]
fn its_program_is_byte_for_byte_the_one_that_is_built_outside() {
    let Some(machine) = Machine::on_this_network() else { return };
    let inside = machine.folder.path().join("ecr-sidecar");
    let container = machine.docker(["create", "ecr-sidecar"]);
    let source = format!("{}:/usr/local/bin/ecr-sidecar", container.trim());
    machine.docker(["cp", &source, inside.to_str().unwrap()]);
    let outside = release_program();
    assert!(
        fs::read(&inside).unwrap() == fs::read(&outside).unwrap(),
        "{} is another program than that of the image",
        outside.display()
    );
}

/// By the command that `patches/kubelet` and the main README give.
#[test]
fn the_program_comes_out_of_the_image() {
    let (Some(registry), Some(crane)) = (DockerRegistry::start(), program("crane")) else { return };
    let Some(machine) = Machine::on_this_network() else { return };
    let folder = machine.folder.path();
    machine.docker(["save", "--output", folder.join("image.tar").to_str().unwrap(), "ecr-sidecar"]);
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("patches/kubelet/README.md")).unwrap();
    let blocks = blocks_of("sh", &readme);
    let export = blocks.iter().find(|block| block.starts_with("crane export ")).unwrap();
    let image = export.split(' ').nth(2).unwrap();
    let here = image.replace("ghcr.io", &registry.addr().to_string());
    let mut shell = clean_command("bash", folder);
    let path = format!("{}:/usr/bin:/bin", crane.parent().unwrap().display());
    let script = format!("crane push image.tar {here}\n{}", export.replace(image, &here));
    succeeded(shell.args(["-euo", "pipefail", "-c", &script]).current_dir(folder).env("PATH", path));
    assert!(fs::read(folder.join("ecr-sidecar")).unwrap() == fs::read(release_program()).unwrap());
}

#[test]
fn it_runs_restricted_as_its_own_and_as_any_other_user() {
    let Some(machine) = Machine::on_this_network() else { return };
    let emulator = Emulator::start(Settings::default()).unwrap();
    for user in ["65534:65534", "65534", ANY_USER] {
        let volume = format!("credentials-of-{}", user.replace(':', "-"));
        let container = Container::run(&machine, |arguments| {
            arguments.extend(restricted(user));
            arguments.extend(aws(&emulator.endpoint()));
            arguments.push(format!("--volume={volume}:{STATE}"));
        });
        container.wait_for_health("healthy");
        for command in [&["wait"][..], &["health", "live"], &["health", "ready"], &["health", "startup"]] {
            container.exec(command);
        }
        let owner = user.split(':').next().unwrap().parse().unwrap();
        assert_published(&machine, &volume, owner);
        assert_eq!(container.stop(), "0");
    }
}

#[test]
fn once_needs_no_more_than_a_place_to_write() {
    let Some(machine) = Machine::on_this_network() else { return };
    let emulator = Emulator::start(Settings::default()).unwrap();
    for user in ["65534", ANY_USER] {
        let once = machine.try_docker(once(user, aws(&emulator.endpoint()), &[]));
        assert!(once.status.success(), "{user}: {}", said(&once));
    }
}

#[test]
fn without_credentials_its_container_is_unhealthy() {
    let Some(machine) = Machine::on_this_network() else { return };
    let container = Container::run(&machine, |arguments| {
        arguments.extend(restricted("65534:65534"));
        arguments.extend(aws(&format!("http://127.0.0.1:{}", free_port())));
        arguments.push("--health-start-period=1ms".to_owned());
    });
    container.wait_for_health("unhealthy");
}

#[test]
fn a_certificate_authority_of_ones_own_is_a_file_and_a_variable() {
    let Some(machine) = Machine::on_this_network() else { return };
    let emulator = Emulator::start(Settings::default()).unwrap();
    let aws = || aws(&emulator.https_endpoint());
    let refused = machine.try_docker(once("65534", aws(), &[]));
    assert_eq!(refused.status.code(), Some(69), "{}", said(&refused));
    let ca = format!("--volume={}:/ca.pem:ro", emulator.ca_file().display());
    let once = machine.try_docker(once("65534", aws(), &[&ca, "--env=AWS_CA_BUNDLE=/ca.pem"]));
    assert!(once.status.success(), "{}", said(&once));
}

#[test]
fn the_certificates_of_the_image_are_those_that_count() {
    let Some(machine) = Machine::on_this_network() else { return };
    let emulator = Emulator::start(Settings::default()).unwrap();
    let bundle = machine.folder.path().join("bundle.crt");
    let container = machine.docker(["create", "ecr-sidecar"]);
    machine.docker(["cp", &format!("{}:{BUNDLE}", container.trim()), bundle.to_str().unwrap()]);
    let public = fs::read_to_string(&bundle).unwrap();
    assert!(public.matches("BEGIN CERTIFICATE").count() > 100, "{public}");
    overwrite(&bundle, &(public + &fs::read_to_string(emulator.ca_file()).unwrap()));
    let mounted = format!("--volume={}:{BUNDLE}:ro", bundle.display());
    let once = machine.try_docker(once("65534", aws(&emulator.https_endpoint()), &[&mounted]));
    assert!(once.status.success(), "{}", said(&once));
}

/// A running container of the image.
struct Container<'a> {
    machine: &'a Machine,
    id: String,
}

impl<'a> Container<'a> {
    /// `docker run` with further arguments; its health is asked every second.
    fn run(machine: &'a Machine, arguments: impl FnOnce(&mut Vec<String>)) -> Self {
        let mut run = ["run", "--detach", "--health-interval=1s"].map(str::to_owned).to_vec();
        arguments(&mut run);
        run.push("ecr-sidecar".to_owned());
        Self { machine, id: machine.docker(run).trim().to_owned() }
    }

    #[track_caller]
    fn wait_for_health(&self, wanted: &str) {
        wait_for(&format!("a container that is {wanted}"), DEADLINE, || {
            let state = inspect(self.machine, &self.id)["State"].clone();
            assert_eq!(state["Status"], "running", "{}", said(&self.machine.try_docker(["logs", &self.id])));
            (state["Health"]["Status"] == wanted).then_some(())
        });
    }

    /// Runs a command of the program next to the running one, which must succeed.
    #[track_caller]
    fn exec(&self, command: &[&str]) {
        self.machine.docker([&["exec", &self.id, "/usr/local/bin/ecr-sidecar"], command].concat());
    }

    /// Its exit status.
    fn stop(&self) -> String {
        self.machine.docker(["stop", &self.id]);
        self.machine.docker(["wait", &self.id]).trim().to_owned()
    }
}

/// The arguments of `ecr-sidecar once`, restricted and with memory to write to.
fn once(user: &str, aws: Vec<String>, further: &[&str]) -> Vec<String> {
    let mut run = ["run", "--rm", &format!("--tmpfs={STATE}")].map(str::to_owned).to_vec();
    run.extend(restricted(user).into_iter().chain(aws));
    run.extend(further.iter().chain(&["ecr-sidecar", "once", "--timeout=10s"]).map(|&text| text.to_owned()));
    run
}

fn restricted(user: &str) -> Vec<String> {
    let user = format!("--user={user}");
    ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", &user].map(str::to_owned).to_vec()
}

/// The way to an emulated AWS on this machine.
fn aws(endpoint: &str) -> Vec<String> {
    let variables = [
        ("AWS_ENDPOINT_URL", endpoint.to_owned()),
        ("AWS_REGION", "eu-west-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
        ("ECR_SIDECAR_REGISTRIES", HOST.to_owned()),
        ("ECR_SIDECAR_HEALTH_LISTEN", format!("127.0.0.1:{}", free_port())),
    ];
    let variables = variables.map(|(name, value)| format!("--env={name}={value}"));
    ["--network=host".to_owned()].into_iter().chain(variables).collect()
}

/// The volume holds credentials of [`HOST`] that `owner` and the group can read, and no others.
fn assert_published(machine: &Machine, volume: &str, owner: u32) {
    let folder = machine.docker(["volume", "inspect", "--format={{.Mountpoint}}", volume]);
    let file = Path::new(folder.trim()).join("config.json");
    let config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert!(config["auths"][HOST]["auth"].is_string());
    let metadata = file.metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.permissions().mode() & 0o777), (owner, 0o640));
}

/// What docker says of an image or a container.
#[track_caller]
fn inspect(machine: &Machine, name: &str) -> Value {
    let said: Value = serde_json::from_str(&machine.docker(["inspect", name])).unwrap();
    said[0].clone()
}

/// Where the archive of the image's layer is, of which there is one.
fn the_one_layer(machine: &Machine) -> PathBuf {
    let folder = machine.folder.path();
    let archive = folder.join("image.tar");
    machine.docker(["save", "--output", archive.to_str().unwrap(), "ecr-sidecar"]);
    succeeded(
        Command::new("tar").arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(folder),
    );
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1, "{layers:?}");
    folder.join(layers[0].as_str().unwrap())
}

/// A line of `tar --list --verbose` without size and date.
fn mode_owner_and_name(line: &str) -> String {
    let fields: Vec<&str> = line.split_whitespace().collect();
    [fields[0], fields[1], fields[5]].join(" ")
}
