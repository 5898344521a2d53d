//! An API server in memory: Secrets and namespaces with their versions, server-side apply, lists and watches, as far as
//! tests need them; and faults on request.

mod fields;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

pub(crate) use self::fields::applied;
use super::{Cluster, Connection, ObjectRef, session::tests::cluster_of};

pub(crate) enum Answer {
    Json(u16, Value),
    /// The chunks of a body, as they come.
    Stream(mpsc::UnboundedReceiver<io::Result<Bytes>>),
    Silence,
}

impl Answer {
    pub(crate) fn status(code: u16, reason: &str, message: &str) -> Self {
        Self::Json(code, json!({"kind": "Status", "code": code, "reason": reason, "message": message}))
    }

    fn not_found(what: &str) -> Self {
        Self::status(404, "NotFound", &format!("{what} not found"))
    }

    fn conflict() -> Self {
        Self::status(409, "Conflict", "the object has been modified")
    }
}

/// The body of an answer.
pub(super) struct Chunks(mpsc::UnboundedReceiver<io::Result<Bytes>>);

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

/// A cluster whose API server is this function of a request's method, path with query, and body.
pub(crate) fn cluster(answer: impl Fn(&Method, &str, &[u8]) -> Answer + Send + Sync + 'static) -> Cluster {
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = Arc::clone(&answer);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let (sender, mut chunks) = mpsc::unbounded_channel();
            let code = match answer(&head.method, &head.uri.to_string(), &body) {
                Answer::Json(code, body) => {
                    sender.send(Ok(body.to_string().into())).unwrap();
                    code
                }
                Answer::Stream(stream) => {
                    chunks = stream;
                    200
                }
                Answer::Silence => std::future::pending().await,
            };
            Ok::<_, Infallible>(Response::builder().status(code).body(Chunks(chunks)).unwrap())
        }
    });
    cluster_of(Client::new(service, "apps"))
}

#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    /// Its latest version.
    changed: watch::Sender<u64>,
}

type Fault = Box<dyn FnMut(&Method, &str) -> Option<Answer> + Send>;

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    /// What each version changed.
    history: Vec<Change>,
    watches: Vec<(Query, mpsc::UnboundedSender<io::Result<Bytes>>)>,
    fault: Option<Fault>,
    requests: Vec<(Method, String)>,
}

/// The resource, the namespace (of a namespace: none) and the name.
type Key = (String, String, String);

#[derive(Clone)]
struct Change {
    key: Key,
    before: Option<Value>,
    after: Option<Value>,
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), changed: watch::Sender::default() }
    }

    pub(crate) fn connection(&self) -> Connection {
        let api = self.clone();
        Connection::of(cluster(move |method, path, body| api.answer(method, path, body)))
    }

    /// Answers by `fault` what it has an answer to.
    pub(crate) fn fail(&self, fault: impl FnMut(&Method, &str) -> Option<Answer> + Send + 'static) {
        self.state.lock().unwrap().fault = Some(Box::new(fault));
    }

    pub(crate) fn heal(&self) {
        self.state.lock().unwrap().fault = None;
    }

    /// Ends all watches.
    pub(crate) fn hang_up(&self) {
        self.state.lock().unwrap().watches.clear();
    }

    /// How many requests of a method there were.
    pub(crate) fn count(&self, method: &Method) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|(one, _)| one == method).count()
    }

    pub(crate) fn secret(&self, at: &ObjectRef) -> Option<Value> {
        self.state.lock().unwrap().objects.get(&key_of(at)).cloned()
    }

    pub(crate) fn put_namespace(&self, name: &str, labels: Value) {
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        self.put(("namespaces".into(), String::new(), name.into()), Some(namespace));
    }

    pub(crate) fn delete_namespace(&self, name: &str) {
        self.put(("namespaces".into(), String::new(), name.into()), None);
    }

    /// Another field manager replaces a Secret.
    pub(crate) fn put_secret(&self, at: &ObjectRef, secret: Value) {
        let mut secret = secret;
        secret["metadata"]["name"] = json!(at.name);
        secret["metadata"]["namespace"] = json!(at.namespace);
        self.put(key_of(at), Some(secret));
    }

    pub(crate) fn delete_secret(&self, at: &ObjectRef) {
        self.put(key_of(at), None);
    }

    /// The field manager `hand` sets a key of a Secret's data.
    pub(crate) fn edit(&self, at: &ObjectRef, key: &str, value: &str) {
        let mut secret = self.secret(at).unwrap();
        fields::edit(&mut secret, "hand", key, value);
        self.put_secret(at, secret);
    }

    /// Waits until something about the API server is so.
    pub(crate) async fn wait<T>(&self, mut condition: impl FnMut(&Self) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if let Some(found) = condition(self) {
                return found;
            }
            let waited = tokio::time::timeout(std::time::Duration::from_secs(3600), changed.changed()).await;
            waited.expect("it never was so").unwrap();
        }
    }

    fn put(&self, key: Key, object: Option<Value>) {
        self.state.lock().unwrap().put(key, object);
        self.changed.send_modify(|version| *version += 1);
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> Answer {
        let answer = self.state.lock().unwrap().answer(method, path, body);
        if method != Method::GET {
            self.changed.send_modify(|version| *version += 1);
        }
        answer
    }
}

fn key_of(at: &ObjectRef) -> Key {
    ("secrets".into(), at.namespace.clone(), at.name.clone())
}

