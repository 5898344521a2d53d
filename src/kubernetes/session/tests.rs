use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
};

use http::Method;

use super::*;
use crate::{
    failure::diagnosis::Diagnosis,
    kubernetes::{Cluster, ObjectRef, Wanted},
};

/// What a session's API server answers, in turn; the last for ever. `None` is silence.
type Answers = Vec<Option<(u16, Vec<u8>)>>;

fn session(answers: Answers) -> Session {
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let service = tower::service_fn(move |_request: Request<Body>| {
        let mut answers = answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
        async move {
            let Some((status, body)) = answer else { return std::future::pending().await };
            let response = Response::builder().status(status).body(http_body_util::Full::from(body)).unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    session_of(Client::new(service, "apps"))
}

fn session_of(client: Client) -> Session {
    Session {
        client,
        namespace: "apps".into(),
        digest: [0; 32],
        expires_at: None,
        secrets: vec![Secret::new("c4n4ry".into())],
    }
}

/// A cluster with that one session.
pub(in crate::kubernetes) fn cluster_of(client: Client) -> Cluster {
    of_sessions(session_of(client), Vec::new()).0
}

/// A cluster whose first session has those answers, and which gets the others in turn; how often it connected.
fn cluster(
    first: Answers,
    others: Vec<Result<Option<Session>, ConnectError>>,
) -> (Cluster, Arc<AtomicUsize>) {
    of_sessions(session(first), others)
}

fn of_sessions(
    first: Session,
    others: Vec<Result<Option<Session>, ConnectError>>,
) -> (Cluster, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let others = Mutex::new(VecDeque::from(others));
    let count = Arc::clone(&asked);
    let connect = move |_known, _reason| {
        count.fetch_add(1, Ordering::Relaxed);
        let next = others.lock().unwrap().pop_front().unwrap_or(Ok(None));
        Box::pin(async move { next }) as Pin<Box<dyn Future<Output = _> + Send>>
    };
    (Cluster::of(Link::new(first, Box::new(connect))), asked)
}

fn status(code: u16, reason: &str, message: &str) -> Option<(u16, Vec<u8>)> {
    let body = serde_json::json!({"kind": "Status", "code": code, "reason": reason, "message": message});
    Some((code, body.to_string().into_bytes()))
}

fn secret() -> Option<(u16, Vec<u8>)> {
    Some((200, br#"{"metadata":{"name":"ecr","resourceVersion":"7"},"type":"t"}"#.to_vec()))
}

fn at() -> ObjectRef {
    ObjectRef::new("apps", "ecr")
}

fn diagnosis(error: &ApiError) -> Diagnosis {
    error
        .problem(&Wanted { verb: "get", resource: "secrets", namespace: "apps", name: "ecr" })
        .remedy
        .diagnosis
}

#[tokio::test(start_paused = true)]
async fn a_rejected_session_is_renewed_and_the_request_sent_again() {
    let unknown = || status(401, "Unauthorized", "Unauthorized");
    let (cluster, asked) = cluster(vec![unknown()], vec![Ok(Some(session(vec![secret()])))]);
    let found = cluster.secret(&at()).await.unwrap().unwrap();
    assert_eq!(found.metadata.resource_version, "7");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert!(cluster.secret(&at()).await.is_ok());
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the new session is kept");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_session_is_renewed_once_in_a_while() {
    let unknown = || status(401, "Unauthorized", "Unauthorized");
    let rejected = || Ok(Some(session(vec![unknown()])));
    let (cluster, asked) = cluster(vec![unknown()], vec![rejected(), rejected(), rejected()]);
    let requests = (0..100).map(|_| {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.secret(&at()).await })
    });
    for request in requests.collect::<Vec<_>>() {
        let error = request.await.unwrap().unwrap_err();
        assert_eq!(diagnosis(&error), Diagnosis::ApiServerLogin);
    }
    for _ in 0..10 {
        assert!(cluster.secret(&at()).await.is_err());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "a plugin is not run for each request");
    tokio::time::advance(CHECK_INTERVAL).await;
    assert!(cluster.secret(&at()).await.is_err());
    assert!(asked.load(Ordering::Relaxed) > 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_keeps_the_session() {
    let failed = || Err(ConnectError::Kubeconfig("it is not valid YAML".into()));
    let (cluster, asked) =
        cluster(vec![secret()], vec![failed(), Ok(None), Ok(Some(session(vec![secret()])))]);
    for checks in 1..=3 {
        tokio::time::advance(CHECK_INTERVAL).await;
        assert!(cluster.secret(&at()).await.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), checks);
    }
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_answer_has_its_diagnosis() {
    let wanted = |answer| {
        let (cluster, _) = cluster(vec![answer], Vec::new());
        async move { cluster.secret(&at()).await }
    };
    let denied = "admission webhook \"w\" denied the request: no";
    for (answer, expected) in [
        (status(403, "Forbidden", "User \"u\" cannot get resource \"secrets\""), Diagnosis::RightMissing),
        (status(403, "Forbidden", denied), Diagnosis::AdmissionDenied),
        (status(409, "Conflict", "the object has been modified"), Diagnosis::SecretConflict),
        (status(410, "Expired", "too old resource version"), Diagnosis::ApiServerUnreachable),
        (Some((404, b"<html>not here".to_vec())), Diagnosis::RequestRejected),
        (Some((503, Vec::new())), Diagnosis::ApiServerUnreachable),
        (Some((200, b"\xff\xfe\0{".to_vec())), Diagnosis::ApiServerUnreachable),
        // Deeper and larger than anything that an API server sends.
        (
            Some((200, [b"{\"metadata\":".as_slice(), &b"[".repeat(1 << 20)].concat())),
            Diagnosis::ApiServerUnreachable,
        ),
        (Some((200, b" ".repeat(9 << 20))), Diagnosis::ApiServerUnreachable),
        (Some((403, b"x".repeat(9 << 20))), Diagnosis::RequestRejected),
        (None, Diagnosis::ApiServerUnreachable),
    ] {
        let shown = answer.as_ref().map(|(code, body)| (*code, body.len()));
        let error = wanted(answer).await.unwrap_err();
        assert_eq!(diagnosis(&error), expected, "{shown:?}: {error}");
    }
    assert!(wanted(status(404, "NotFound", "secrets \"ecr\" not found")).await.unwrap().is_none());
    let (cluster, _) = cluster(vec![status(409, "Conflict", "")], Vec::new());
    let applied = cluster.apply(&at(), Default::default(), true).await;
    assert_eq!(diagnosis(&applied.unwrap_err()), Diagnosis::SecretConflict);
}

#[tokio::test(start_paused = true)]
async fn a_list_without_end_is_given_up() {
    let page = br#"{"metadata":{"resourceVersion":"1","continue":"more"},"items":[]}"#;
    let (cluster, _) = cluster(vec![Some((200, page.to_vec()))], Vec::new());
    let scope = crate::kubernetes::Scope::of("namespaces");
    assert!(matches!(cluster.list(&scope).await, Err(ApiError::Cut(_))));
}

/// A list of so many objects, each with so many bytes of metadata.
async fn listed(
    count: usize,
    bytes: usize,
) -> Result<(Vec<crate::kubernetes::ObjectState>, String), ApiError> {
    let object = format!(r#"{{"metadata":{{"name":"n","annotations":{{"a":"{}"}}}}}}"#, "x".repeat(bytes));
    let service = tower::service_fn(move |request: Request<Body>| {
        let query: std::collections::HashMap<_, _> =
            form_urlencoded::parse(request.uri().query().unwrap().as_bytes()).into_owned().collect();
        let from: usize = query.get("continue").map_or(0, |from| from.parse().unwrap());
        let to = (from + query["limit"].parse::<usize>().unwrap()).min(count);
        let next = if to == count { String::new() } else { to.to_string() };
        let items = vec![object.as_str(); to - from].join(",");
        let page =
            format!(r#"{{"metadata":{{"resourceVersion":"7","continue":"{next}"}},"items":[{items}]}}"#);
        async move {
            let body = http_body_util::Full::from(page.into_bytes());
            Ok::<_, Infallible>(Response::builder().status(200).body(body).unwrap())
        }
    });
    let cluster = cluster_of(Client::new(service, "apps"));
    let scope = crate::kubernetes::Scope::of("secrets");
    cluster.list(&scope).await
}

/// Whoever may write to a Secret makes its metadata as long as the API server takes it: then fewer are listed at a time.
#[tokio::test(start_paused = true)]
async fn pages_are_as_long_as_their_objects_allow() {
    let (found, version) = listed(40, 1 << 20).await.unwrap();
    assert_eq!((found.len(), version.as_str()), (40, "7"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_read_no_further_than_its_limit() {
    let (cluster, _) = cluster(vec![Some((200, b" ".repeat(9 << 20)))], Vec::new());
    assert!(matches!(cluster.secret(&at()).await, Err(ApiError::TooLong(_))));
    assert!(matches!(listed(1, 9 << 20).await, Err(ApiError::TooLong(_))));
}

#[tokio::test(start_paused = true)]
async fn a_list_of_more_objects_than_any_cluster_has_is_given_up() {
    assert_eq!(listed(100_000, 0).await.unwrap().0.len(), 100_000);
    assert!(matches!(listed(101_000, 0).await, Err(ApiError::Cut(_))));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_read_is_not_met_again() {
    let list = || Some((200, br#"{"metadata":{"resourceVersion":"1"},"items":[]}"#.to_vec()));
    for event in [b"{}\n".to_vec(), b"x".repeat(5 << 20)] {
        let (cluster, _) = cluster(vec![list(), Some((200, event)), list()], Vec::new());
        let scope = crate::kubernetes::Scope::of("secrets");
        let (sender, mut events) = tokio::sync::mpsc::channel(8);
        let following = tokio::spawn(crate::kubernetes::watch(cluster, scope.into(), sender));
        for is_failure in [false, true, false] {
            let seen =
                tokio::time::timeout(Duration::from_secs(600), events.recv()).await.unwrap().unwrap().1;
            assert_eq!(matches!(seen, crate::kubernetes::WatchEvent::Failed(_)), is_failure, "{seen:?}");
        }
        following.abort();
    }
}

#[test]
fn a_copy_is_the_same_request() {
    let mut request = Request::new(Body::from(b"body".to_vec()));
    *request.method_mut() = Method::PATCH;
    *request.uri_mut() = "/api?x=1".parse().unwrap();
    request.headers_mut().insert(header::ACCEPT, header::HeaderValue::from_static("a"));
    let copy = copy(&request).unwrap();
    assert_eq!(
        (copy.method(), copy.uri(), copy.headers()),
        (request.method(), request.uri(), request.headers())
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_echoes_our_token_is_redacted() {
    let echo = "you sent Authorization: Bearer c4n4ry";
    for answer in [status(403, "Forbidden", echo), status(500, "c4n4ry", ""), status(401, "", echo)] {
        let (cluster, _) = cluster(vec![answer], Vec::new());
        let shown = format!("{:?}", cluster.secret(&at()).await.unwrap_err());
        assert!(shown.contains("[redacted]") && !shown.contains("c4n4ry"), "{shown}");
    }
    // And in a watch.
    let event = serde_json::json!({"type": "ERROR", "object": {"code": 403, "message": echo}});
    let list = br#"{"metadata":{"resourceVersion":"1"},"items":[]}"#.to_vec();
    let answers = vec![Some((200, list)), Some((200, format!("{event}\n").into_bytes()))];
    let (cluster, _) = cluster(answers, Vec::new());
    let scope = crate::kubernetes::Scope::of("secrets");
    let (sender, mut events) = tokio::sync::mpsc::channel(8);
    let following = tokio::spawn(crate::kubernetes::watch(cluster, scope.into(), sender));
    let shown = loop {
        if let crate::kubernetes::WatchEvent::Failed(error) = events.recv().await.unwrap().1 {
            break format!("{error:?}");
        }
    };
    following.abort();
    assert!(shown.contains("[redacted]") && !shown.contains("c4n4ry"), "{shown}");
}

/// A watch goes on with the session that it began with, and a token is valid for a while after the next one is there.
#[tokio::test(start_paused = true)]
async fn a_token_of_a_session_before_is_redacted_too() {
    let other = || Session { secrets: vec![Secret::new("n3wer".into())], ..session(vec![secret()]) };
    let (cluster, _) = cluster(vec![secret()], vec![Ok(Some(other())), Ok(Some(other()))]);
    for _ in 0..2 {
        tokio::time::sleep(CHECK_INTERVAL).await;
        cluster.secret(&at()).await.unwrap();
    }
    let shown = cluster.link.redact(b"you sent c4n4ry and n3wer");
    assert_eq!(*shown, "you sent [redacted] and [redacted]");
}

#[test]
fn what_is_sent_is_known_by_each_of_its_forms() {
    let user = AuthInfo {
        username: Some("u".into()),
        password: Some(String::from("p4ss").into()),
        token: Some(String::from("t0ken").into()),
        ..AuthInfo::default()
    };
    let secrets = secrets_of(&user);
    let shown: Vec<_> = secrets.iter().map(|secret| secret.expose().as_str()).collect();
    assert_eq!(shown, ["t0ken", "p4ss", "dTpwNHNz"]);
}

#[tokio::test]
async fn authorities_on_a_volume_that_hangs_cost_one_thread() {
    let short = Duration::from_millis(20);
    let (release, hangs) = std::sync::mpsc::channel::<()>();
    let held = within(short, Path::new(SYSTEM_AUTHORITIES), move || {
        let _ = hangs.recv(); // until the test ends
        Ok(())
    });
    assert!(held.await.is_err());
    let config = Config::new("https://127.0.0.1:6443".parse().unwrap());
    assert!(client(config.clone(), short).await.is_err(), "it is not read beside that");
    drop(release);
    client(config, CONNECT_LIMIT).await.unwrap();
}
