//! Which Secrets of an output there should be, and what happens to them in the cluster.
//!
//! Names that the configuration says are followed one by one, as their Role allows; what is found out while the
//! process runs (namespaces, or the Secrets of one by their labels) is followed as a whole. Of what is not ours nothing
//! is kept in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    super::{
        argocd_names::{Flavour, template_name},
        file::read::Base,
        secret_settings::{Namespaces, Which},
    },
    Kind,
    desired::Content,
};
use crate::{
    credentials::CredentialSet,
    failure::{Class, Problem, reminder::Reminder},
    kubernetes::{ApiError, Cluster, ObjectRef, ObjectState, Scope, Wanted, WatchEvent, watch},
};

/// The Secrets that there should be.
pub(super) struct TargetSet {
    id: String,
    kind: Kind,
    cluster: Cluster,
    /// The namespaces, or the Secrets of one, that were found; `None` before the first list.
    listed: Option<BTreeSet<String>>,
    /// The Secrets of our name that are there, where one watch tells of all; `None` before its first list.
    present: Option<BTreeSet<ObjectRef>>,
    watches: JoinSet<()>,
    watched: BTreeSet<ObjectRef>,
    tell: mpsc::Sender<(Watching, WatchEvent)>,
    told: mpsc::Receiver<(Watching, WatchEvent)>,
    /// Why something cannot be followed.
    blind: BTreeMap<Watching, Problem>,
    reminders: BTreeMap<Watching, Reminder>,
}

/// What a watch is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Watching {
    Secret(ObjectRef),
    /// All of ours: those of one name, or those with our labels.
    Secrets,
    Namespaces,
}

pub(super) enum TargetEvent {
    /// Other Secrets are to be kept than before.
    OtherTargets,
    /// A Secret was seen in this version.
    Seen(ObjectRef, String),
    /// These are all there are, of all that are kept or of the one; of all, others may be to be kept than before.
    SeenAll(Option<ObjectRef>, BTreeMap<ObjectRef, String>),
    Gone(ObjectRef),
    /// What there should be cannot be found out, and waiting does not help.
    Denied,
    /// Nothing that calls for work.
    Nothing,
}

impl TargetSet {
    /// Begins to watch what has to be found out. Of the Secrets themselves only who `stays` wants to know.
    pub(super) fn new(id: String, kind: Kind, cluster: Cluster, stays: bool) -> Self {
        let (tell, told) = mpsc::channel(64);
        let mut target_set = Self {
            id,
            kind,
            cluster,
            listed: None,
            present: None,
            watches: JoinSet::new(),
            watched: BTreeSet::new(),
            tell,
            told,
            blind: BTreeMap::new(),
            reminders: BTreeMap::new(),
        };
        for (watching, scope) in target_set.scopes() {
            if stays || target_set.is_finder(&watching) {
                target_set.watch(watching, scope);
            }
        }
        target_set
    }

