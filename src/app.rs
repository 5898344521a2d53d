//! Wires configuration → refreshers → outputs → health, and stops them.
//!
//! `run` and `once` are the same engine; only the stop condition differs.

mod once;
mod readiness_log;
mod usage_hint;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use aws_config::SdkConfig;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::AbortHandle,
};

pub(crate) use self::{once::once, usage_hint::UsageHint};
use crate::{
    admin::server,
    aws::{http, profile_file::ProfileFiles},
    clock::Clock,
    config::{self, Config, Context, Flags, Registries, Violations},
    engine::{Dependencies, Engine, TaskPanicked},
    failure::{Problem, diagnosis::Diagnosis},
    fs::watch::{FileWatcher, Watched},
    shutdown::{Signal, Signals},
    status::StatusBoard,
    telemetry::{self, FilterHandle},
};

/// After SIGTERM, what is under way has this long to end.
const DRAIN_LIMIT: Duration = Duration::from_millis(700);

#[derive(Debug, thiserror::Error)]
pub(crate) enum AppError {
    #[error("{0}")]
    UsageHint(UsageHint),
    #[error(transparent)]
    Configuration(#[from] Violations),
    /// An output, or the address of the health endpoint, that cannot be used.
    #[error("{0}")]
    Unusable(Problem),
    #[error("cannot install signal handlers")]
    Signals(#[source] io::Error),
    #[error("not all required outputs could be written:\n{0}")]
    NotWritten(String),
    #[error(transparent)]
    Panicked(#[from] TaskPanicked),
}

pub(crate) async fn run(flags: &Flags, context: &Context) -> Result<(), AppError> {
    let mut signals = Signals::install().map_err(AppError::Signals)?;
    let config = tokio::select! {
        config = load(flags, context) => config?,
        () = signals.stop() => return Ok(()),
    };
    let log = telemetry::start(&config.log);
    let mut app = tokio::select! {
        app = App::start(config, flags, context, log) => app?,
        () = signals.stop() => return Ok(()),
    };
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break,
                Signal::Refresh => {
                    tracing::info!("SIGHUP: refreshing everything now");
                    app.engine.refresh_now();
                }
            },
            () = app.config_changed.notified() => tokio::select! {
                () = app.reload() => {}
                () = signals.stop() => break,
            },
            panicked = app.engine.panicked() => return Err(panicked.into()),
        }
    }
    tracing::info!("stopping");
    tokio::select! {
        () = app.engine.stop() => {}
        () = tokio::time::sleep(DRAIN_LIMIT) => tracing::warn!("stopping with a write under way: the volume hangs"),
        _ = signals.next() => {} // a second signal: at once
    }
    Ok(())
}

async fn load(flags: &Flags, context: &Context) -> Result<Config, AppError> {
    match UsageHint::of(flags, context) {
        Some(nothing) => Err(AppError::UsageHint(nothing)),
        None => Ok(config::load(flags, context).await?),
    }
}

fn warn_of(config: &Config, context: &Context) {
    if let ProfileFiles::Unusable { why, may_be_absent: false } = &context.sdk.profile_files {
        let (diagnosis, remedy) = (Diagnosis::ProfileFile.id(), Diagnosis::ProfileFile.remedy());
        tracing::warn!(error = why, diagnosis, remedy, "settings of the AWS profile are not used");
    }
    if let Some(endpoint) = config.web_identity_in_clear(context) {
        let (diagnosis, remedy) = (Diagnosis::StsInClear.id(), Diagnosis::StsInClear.remedy());
        tracing::warn!(%endpoint, diagnosis, remedy, "web-identity tokens are sent to STS unencrypted");
    }
}

async fn checked_sdk_config(config: &Config, context: &Context) -> Result<SdkConfig, AppError> {
    warn_of(config, context);
    let client = http::client(&context.env);
    Engine::preflight(config.outputs.iter()).await.map_err(AppError::Unusable)?;
    Ok(context.sdk.config(client))
}

struct App {
    config: Config,
    flags: Flags,
    context: Context,
    engine: Engine,
    status: StatusBoard,
    log: FilterHandle,
    health: server::Health,
    health_hosts: watch::Sender<Vec<String>>,
    health_task: AbortHandle,
    config_changed: Arc<Notify>,
    _config_watched: Option<Watched>,
}

