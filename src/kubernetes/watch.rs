//! Follows objects: a list, then watches from there, for ever.
//!
//! * A watch that ends goes on from the last version seen; only when that is too old (410), or an event cannot be read, is
//!   it listed again: `a_watch_goes_on_from_the_last_version_however_it_ended`,
//!   `a_version_that_is_too_old_is_listed_again`, `an_event_that_cannot_be_read_is_not_met_again`
//! * Whatever fails is tried again after a pause that grows to half a minute, with jitter, and that shrinks only
//!   after a watch has lasted, so that an API server that comes back meets no storm, one that answers and hangs up no
//!   loop: `a_watch_that_is_denied_is_tried_again_ever_more_rarely`
//! * A watch lasts some minutes at most, so that a connection that died silently is noticed.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use hyper::body::Bytes;
use kube::client::Body;
use serde::Deserialize;
use tokio::{sync::mpsc, time::Instant};

use super::{ApiError, Cluster, ObjectRef, ObjectState, error::Refusal, object::Partial};
use crate::backoff::Backoff;

/// How long one watch is requested for, and how much longer it is waited for.
const LASTS: Duration = Duration::from_secs(240);
const GRACE: Duration = Duration::from_secs(10);
/// A watch that lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(5);
const RETRY: Backoff = Backoff { min: Duration::from_millis(500), max: Duration::from_secs(30), jitter: 0.5 };
/// No event is longer: metadata is at most some 256 kB of annotations.
const EVENT_LIMIT: usize = 4 << 20;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scope {
    pub resource: &'static str,
    /// Their namespace; `None` for all of them.
    pub namespace: Option<String>,
    /// Their name; `None` for all of them.
    pub name: Option<String>,
    pub labels: Option<String>,
}

impl Scope {
    pub(crate) fn of(resource: &'static str) -> Self {
        Self { resource, namespace: None, name: None, labels: None }
    }

    /// The one object, where there can be no other.
    pub(crate) fn object(&self) -> Option<ObjectRef> {
        Some(ObjectRef::new(self.namespace.as_deref()?, self.name.as_deref()?))
    }

    pub(super) fn path(&self, further: &[(&str, &str)]) -> String {
        let place = self.namespace.as_ref().map(|name| format!("/namespaces/{name}")).unwrap_or_default();
        let field = self.name.as_ref().map(|name| format!("metadata.name={name}"));
        let own = [("fieldSelector", field.as_deref()), ("labelSelector", self.labels.as_deref())];
        let own = own.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let given = further.iter().copied().filter(|(_, value)| !value.is_empty());
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(own.chain(given));
        format!("/api/v1{place}/{}?{}", self.resource, query.finish())
    }
}

#[derive(Debug)]
pub(crate) enum WatchEvent {
    All(Vec<ObjectState>),
    Changed(ObjectState),
    Gone(ObjectState),
    /// It is tried again.
    Failed(ApiError),
}

/// Sends what happens in `scope`, until the receiver is dropped.
pub(crate) async fn watch(
    cluster: Cluster,
    scope: Arc<Scope>,
    events: mpsc::Sender<(Arc<Scope>, WatchEvent)>,
) {
    let mut watch = Watch { cluster, scope, events, version: None };
    let mut failures = 0;
    while !watch.events.is_closed() {
        let begun = Instant::now();
        let outcome = match watch.version.clone() {
            None => watch.list().await,
            Some(version) => watch.follow(&version).await,
        };
        if let Err(error) = outcome {
            // The version is too old, or the same event would come again.
            if error.is_gone() || error.is_unreadable() {
                watch.version = None;
            }
            if !error.is_gone() {
                watch.send(WatchEvent::Failed(error)).await;
            }
        }
        failures = if begun.elapsed() >= GOOD { 0 } else { failures + 1 };
        // A list and the watch after it are one step.
        if failures > 1 {
            tokio::time::sleep(RETRY.pause(failures - 1, fastrand::f64())).await;
        }
    }
}

struct Watch {
    cluster: Cluster,
    scope: Arc<Scope>,
    events: mpsc::Sender<(Arc<Scope>, WatchEvent)>,
    /// The last version that was sent; `None` when it is to be listed.
    version: Option<String>,
}

impl Watch {
    async fn list(&mut self) -> Result<(), ApiError> {
        let (all, version) = self.cluster.list(&self.scope).await?;
        self.send(WatchEvent::All(all)).await;
        self.version = Some(version);
        Ok(())
    }

    async fn follow(&mut self, version: &str) -> Result<(), ApiError> {
        let lasts = LASTS.mul_f64(0.8 + fastrand::f64() * 0.2);
        let response = self.cluster.open_watch(&self.scope, version, lasts).await?;
        let until = Instant::now() + lasts + GRACE;
        let mut lines = Lines { body: response.into_body(), rest: Vec::new(), until };
        while let Some(line) = lines.next().await? {
            let (version, event) = super::decode::<Event>(&line)?.open(&self.cluster)?;
            self.version = Some(version);
            if let Some(event) = event {
                self.send(event).await;
            }
        }
        Ok(())
    }

    /// `watch` ends when the receiver is gone.
    async fn send(&self, event: WatchEvent) {
        let _ = self.events.send((Arc::clone(&self.scope), event)).await;
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
enum Event {
    Added(Partial<ObjectState>),
    Modified(Partial<ObjectState>),
    Deleted(Partial<ObjectState>),
    Bookmark(Partial<ObjectState>),
    Error(serde_json::Value),
}

impl Event {
    /// Its version, and what to send.
    fn open(self, cluster: &Cluster) -> Result<(String, Option<WatchEvent>), ApiError> {
        let version = |object: &Partial<ObjectState>| object.metadata.resource_version.clone();
        Ok(match self {
            Self::Added(object) | Self::Modified(object) => {
                (version(&object), Some(WatchEvent::Changed(object.metadata)))
            }
            Self::Deleted(object) => (version(&object), Some(WatchEvent::Gone(object.metadata))),
            Self::Bookmark(object) => (version(&object), None),
            Self::Error(status) => {
                let status = cluster.link.redact(status.to_string().as_bytes());
                return Err(ApiError::Refused(Refusal::of_event(&status)));
            }
        })
    }
}

struct Lines {
    body: Body,
    rest: Vec<u8>,
    until: Instant,
}

impl Lines {
    /// The next line; `None` when the body ended as it should, or was silent for too long.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.drain(..=end).collect();
                return Ok(Some(line));
            }
            if self.rest.len() > EVENT_LIMIT {
                return Err(ApiError::TooLong(EVENT_LIMIT));
            }
            let Ok(frame) = tokio::time::timeout_at(self.until, self.body.frame()).await else {
                return Ok(None);
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(ApiError::cut(error)),
                Some(Ok(frame)) => {
                    let data: Bytes = frame.into_data().unwrap_or_default();
                    self.rest.extend_from_slice(&data);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_a_path() {
        let one = Scope {
            resource: "secrets",
            namespace: Some("flux-system".into()),
            name: Some("ecr".into()),
            labels: None,
        };
        assert_eq!(
            one.path(&[("limit", "500"), ("continue", "")]),
            "/api/v1/namespaces/flux-system/secrets?fieldSelector=metadata.name%3Decr&limit=500"
        );
        let some =
            Scope { resource: "namespaces", namespace: None, name: None, labels: Some("a in (b, c)".into()) };
        assert_eq!(some.path(&[]), "/api/v1/namespaces?labelSelector=a+in+%28b%2C+c%29");
    }
}
