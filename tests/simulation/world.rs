//! The engine at work on a file, a clock and an AWS of its own: what a test does to them, and what it asks of them.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_smithy_runtime_api::client::http::{SharedHttpConnector, http_client_fn};
use ecr_sidecar::{
    admin::readiness,
    clock::{Clock, SimulatedClock},
    config::{self, Context, Flags},
    engine::{Dependencies, Engine},
    env::Environment,
    failure::Problem,
    fs::watch::FileWatcher,
    status::StatusBoard,
};
use test_support::files::overwrite;

use crate::{
    HOST, MINUTE, START,
    aws::{Aws, AwsConnector, Fault, Registry, RegistryFault},
};

/// The sidecar at work, and what surrounds it.
pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) clock: SimulatedClock,
    aws: Arc<Mutex<Aws>>,
    pub(crate) status: StatusBoard,
    pub(crate) engine: Engine,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(Fault::None).await
    }

    pub(crate) async fn start_with(fault: Fault) -> Self {
        let clock = SimulatedClock::starting_at(SystemTime::UNIX_EPOCH + START);
        let simulated = Clock::Simulated(clock.clone());
        let aws =
            Aws { fault, clock: simulated, issued: BTreeMap::new(), calls: 0, registry: Registry::default() };
        Self::with(tempfile::tempdir().unwrap(), clock, Arc::new(Mutex::new(aws))).await
    }

    /// Applies a changed configuration: a registry with that probe, and the same output.
    pub(crate) async fn reload(&mut self, probe: &str) {
        let path = self.folder.path().join("ecr-sidecar.yaml");
        let probe = if probe.is_empty() { String::new() } else { format!(", probe: {{{probe}}}") };
        let text = format!(
            "registries: [{{host: {HOST}{probe}}}]\noutputs: [{{type: docker-config, path: {}}}]\n",
            self.path().display()
        );
        overwrite(&path, &text);
        let path = path.display().to_string();
        let env = [
            ("ECR_SIDECAR_CONFIG", path.as_str()),
            ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        let context = Context { env: Environment::from_pairs(env), ..Context::default() };
        let config = config::load(&Flags::default(), &context).await.unwrap();
        self.engine.apply(&config).await;
    }

    pub(crate) fn set_registry(&self, fault: Option<RegistryFault>) {
        self.aws.lock().unwrap().registry.fault = fault;
    }

    /// When the registry was asked, for which path, with which `auth`.
    pub(crate) fn asked(&self) -> Vec<(SystemTime, String, String)> {
        self.aws.lock().unwrap().registry.asked.clone()
    }

    /// The diagnosis of the probe, empty when it succeeded; none before its first result.
    pub(crate) fn probe(&self) -> Option<String> {
        self.status.read(|status| {
            let probe = status.probes.values().next()?;
            let id = |problem: &Problem| problem.remedy.diagnosis.id().to_owned();
            probe.checked_at.map(|_| probe.last_error.as_ref().map(id).unwrap_or_default())
        })
    }

    /// The process is killed, and another one started on what it left.
    pub(crate) async fn restart(self) -> Self {
        drop(self.engine);
        Self::with(self.folder, self.clock, self.aws).await
    }

    async fn with(folder: tempfile::TempDir, clock: SimulatedClock, aws: Arc<Mutex<Aws>>) -> Self {
        let path = folder.path().join("config.json").display().to_string();
        let env = [
            ("ECR_SIDECAR_REGISTRIES", HOST),
            ("ECR_SIDECAR_DOCKER_CONFIG", path.as_str()),
            ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        let context = Context { env: Environment::from_pairs(env), ..Context::default() };
        let config = config::load(&Flags::default(), &context).await.unwrap();
        let simulated = Clock::Simulated(clock.clone());
        let connector = SharedHttpConnector::new(AwsConnector(Arc::clone(&aws)));
        let client = http_client_fn(move |_, _| connector.clone());
        let status = StatusBoard::new(simulated.now());
        let mut engine = Engine::new(Dependencies {
            sdk: context.sdk.config(client),
            env: context.env,
            clock: simulated,
            status: status.clone(),
            watcher: Some(FileWatcher::default()),
        });
        engine.apply(&config).await;
        Self { folder, clock, aws, status, engine }
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.aws.lock().unwrap().fault = fault;
    }

    pub(crate) fn now(&self) -> SystemTime {
        Clock::Simulated(self.clock.clone()).now()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("config.json")
    }

    /// The `auth` in the file; fails when the file is not whole.
    pub(crate) fn auth(&self) -> Option<String> {
        let bytes = std::fs::read(self.path()).ok()?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("the file is whole");
        Some(value["auths"][HOST]["auth"].as_str()?.to_owned())
    }

    pub(crate) fn lets_in(&self) -> bool {
        self.auth().is_some_and(|auth| self.aws.lock().unwrap().lets_in(&auth))
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.status.read(|status| readiness::ready(status, self.now())).is_good()
    }

    pub(crate) fn calls(&self) -> u64 {
        self.aws.lock().unwrap().calls
    }

    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Lets time pass until `condition`; returns how long it took, `None` if longer than `limit`.
    pub(crate) async fn pass_until(
        &self,
        limit: Duration,
        condition: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let start = tokio::time::Instant::now();
        while !condition(self) {
            if start.elapsed() > limit {
                return None;
            }
            self.pass(Duration::from_secs(1)).await;
        }
        Some(start.elapsed())
    }

    pub(crate) async fn has_first_token(&self) {
        self.pass_until(MINUTE, Self::is_ready).await.expect("ready within a minute");
    }
}
