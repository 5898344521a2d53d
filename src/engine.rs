//! Runs a configuration: one refresher a token key, one reconciler an output, and what wakes them.
//!
//! A new configuration is applied by its difference: what did not change keeps running, with its tokens and
//! its retry state.

mod input_watch;
mod probers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use aws_config::SdkConfig;
use tokio::{
    sync::{Notify, oneshot, watch},
    task::{AbortHandle, JoinSet},
};

use self::{input_watch::InputWatch, probers::Probers};
use crate::{
    aws::{
        identity::Identity,
        token::{TokenKey, TokenSource},
    },
    clock::Clock,
    config::{Config, Registries},
    credentials::CredentialStore,
    env::Environment,
    failure::{Problem, foreign_text::clean},
    fs::watch::{FileWatcher, Watched},
    kubernetes::Connection,
    output::{self, Output, OutputConfig, Remaining},
    refresh::{Refresher, plan::Policy},
    status::{OutputId, OutputStatus, Served, StatusBoard, TokenStatus},
    tasks,
};

/// How long the check may take whether an output can work on its volume at all.
const PREFLIGHT_LIMIT: Duration = Duration::from_secs(5);

/// How long a first attempt waits until its inputs are watched: their volume may hang.
const WATCH_LIMIT: Duration = Duration::from_secs(1);
/// How long a changed configuration waits for a write of the one before it.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

pub struct Dependencies {
    pub env: Environment,
    pub sdk: SdkConfig,
    pub clock: Clock,
    pub status: StatusBoard,
    /// Watches files; `None` for `once`, which has no time for changes.
    pub watcher: Option<FileWatcher>,
}

pub struct Engine {
    dependencies: Dependencies,
    credentials: CredentialStore,
    /// Taken by the first output that needs it.
    connection: Connection,
    identities: BTreeMap<String, Arc<Identity>>,
    refreshers: BTreeMap<TokenKey, RunningRefresher>,
    reconcilers: BTreeMap<OutputId, RunningReconciler>,
    outputs: watch::Sender<Arc<[OutputConfig]>>,
    input_watches: BTreeMap<String, InputWatch>,
    probers: Probers,
    tasks: JoinSet<()>,
}

struct RunningRefresher {
    identity: Arc<Identity>,
    policy: watch::Sender<Policy>,
    wake: Arc<Notify>,
    task: AbortHandle,
}

struct RunningReconciler {
    config: OutputConfig,
    wake: Arc<Notify>,
    stop: oneshot::Sender<Remaining>,
    ended: oneshot::Receiver<()>,
    _watched: Option<Watched>,
}

/// A task panicked: a fault of this program.
#[derive(Debug, thiserror::Error)]
#[error("internal fault: a task panicked ({0}); please report it with the lines above")]
pub struct TaskPanicked(String);

impl Engine {
    pub fn new(dependencies: Dependencies) -> Self {
        let mut tasks = JoinSet::new();
        if let Some(watcher) = dependencies.watcher.clone() {
            tasks.spawn(watcher.run());
        }
        Self {
            dependencies,
            credentials: CredentialStore::default(),
            connection: Connection::default(),
            identities: BTreeMap::new(),
            refreshers: BTreeMap::new(),
            reconcilers: BTreeMap::new(),
            outputs: watch::Sender::new(Arc::default()),
            input_watches: BTreeMap::new(),
            probers: Probers::default(),
            tasks,
        }
    }

    /// Rejects those of `outputs` that can never work, before anything is changed.
    pub async fn preflight(outputs: impl Iterator<Item = &OutputConfig>) -> Result<(), Problem> {
        for output in outputs.map(Output::new) {
            // A volume that hangs may come back: that is the reconciler's business.
            if let Some(checked) = tasks::blocking_within(PREFLIGHT_LIMIT, move || output.preflight()).await {
                checked?;
            }
        }
        Ok(())
    }

