//! Whole outputs over an API server in memory, in simulated time.

mod discovery;
mod others;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinHandle,
};

use super::*;
use crate::{
    aws::token::{Service, Token, TokenKey},
    clock::{Clock, SimulatedClock},
    credentials::CredentialStore,
    failure::diagnosis::Diagnosis,
    kubernetes::{
        ObjectRef,
        fake::{Answer, FakeApi},
    },
    output::{Output, OutputConfig, secret_settings::Namespaces},
    registry::RegistryHost,
    secret::Secret,
    status::{OutputId, OutputStatus, StatusBoard},
};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const SECRET: &str = "ecr-credentials";
const LIFE: Duration = Duration::from_secs(12 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

/// One output of a process, with the API server that it writes to.
struct Harness {
    api: FakeApi,
    id: OutputId,
    credentials: CredentialStore,
    status: StatusBoard,
    clock: Clock,
    wake: Arc<Notify>,
    stop: oneshot::Sender<Remaining>,
    task: JoinHandle<()>,
}

impl Harness {
    /// An output that stays in sync, with a token of the password `one`.
    fn start(api: &FakeApi, config: &OutputConfig) -> Self {
        Self::of(api, config, true, ("one", LIFE))
    }

    /// The same with a token of that password and life; `once` does not stay.
    fn of(api: &FakeApi, config: &OutputConfig, stays: bool, token: (&str, Duration)) -> Self {
        Self::over(api.connection(), api, config, stays, token)
    }

    fn over(
        connection: Connection,
        api: &FakeApi,
        config: &OutputConfig,
        stays: bool,
        (password, life): (&str, Duration),
    ) -> Self {
        let clock = Clock::Simulated(SimulatedClock::starting_at(SystemTime::UNIX_EPOCH + 1000 * LIFE));
        let status = StatusBoard::new(clock.now());
        let id = config.id();
        status.update(|status| drop(status.outputs.insert(id.clone(), OutputStatus::new(id.clone()))));
        let credentials = CredentialStore::default();
        credentials.route([(HOST.parse().unwrap(), key())].into(), &[key()].into());
        assert!(credentials.publish(&key(), token(password, clock.now(), life), clock.now()));
        let wake = Arc::new(Notify::new());
        let with = ReconcilerContext {
            id: id.clone(),
            credentials: credentials.subscribe(),
            status: status.clone(),
            clock: clock.clone(),
            wake: Arc::clone(&wake),
            stays,
        };
        let Output::Secrets(kind) = Output::new(config) else { panic!("an output of files") };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(SecretsReconciler { with, kind, connection }.run(stopped));
        Self { api: api.clone(), id, credentials, status, clock, wake, stop, task }
    }

    /// There is a newer token.
    async fn publish(&self, password: &str) {
        tokio::time::advance(Duration::from_secs(1)).await;
        let now = self.clock.now();
        assert!(self.credentials.publish(&key(), token(password, now, LIFE), now));
    }

    /// Waits until something is so of the status.
    async fn wait(&self, what: &str, condition: impl Fn(&OutputStatus) -> bool) -> OutputStatus {
        let mut board = self.status.subscribe();
        let is_so = board.wait_for(|status| condition(&status.outputs[&self.id]));
        let status =
            tokio::time::timeout(60 * MINUTE, is_so).await.unwrap_or_else(|_| panic!("never {what}"));
        status.unwrap().outputs[&self.id].clone()
    }

    /// Waits until all is as desired.
    async fn in_sync(&self) -> OutputStatus {
        self.wait("in sync", |output| {
            let targets = output.targets.as_ref();
            output.reconciled && targets.is_some_and(|it| it.total > 0 && it.in_sync == it.total)
        })
        .await
    }

    /// Waits until the Secret holds this password.
    async fn holds(&self, at: &ObjectRef, password: &str) {
        self.api.wait(|api| (password_in(&api.secret(at)?)? == password).then_some(())).await;
    }

    fn writes(&self) -> usize {
        self.api.count(&Method::PATCH) + self.api.count(&Method::DELETE)
    }

    fn output(&self) -> OutputStatus {
        self.status.read(|status| status.outputs[&self.id].clone())
    }

    /// Stops it, since a configuration with these outputs takes its place.
    async fn replace(self, outputs: &[OutputConfig]) {
        let (_sender, outputs) = watch::channel(outputs.into());
        self.stop.send(Remaining::new(outputs)).ok().unwrap();
        self.task.await.unwrap();
    }
}

fn token(password: &str, now: SystemTime, life: Duration) -> Token {
    let auth = Secret::new(STANDARD.encode(format!("AWS:{password}")));
    Token { auth, obtained_at: now, expires_at: now + life }
}

fn key() -> TokenKey {
    TokenKey {
        identity: "default".into(),
        service: Service::Ecr,
        region: "eu-west-1".parse().unwrap(),
        endpoint: None,
        fips: None,
        dual_stack: None,
    }
}

/// An API server with these namespaces, each with the label `ecr=enabled`.
fn api(namespaces: &[&str]) -> FakeApi {
    let api = FakeApi::new();
    namespaces.iter().for_each(|name| api.put_namespace(name, json!({"ecr": "enabled"})));
    api
}

fn docker_config(namespaces: Namespaces) -> DockerConfigSecretSettings {
    DockerConfigSecretSettings {
        name: SECRET.parse().unwrap(),
        namespaces,
        base: None,
        adopt: false,
        prune: false,
    }
}

/// The Secret in these namespaces.
fn named(namespaces: &[&str]) -> OutputConfig {
    let names = namespaces.iter().map(|name| name.parse().unwrap()).collect();
    OutputConfig::DockerConfigSecret(docker_config(Namespaces::Names(names)))
}

fn at(namespace: &str) -> ObjectRef {
    ObjectRef::new(namespace, SECRET)
}

/// The password of a Secret, whichever its kind.
fn password_in(secret: &Value) -> Option<String> {
    let decode = |text: &str| String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
    let data = &secret["data"];
    match data[".dockerconfigjson"].as_str() {
        Some(config) => {
            let config: Value = serde_json::from_str(&decode(config)).ok()?;
            Some(decode(config["auths"][HOST]["auth"].as_str()?).strip_prefix("AWS:")?.to_owned())
        }
        None => Some(decode(data["password"].as_str()?)),
    }
}

fn unavailable(_: &Method, _: &str) -> Option<Answer> {
    Some(Answer::status(503, "ServiceUnavailable", "the server is currently unable to handle the request"))
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_between_refreshes() {
    let api = api(&["apps", "team"]);
    let harness = Harness::start(&api, &named(&["apps", "team"]));
    let output = harness.in_sync().await;
    assert_eq!((output.in_place.len(), harness.writes()), (1, 2));
    // Several resyncs, and watches that end.
    for _ in 0..4 {
        tokio::time::sleep(20 * MINUTE).await;
        api.hang_up();
    }
    assert_eq!(harness.writes(), 2);
    harness.publish("two").await;
    harness.holds(&at("apps"), "two").await;
    harness.holds(&at("team"), "two").await;
    let output = harness.in_sync().await;
    assert_eq!((output.writes, output.failed, harness.writes()), (4, 0, 4));
    assert_eq!(output.in_place.values().max(), Some(&(harness.clock.now() + LIFE)));
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_api_server_is_retried_and_loses_nothing() {
    let api = api(&["apps"]);
    let harness = Harness::start(&api, &named(&["apps"]));
    harness.in_sync().await;
    api.fail(unavailable);
    api.hang_up();
    harness.publish("two").await;
    let output = harness.wait("failing", |output| output.failed >= 10).await;
    let problem = output.last_error.unwrap();
    assert_eq!(problem.remedy.diagnosis, Diagnosis::ApiServerUnreachable);
    assert_eq!(output.in_place.len(), 1, "what was there still is");
    let targets = output.targets.unwrap();
    assert_eq!((targets.failing(), targets.given_up), (1, 1));
    api.heal();
    harness.holds(&at("apps"), "two").await;
    harness.in_sync().await;
    harness.wait("recovered", |output| output.last_error.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn an_output_that_waits_for_a_connection_is_alive() {
    let api = api(&["apps"]);
    let harness = Harness::over(Connection::never(), &api, &named(&["apps"]), true, ("one", LIFE));
    for _ in 0..20 {
        tokio::time::sleep(MINUTE).await;
        assert!(harness.output().last_heartbeat.elapsed() <= MINUTE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_ends_the_pauses() {
    let api = api(&["apps"]);
    let harness = Harness::start(&api, &named(&["apps"]));
    harness.in_sync().await;
    api.fail(|method, _| (method == Method::PATCH).then(|| Answer::status(500, "", "")));
    harness.publish("two").await;
    harness.wait("failing", |output| output.failed >= 6).await;
    api.heal();
    let healed = Instant::now();
    harness.wake.notify_one();
    harness.holds(&at("apps"), "two").await;
    assert_eq!(healed.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_failing_target_delays_no_other() {
    let namespaces: Vec<_> = (0..40).map(|number| format!("ns-{number:02}")).collect();
    let namespaces: Vec<_> = namespaces.iter().map(String::as_str).collect();
    let api = api(&namespaces);
    // All but one are denied, or never answered.
    api.fail(|method, path| match path {
        _ if method != Method::PATCH || path.contains("/ns-39/") => None,
        _ if path.contains("/ns-0") => Some(Answer::Silence),
        _ => Some(Answer::status(403, "Forbidden", "User \"u\" cannot patch resource \"secrets\"")),
    });
    let harness = Harness::start(&api, &named(&namespaces));
    let output =
        harness.wait("all failing", |output| output.targets.as_ref().is_some_and(|it| it.failing() == 39));
    let targets = output.await.targets.unwrap();
    assert_eq!((targets.failing.len(), targets.more_failing, targets.in_sync), (20, 19, 1));
    for password in ["two", "three", "four"] {
        harness.publish(password).await;
        let begun = Instant::now();
        harness.holds(&at("ns-39"), password).await;
        assert!(begun.elapsed() <= Duration::from_secs(60), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_tried_again_from_what_is_there_then() {
    let api = api(&["apps"]);
    let mut conflicts = 0;
    api.fail(move |method, _| {
        conflicts += usize::from(method == Method::PATCH);
        (method == Method::PATCH && conflicts <= 7).then(|| Answer::status(409, "Conflict", "modified"))
    });
    let harness = Harness::start(&api, &named(&["apps"]));
    let output = harness.in_sync().await;
    assert_eq!((output.failed, output.writes), (1, 1), "five tries, then a pause, then three");
}

#[tokio::test(start_paused = true)]
async fn once_does_not_watch_and_counts_failures() {
    let api = api(&["apps"]);
    let harness = Harness::of(&api, &named(&["apps"]), false, ("one", LIFE));
    harness.in_sync().await;
    assert_eq!(api.count(&Method::GET), 1, "the Secret itself");
    let selector = Namespaces::Selector("ecr=enabled".parse().unwrap());
    let selected = OutputConfig::DockerConfigSecret(docker_config(selector));
    api.fail(|_, _| Some(Answer::status(403, "Forbidden", "User \"u\" cannot list resource \"namespaces\"")));
    let harness = Harness::of(&api, &selected, false, ("one", LIFE));
    let output = harness.wait("failing", |output| output.failed >= 3).await;
    assert!(!output.reconciled && output.in_place.is_empty());
    assert_eq!(output.last_error.unwrap().remedy.diagnosis, Diagnosis::RightMissing);
}

#[tokio::test(start_paused = true)]
async fn the_entries_of_the_base_are_carried_along_and_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.json");
    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    let put = |text: &str| std::fs::write(&path, text).unwrap();
    put("{\"auths\":{\"ghcr.io\":{\"auth\":\"bWU6b25l\"}}}");
    let api = api(&["apps"]);
    let settings = DockerConfigSecretSettings { base: Some(path.clone()), ..docker_config(Namespaces::Own) };
    let harness = Harness::start(&api, &OutputConfig::DockerConfigSecret(settings));
    harness.in_sync().await;
    let carried = |api: &FakeApi| {
        let text = api.secret(&at("apps"))?["data"][".dockerconfigjson"].as_str()?.to_owned();
        let config: Value = serde_json::from_slice(&STANDARD.decode(text).unwrap()).unwrap();
        Some(config["auths"]["ghcr.io"]["auth"].as_str()?.to_owned())
    };
    assert_eq!(carried(&api).as_deref(), Some("bWU6b25l"));
    put("{\"auths\":{\"ghcr.io\":{\"auth\":\"bWU6dHdv\"}}}");
    harness.wake.notify_one();
    api.wait(|api| (carried(api)? == "bWU6dHdv").then_some(())).await;
    put("not a docker config");
    harness.wake.notify_one();
    let output = harness.wait("a warning", |output| !output.warnings.is_empty()).await;
    assert!(output.warnings[0].message.contains("base.json"), "{:?}", output.warnings);
    assert_eq!(carried(&api).as_deref(), Some("bWU6dHdv"));
}

/// The API server is away while the base changes twice: an entry that it had before both changes leaves all the same.
#[tokio::test(start_paused = true)]
async fn an_entry_that_left_the_base_during_an_outage_leaves_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.json");
    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    let put = |host: &str| {
        std::fs::write(&path, format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"bWU6b25l\"}}}}}}")).unwrap();
    };
    put("first.example");
    let api = api(&["apps"]);
    let settings = DockerConfigSecretSettings { base: Some(path.clone()), ..docker_config(Namespaces::Own) };
    let harness = Harness::start(&api, &OutputConfig::DockerConfigSecret(settings));
    harness.in_sync().await;
    api.fail(unavailable);
    for host in ["second.example", "third.example"] {
        put(host);
        let failed = harness.output().failed;
        harness.wake.notify_one();
        harness.wait("failing", |output| output.failed > failed).await;
    }
    api.heal();
    let hosts = |api: &FakeApi| {
        let text = api.secret(&at("apps"))?["data"][".dockerconfigjson"].as_str()?.to_owned();
        let config: Value = serde_json::from_slice(&STANDARD.decode(text).unwrap()).unwrap();
        Some(config["auths"].as_object()?.keys().cloned().collect::<Vec<_>>())
    };
    api.wait(|api| hosts(api)?.contains(&"third.example".to_owned()).then_some(())).await;
    assert_eq!(hosts(&api).unwrap(), [HOST, "third.example"]);
    // What another field manager adds later under a name that the base once had is not taken for the base's.
    put("fourth.example");
    harness.wake.notify_one();
    api.wait(|api| hosts(api)?.contains(&"fourth.example".to_owned()).then_some(())).await;
    harness.in_sync().await;
    let text = api.secret(&at("apps")).unwrap()["data"][".dockerconfigjson"].as_str().unwrap().to_owned();
    let mut config: Value = serde_json::from_slice(&STANDARD.decode(text).unwrap()).unwrap();
    config["auths"]["first.example"] = json!({"auth": "dGhlaXJzOng="});
    api.edit(&at("apps"), ".dockerconfigjson", &config.to_string());
    harness.wake.notify_one();
    tokio::time::sleep(20 * MINUTE).await;
    assert!(hosts(&api).unwrap().contains(&"first.example".to_owned()));
}
