//! An AWS, its registries, the sidecar and the consumers, all on this machine.

use std::{
    env, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ecr_emulator::Settings;
use test_support::{Harness, free_port, iam::allow_what_we_ship};

use crate::{
    consumer::Consumer,
    sidecar::{LOG, Sidecar},
};

/// How long a token lives here. ECR's live twelve hours.
pub(crate) const LIFETIME: Duration = Duration::from_secs(30);
const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];

/// Everything that runs.
pub(crate) struct World {
    /// One consumer a registry.
    pub(crate) consumers: Vec<Consumer>,
    /// The real one. Goes before the emulator does.
    pub(crate) sidecar: Sidecar,
    /// AWS, the registries, and a folder for the files.
    pub(crate) harness: Harness,
}

impl World {
    /// Starts it all; nothing of it outlives the value but, on request, the folder.
    pub(crate) fn start() -> io::Result<Self> {
        let aws = Settings { token_lifetime: LIFETIME, ..Settings::default() };
        let harness = Harness::with(env::current_exe()?, aws);
        allow_what_we_ship(&harness.emulator);
        let consumers = REGIONS.map(|region| Consumer {
            registry: harness.emulator.add_registry(region),
            region,
            config_json: harness.file(),
            good: 0,
            refused: 0,
        });
        let health = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = harness.put("ecr-sidecar.yaml", &configuration(&harness, &consumers, health));
        let registries = consumers.each_ref().map(|consumer| consumer.registry.clone());
        let sidecar = Sidecar::start(&harness, config, health, &registries)?;
        Ok(Self { consumers: consumers.into(), sidecar, harness })
    }

    /// The file that the sidecar writes and the consumers read.
    pub(crate) fn config_json(&self) -> PathBuf {
        self.harness.file()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.harness.at(LOG)
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
            format!("export DOCKER_CONFIG={}", self.harness.at("out").display()),
            format!("crane pull --insecure {crane}/app:1.0 app.tar"),
            format!("helm pull oci://{helm}/charts/hello --version 1.0.0 --plain-http"),
        ]
    }
}

fn configuration(harness: &Harness, consumers: &[Consumer], health: SocketAddr) -> String {
    let (endpoint, file) = (harness.emulator.endpoint(), harness.file());
    let registry = |consumer: &Consumer| {
        let Consumer { registry, region, .. } = consumer;
        format!("  - {{host: \"{registry}\", region: {region}, endpoint: \"{endpoint}\"}}\n")
    };
    let registries: String = consumers.iter().map(registry).collect();
    format!(
        "registries:
{registries}outputs:
  - {{type: docker-config, path: \"{}\"}}
health: {{listen: \"{health}\"}}
log: {{format: json}}
",
        file.display()
    )
}
