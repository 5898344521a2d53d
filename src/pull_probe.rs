//! From time to time, what a pull begins with: does the registry give a manifest for the credential that consumers find?
//!
//! The credential is the *published* one, read from the file or Secret each time ([`published`]). It costs one manifest
//! request, and never more of them than configured: no two are nearer to each other than `every`, across changes of the
//! configuration than [`SHORTEST`].
//!
//! Invariants:
//! * A probe touches no token, no output and no readiness, and asks no more often than configured
//!   (`two_days_of_probes_cost_no_more_than_is_configured_and_nothing_else`, `a_probe_follows_the_configuration`).
//! * However many registries hang, at most [`AT_A_TIME`] are asked or read for at a time, and one takes at most 8 s.
//! * The credential goes to the registry that it is published for and nowhere else, and is never shown: `pull/session.rs`.
//! * A failure is logged when it begins or changes, and when it ends.

mod schedule;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_config::SdkConfig;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep_until, timeout},
};

use self::schedule::{pause, spread};
use crate::{
    clock::{Clock, rfc3339},
    failure::{Problem, log_problem},
    kubernetes::{Connection, ObjectRef},
    output::{
        OutputConfig,
        published::{Discovered, Published, published},
    },
    pull::{self, ImageRef},
    registry::RegistryHost,
    status::{OutputId, Status, StatusBoard},
    tasks::locked,
};

/// The shortest interval: ECR throttles by account and region, and a thousand sidecars then ask 17 times a second.
pub(crate) const SHORTEST: Duration = Duration::from_secs(60);
/// The longest: a failing probe is then tried again within four days.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How many probes read and ask at a time: it bounds the memory that files, Secrets and answers may take.
const AT_A_TIME: usize = 2;
/// How long the first probe waits for a credential to be published.
const FIRST_WAIT: Duration = Duration::from_secs(30);

/// A probe as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbeSettings {
    /// Without a tag: the right to pull is all that counts.
    pub(crate) image: ImageRef,
    /// From [`SHORTEST`] to [`LONGEST`].
    pub(crate) every: Duration,
}

/// What all probes share, also those of later configurations.
#[derive(Clone)]
pub(crate) struct Shared {
    places: Arc<Semaphore>,
    /// When each registry was last asked.
    requests: Arc<Mutex<BTreeMap<RegistryHost, Instant>>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_A_TIME)), requests: Arc::default() }
    }
}

impl Shared {
    fn last_request(&self, host: &RegistryHost) -> Option<Instant> {
        locked(&self.requests).get(host).copied()
    }

    fn record_request(&self, host: &RegistryHost) {
        let mut requests = locked(&self.requests);
        requests.insert(host.clone(), Instant::now());
    }

    /// Forgets the registries that are no longer probed, as soon as they may be asked again.
    pub(crate) fn retain(&self, is_probed: impl Fn(&RegistryHost) -> bool) {
        let mut requests = locked(&self.requests);
        requests.retain(|host, at| is_probed(host) || at.elapsed() < SHORTEST);
    }
}

/// Tries the published credential of one registry.
pub(crate) struct Prober {
    pub(crate) settings: ProbeSettings,
    /// Those of the running configuration.
    pub(crate) outputs: watch::Receiver<Arc<[OutputConfig]>>,
    pub(crate) connection: Connection,
    pub(crate) sdk: SdkConfig,
    pub(crate) clock: Clock,
    pub(crate) status: StatusBoard,
    pub(crate) shared: Shared,
}

impl Prober {
    /// Probes for ever; dropped to end.
    pub(crate) async fn run(self) -> Infallible {
        let mut failures = 0;
        let mut due = self.first_due().await;
        loop {
            self.schedule(due);
            sleep_until(due).await;
            let place = self.shared.places.acquire().await;
            let started = Instant::now();
            let credential = self.credential().await;
            let has_credential = credential.is_ok();
            let result = match credential {
                Ok(found) => {
                    self.shared.record_request(self.host());
                    begin(&self.settings.image, &found, &self.sdk).await
                }
                Err(problem) => Err(problem),
            };
            drop(place);
            failures = if result.is_ok() { 0 } else { u32::saturating_add(failures, 1) };
            due = started + pause(self.settings.every, failures, fastrand::f64());
            self.record(result, failures, due);
            if !has_credential {
                due = self.due_without_credential(due).await;
            }
        }
    }