impl State {
    fn version(&self) -> usize {
        self.history.len()
    }

    fn put(&mut self, key: Key, mut after: Option<Value>) {
        let before = match &mut after {
            Some(after) => {
                after["metadata"]["resourceVersion"] = json!((self.version() + 1).to_string());
                self.objects.insert(key.clone(), after.clone())
            }
            None => self.objects.remove(&key),
        };
        let change = Change { key, before, after };
        self.history.push(change.clone());
        let version = self.version();
        self.watches.retain(|(query, sender)| match query.event(&change, version) {
            Some(event) => sender.send(Ok(event)).is_ok(),
            None => !sender.is_closed(),
        });
    }

    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> Answer {
        self.requests.push((method.clone(), path.to_owned()));
        if let Some(answer) = self.fault.as_mut().and_then(|fault| fault(method, path)) {
            return answer;
        }
        let query = Query::parse(path);
        let Some(name) = query.name.clone() else {
            return if query.watch.is_some() { self.watch(query) } else { self.list(&query) };
        };
        let key = (query.resource.clone(), query.namespace.clone(), name);
        let current = self.objects.get(&key).cloned();
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match (method, current) {
            (&Method::PATCH, current) => self.apply(key, current, &body, path.ends_with("force=true")),
            (_, None) => Answer::not_found(&format!("secrets \"{}\"", key.2)),
            (&Method::DELETE, Some(found)) => {
                if body["preconditions"]["resourceVersion"] != found["metadata"]["resourceVersion"] {
                    return Answer::conflict();
                }
                self.put(key, None);
                Answer::Json(200, found)
            }
            (_, Some(found)) => Answer::Json(200, found),
        }
    }

    fn apply(&mut self, key: Key, current: Option<Value>, body: &Value, force: bool) -> Answer {
        let namespace = ("namespaces".to_owned(), String::new(), key.1.clone());
        if !self.objects.contains_key(&namespace) {
            return Answer::not_found(&format!("namespaces \"{}\"", key.1));
        }
        let found = current.as_ref().map_or(&Value::Null, |current| &current["metadata"]["resourceVersion"]);
        let wanted = &body["metadata"]["resourceVersion"];
        if !wanted.is_null() && wanted != found || !force && fields::conflicts(current.as_ref(), body) {
            return Answer::conflict();
        }
        let after = applied(current.as_ref(), body);
        let is_same = current.as_ref().is_some_and(|current| *current == after);
        if !is_same {
            self.put(key.clone(), Some(after));
        }
        Answer::Json(200, self.objects[&key].clone())
    }

    fn list(&self, query: &Query) -> Answer {
        let matches = self.objects.iter().filter(|(key, object)| query.matches(key, object));
        let items: Vec<_> = matches.map(|(_, object)| object).collect();
        Answer::Json(
            200,
            json!({"metadata": {"resourceVersion": self.version().to_string()}, "items": items}),
        )
    }

    fn watch(&mut self, query: Query) -> Answer {
        let (sender, events) = mpsc::unbounded_channel();
        let from = query.watch.unwrap_or_default();
        for (index, change) in self.history.iter().enumerate().skip(from) {
            if let Some(event) = query.event(change, index + 1) {
                sender.send(Ok(event)).unwrap();
            }
        }
        self.watches.push((query, sender));
        Answer::Stream(events)
    }
}

/// What a request is about.
struct Query {
    resource: String,
    namespace: String,
    /// Of the one object that the path names.
    name: Option<String>,
    field: Option<String>,
    label: Option<(String, String)>,
    /// The version from which to watch.
    watch: Option<usize>,
}

impl Query {
    fn parse(uri: &str) -> Self {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let parameters: BTreeMap<_, _> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let parameter = |name: &str| parameters.get(name).map(String::as_str);
        let mut parts = path.strip_prefix("/api/v1/").unwrap().split('/').map(str::to_owned).peekable();
        let namespace = parts.next_if(|part| part == "namespaces").and_then(|_| parts.next());
        let pair = |text: &str| {
            let (key, value) = text.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        };
        Self {
            namespace: namespace.clone().unwrap_or_default(),
            // Without one, the path is that of the namespaces themselves.
            resource: parts.next().unwrap_or_else(|| "namespaces".into()),
            name: parts.next(),
            field: parameter("fieldSelector").map(|text| pair(text).1),
            label: parameter("labelSelector").map(pair),
            watch: parameter("watch").map(|_| parameter("resourceVersion").unwrap().parse().unwrap()),
        }
    }

    fn matches(&self, (resource, namespace, name): &Key, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        *resource == self.resource
            && (self.namespace.is_empty() || *namespace == self.namespace)
            && self.field.as_ref().is_none_or(|field| field == name)
            && self.label.as_ref().is_none_or(|(key, value)| labels[key] == *value)
    }

    /// The event by which a watch reports a change; the version is of the change, also of what is gone.
    fn event(&self, change: &Change, version: usize) -> Option<Bytes> {
        let matches =
            |object: &Option<Value>| object.clone().filter(|object| self.matches(&change.key, object));
        let (kind, mut object) = match (matches(&change.before), matches(&change.after)) {
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(before), None) => ("DELETED", before),
            (None, None) => return None,
        };
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        Some(format!("{}\n", json!({"type": kind, "object": object})).into())
    }
}
