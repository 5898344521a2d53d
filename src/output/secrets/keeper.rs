//! The loop that keeps the Secrets of one output: which there should be, which are to be looked at, what is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};

use super::{
    super::{
        argocd_names::{Flavour, template_name},
        docker_config::read::Base,
        secret_settings::{DockerConfigSecretSettings, Namespaces},
    },
    Kind, SecretsReconciler,
    desired::{Content, InPlace},
    target::{Outcome, TOLD, Target, everywhere, look},
};
use crate::{
    failure::Problem,
    kubernetes::{Cluster, Meta, ObjectRef, Scope, Seen, Wanted, follow},
    refresh::Reminder,
    status::{TargetStatus, Targets},
};

/// Without events, time and again something is looked at: the clock, and rarely each Secret.
const TURN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_secs(15 * 60);
/// Secrets that are worked on at a time.
const AT_A_TIME: usize = 16;
/// How long the base's volume may take.
const BASE_LIMIT: Duration = Duration::from_secs(5);

/// The loop's state.
pub(super) struct Keeper {
    it: SecretsReconciler,
    cluster: Cluster,
    base: Option<Arc<Base>>,
    base_warning: Option<String>,
    targets: BTreeMap<ObjectRef, Target>,
    /// Which Secrets there should be is to be worked out anew.
    outdated: bool,
    /// The namespaces that are to have it, where they are found out; `None` before the first list.
    namespaces: Option<BTreeSet<String>>,
    working: JoinSet<(ObjectRef, Outcome)>,
    watches: JoinSet<()>,
    watched: BTreeSet<String>,
    tell: mpsc::Sender<(Watching, Seen)>,
    told: mpsc::Receiver<(Watching, Seen)>,
    /// Why something cannot be followed.
    blind: BTreeMap<Watching, Problem>,
    reminders: BTreeMap<Watching, Reminder>,
}

/// What a watch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Watching {
    Secrets,
    Namespaces,
}

impl Keeper {
    pub(super) fn new(it: SecretsReconciler, cluster: Cluster) -> Self {
        let base = match &it.kind {
            Kind::DockerConfig(settings) => settings.base.clone().map(|path| Arc::new(Base::new(path))),
            Kind::RepoCreds(_) => None,
        };
        let (tell, told) = mpsc::channel(64);
        Self {
            it,
            cluster,
            base,
            base_warning: None,
            targets: BTreeMap::new(),
            outdated: true,
            namespaces: None,
            working: JoinSet::new(),
            watches: JoinSet::new(),
            watched: BTreeSet::new(),
            tell,
            told,
            blind: BTreeMap::new(),
            reminders: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        self.follow_namespaces();
        self.refresh_base().await;
        let mut look_again = Instant::now() + LOOK_AGAIN;
        loop {
            self.update_targets();
            self.start_work();
            self.tell();
            let due = self.next_due();
            tokio::select! {
                biased;
                _ = &mut stop => break,
                Some(done) = self.working.join_next() => match done {
                    Ok((at, outcome)) => self.note(&at, outcome),
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => return, // the runtime ends
                },
                Some((watching, seen)) = self.told.recv() => self.note_seen(watching, seen),
                changed = self.it.with.credentials.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.outdated = true;
                    self.mark_all();
                }
                () = self.it.with.wake.notified() => {
                    self.refresh_base().await;
                    self.targets.values_mut().for_each(|target| target.not_before = None);
                    self.mark_all();
                }
                () = tokio::time::sleep_until(due) => {
                    if Instant::now() >= look_again {
                        look_again = Instant::now() + LOOK_AGAIN;
                        self.mark_all();
                    }
                }
            }
        }
        while self.working.join_next().await.is_some() {}
    }

    fn mark_all(&mut self) {
        self.targets.values_mut().for_each(|target| target.marked = true);
    }

    /// When something is to be done without an event.
    fn next_due(&self) -> Instant {
        let waiting = self.targets.values().filter(|target| target.marked && !target.busy);
        let turn = Instant::now() + TURN;
        let full = self.working.len() >= AT_A_TIME;
        if full {
            turn
        } else {
            waiting.filter_map(|target| target.not_before).min().unwrap_or(turn).min(turn)
        }
    }