    fn host(&self) -> &RegistryHost {
        &self.settings.image.host
    }

    /// When a credential has been published, or should have been.
    async fn first_due(&self) -> Instant {
        let _ = timeout(FIRST_WAIT, self.is_published()).await;
        let soon = Instant::now() + spread(fastrand::f64());
        self.shared.last_request(self.host()).map_or(soon, |last| soon.max(last + SHORTEST))
    }

    /// Nothing was asked: if a credential is published before `due`, it need not wait so long.
    async fn due_without_credential(&self, due: Instant) -> Instant {
        if self.status.read(|status| holds(status, self.host(), &self.clock)) {
            return due; // the status does not know what is wrong
        }
        self.schedule(due);
        tokio::select! {
            () = sleep_until(due) => due,
            () = self.is_published() => {
                let soon = Instant::now() + spread(fastrand::f64());
                let last = self.shared.last_request(self.host());
                last.map_or(soon, |last| soon.max(last + self.settings.every)).min(due)
            }
        }
    }

    async fn is_published(&self) {
        let mut status = self.status.subscribe();
        let is_gone = status.wait_for(|status| holds(status, self.host(), &self.clock)).await.is_err();
        if is_gone {
            std::future::pending().await // the process ends
        }
    }

    async fn credential(&self) -> Result<Published, Problem> {
        let outputs = Arc::clone(&self.outputs.borrow());
        let known = |output: &OutputId| self.status.read(|status| known(status, output, self.host()));
        let discovered = Discovered::Known(&known);
        let reading = published(&outputs, self.host(), &discovered, &self.connection, &self.clock).await;
        reading.into_credential(self.host(), self.clock.now())
    }

    fn schedule(&self, due: Instant) {
        let next = self.clock.now() + due.saturating_duration_since(Instant::now());
        self.status.update_probe(self.host(), |probe| probe.next_attempt = Some(next));
    }

    fn record(&self, result: Result<String, Problem>, failures: u32, due: Instant) {
        let now = self.clock.now();
        let next = now + due.saturating_duration_since(Instant::now());
        let (registry, image) = (self.host(), &self.settings.image);
        let before = self.status.read(|status| status.probes.get(registry).cloned()).unwrap_or_default();
        let known = before.last_error.as_ref().map(|problem| &problem.message);
        match &result {
            Ok(found) if known.is_some() || before.checked_at.is_none() => {
                tracing::info!(%registry, %image, next_attempt = %rfc3339(next), "pull probe succeeded: {found}");
            }
            Err(problem) if known != Some(&problem.message) => {
                log_problem!(
                    warn, problem, { %registry, %image, class = %problem.class, next_attempt = %rfc3339(next) },
                    "pull probe failed"
                );
            }
            _ => {}
        }
        self.status.update_probe(registry, |probe| {
            probe.checked_at = Some(now);
            probe.next_attempt = Some(next);
            probe.failures_in_a_row = failures;
            match result {
                Ok(found) => {
                    probe.succeeded_at = Some(now);
                    (probe.found, probe.last_error) = (Some(found), None);
                }
                Err(problem) => (probe.found, probe.last_error) = (None, Some(problem)),
            }
        });
    }
}

/// Asks for the manifest with the credential that was found.
pub(crate) async fn begin(image: &ImageRef, found: &Published, sdk: &SdkConfig) -> Result<String, Problem> {
    let outcome = pull::begin(image, &found.auth, sdk).await.with(&found.place);
    outcome.map(|what| format!("{what} (credential of {})", found.place))
}

/// Whether an output holds a live credential for the registry, as far as its reconciler knows.
fn holds(status: &Status, host: &RegistryHost, clock: &Clock) -> bool {
    let now = clock.now();
    status.outputs.values().any(|output| {
        let is_live = output.in_place.get(host).is_some_and(|end| *end > now);
        // Where no Secret is discovered yet, nothing is missing, and nothing is there.
        is_live && output.targets.as_ref().is_none_or(|it| !it.discovered || it.known.contains_key(host))
    })
}

/// A Secret that holds the credential, of an output that discovers its Secrets.
fn known(status: &Status, output: &OutputId, host: &RegistryHost) -> Option<ObjectRef> {
    status.outputs.get(output)?.targets.as_ref()?.known.get(host).cloned()
}
