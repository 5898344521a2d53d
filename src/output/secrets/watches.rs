//! The watches of an output: what happens to its Secrets, and which there should be.
//!
//! Secrets whose names are configured are watched one by one, as their Role allows; what is discovered (namespaces, or
//! the Secrets of one by their labels) is watched as a whole. Of unmanaged Secrets nothing is kept in memory.

use std::collections::{BTreeMap, BTreeSet};

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    super::secret_settings::{Namespaces, Which},
    Kind,
};
use crate::{
    failure::{Class, Problem, log_problem, reminder::Reminder},
    kubernetes::{ApiError, Cluster, ObjectRef, ObjectState, Scope, Wanted, WatchEvent, watch},
    status::OutputId,
    tasks,
};

pub(super) struct Watches {
    output: OutputId,
    kind: Kind,
    cluster: Cluster,
    /// The namespaces, or the Secrets of one, that the selector matches; `None` before the first list.
    discovered: Option<BTreeSet<String>>,
    /// The Secrets of our name that exist, where one watch covers all; `None` before its first list.
    present: Option<BTreeSet<ObjectRef>>,
    tasks: JoinSet<()>,
    watched: BTreeSet<ObjectRef>,
    sender: mpsc::Sender<(Subject, WatchEvent)>,
    events: mpsc::Receiver<(Subject, WatchEvent)>,
    failing: BTreeMap<Subject, Problem>,
    reminders: BTreeMap<Subject, Reminder>,
}

/// What a watch is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Secret(ObjectRef),
    /// All of ours: those of one name, or those with our labels.
    Secrets,
    Namespaces,
}

pub(super) enum Change {
    /// Other Secrets are to be kept than before.
    Targets,
    /// A Secret exists in this version.
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
        for (subject, scope) in watches.scopes() {
            if stay || watches.discovers(&subject) {
                watches.watch(subject, scope);
            }
        }
        watches
    }

    /// The watches of what is discovered; none where all names are known.
    fn scopes(&self) -> Vec<(Subject, Scope)> {
        let scope = |resource| Scope { resource, namespace: None, name: None, labels: None };
        match &self.kind {
            Kind::DockerConfig(settings) => {
                let labels = match &settings.namespaces {
                    Namespaces::All { .. } => None,
                    Namespaces::Selector(selector) => Some(selector.as_str().to_owned()),
                    Namespaces::Own | Namespaces::Names(_) => return Vec::new(),
                };
                let name = Some(settings.name.as_str().to_owned());
                vec![
                    (Subject::Namespaces, Scope { labels, ..scope("namespaces") }),
                    (Subject::Secrets, Scope { name, ..scope("secrets") }),
                ]
            }
            Kind::Repositories(settings) => match &settings.which {
                Which::Names(_) => Vec::new(),
                Which::Selector(selector) => {
                    let namespace = Some(settings.namespace.as_str().to_owned());
                    let labels = Some(selector.as_str().to_owned());
                    vec![(Subject::Secrets, Scope { namespace, labels, ..scope("secrets") })]
                }
            },
            Kind::RepoCreds(_) => Vec::new(),
        }
    }

    /// Whether that watch decides which Secrets there should be.
    fn discovers(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Namespaces => true,
            Subject::Secrets => matches!(self.kind, Kind::Repositories(_)),
            Subject::Secret(_) => false,
        }
    }

    /// The names that a selector matches: none where no selector decides, `None` while they are not known.
    pub(super) fn discovered(&self) -> Option<&BTreeSet<String>> {
        static NONE: BTreeSet<String> = BTreeSet::new();
        if self.kind.is_discovered() { self.discovered.as_ref() } else { Some(&NONE) }
    }

    /// Why a watch fails, if one does.
    pub(super) fn problem(&self) -> Option<&Problem> {
        self.failing.values().next()
    }

    /// Whether it is known that there is no such Secret.
    pub(super) fn is_absent(&self, at: &ObjectRef) -> bool {
        self.present.as_ref().is_some_and(|present| !present.contains(at))
    }

    /// Watches a Secret, where no other watch covers it.
    pub(super) fn watch_secret(&mut self, at: &ObjectRef) {
        if self.kind.is_discovered() || !self.watched.insert(at.clone()) {
            return;
        }
        let (namespace, name) = (Some(at.namespace.clone()), Some(at.name.clone()));
        let scope = Scope { resource: "secrets", namespace, name, labels: None };
        self.watch(Subject::Secret(at.clone()), scope);
    }

    fn watch(&mut self, subject: Subject, scope: Scope) {
        self.tasks.spawn(watch(self.cluster.clone(), scope, subject, self.sender.clone()));
    }

    pub(super) async fn next(&mut self) -> Change {
        let (subject, event) = tokio::select! {
            Some(event) = self.events.recv() => event,
            Some(Err(error)) = self.tasks.join_next() => {
                tasks::joined::<()>(Err(error));
                return Change::None; // the runtime ends
            }
        };
        let discovers = self.discovers(&subject);
        if let WatchEvent::Failed(error) = event {
            let class = self.note_failure(subject, &error);
            return if discovers && class == Class::Denied { Change::DiscoveryDenied } else { Change::None };
        }
        self.failing.remove(&subject);
        if discovers {
            return discover(&mut self.discovered, subject, event, |name| self.kind.excludes(name));
        }
        let change = observed(subject, event);
        self.note_present(&change);
        change
    }

    fn note_failure(&mut self, subject: Subject, error: &ApiError) -> Class {
        let (resource, namespace, name) = match (&subject, &self.kind) {
            (Subject::Namespaces, _) => ("namespaces", "", ""),
            (Subject::Secret(at), _) => ("secrets", at.namespace.as_str(), at.name.as_str()),
            (Subject::Secrets, Kind::DockerConfig(settings)) => ("secrets", "", settings.name.as_str()),
            (Subject::Secrets, Kind::RepoCreds(settings)) => ("secrets", settings.namespace.as_str(), ""),
            (Subject::Secrets, Kind::Repositories(settings)) => ("secrets", settings.namespace.as_str(), ""),
        };
        let problem = error.problem(&Wanted { verb: "watch", resource, namespace, name });
        if self.reminders.entry(subject.clone()).or_default().is_due(&problem) {
            log_problem!(warn, problem, { output = %self.output }, "changes go unnoticed");
        }
        let class = problem.class;
        self.failing.insert(subject, problem);
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

/// Takes an event of a watch that decides which Secrets there should be.
fn discover(
    discovered: &mut Option<BTreeSet<String>>,
    subject: Subject,
    event: WatchEvent,
    is_excluded: impl Fn(&str) -> bool,
) -> Change {
    let is_wanted = |object: &ObjectState| object.deletion_timestamp.is_none() && !is_excluded(&object.name);
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
    match (subject, &event) {
        // Also where there are others now: of those that stay, one may have been edited while nothing was watched.
        (Subject::Secrets, WatchEvent::All(_)) => observed(Subject::Secrets, event),
        _ if is_other => Change::Targets,
        (Subject::Secrets, _) => observed(Subject::Secrets, event),
        _ => Change::None,
    }
}

/// What an event of a watch of Secrets means.
fn observed(subject: Subject, event: WatchEvent) -> Change {
    let version = |one: ObjectState| (ObjectRef::new(one.namespace, one.name), one.resource_version);
    match event {
        WatchEvent::All(all) => {
            let only = match subject {
                Subject::Secret(at) => Some(at),
                Subject::Secrets | Subject::Namespaces => None,
            };
            Change::Listed(only, all.into_iter().map(version).collect())
        }
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