    /// Reads the base anew; on a thread of its own, since a volume may hang.
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
            self.targets.values_mut().for_each(|target| target.settled = None);
        }
    }

    /// Which Secrets there should be.
    fn desired_targets(&self) -> Vec<(ObjectRef, Content)> {
        match &self.it.kind {
            Kind::DockerConfig(settings) => {
                let content = Content::DockerConfig { adopt: settings.adopt, base: self.base.clone() };
                let of =
                    |namespace: &str| (ObjectRef::new(namespace, settings.name.as_str()), content.clone());
                match &settings.namespaces {
                    Namespaces::Own => vec![of(self.cluster.namespace())],
                    Namespaces::Names(names) => names.iter().map(|name| of(name.as_str())).collect(),
                    Namespaces::All { .. } | Namespaces::Selector(_) => {
                        self.namespaces.iter().flatten().map(|name| of(name)).collect()
                    }
                }
            }
            Kind::RepoCreds(settings) => {
                let desired = self.it.with.credentials.borrow();
                let hosts = desired.current.keys().chain(&desired.awaited).chain(&desired.retired);
                let pairs = hosts.flat_map(|host| Flavour::ALL.map(|flavour| (host.clone(), flavour)));
                pairs
                    .map(|(host, flavour)| {
                        let name = template_name(&host, flavour);
                        let at = ObjectRef::new(settings.namespace.as_str(), name.as_str());
                        (at, Content::Template { host, flavour })
                    })
                    .collect()
            }
        }
    }

    fn update_targets(&mut self) {
        if !std::mem::take(&mut self.outdated) {
            return;
        }
        let desired = self.desired_targets();
        let kept: BTreeSet<_> = desired.iter().map(|(at, _)| at.clone()).collect();
        self.targets.retain(|at, target| {
            target.leaving = !kept.contains(at);
            !target.leaving || target.busy
        });
        for (at, content) in desired {
            match self.targets.get_mut(&at) {
                Some(target) => target.content = content,
                None => {
                    self.follow_secret(&at);
                    self.targets.insert(at, Target::new(content));
                }
            }
        }
    }

    fn follow_namespaces(&mut self) {
        let Kind::DockerConfig(settings) = &self.it.kind else { return };
        let labels = match &settings.namespaces {
            Namespaces::All { .. } => None,
            Namespaces::Selector(selector) => Some(selector.as_str().to_owned()),
            Namespaces::Own | Namespaces::Names(_) => return,
        };
        let name = settings.name.as_str().to_owned();
        self.follow(
            Watching::Namespaces,
            Scope { resource: "namespaces", namespace: None, name: None, labels },
        );
        if self.it.with.stays {
            let everywhere = Scope { resource: "secrets", namespace: None, name: Some(name), labels: None };
            self.follow(Watching::Secrets, everywhere);
        }
    }

    /// Follows a Secret whose namespace is known beforehand; else one watch follows all of that name.
    fn follow_secret(&mut self, at: &ObjectRef) {
        if !self.it.with.stays || self.finds_namespaces() || !self.watched.insert(at.to_string()) {
            return;
        }
        let (namespace, name) = (Some(at.namespace.clone()), Some(at.name.clone()));
        self.follow(Watching::Secrets, Scope { resource: "secrets", namespace, name, labels: None });
    }

    fn finds_namespaces(&self) -> bool {
        let Kind::DockerConfig(settings) = &self.it.kind else { return false };
        matches!(settings.namespaces, Namespaces::All { .. } | Namespaces::Selector(_))
    }

    fn follow(&mut self, watching: Watching, scope: Scope) {
        let (told, mut events) = mpsc::channel(16);
        let seen = self.tell.clone();
        let cluster = self.cluster.clone();
        self.watches.spawn(async move {
            let forward = async {
                while let Some(event) = events.recv().await {
                    if seen.send((watching, event)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(follow(cluster, scope, told), forward);
        });
    }

    fn note_seen(&mut self, watching: Watching, seen: Seen) {
        if let Seen::Failed(error) = seen {
            let what = self.wanted_by(watching);
            let problem = error.problem(&what);
            if self.reminders.entry(watching).or_default().is_due(&problem) {
                tracing::warn!(output = %self.it.with.id, error = problem.message, remedy = problem.remedy, "changes go unnoticed");
            }
            self.blind.insert(watching, problem);
            return;
        }
        self.blind.remove(&watching);
        self.outdated |= watching == Watching::Namespaces;
        match (watching, seen) {
            (Watching::Secrets, Seen::All(all)) => all.iter().for_each(|meta| self.note_version(meta)),
            (Watching::Secrets, Seen::Changed(meta)) => self.note_version(&meta),
            (Watching::Secrets, Seen::Gone(meta)) => {
                if let Some(target) = self.targets.get_mut(&ObjectRef::new(meta.namespace, meta.name)) {
                    target.told.clear();
                    target.marked = true;
                }
            }
            (Watching::Namespaces, Seen::All(all)) => {
                let live = all.into_iter().filter(|meta| meta.deletion_timestamp.is_none());
                self.namespaces =
                    Some(live.map(|meta| meta.name).filter(|name| !self.is_excluded(name)).collect());
            }
            (Watching::Namespaces, Seen::Changed(meta)) => {
                let is_live = meta.deletion_timestamp.is_none() && !self.is_excluded(&meta.name);
                let known = self.namespaces.get_or_insert_default();
                if is_live {
                    known.insert(meta.name)
                } else {
                    known.remove(&meta.name)
                };
            }
            (Watching::Namespaces, Seen::Gone(meta)) => {
                self.namespaces.get_or_insert_default().remove(&meta.name);
            }
            (_, Seen::Failed(_)) => {}
        }
    }

    fn is_excluded(&self, namespace: &str) -> bool {
        match &self.it.kind {
            Kind::DockerConfig(DockerConfigSecretSettings {
                namespaces: Namespaces::All { exclude },
                ..
            }) => exclude.iter().any(|name| name.as_str() == namespace),
            _ => false,
        }
    }

    fn wanted_by(&self, watching: Watching) -> Wanted<'_> {
        match (watching, &self.it.kind) {
            (Watching::Namespaces, _) => {
                Wanted { verb: "watch", resource: "namespaces", namespace: "", name: "" }
            }
            (Watching::Secrets, kind) => {
                let first = self.targets.keys().next();
                let name = first.map_or("", |at| at.name.as_str());
                let everywhere = self.finds_namespaces();
                let namespace = match kind {
                    Kind::RepoCreds(settings) => settings.namespace.as_str(),
                    Kind::DockerConfig(_) if everywhere => "",
                    Kind::DockerConfig(_) => first.map_or("", |at| at.namespace.as_str()),
                };
                Wanted { verb: "watch", resource: "secrets", namespace, name }
            }
        }
    }

    /// Another version than the one that we made or saw: to be looked at.
    fn note_version(&mut self, meta: &Meta) {
        let at = ObjectRef::new(meta.namespace.as_str(), meta.name.as_str());
        if let Some(target) = self.targets.get_mut(&at) {
            target.told.clone_from(&meta.resource_version);
            target.marked |= !target.busy && target.version != target.told;
        }
    }

    fn start_work(&mut self) {
        let now = Instant::now();
        for (at, target) in &mut self.targets {
            if self.working.len() >= AT_A_TIME {
                return;
            }
            if !target.marked || target.busy || target.not_before.is_some_and(|time| time > now) {
                continue;
            }
            target.marked = false;
            target.busy = true;
            let (at, content) = (at.clone(), target.content.clone());
            let (cluster, clock) = (self.cluster.clone(), self.it.with.clock.clone());
            let credentials = self.it.with.credentials.clone();
            self.working.spawn(async move {
                let outcome = look(&cluster, &at, &content, &credentials, &clock).await;
                (at, outcome)
            });
        }
    }

    fn note(&mut self, at: &ObjectRef, outcome: Outcome) {
        let troubled = self.targets.values().filter(|target| target.problem.is_some()).count();
        let id = &self.it.with.id;
        let Some(target) = self.targets.get_mut(at) else { return };
        self.outdated |= target.leaving;
        if outcome.result.is_err() {
            self.it.with.status.update_output(id, |output| output.failed += 1);
        }
        target.note(id, at, outcome, troubled, self.it.with.clock.now());
    }

    /// Writes the status.
    fn tell(&self) {
        let complete = !self.finds_namespaces() || self.namespaces.is_some();
        let desired = self.it.with.credentials.borrow();
        let in_place = if complete {
            everywhere(self.targets.values().map(|target| &target.in_place), &desired)
        } else {
            InPlace::new()
        };
        let mut troubled: Vec<_> = Vec::new();
        let mut in_sync = 0;
        for (at, target) in &self.targets {
            match &target.problem {
                Some(problem) => {
                    troubled.push(TargetStatus { name: at.to_string(), last_error: problem.clone() })
                }
                None if target.settled.is_some() => in_sync += 1,
                None => {}
            }
        }
        let more = troubled.len().saturating_sub(TOLD);
        let problem = troubled.first().map(|target| target.last_error.clone());
        let problem = problem.or_else(|| self.blind.values().next().cloned());
        troubled.truncate(TOLD);
        let targets = Targets { total: self.targets.len(), in_sync, troubled, more_troubled: more };
        let warnings: Vec<_> = self
            .base_warning
            .iter()
            .chain(self.targets.values().flat_map(|target| &target.warnings))
            .take(TOLD)
            .cloned()
            .collect();
        let reconciled = complete
            && self.targets.values().all(|target| target.settled.is_some() || target.problem.is_some());
        self.it.with.status.update_output(&self.it.with.id, |output| {
            output.turned = Instant::now();
            output.in_place = in_place;
            output.warnings = warnings;
            output.reconciled = reconciled;
            output.writes = self.targets.values().map(|target| target.writes).sum();
            output.written_at = self.targets.values().filter_map(|target| target.written_at).max();
            output.last_error = problem;
            output.targets = Some(targets);
        });
    }
}
