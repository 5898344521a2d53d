//! The watches of an output: what happens to its Secrets, and which there should be.
//!
//! Secrets whose names are configured are watched one by one, as their Role allows; what is discovered (namespaces, or
//! the Secrets of one by their labels) is watched as a whole. Of unmanaged Secrets nothing is kept in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    super::secret_settings::{Namespaces, RepositoriesSettings, Which},
    Kind,
};
use crate::{
    failure::{Class, Problem, log_problem, reminder::Reminder},
    kubernetes::{ApiError, Cluster, ObjectRef, ObjectState, Scope, Wanted, WatchEvent, watch},
    status::OutputId,
    tasks,
};

const SECRETS: &str = "secrets";
const NAMESPACES: &str = "namespaces";

pub(super) struct Watches {
    output: OutputId,
    kind: Kind,
    cluster: Cluster,
    /// The namespaces, or the Secrets of one, that the selector matches; `None` before the first list.
    discovered: Option<BTreeSet<String>>,
    /// The Secrets of our name that exist, where one watch covers all; `None` before its first list.
    present: Option<BTreeSet<ObjectRef>>,
    tasks: JoinSet<()>,
    watched: BTreeSet<Arc<Scope>>,
    sender: mpsc::Sender<(Arc<Scope>, WatchEvent)>,
    events: mpsc::Receiver<(Arc<Scope>, WatchEvent)>,
    failing: BTreeMap<Arc<Scope>, Problem>,
    reminders: BTreeMap<Arc<Scope>, Reminder>,
}

pub(super) enum Change {
    /// Other Secrets are to be kept than before.
    Targets,
    Observed(ObjectRef, String),
    /// The versions of all that exist: of all that are kept, or of the one. Of all, others may be to be kept.
    Listed(Option<ObjectRef>, BTreeMap<ObjectRef, String>),
    Deleted(ObjectRef),
    /// Which Secrets there should be cannot be discovered, and waiting does not help.
    DiscoveryDenied,
    None,
}

impl Watches {
    /// Begins to watch what has to be discovered, and, to `stay` in sync, the Secrets that one watch covers.
    pub(super) fn new(output: OutputId, kind: Kind, cluster: Cluster, stay: bool) -> Self {
        let (sender, events) = mpsc::channel(64);
        let mut watches = Self {
            output,
            kind,
            cluster,
            discovered: None,
            present: None,
            tasks: JoinSet::new(),
            watched: BTreeSet::new(),
            sender,
            events,
            failing: BTreeMap::new(),
            reminders: BTreeMap::new(),
        };
        for scope in scopes(&watches.kind) {
            if stay || discovers(&scope) {
                watches.watch(scope);
            }
        }
        watches
    }

    /// The names that a selector matches: none where no selector decides, `None` while they are not known.
    pub(super) fn discovered(&self) -> Option<&BTreeSet<String>> {
        static NONE: BTreeSet<String> = BTreeSet::new();
        if self.kind.is_discovered() { self.discovered.as_ref() } else { Some(&NONE) }
    }

    pub(super) fn problem(&self) -> Option<&Problem> {
        self.failing.values().next()
    }

    pub(super) fn is_absent(&self, at: &ObjectRef) -> bool {
        self.present.as_ref().is_some_and(|present| !present.contains(at))
    }

    /// Watches a Secret, where no other watch covers it.
    pub(super) fn watch_secret(&mut self, at: &ObjectRef) {
        if !self.kind.is_discovered() {
            let (namespace, name) = (Some(at.namespace.clone()), Some(at.name.clone()));
            self.watch(Scope { namespace, name, ..Scope::of(SECRETS) });
        }
    }

    fn watch(&mut self, scope: Scope) {
        let scope = Arc::new(scope);
        if self.watched.insert(Arc::clone(&scope)) {
            self.tasks.spawn(watch(self.cluster.clone(), scope, self.sender.clone()));
        }
    }

    pub(super) async fn next(&mut self) -> Change {
        let (scope, event) = tokio::select! {
            Some(event) = self.events.recv() => event,
            Some(Err(error)) = self.tasks.join_next() => {
                tasks::joined::<()>(Err(error));
                return Change::None; // the runtime ends
            }
        };
        if let WatchEvent::Failed(error) = event {
            let is_denied = self.note_failure(&scope, &error) == Class::Denied;
            return if is_denied && discovers(&scope) { Change::DiscoveryDenied } else { Change::None };
        }
        self.failing.remove(&scope);
        if discovers(&scope) {
            return discover(&mut self.discovered, &scope, event, |name| self.kind.excludes(name));
        }
        let change = observed(&scope, event);
        self.note_present(&change);
        change
    }

