//! The loop that keeps the Secrets of one output: events in, reconciliations out. What each Secret needs, its
//! [`Target`] knows.

mod cleanup;
mod publish;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::oneshot,
    task::{AbortHandle, JoinError, JoinSet},
    time::Instant,
};

use self::cleanup::retire_all;
use super::{
    super::Remaining,
    SecretsReconciler, base,
    desired::InPlace,
    ownership::{Memory, Recorded},
    reconcile::{Job, Outcome, Reconciliation},
    schedule::{self, Targets},
    target::{Effect, Event, Target},
    targets::targets,
    watches::{Change, Watches},
};
use crate::{
    docker_config::Base,
    kubernetes::{Cluster, ObjectRef},
    output::warning_log::{self, WarningLog},
    tasks,
};

/// Without events each Secret is compared this often.
const RESYNC_INTERVAL: Duration = Duration::from_secs(15 * 60);
const CLEANUP_LIMIT: Duration = Duration::from_secs(120);

pub(super) struct Controller {
    it: SecretsReconciler,
    cluster: Cluster,
    watches: Watches,
    base: Option<Arc<Base>>,
    base_warnings: WarningLog,
    targets: Targets,
    /// Which Secrets there should be is to be worked out again.
    outdated: bool,
    running: JoinSet<(ObjectRef, Outcome)>,
    tasks: BTreeMap<ObjectRef, AbortHandle>,
    /// Reconciliations that have begun.
    picks: u64,
    /// What the last target that was reconciled holds: most of them hold the same, and share it.
    in_place: Arc<InPlace>,
    /// The expiry of what this process has held.
    recorded: Arc<Recorded>,
    /// Each of the Secrets that were found first has been tried.
    has_been_tried: bool,
}