impl App {
    async fn start(
        config: Config,
        flags: &Flags,
        context: &Context,
        log: FilterHandle,
    ) -> Result<Self, AppError> {
        let sdk = checked_sdk_config(&config, context).await?;
        let clock = Clock::System;
        let status = StatusBoard::new(clock.now());
        let listener = server::bind(config.health.listen).map_err(AppError::Unusable)?;
        announce(&config, listener.local_addr().unwrap_or(config.health.listen));
        let config_changed = Arc::new(Notify::new());
        let mut engine = Engine::new(Dependencies {
            env: context.env.clone(),
            sdk,
            clock: clock.clone(),
            status: status.clone(),
            watcher: Some(FileWatcher::default()),
        });
        status.update(|status| status.startup_grace = config.health.startup_grace);
        let (health_hosts, hosts) = watch::channel(config.health.hosts.clone());
        let health = server::Health { status: status.clone(), clock: clock.clone(), hosts };
        let health_task = serve(&mut engine, listener, &health);
        let config_watched = match &config.path {
            Some(path) => {
                // One of its own: an output's volume that hangs must not hold it up.
                let watcher = FileWatcher::default();
                engine.spawn(watcher.clone().run());
                Some(watcher.watch(vec![path.clone()], Arc::clone(&config_changed)).await)
            }
            None => None,
        };
        config_changed.notify_one(); // it may have changed since it was read
        engine.apply(&config).await;
        engine.spawn(readiness_log::follow(status.clone(), clock));
        Ok(Self {
            config,
            flags: flags.clone(),
            context: context.clone(),
            engine,
            status,
            log,
            health,
            health_hosts,
            health_task,
            config_changed,
            _config_watched: config_watched,
        })
    }

    async fn reload(&mut self) {
        match self.try_reload().await {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!("configuration reloaded");
                self.status.update(|status| {
                    status.configuration.reloads += 1;
                    status.configuration.last_error = None;
                });
            }
            Err(error) => {
                tracing::error!(%error, "configuration reload rejected; keeping the current configuration");
                self.status.update(|status| {
                    status.configuration.rejected += 1;
                    status.configuration.last_error = Some(error.to_string());
                });
            }
        }
    }

    async fn try_reload(&mut self) -> Result<bool, AppError> {
        let config = config::load(&self.flags, &self.context).await?;
        if config == self.config {
            let was_rejected = self.status.read(|status| status.configuration.last_error.is_some());
            return Ok(was_rejected); // fixed by going back
        }
        // The path of an output that stays is left to its reconciler, whatever else is reloaded.
        let changed = config.outputs.iter().filter(|output| !self.config.outputs.contains(output));
        Engine::preflight(changed).await.map_err(AppError::Unusable)?;
        if config.health.listen != self.config.health.listen || self.health_task.is_finished() {
            self.listen_on(config.health.listen).await.map_err(AppError::Unusable)?;
        }
        self.health_hosts.send_replace(config.health.hosts.clone());
        self.status.update(|status| status.startup_grace = config.health.startup_grace);
        self.log.set(&config.log.filter);
        self.engine.apply(&config).await;
        self.config = config;
        Ok(true)
    }

    async fn listen_on(&mut self, address: SocketAddr) -> Result<(), Problem> {
        let before = self.config.health.listen;
        let mut bound = server::bind(address);
        if bound.is_err() && server::overlap(before, address) {
            self.stop_listening().await; // it is in the way itself
            bound = server::bind(address);
        }
        let (listener, outcome) = match bound {
            Ok(listener) => (Some(listener), Ok(())),
            Err(problem) if self.health_task.is_finished() => (server::bind(before).ok(), Err(problem)),
            Err(problem) => (None, Err(problem)),
        };
        if let Some(listener) = listener {
            self.stop_listening().await;
            self.health_task = serve(&mut self.engine, listener, &self.health);
        }
        outcome
    }

    async fn stop_listening(&self) {
        self.health_task.abort();
        while !self.health_task.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

fn serve(engine: &mut Engine, listener: TcpListener, health: &server::Health) -> AbortHandle {
    let serving = server::serve(listener, health.clone());
    engine.spawn(async move { match serving.await {} })
}

fn announce(config: &Config, health: SocketAddr) {
    let registries = match &config.registries {
        Registries::Own(key) => format!("the caller's own in {}", key.region.as_str()),
        Registries::Listed(registries) => {
            let hosts: Vec<_> = registries.iter().take(10).map(|registry| registry.host.as_str()).collect();
            let more = registries.len().saturating_sub(hosts.len());
            if more == 0 { hosts.join(", ") } else { format!("{} and {more} more", hosts.join(", ")) }
        }
    };
    let identities: Vec<_> = config.identities.keys().map(String::as_str).collect();
    let outputs: Vec<_> = config.outputs.iter().map(|output| output.id().to_string()).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), registries, identities = identities.join(", "),
        outputs = outputs.join(", "), health = %health, "ecr-sidecar starts"
    );
}