    fn note_failure(&mut self, scope: &Arc<Scope>, error: &ApiError) -> Class {
        let problem = error.problem(&wanted("watch", scope));
        if self.reminders.entry(Arc::clone(scope)).or_default().is_due(&problem) {
            log_problem!(warn, problem, { output = %self.output }, "changes go unnoticed");
        }
        let class = problem.class;
        self.failing.insert(Arc::clone(scope), problem);
        class
    }

    fn note_present(&mut self, change: &Change) {
        match (change, &mut self.present) {
            (Change::Listed(None, all), _) => self.present = Some(all.keys().cloned().collect()),
            (Change::Observed(at, _), Some(present)) => {
                present.insert(at.clone());
            }
            (Change::Deleted(at), Some(present)) => {
                present.remove(at);
            }
            _ => {}
        }
    }
}

/// What is watched as a whole; nothing where all names are known.
fn scopes(kind: &Kind) -> Vec<Scope> {
    match kind {
        Kind::DockerConfig(settings) => {
            let labels = match &settings.namespaces {
                Namespaces::All { .. } => None,
                Namespaces::Selector(selector) => Some(selector.as_str().to_owned()),
                Namespaces::Own | Namespaces::Names(_) => return Vec::new(),
            };
            let name = Some(settings.name.as_str().to_owned());
            vec![Scope { labels, ..Scope::of(NAMESPACES) }, Scope { name, ..Scope::of(SECRETS) }]
        }
        Kind::Repositories(RepositoriesSettings { namespace, which: Which::Selector(selector) }) => {
            let namespace = Some(namespace.as_str().to_owned());
            let labels = Some(selector.as_str().to_owned());
            vec![Scope { namespace, labels, ..Scope::of(SECRETS) }]
        }
        Kind::Repositories(_) | Kind::RepoCreds(_) => Vec::new(),
    }
}

/// The names that the selector of an output matches now; none where no selector decides.
pub(super) async fn discovered_now(kind: &Kind, cluster: &Cluster) -> Result<BTreeSet<String>, Problem> {
    let Some(scope) = scopes(kind).into_iter().find(discovers) else { return Ok(BTreeSet::new()) };
    let (all, _) = cluster.list(&scope).await.map_err(|error| error.problem(&wanted("list", &scope)))?;
    Ok(all.into_iter().filter(|one| is_wanted(one, |name| kind.excludes(name))).map(|one| one.name).collect())
}

fn is_wanted(object: &ObjectState, is_excluded: impl Fn(&str) -> bool) -> bool {
    object.deletion_timestamp.is_none() && !is_excluded(&object.name)
}

fn wanted<'a>(verb: &'static str, scope: &'a Scope) -> Wanted<'a> {
    Wanted {
        verb,
        resource: scope.resource,
        namespace: scope.namespace.as_deref().unwrap_or_default(),
        name: scope.name.as_deref().unwrap_or_default(),
    }
}

/// Whether a watch decides which Secrets there should be.
fn discovers(scope: &Scope) -> bool {
    scope.resource == NAMESPACES || scope.labels.is_some()
}

fn discover(
    discovered: &mut Option<BTreeSet<String>>,
    scope: &Scope,
    event: WatchEvent,
    is_excluded: impl Fn(&str) -> bool,
) -> Change {
    let is_wanted = |object: &ObjectState| is_wanted(object, &is_excluded);
    let is_other = match &event {
        WatchEvent::All(all) => {
            let wanted = all.iter().filter(|one| is_wanted(one)).map(|one| one.name.clone());
            let wanted = Some(wanted.collect());
            let is_other = wanted != *discovered;
            *discovered = wanted;
            is_other
        }
        WatchEvent::Changed(one) if is_wanted(one) => {
            discovered.get_or_insert_default().insert(one.name.clone())
        }
        WatchEvent::Changed(one) | WatchEvent::Gone(one) => {
            discovered.get_or_insert_default().remove(&one.name)
        }
        WatchEvent::Failed(_) => false,
    };
    match event {
        _ if scope.resource == NAMESPACES && !is_other => Change::None,
        _ if scope.resource == NAMESPACES => Change::Targets,
        // Also where there are others now: of those that stay, one may have been edited while nothing was watched.
        WatchEvent::All(_) => observed(scope, event),
        _ if is_other => Change::Targets,
        _ => observed(scope, event),
    }
}

fn observed(scope: &Scope, event: WatchEvent) -> Change {
    let version = |one: ObjectState| (ObjectRef::new(one.namespace, one.name), one.resource_version);
    match event {
        WatchEvent::All(all) => Change::Listed(scope.object(), all.into_iter().map(version).collect()),
        WatchEvent::Changed(one) => {
            let (at, version) = version(one);
            Change::Observed(at, version)
        }
        WatchEvent::Gone(one) => Change::Deleted(version(one).0),
        WatchEvent::Failed(_) => Change::None,
    }
}

#[cfg(test)]
mod tests;