impl Controller {
    pub(super) fn new(it: SecretsReconciler, cluster: Cluster) -> Self {
        let watches = Watches::new(it.with.id.clone(), it.kind.clone(), cluster.clone(), it.with.stays);
        Self {
            base: it.kind.base().map(Arc::new),
            it,
            cluster,
            watches,
            base_warnings: WarningLog::default(),
            targets: Targets::new(),
            outdated: true,
            running: JoinSet::new(),
            tasks: BTreeMap::new(),
            picks: 0,
            in_place: Arc::default(),
            recorded: Arc::default(),
            has_been_tried: false,
        }
    }

    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<Remaining>) {
        self.refresh_base().await;
        self.record();
        let mut resync = Instant::now() + RESYNC_INTERVAL;
        let remaining = loop {
            self.update_targets();
            self.start_due();
            self.publish_status();
            let wake_at = schedule::wake_at(&self.targets, self.running.len(), Instant::now());
            tokio::select! {
                biased;
                remaining = &mut stop => break remaining.ok(),
                Some(finished) = self.running.join_next() => self.finish(finished),
                change = self.watches.next() => self.apply(change),
                changed = self.it.with.credentials.changed() => {
                    if changed.is_err() {
                        break None;
                    }
                    self.outdated = true;
                    self.record();
                    self.send_to_all(|| Event::Resync);
                }
                () = self.it.with.wake.notified() => {
                    self.refresh_base().await;
                    self.send_to_all(|| Event::RetryNow);
                }
                () = tokio::time::sleep_until(wake_at) => {
                    if Instant::now() >= resync {
                        resync = Instant::now() + RESYNC_INTERVAL;
                        self.send_to_all(|| Event::Resync);
                    }
                }
            }
        };
        while let Some(finished) = self.running.join_next().await {
            self.finish(finished);
        }
        if let Some(remaining) = remaining {
            // Only for so long: the API server may be away.
            let _ = tokio::time::timeout(CLEANUP_LIMIT, self.cleanup(remaining)).await;
        }
    }

    fn record(&mut self) {
        Arc::make_mut(&mut self.recorded).record(&self.it.with.credentials.borrow());
    }

    async fn refresh_base(&mut self) {
        let Some(base) = self.base.clone() else { return };
        let is_everywhere = self.targets.values().all(Target::is_settled);
        let (base, warning) = match base::refreshed(base, is_everywhere).await {
            Ok((base, warning)) => (Some(base), warning),
            Err(warning) => (None, Some(warning)),
        };
        for warning in self.base_warnings.replace(warning.into_iter().collect(), Instant::now()) {
            warning_log::log(warning, &self.it.with.id, None);
        }
        if base.is_some() {
            self.base = base;
            self.outdated = true;
            self.send_to_all(|| Event::BaseChanged);
        }
    }

    fn update_targets(&mut self) {
        let Some(discovered) = self.watches.discovered() else { return };
        if !std::mem::take(&mut self.outdated) {
            return;
        }
        let credentials = self.it.with.credentials.borrow().clone();
        let own = self.cluster.namespace();
        let desired = targets(&self.it.kind, own, discovered, &credentials, self.base.as_ref());
        let kept: BTreeSet<_> = desired.iter().map(|(at, _)| at).collect();
        let unwanted: Vec<_> = self.targets.keys().filter(|at| !kept.contains(at)).cloned().collect();
        unwanted.iter().for_each(|at| self.send(at, Event::Unwanted));
        // One that comes when the others are there goes before what is merely due.
        let is_late = !self.targets.is_empty();
        for (at, content) in desired {
            if self.targets.contains_key(&at) {
                self.send(&at, Event::Wanted(content));
                continue;
            }
            if self.it.with.stays {
                self.watches.watch_secret(&at);
            }
            self.targets.insert(at, Target::new(content, is_late));
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Targets => self.outdated = true,
            Change::Observed(at, version) => self.send(&at, Event::Observed(version)),
            Change::Listed(only, mut found) => {
                // Where the Secrets are found by their labels, there may be others now.
                self.outdated |= only.is_none();
                let listed = match only {
                    Some(at) => vec![at],
                    None => self.targets.keys().cloned().collect(),
                };
                for at in listed {
                    let event = found.remove(&at).map_or(Event::NotListed, Event::Observed);
                    self.send(&at, event);
                }
            }
            Change::Deleted(at) => self.send(&at, Event::Deleted),
            // `once` counts failures.
            Change::DiscoveryDenied if self.watches.discovered().is_none() => self.count_failure(),
            Change::DiscoveryDenied | Change::None => {}
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        while let Some(at) = schedule::next(&self.targets, self.running.len(), self.picks, now) {
            self.picks += 1;
            self.send(&at, Event::Picked(self.picks));
        }
    }

    fn send(&mut self, at: &ObjectRef, event: Event) {
        let Some(target) = self.targets.get_mut(at) else { return };
        for effect in target.on_event(event, Instant::now()) {
            match effect {
                Effect::Reconcile(job) => self.reconcile(at, job),
                Effect::Log(incident) => incident.log(&self.it.with.id, at),
                Effect::Forget => {
                    self.targets.remove(at);
                }
            }
        }
    }

    fn send_to_all(&mut self, event: fn() -> Event) {
        let all: Vec<_> = self.targets.keys().cloned().collect();
        all.iter().for_each(|at| self.send(at, event()));
    }

    fn reconcile(&mut self, at: &ObjectRef, job: Job) {
        let with = &self.it.with;
        let credentials = match job.cleanup {
            true => retire_all(&with.credentials.borrow()),
            false => with.credentials.clone(),
        };
        let reconciliation = Reconciliation {
            cluster: self.cluster.clone(),
            at: at.clone(),
            credentials,
            clock: with.clock.clone(),
            // What was made just now is to be removed, and the watch may not have it yet.
            is_absent: !job.cleanup && !job.existed && self.watches.is_absent(at),
            prunes: self.it.kind.prunes(),
            memory: Memory { kept: job.kept, recorded: Arc::clone(&self.recorded) },
            job,
        };
        let id = at.clone();
        let task = self.running.spawn(async move { (id, reconciliation.run().await) });
        self.tasks.insert(at.clone(), task);
    }

    fn finish(&mut self, finished: Result<(ObjectRef, Outcome), JoinError>) {
        let Some((at, mut outcome)) = tasks::joined(finished) else { return };
        self.tasks.remove(&at); // a handle keeps the memory of what it ran
        let is_wanted = self.targets.get(&at).is_some_and(Target::is_wanted);
        if is_wanted && !outcome.cleanup {
            match outcome.result {
                Ok(true) => self.count_write(),
                Ok(false) => {}
                Err(_) => self.count_failure(),
            }
            if let Some(found) = &mut outcome.found {
                if found.in_place == self.in_place {
                    found.in_place = Arc::clone(&self.in_place);
                }
                self.in_place = Arc::clone(&found.in_place);
            }
        }
        let failing = self.targets.values().filter(|target| target.problem().is_some()).count();
        self.send(&at, Event::Finished { outcome, failing, random: fastrand::f64() });
    }
}
