//! The loop that keeps the Secrets of one output: which are to be looked at, when, and what is told of it.

mod cleanup;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::oneshot, task::JoinSet, time::Instant};

use self::cleanup::retire_all;
use super::{
    super::{Remaining, file::read::Base},
    Kind, SecretsReconciler,
    coverage::{are_all_tried, everywhere, where_it_works},
    desired::InPlace,
    ownership::{Memory, Recorded},
    queue,
    reconcile::{Outcome, Reconciliation},
    target::{Moment, TOLD, Target},
    targets::targets,
    watches::{Change, Watches},
};
use crate::{
    kubernetes::{Cluster, ObjectRef},
    status::{TargetStatus, Targets},
};

/// Without events, time and again something is looked at: the clock, and rarely each Secret.
const TURN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_secs(15 * 60);
/// Secrets that are worked on at a time.
const AT_A_TIME: usize = 16;
/// `once` waits for a Secret no longer that has failed as often.
const GIVEN_UP: u32 = 3;
/// How long the base's volume may take.
const BASE_LIMIT: Duration = Duration::from_secs(5);
/// How long what is ours may take to leave the Secrets that a new configuration does not keep.
const CLEANUP_LIMIT: Duration = Duration::from_secs(120);

pub(super) struct Controller {
    it: SecretsReconciler,
    cluster: Cluster,
    watches: Watches,
    base: Option<Arc<Base>>,
    base_warning: Option<String>,
    targets: BTreeMap<ObjectRef, Target>,
    /// Which Secrets there should be is to be worked out again.
    outdated: bool,
    working: JoinSet<(ObjectRef, Outcome)>,
    /// Looks that have begun.
    picks: u64,
    /// What the last target that was looked at holds: most of them hold the same.
    in_place: Arc<InPlace>,
    /// The expiry of what this process has held.
    recorded: Arc<Recorded>,
    /// Each of the Secrets that were found first has been tried.
    has_been_tried: bool,
    /// Writes that are not in the status yet, and when the last one was.
    written: (u64, Option<SystemTime>),
}