    /// The watches of what is found out; none where all names are known.
    fn scopes(&self) -> Vec<(Watching, Scope)> {
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
                    (Watching::Namespaces, Scope { labels, ..scope("namespaces") }),
                    (Watching::Secrets, Scope { name, ..scope("secrets") }),
                ]
            }
            Kind::Repositories(settings) => match &settings.which {
                Which::Names(_) => Vec::new(),
                Which::Selector(selector) => {
                    let namespace = Some(settings.namespace.as_str().to_owned());
                    let labels = Some(selector.as_str().to_owned());
                    vec![(Watching::Secrets, Scope { namespace, labels, ..scope("secrets") })]
                }
            },
            Kind::RepoCreds(_) => Vec::new(),
        }
    }

    /// Whether that watch tells which Secrets there should be.
    fn is_finder(&self, watching: &Watching) -> bool {
        match watching {
            Watching::Namespaces => true,
            Watching::Secrets => matches!(self.kind, Kind::Repositories(_)),
            Watching::Secret(_) => false,
        }
    }

    /// Whether all that there should be is known.
    pub(super) fn is_complete(&self) -> bool {
        !self.kind.finds_out() || self.listed.is_some()
    }

    /// Why something cannot be followed, if so.
    pub(super) fn problem(&self) -> Option<&Problem> {
        self.blind.values().next()
    }

    /// Which Secrets there should be.
    pub(super) fn targets(
        &self,
        credentials: &CredentialSet,
        base: Option<&Arc<Base>>,
    ) -> Vec<(ObjectRef, Content)> {
        let found = self.listed.iter().flatten().map(String::as_str);
        match &self.kind {
            Kind::DockerConfig(settings) => {
                let content = Content::DockerConfig { adopt: settings.adopt, base: base.cloned() };
                let of =
                    |namespace: &str| (ObjectRef::new(namespace, settings.name.as_str()), content.clone());
                match &settings.namespaces {
                    Namespaces::Own => vec![of(self.cluster.namespace())],
                    Namespaces::Names(names) => names.iter().map(|name| of(name.as_str())).collect(),
                    Namespaces::All { .. } | Namespaces::Selector(_) => found.map(of).collect(),
                }
            }
            Kind::RepoCreds(settings) => {
                let hosts =
                    credentials.current.keys().chain(&credentials.awaited).chain(&credentials.retired);
                let pairs = hosts.flat_map(|host| Flavour::ALL.map(|flavour| (host.clone(), flavour)));
                pairs
                    .map(|(host, flavour)| {
                        let name = template_name(&host, flavour);
                        let at = ObjectRef::new(settings.namespace.as_str(), name.as_str());
                        (at, Content::Template { host, flavour })
                    })
                    .collect()
            }
            Kind::Repositories(settings) => {
                let of =
                    |name: &str| (ObjectRef::new(settings.namespace.as_str(), name), Content::Repository);
                match &settings.which {
                    Which::Names(names) => names.iter().map(|name| of(name.as_str())).collect(),
                    Which::Selector(_) => found.map(of).collect(),
                }
            }
        }
    }

    /// Follows a Secret, where no other watch tells of it.
    pub(super) fn follow_secret(&mut self, at: &ObjectRef) {
        if self.kind.finds_out() || !self.watched.insert(at.clone()) {
            return;
        }
        let (namespace, name) = (Some(at.namespace.clone()), Some(at.name.clone()));
        let scope = Scope { resource: "secrets", namespace, name, labels: None };
        self.watch(Watching::Secret(at.clone()), scope);
    }

    fn watch(&mut self, watching: Watching, scope: Scope) {
        let (told, mut events) = mpsc::channel(16);
        let seen = self.tell.clone();
        let cluster = self.cluster.clone();
        self.watches.spawn(async move {
            let forward = async {
                while let Some(event) = events.recv().await {
                    if seen.send((watching.clone(), event)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(watch(cluster, scope, told), forward);
        });
    }

    pub(super) async fn next(&mut self) -> TargetEvent {
        let (watching, seen) = tokio::select! {
            Some(told) = self.told.recv() => told,
            Some(Err(error)) = self.watches.join_next() => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return TargetEvent::Nothing, // the runtime ends
            },
        };
        if let WatchEvent::Failed(error) = seen {
            let is_finder = self.is_finder(&watching);
            let class = self.note_blind(watching, &error);
            return if is_finder && class == Class::Denied {
                TargetEvent::Denied
            } else {
                TargetEvent::Nothing
            };
        }
        self.blind.remove(&watching);
        if self.is_finder(&watching) {
            return self.find(watching, seen);
        }
        let news = news(watching, seen);
        self.note_present(&news);
        news
    }

    fn note_blind(&mut self, watching: Watching, error: &ApiError) -> Class {
        let what = match &watching {
            Watching::Namespaces => Wanted { verb: "watch", resource: "namespaces", namespace: "", name: "" },
            Watching::Secret(at) => {
                Wanted { verb: "watch", resource: "secrets", namespace: &at.namespace, name: &at.name }
            }
            Watching::Secrets => {
                let (namespace, name) = match &self.kind {
                    Kind::DockerConfig(settings) => ("", settings.name.as_str()),
                    Kind::RepoCreds(settings) => (settings.namespace.as_str(), ""),
                    Kind::Repositories(settings) => (settings.namespace.as_str(), ""),
                };
                Wanted { verb: "watch", resource: "secrets", namespace, name }
            }
        };
        let problem = error.problem(&what);
        if self.reminders.entry(watching.clone()).or_default().is_due(&problem) {
            tracing::warn!(output = %self.id, error = problem.message, diagnosis = problem.remedy.diagnosis.id(), remedy = %problem.remedy, "changes go unnoticed");
        }
        let class = problem.class;
        self.blind.insert(watching, problem);
        class
    }

    /// Whether it is known that there is no such Secret.
    pub(super) fn knows_absent(&self, at: &ObjectRef) -> bool {
        self.present.as_ref().is_some_and(|present| !present.contains(at))
    }

    fn note_present(&mut self, news: &TargetEvent) {
        match (news, &mut self.present) {
            (TargetEvent::SeenAll(None, all), _) => self.present = Some(all.keys().cloned().collect()),
            (TargetEvent::Seen(at, _), Some(present)) => {
                present.insert(at.clone());
            }
            (TargetEvent::Gone(at), Some(present)) => {
                present.remove(at);
            }
            _ => {}
        }
    }

    /// What a watch tells that finds out which Secrets there should be.
    fn find(&mut self, watching: Watching, seen: WatchEvent) -> TargetEvent {
        let mut listed = self.listed.take();
        let news = find(&mut listed, watching, seen, |name| self.is_excluded(name));
        self.listed = listed;
        news
    }

    fn is_excluded(&self, namespace: &str) -> bool {
        let Kind::DockerConfig(settings) = &self.kind else { return false };
        let Namespaces::All { exclude } = &settings.namespaces else { return false };
        exclude.iter().any(|name| name.as_str() == namespace)
    }
}

/// Notes in `listed` what there should be by what a watch tells that finds it out, and what that means.
fn find(
    listed: &mut Option<BTreeSet<String>>,
    watching: Watching,
    seen: WatchEvent,
    is_excluded: impl Fn(&str) -> bool,
) -> TargetEvent {
    let is_wanted =
        |sighting: &ObjectState| sighting.deletion_timestamp.is_none() && !is_excluded(&sighting.name);
    let is_other = match &seen {
        WatchEvent::All(all) => {
            let wanted = all.iter().filter(|one| is_wanted(one)).map(|one| one.name.clone());
            let wanted = Some(wanted.collect());
            let is_other = wanted != *listed;
            *listed = wanted;
            is_other
        }
        WatchEvent::Changed(one) if is_wanted(one) => listed.get_or_insert_default().insert(one.name.clone()),
        WatchEvent::Changed(one) | WatchEvent::Gone(one) => listed.get_or_insert_default().remove(&one.name),
        WatchEvent::Failed(_) => false,
    };
    match (watching, &seen) {
        // Also where there are others now: of those that stay, one may have been edited while nothing was told.
        (Watching::Secrets, WatchEvent::All(_)) => news(Watching::Secrets, seen),
        _ if is_other => TargetEvent::OtherTargets,
        (Watching::Secrets, _) => news(Watching::Secrets, seen),
        _ => TargetEvent::Nothing,
    }
}

/// What a watch of Secrets tells.
fn news(watching: Watching, seen: WatchEvent) -> TargetEvent {
    let of = |one: ObjectState| (ObjectRef::new(one.namespace, one.name), one.resource_version);
    match seen {
        WatchEvent::All(all) => {
            let only = match watching {
                Watching::Secret(at) => Some(at),
                Watching::Secrets | Watching::Namespaces => None,
            };
            TargetEvent::SeenAll(only, all.into_iter().map(of).collect())
        }
        WatchEvent::Changed(one) => {
            let (at, version) = of(one);
            TargetEvent::Seen(at, version)
        }
        WatchEvent::Gone(one) => TargetEvent::Gone(of(one).0),
        WatchEvent::Failed(_) => TargetEvent::Nothing,
    }
}

#[cfg(test)]
mod tests;
