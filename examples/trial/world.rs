//! An AWS, its registries, the sidecar and the consumers, all on this machine.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use ecr_emulator::{ACCESS_KEY_ID, Emulator, SECRET_ACCESS_KEY, Settings};
use tempfile::TempDir;

use crate::{consumer::Consumer, sidecar::Sidecar};

/// How long a token lives here. ECR's live twelve hours.
pub(crate) const LIFETIME: Duration = Duration::from_secs(30);
const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];

/// Everything that runs.
pub(crate) struct World {
    /// One consumer a registry.
    pub(crate) consumers: Vec<Consumer>,
    /// The real one. Goes before the emulator does.
    pub(crate) sidecar: Sidecar,
    /// AWS and the registries.
    pub(crate) aws: Emulator,
    folder: TempDir,
}

impl World {
    /// Starts it all; nothing of it outlives the value but, on request, the folder.
    pub(crate) fn start() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("ecr-sidecar-trial-").tempdir()?;
        let aws = Emulator::start(Settings { token_lifetime: LIFETIME, ..Settings::default() })?;
        let config_json = folder.path().join("docker/config.json");
        let consumers = REGIONS.map(|region| Consumer {
            registry: aws.add_registry(region),
            region,
            config_json: config_json.clone(),
            good: 0,
            refused: 0,
        });
        let health = free_address()?;
        write(&folder.path().join("access-key-id"), ACCESS_KEY_ID)?;
        write(&folder.path().join("secret-access-key"), SECRET_ACCESS_KEY)?;
        let config = folder.path().join("ecr-sidecar.yaml");
        write(&config, &configuration(folder.path(), &aws.endpoint(), &consumers, &health))?;
        let registries = consumers.each_ref().map(|consumer| consumer.registry.clone());
        let sidecar = Sidecar::start(config, folder.path().join("sidecar.log"), health, &registries)?;
        Ok(Self { consumers: consumers.into(), sidecar, aws, folder })
    }

    /// The file that the sidecar writes and the consumers read.
    pub(crate) fn config_json(&self) -> PathBuf {
        self.folder.path().join("docker/config.json")
    }

    /// What the sidecar logs.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("sidecar.log")
    }

    /// Whether the file has a credential for each registry.
    pub(crate) fn is_file_complete(&self) -> bool {
        self.consumers.iter().all(|consumer| consumer.credential().is_ok())
    }

    /// How one can try other programs against it.
    pub(crate) fn shell_lines(&self) -> [String; 3] {
        let [crane, helm] = [self.consumers.first(), self.consumers.last()]
            .map(|consumer| consumer.map_or("", |consumer| consumer.registry.as_str()));
        [
            format!("export DOCKER_CONFIG={}", self.folder.path().join("docker").display()),
            format!("crane pull --insecure {crane}/app:1.0 app.tar"),
            format!("helm pull oci://{helm}/charts/hello --version 1.0.0 --plain-http"),
        ]
    }

    /// Leaves the folder with the log where it is.
    pub(crate) fn keep_folder(&mut self) {
        self.folder.disable_cleanup(true);
    }
}

fn configuration(folder: &Path, endpoint: &str, consumers: &[Consumer], health: &str) -> String {
    let folder = folder.display();
    let registry = |consumer: &Consumer| {
        let Consumer { registry, region, .. } = consumer;
        format!("  - {{host: \"{registry}\", region: {region}, endpoint: \"{endpoint}\"}}\n")
    };
    let registries: String = consumers.iter().map(registry).collect();
    format!(
        "identities:
  default:
    source: static
    accessKeyIdFile: \"{folder}/access-key-id\"
    secretAccessKeyFile: \"{folder}/secret-access-key\"
registries:
{registries}outputs:
  - {{type: docker-config, path: \"{folder}/docker/config.json\"}}
health: {{listen: \"{health}\"}}
log: {{format: json}}
"
    )
}

/// An address that nothing listened on a moment ago.
fn free_address() -> io::Result<String> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string())
}

/// Writes in place, as an editor or a shell's `>` would.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "half a file is the reader's trial here")]
    std::fs::write(path, text)
}