impl Controller {
    pub(super) fn new(it: SecretsReconciler, cluster: Cluster) -> Self {
        let base = match &it.kind {
            Kind::DockerConfig(settings) => settings.base.clone().map(|path| Arc::new(Base::new(path))),
            Kind::RepoCreds(_) | Kind::Repositories(_) => None,
        };
        let watches = Watches::new(it.with.id.clone(), it.kind.clone(), cluster.clone(), it.with.stays);
        Self {
            it,
            cluster,
            watches,
            base,
            base_warning: None,
            targets: BTreeMap::new(),
            outdated: true,
            working: JoinSet::new(),
            picks: 0,
            in_place: Arc::default(),
            recorded: Arc::default(),
            has_been_tried: false,
            written: (0, None),
        }
    }

    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<Remaining>) {
        self.refresh_base().await;
        self.record();
        let mut resync = Instant::now() + LOOK_AGAIN;
        let remaining = loop {
            self.update_targets();
            self.start_work();
            self.tell();
            let due = self.next_due();
            tokio::select! {
                biased;
                remaining = &mut stop => break remaining.ok(),
                Some(done) = self.working.join_next() => self.note(done),
                change = self.watches.next() => self.apply(change),
                changed = self.it.with.credentials.changed() => {
                    if changed.is_err() {
                        break None;
                    }
                    self.outdated = true;
                    self.record();
                    self.mark_all();
                }
                () = self.it.with.wake.notified() => {
                    self.refresh_base().await;
                    self.targets.values_mut().for_each(|target| target.not_before = None);
                    self.mark_all();
                }
                () = tokio::time::sleep_until(due) => {
                    if Instant::now() >= resync {
                        resync = Instant::now() + LOOK_AGAIN;
                        self.mark_all();
                    }
                }
            }
        };
        while let Some(done) = self.working.join_next().await {
            self.note(done);
        }
        if let Some(remaining) = remaining {
            // Only for so long: the API server may be away.
            let _ = tokio::time::timeout(CLEANUP_LIMIT, self.cleanup(remaining)).await;
        }
    }

    fn record(&mut self) {
        Arc::make_mut(&mut self.recorded).record(&self.it.with.credentials.borrow());
    }

    fn mark_all(&mut self) {
        self.targets.values_mut().for_each(|target| target.marked = true);
    }

    /// When something is to be done without an event.
    fn next_due(&self) -> Instant {
        let turn = Instant::now() + TURN;
        if self.working.len() >= AT_A_TIME {
            return turn;
        }
        let now = Instant::now();
        self.targets.values().filter_map(|target| target.due(now)).min().unwrap_or(turn).min(turn)
    }

    /// Reads the base again; on a thread of its own, since a volume may hang.
    async fn refresh_base(&mut self) {
        let Some(base) = self.base.clone() else { return };
        let read = tokio::task::spawn_blocking(move || {
            let mut base = Base::clone(&base);
            base.note_supplied();
            let warning = base.refresh();
            (base, warning)
        });
        if let Ok(Ok((base, warning))) = tokio::time::timeout(BASE_LIMIT, read).await {
            self.base = Some(Arc::new(base));
            self.base_warning = warning.map(|warning| warning.to_string());
            self.outdated = true;
            // What differs now differs because of the base.
            self.targets.values_mut().for_each(|target| target.in_sync_with = None);
        }
    }

    fn update_targets(&mut self) {
        if !std::mem::take(&mut self.outdated) {
            return;
        }
        let Some(discovered) = self.watches.discovered() else { return };
        let credentials = self.it.with.credentials.borrow().clone();
        let desired =
            targets(&self.it.kind, self.cluster.namespace(), discovered, &credentials, self.base.as_ref());
        let kept: BTreeSet<_> = desired.iter().map(|(at, _)| at).collect();
        for (at, target) in &mut self.targets {
            if !kept.contains(at) {
                target.leave();
            }
        }
        // One that comes when the others are there goes before what is merely due.
        let is_late = !self.targets.is_empty();
        for (at, content) in desired {
            match self.targets.get_mut(&at) {
                Some(target) => target.stay(content),
                None => {
                    if self.it.with.stays {
                        self.watches.watch_secret(&at);
                    }
                    self.targets.insert(at, Target::new(content, is_late));
                }
            }
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Targets => self.outdated = true,
            Change::Observed(at, version) => self.note_version(&at, version),
            Change::Listed(only, seen) => {
                // Where the Secrets are found by their labels, there may be others now.
                self.outdated |= only.is_none();
                for (at, target) in &mut self.targets {
                    let is_missing = only.as_ref().is_none_or(|only| only == at) && !seen.contains_key(at);
                    if is_missing && target.was_there() {
                        target.miss();
                    }
                }
                seen.into_iter().for_each(|(at, version)| self.note_version(&at, version));
            }
            Change::Deleted(at) => {
                if let Some(target) = self.targets.get_mut(&at) {
                    target.miss();
                }
            }
            // `once` counts failures.
            Change::DiscoveryDenied if !self.watches.discovered().is_some() => {
                self.it.with.status.update_output(&self.it.with.id, |output| output.failed += 1);
            }
            Change::DiscoveryDenied | Change::None => {}
        }
    }

    fn note_version(&mut self, at: &ObjectRef, version: String) {
        if let Some(target) = self.targets.get_mut(at) {
            target.see(version);
        }
    }

    fn start_work(&mut self) {
        let now = Instant::now();
        while self.working.len() < AT_A_TIME {
            let due = self.targets.iter().filter(|(_, target)| target.is_due(now));
            let Some(at) = queue::next(due, self.picks) else { return };
            self.picks += 1;
            self.look_at(at, now);
        }
    }

    fn look_at(&mut self, at: ObjectRef, now: Instant) {
        let Some(target) = self.targets.get_mut(&at) else { return };
        let defers = target.defers(now);
        target.begin(self.picks);
        let look = Reconciliation {
            cluster: self.cluster.clone(),
            at: at.clone(),
            content: target.content.clone(),
            credentials: if target.removing {
                retire_all(&self.it.with.credentials.borrow())
            } else {
                self.it.with.credentials.clone()
            },
            clock: self.it.with.clock.clone(),
            is_absent: !target.was_there() && self.watches.is_absent(&at),
            cleanup: target.removing,
            prunes: self.it.kind.prunes(),
            memory: Memory { kept: target.kept, recorded: Arc::clone(&self.recorded) },
            defers,
        };
        target.task = Some(self.working.spawn(async move { (at, look.run().await) }));
    }

    /// Notes what became of a look.
    fn note(&mut self, done: Result<(ObjectRef, Outcome), tokio::task::JoinError>) {
        let (at, outcome) = match done {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return, // aborted
        };
        let failing = self.targets.values().filter(|target| target.problem.is_some()).count();
        let id = &self.it.with.id;
        let Some(target) = self.targets.get_mut(&at) else { return };
        target.task = None; // a handle keeps the memory of what it ran
        if target.removing || outcome.cleanup {
            if target.has_left(id, &at, &outcome, Moment::now()) {
                self.targets.remove(&at);
            }
            return;
        }
        match outcome.result {
            Ok(true) => self.written = (self.written.0 + 1, Some(self.it.with.clock.now())),
            Ok(false) => {}
            Err(_) => self.it.with.status.update_output(id, |output| output.failed += 1),
        }
        target.note(id, &at, outcome, failing, Moment::now());
        if target.in_place == self.in_place {
            target.in_place = Arc::clone(&self.in_place);
        } else {
            self.in_place = Arc::clone(&target.in_place);
        }
    }

    /// Writes the status.
    fn tell(&mut self) {
        let is_complete = self.watches.discovered().is_some();
        let desired = self.it.with.credentials.borrow();
        let kept = || self.targets.iter().filter(|(_, target)| !target.removing);
        let discovered = self.it.kind.is_discovered();
        self.has_been_tried |= is_complete && are_all_tried(kept().map(|(_, target)| target));
        let kept_targets = kept().map(|(_, target)| target);
        let in_place = match (is_complete, discovered) {
            (false, _) => InPlace::new(),
            (true, false) => everywhere(kept_targets, &desired),
            (true, true) => where_it_works(kept_targets, &desired, self.has_been_tried),
        };
        let mut failing = Vec::new();
        let (mut total, mut in_sync, mut more_failing) = (0, 0, 0);
        let mut reconciled = is_complete;
        let (mut given_up, mut failures) = (0, BTreeMap::new());
        for (at, target) in kept() {
            total += 1;
            given_up += usize::from(target.problem.is_some() && target.failures >= GIVEN_UP);
            if let Some(problem) = &target.problem {
                *failures.entry(problem.remedy.diagnosis).or_default() += 1;
            }
            match &target.problem {
                Some(_) if failing.len() >= TOLD => more_failing += 1,
                Some(problem) => {
                    failing.push(TargetStatus { name: at.to_string(), last_error: problem.clone() });
                }
                None if target.in_sync_with.as_ref().is_some_and(|it| Arc::ptr_eq(it, &desired)) => {
                    in_sync += 1
                }
                None => reconciled &= target.in_sync_with.is_some(),
            }
        }
        let problem = failing.first().map(|target| &target.last_error).or(self.watches.problem()).cloned();
        let ends = desired.current.iter().map(|(host, token)| (host.clone(), token.expires_at));
        let aimed_at = ends.collect();
        let targets =
            Targets { total, in_sync, discovered, failing, more_failing, failures, given_up, aimed_at };
        let of_targets = kept().flat_map(|(_, target)| target.warnings.current());
        let warnings: Vec<_> = self.base_warning.iter().chain(of_targets).take(TOLD).cloned().collect();
        let (writes, written_at) = std::mem::take(&mut self.written);
        self.it.with.status.update_output(&self.it.with.id, |output| {
            output.last_heartbeat = Instant::now();
            output.in_place = in_place;
            output.warnings = warnings;
            output.reconciled = reconciled;
            output.writes += writes; // also of Secrets that are gone since: it never falls
            output.written_at = written_at.or(output.written_at);
            output.last_error = problem;
            output.targets = Some(targets);
        });
    }
}
