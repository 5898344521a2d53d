//! The client against an API server that is a function.

use std::{
    io,
    sync::{Mutex, MutexGuard},
};

use serde_json::Value;
use tokio::{sync::mpsc, time::Instant};

use super::{
    fake::{Answer, cluster},
    *,
};
use crate::failure::{Class, diagnosis::Diagnosis};

/// A cluster that gives these answers in turn, then none; and the requests that it got.
fn script(answers: Vec<Answer>) -> (Cluster, Arc<Mutex<Vec<String>>>) {
    let (answers, asked) = (Mutex::new(answers.into_iter()), Arc::new(Mutex::new(Vec::new())));
    let requests = Arc::clone(&asked);
    let cluster = cluster(move |method, path, body| {
        requests.lock().unwrap().push(format!("{method} {path} {}", String::from_utf8_lossy(body)));
        answers.lock().unwrap().next().unwrap_or(Answer::Silence)
    });
    (cluster, asked)
}

fn requests(asked: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    asked.lock().unwrap()
}

fn page(version: &str, next: &str, names: &[&str]) -> Answer {
    let items: Vec<_> = names.iter().map(|name| json!({"metadata": {"name": name}})).collect();
    Answer::Json(200, json!({"metadata": {"resourceVersion": version, "continue": next}, "items": items}))
}

fn event(kind: &str, version: &str) -> String {
    json!({"type": kind, "object": {"metadata": {"name": "ecr", "resourceVersion": version}}}).to_string()
        + "\n"
}

/// The body of a watch that ends, or breaks, or stays silent after these chunks.
fn stream(chunks: &[String], end: Option<io::Result<()>>) -> Answer {
    let (sender, receiver) = mpsc::unbounded_channel();
    chunks.iter().for_each(|chunk| sender.send(Ok(chunk.clone().into())).unwrap());
    match end {
        Some(Ok(())) => {}
        Some(Err(error)) => sender.send(Err(error)).unwrap(),
        None => std::mem::forget(sender),
    }
    Answer::Stream(receiver)
}

fn broken() -> Option<io::Result<()>> {
    Some(Err(io::ErrorKind::ConnectionReset.into()))
}

fn at() -> ObjectRef {
    ObjectRef::new("apps", "ecr")
}

fn scope() -> Scope {
    let (namespace, name) = (Some("apps".to_owned()), Some("ecr".to_owned()));
    Scope { namespace, name, ..Scope::of("secrets") }
}

fn diagnosed(error: &ApiError) -> (Diagnosis, Class) {
    let problem = error.problem(&Wanted { verb: "get", resource: "secrets", namespace: "apps", name: "ecr" });
    (problem.remedy.diagnosis, problem.class)
}

/// The events of a watch, whose task ends with it.
struct Watching {
    events: mpsc::Receiver<(Arc<Scope>, WatchEvent)>,
    task: tokio::task::JoinHandle<()>,
}

impl Watching {
    fn new(cluster: Cluster) -> Self {
        let (sender, events) = mpsc::channel(8);
        Self { events, task: tokio::spawn(watch(cluster, scope().into(), sender)) }
    }

    async fn next(&mut self) -> WatchEvent {
        let event = tokio::time::timeout(Duration::from_secs(3600), self.events.recv());
        event.await.expect("nothing comes").unwrap().1
    }

    /// The next events, in short.
    async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            texts.push(match self.next().await {
                WatchEvent::All(all) => format!("all {}", all.len()),
                WatchEvent::Changed(object) => format!("changed {}", object.resource_version),
                WatchEvent::Gone(object) => format!("gone {}", object.resource_version),
                WatchEvent::Failed(error) => format!("failed {:?}", diagnosed(&error).0),
            });
        }
        texts
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// From which versions it was watched.
fn watched_from(asked: &Mutex<Vec<String>>) -> Vec<String> {
    let version = |request: &String| {
        let (_, rest) = request.split_once("watch=true&allowWatchBookmarks=true&resourceVersion=")?;
        Some(rest.split('&').next()?.to_owned())
    };
    requests(asked).iter().filter_map(version).collect()
}