    pub async fn apply(&mut self, config: &Config) {
        // Dropped when the inputs are watched: a change after an attempt has read them is not missed.
        let (watching, watched) = watch::channel(());
        let watching = self.dependencies.watcher.is_some().then_some(watching);
        self.apply_identities(config);
        self.apply_tokens(config, &watched);
        self.apply_outputs(config).await;
        self.watch_inputs().await;
        drop(watching);
        self.apply_probes(config);
    }

    /// Runs one more task, whose panic stops the process like that of any other.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tasks.spawn(task)
    }

    pub fn refresh_now(&self) {
        self.refreshers.values().for_each(|refresher| refresher.wake.notify_one());
        self.reconcilers.values().for_each(|reconciler| reconciler.wake.notify_one());
    }

    pub async fn panicked(&mut self) -> TaskPanicked {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) if error.is_panic() => {
                    let payload = error.into_panic();
                    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
                    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
                    return TaskPanicked(clean(&text.unwrap_or_else(|| "no message".into())));
                }
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Stops every task; a write under way is finished first.
    pub async fn stop(mut self) {
        for (_, reconciler) in std::mem::take(&mut self.reconcilers) {
            reconciler.stop(None).await;
        }
    }

    fn apply_identities(&mut self, config: &Config) {
        let Dependencies { env, sdk, clock, .. } = &self.dependencies;
        let mut before = std::mem::take(&mut self.identities);
        for (name, spec) in &config.identities {
            let same = before.remove(name).filter(|identity| identity.spec() == spec);
            let identity = same.unwrap_or_else(|| {
                Arc::new(Identity::new(spec.clone(), env.clone(), sdk.clone(), clock.clone()))
            });
            self.identities.insert(name.clone(), identity);
        }
    }

    fn apply_tokens(&mut self, config: &Config, watched: &watch::Receiver<()>) {
        let tokens = config.tokens();
        let keys: BTreeSet<_> = tokens.keys().map(|key| (*key).clone()).collect();
        let own = matches!(config.registries, Registries::Own(_));
        let mut own_is_unknown = false;
        self.dependencies.status.update(|status| {
            status.tokens.retain(|key, _| keys.contains(key));
            for (key, registries) in &tokens {
                let served: Vec<_> = registries
                    .iter()
                    .map(|r| Served { host: r.host.clone(), required: r.required })
                    .collect();
                let entry = status
                    .tokens
                    .entry((*key).clone())
                    .or_insert_with(|| TokenStatus::new((*key).clone(), Vec::new(), own));
                // Those that were listed until now stay until AWS has returned the name of the caller's own.
                own_is_unknown |= own && !entry.serves_own_registry;
                entry.serves_own_registry = own;
                if !own {
                    entry.registries = served;
                }
            }
        });
        self.credentials.route(self.routes(config), &keys);
        let policy = config.refresh;
        for (_, stale) in self.refreshers.extract_if(.., |key, running| {
            let same = self
                .identities
                .get(&key.identity)
                .is_some_and(|identity| Arc::ptr_eq(identity, &running.identity));
            !keys.contains(key) || !same
        }) {
            stale.task.abort();
        }
        // One that runs on keeps its token, its backoff and its random number: a reload is no reason to ask AWS.
        for running in self.refreshers.values() {
            running.policy.send_if_modified(|current| std::mem::replace(current, policy) != policy);
            if own_is_unknown {
                running.wake.notify_one();
            }
        }
        for key in keys {
            if !self.refreshers.contains_key(&key) {
                self.start_refresher(key, policy, watched.clone());
            }
        }
    }

    /// Which token serves which host. The caller's own registry keeps the host that AWS has reported.
    fn routes(&self, config: &Config) -> BTreeMap<crate::registry::RegistryHost, TokenKey> {
        match &config.registries {
            Registries::Listed(registries) => {
                registries.iter().map(|r| (r.host.clone(), r.key.clone())).collect()
            }
            Registries::Own(key) => self.dependencies.status.read(|status| {
                let served =
                    status.tokens.get(key).map(|token| token.registries.as_slice()).unwrap_or_default();
                served.iter().map(|served| (served.host.clone(), key.clone())).collect()
            }),
        }
    }

    fn start_refresher(&mut self, key: TokenKey, policy: Policy, mut watched: watch::Receiver<()>) {
        let Some(identity) = self.identities.get(&key.identity).cloned() else { return };
        let Dependencies { sdk, clock, status, .. } = &self.dependencies;
        let wake = Arc::new(Notify::new());
        let (policy, followed) = watch::channel(policy);
        let refresher = Refresher {
            source: TokenSource::new(key.clone(), Arc::clone(&identity), sdk, clock.clone()),
            policy: followed,
            clock: clock.clone(),
            credentials: self.credentials.clone(),
            status: status.clone(),
            wake: Arc::clone(&wake),
        };
        let task = self.tasks.spawn(async move {
            // An error: the sender is gone.
            let _ = tokio::time::timeout(WATCH_LIMIT, watched.changed()).await;
            match refresher.run().await {}
        });
        self.refreshers.insert(key, RunningRefresher { identity, policy, wake, task });
    }

    async fn apply_outputs(&mut self, config: &Config) {
        let desired: BTreeMap<_, _> =
            config.outputs.iter().map(|output| (output.id(), output.clone())).collect();
        let stale: Vec<_> = self
            .reconcilers
            .extract_if(.., |id, running| desired.get(id) != Some(&running.config))
            .map(|(_, running)| running)
            .collect();
        // Before any is stopped: a cleanup that is still under way uses it too.
        self.outputs.send_replace(config.outputs.as_slice().into());
        let remaining = Remaining::new(self.outputs.subscribe());
        for reconciler in stale {
            // A write that hangs is not waited for: its successor corrects what it does.
            let _ = tokio::time::timeout(WRITE_LIMIT, reconciler.stop(Some(remaining.clone()))).await;
        }
        self.dependencies.status.update(|status| {
            status.outputs.retain(|id, _| desired.contains_key(id));
            for id in desired.keys() {
                status.outputs.entry(id.clone()).or_insert_with(|| OutputStatus::new(id.clone()));
            }
        });
        for (id, output) in desired {
            if !self.reconcilers.contains_key(&id) {
                self.start_reconciler(id, output).await;
            }
        }
    }

    async fn start_reconciler(&mut self, id: OutputId, config: OutputConfig) {
        let output = Output::new(&config);
        let wake = Arc::new(Notify::new());
        let watched = match &self.dependencies.watcher {
            Some(watcher) => Some(output.watch(watcher, Arc::clone(&wake)).await),
            None => None,
        };
        let with = output::ReconcilerContext {
            id: id.clone(),
            credentials: self.credentials.subscribe(),
            status: self.dependencies.status.clone(),
            clock: self.dependencies.clock.clone(),
            wake: Arc::clone(&wake),
            stays: self.dependencies.watcher.is_some(),
        };
        let connection = self.connection.clone();
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        self.tasks.spawn(async move {
            output.keep(with, connection, stopped).await;
            let _ = end.send(()); // it is only waited for when it is to stop
        });
        self.reconcilers.insert(id, RunningReconciler { config, wake, stop, ended, _watched: watched });
    }

    async fn watch_inputs(&mut self) {
        let Some(watcher) = &self.dependencies.watcher else { return };
        let mut before = std::mem::take(&mut self.input_watches);
        for (name, identity) in &self.identities {
            let of_identity = self.refreshers.iter().filter(|(key, _)| key.identity == *name);
            let wakes: Vec<_> = of_identity.map(|(_, refresher)| Arc::clone(&refresher.wake)).collect();
            let before = before.remove(name);
            let watch = InputWatch::renewed(before, name, identity, wakes, watcher, &mut self.tasks).await;
            self.input_watches.extend(watch.map(|watch| (name.clone(), watch)));
        }
    }
}

impl RunningReconciler {
    /// `remaining`: what runs on; nothing when the process ends.
    async fn stop(self, remaining: Option<Remaining>) {
        match remaining {
            Some(remaining) => drop(self.stop.send(remaining)), // it may have ended
            None => drop(self.stop),
        }
        // An error is the task's panic, which `Engine::panicked` returns.
        let _ = self.ended.await;
    }
}