#[tokio::test(start_paused = true)]
async fn a_list_is_read_page_by_page() {
    let (cluster, asked) =
        script(vec![page("7", "a b", &["one", "two"]), page("7", "c", &[]), page("8", "", &["three"])]);
    let (found, version) = cluster.list(&scope()).await.unwrap();
    assert_eq!(found.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["one", "two", "three"]);
    assert_eq!(version, "8");
    let asked = requests(&asked);
    assert!(asked[0].contains("limit=500") && !asked[0].contains("continue="), "{asked:?}");
    assert!(asked[1].contains("&continue=a+b") && asked[2].contains("&continue=c"), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_list_whose_pages_are_too_old_begins_again() {
    let old = Answer::status(410, "Expired", "The provided continue parameter is too old");
    let (cluster, asked) =
        script(vec![page("7", "a", &["one", "two"]), old, page("8", "", &["one", "three"])]);
    assert_eq!(Watching::new(cluster).texts(1).await, ["all 2"]);
    assert!(!requests(&asked)[2].contains("continue="));
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_from_the_last_version_however_it_ended() {
    let pieces = event("MODIFIED", "11");
    let (one, other) = pieces.split_at(20);
    let (cluster, asked) = script(vec![
        page("5", "", &["ecr"]),
        stream(&[event("MODIFIED", "6"), event("BOOKMARK", "8")], Some(Ok(()))),
        stream(&[event("DELETED", "9"), event("ADDED", "10"), "{\"type\":\"MODI".into()], broken()),
        // Events come in any pieces.
        stream(&[one.into(), other.into()], None),
    ]);
    let mut watching = Watching::new(cluster);
    let expected = ["all 1", "changed 6", "gone 9", "changed 10", "failed ApiServerUnreachable"];
    assert_eq!(watching.texts(5).await, expected);
    assert_eq!(watching.texts(1).await, ["changed 11"]);
    // A silent connection is given up.
    tokio::time::sleep(Duration::from_secs(260)).await;
    assert_eq!(watched_from(&asked)[..4], ["5", "8", "10", "11"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_too_old_is_listed_again() {
    let error = json!({"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}).to_string() + "\n";
    for too_old in
        [Answer::status(410, "Expired", "too old resource version"), stream(&[error], Some(Ok(())))]
    {
        let (cluster, asked) =
            script(vec![page("5", "", &[]), too_old, page("90", "", &["ecr"]), stream(&[], None)]);
        assert_eq!(Watching::new(cluster).texts(2).await, ["all 0", "all 1"], "and nothing has failed");
        assert_eq!(requests(&asked).len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_denied_is_tried_again_ever_more_rarely() {
    let forbidden = || Answer::status(403, "Forbidden", "User \"u\" cannot list resource \"secrets\"");
    let mut watching = Watching::new(script((0..12).map(|_| forbidden()).collect()).0);
    let mut times = Vec::new();
    for _ in 0..12 {
        assert_eq!(watching.texts(1).await, ["failed RightMissing"]);
        times.push(Instant::now());
    }
    let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[1] <= Duration::from_millis(500), "{pauses:?}");
    let last = pauses[10];
    assert!(last >= Duration::from_secs(15) && last <= Duration::from_secs(30), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_is_given_up() {
    let endless = || stream(&["{\"metadata\":".into()], None);
    for answer in [Answer::Silence, endless()] {
        let (cluster, asked) = script(vec![answer]);
        let begun = Instant::now();
        let error = cluster.secret(&at()).await.unwrap_err();
        assert!(matches!(error, ApiError::NoAnswer), "{error}");
        assert_eq!(begun.elapsed(), REQUEST_LIMIT);
        assert_eq!(requests(&asked).len(), 1, "retries are the callers' plan");
    }
    let (cluster, _) = script(vec![stream(&["{\"metadata\":".into()], broken())]);
    let error = cluster.secret(&at()).await.unwrap_err();
    assert!(matches!(error, ApiError::Cut(_)), "{error}");
}

/// Its `Retry-After` is not waited for: the outputs' own pauses grow beyond what API servers ask for.
#[tokio::test(start_paused = true)]
async fn a_throttled_request_is_reported_and_not_repeated() {
    let (cluster, asked) = script(vec![Answer::status(429, "TooManyRequests", "try again later")]);
    let begun = Instant::now();
    let error = cluster.secret(&at()).await.unwrap_err();
    assert_eq!(diagnosed(&error), (Diagnosis::ApiServerThrottled, Class::Throttled));
    assert_eq!((requests(&asked).len(), begun.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn each_write_names_us_and_what_it_rests_on() {
    let meta = || Answer::Json(200, json!({"metadata": {"name": "ecr", "resourceVersion": "8"}}));
    let conflict = || Answer::status(409, "Conflict", "the object has been modified");
    let (cluster, asked) = script(vec![meta(), conflict(), meta(), conflict()]);
    let body = || Zeroizing::new(b"{\"kind\":\"Secret\"}".to_vec());
    assert_eq!(cluster.apply(&at(), body(), true).await.unwrap().resource_version, "8");
    let error = cluster.apply(&at(), body(), false).await.unwrap_err();
    assert_eq!(diagnosed(&error), (Diagnosis::SecretConflict, Class::Transient));
    cluster.delete(&at(), "8").await.unwrap();
    let error = cluster.delete(&at(), "8").await.unwrap_err();
    assert_eq!(diagnosed(&error), (Diagnosis::SecretConflict, Class::Transient));
    let asked = requests(&asked);
    let path = "/api/v1/namespaces/apps/secrets/ecr";
    let applied =
        |force| format!("PATCH {path}?fieldManager=ecr-sidecar&force={force} {{\"kind\":\"Secret\"}}");
    assert_eq!(asked[..2], [applied(true), applied(false)]);
    let (line, body) = asked[2].split_once(" {").unwrap();
    let options: Value = serde_json::from_str(&format!("{{{body}")).unwrap();
    assert_eq!(line, format!("DELETE {path}"));
    assert_eq!(options["preconditions"]["resourceVersion"], "8");
}

#[tokio::test(start_paused = true)]
async fn a_right_is_what_the_api_server_reviews() {
    let right = Right { namespace: "apps".into(), resource: "secrets", name: "ecr".into(), verb: "patch" };
    for (status, expected) in [(json!({"allowed": true}), true), (json!({}), false)] {
        let (cluster, asked) = script(vec![Answer::Json(201, json!({"status": status}))]);
        assert_eq!(cluster.may(&right).await.unwrap(), expected);
        assert!(requests(&asked)[0].contains("\"verb\":\"patch\""), "{asked:?}");
    }
}
