//! Simulated days under random faults: the real engine and a real file, with AWS played at the level of HTTP
//! and time that flies.
//!
//! Whatever happens: the last good file stays, whole; readiness is true exactly while what is in the file
//! would be let in; calls are bounded; and when a fault ends, recovery comes within the plan's time.
//!
//! `SIMULATION_SEED=n` runs one sequence of faults again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ecr_sidecar::{
    admin::readiness,
    clock::{Clock, SimulatedClock},
    config::{self, Context, Flags},
    engine::{Dependencies, Engine},
    env::Environment,
    failure::Problem,
    fs::watch::FileWatcher,
    status::StatusBoard,
};
use fastrand::Rng;
use test_support::files::overwrite;

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// 2026-01-01
const START: Duration = Duration::from_secs(1_767_225_600);

/// What AWS does to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    ServerError,
    Throttled,
    Denied,
    ExpiredCredentials,
    Html,
    EmptyList,
    NotBase64,
    Hang,
    Refused,
    Slow,
    ExpiredOnArrival,
}

const FAULTS: [Fault; 11] = [
    Fault::ServerError,
    Fault::Throttled,
    Fault::Denied,
    Fault::ExpiredCredentials,
    Fault::Html,
    Fault::EmptyList,
    Fault::NotBase64,
    Fault::Hang,
    Fault::Refused,
    Fault::Slow,
    Fault::ExpiredOnArrival,
];

/// AWS: what it does next, and what it has issued.
#[derive(Debug)]
struct Aws {
    fault: Fault,
    clock: Clock,
    issued: BTreeMap<String, SystemTime>,
    /// Of the API.
    calls: u64,
    registry: Registry,
}

/// What the registry does, and when it was asked for which path with which `auth`.
#[derive(Debug, Default)]
struct Registry {
    fault: Option<RegistryFault>,
    asked: Vec<(SystemTime, String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RegistryFault {
    Denied,
    NoSuchTag,
    Throttled,
    Unavailable,
    Redirect,
    Html,
    Hang,
    Refused,
}

const REGISTRY_FAULTS: [RegistryFault; 8] = [
    RegistryFault::Denied,
    RegistryFault::NoSuchTag,
    RegistryFault::Throttled,
    RegistryFault::Unavailable,
    RegistryFault::Redirect,
    RegistryFault::Html,
    RegistryFault::Hang,
    RegistryFault::Refused,
];

#[derive(Debug, Clone)]
struct AwsConnector(Arc<Mutex<Aws>>);

impl HttpConnector for AwsConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut aws = self.0.lock().unwrap();
        if let Some(path) = request.uri().strip_prefix(&format!("https://{HOST}")) {
            return aws.serve(path, request.headers().get("authorization").unwrap_or_default());
        }
        aws.calls += 1;
        let error =
            |status, code: &str| answer(status, format!(r#"{{"__type":"{code}","message":"simulated"}}"#));
        let response = match aws.fault {
            Fault::None | Fault::Slow | Fault::ExpiredOnArrival => aws.issue(),
            Fault::ServerError => error(500, "ServerException"),
            Fault::Throttled => error(400, "ThrottlingException"),
            Fault::Denied => error(400, "AccessDeniedException"),
            Fault::ExpiredCredentials => error(400, "ExpiredTokenException"),
            Fault::Html => answer(200, "<html>hello</html>".into()),
            Fault::EmptyList => answer(200, r#"{"authorizationData":[]}"#.into()),
            Fault::NotBase64 => {
                answer(200, r#"{"authorizationData":[{"authorizationToken":"-","expiresAt":9e9}]}"#.into())
            }
            Fault::Hang => return HttpConnectorFuture::new(std::future::pending()),
            Fault::Refused => {
                return HttpConnectorFuture::ready(Err(ConnectorError::io("connection refused".into())));
            }
        };
        let delay = if aws.fault == Fault::Slow { Duration::from_secs(8) } else { Duration::ZERO };
        HttpConnectorFuture::new(async move {
            tokio::time::sleep(delay).await;
            Ok(response)
        })
    }
}

impl Aws {
    fn issue(&mut self) -> HttpResponse {
        let now = self.clock.now();
        let expires = if self.fault == Fault::ExpiredOnArrival { now - HOUR } else { now + LIFETIME };
        let auth = STANDARD.encode(format!("AWS:password-{}", self.issued.len()));
        self.issued.insert(auth.clone(), expires);
        let said = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        answer(
            200,
            format!(r#"{{"authorizationData":[{{"authorizationToken":"{auth}","expiresAt":{said}}}]}}"#),
        )
    }

    /// What the registry answers.
    fn serve(&mut self, path: &str, authorization: &str) -> HttpConnectorFuture {
        let auth = authorization.strip_prefix("Basic ").unwrap_or_default().to_owned();
        self.registry.asked.push((self.clock.now(), path.to_owned(), auth.clone()));
        let error = |status, code: &str| {
            answer(status, format!(r#"{{"errors":[{{"code":"{code}","message":"simulated"}}]}}"#))
        };
        HttpConnectorFuture::ready(Ok(match self.registry.fault {
            Some(RegistryFault::Hang) => return HttpConnectorFuture::new(std::future::pending()),
            Some(RegistryFault::Refused) => {
                return HttpConnectorFuture::ready(Err(ConnectorError::io("connection refused".into())));
            }
            _ if !self.lets_in(&auth) => error(401, "DENIED"),
            None => answer(200, r#"{"schemaVersion":2,"layers":[]}"#.into()),
            Some(RegistryFault::Denied) => error(403, "DENIED"),
            Some(RegistryFault::NoSuchTag) => error(404, "MANIFEST_UNKNOWN"),
            Some(RegistryFault::Throttled) => error(429, "TOOMANYREQUESTS"),
            Some(RegistryFault::Unavailable) => error(503, "UNAVAILABLE"),
            Some(RegistryFault::Redirect) => {
                let mut redirect = answer(302, String::new());
                redirect.headers_mut().insert("location", "https://evil.example/v2/");
                redirect
            }
            Some(RegistryFault::Html) => answer(200, "<html>hello</html>".into()),
        }))
    }

    fn lets_in(&self, auth: &str) -> bool {
        self.issued.get(auth).is_some_and(|expires| *expires > self.clock.now())
    }
}

fn answer(status: u16, body: String) -> HttpResponse {
    HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from(body))
}

/// The sidecar at work, and what surrounds it.
struct World {
    folder: tempfile::TempDir,
    clock: SimulatedClock,
    aws: Arc<Mutex<Aws>>,
    status: StatusBoard,
    engine: Engine,
}

impl World {
    async fn start() -> Self {
        Self::start_with(Fault::None).await
    }

    async fn start_with(fault: Fault) -> Self {
        let clock = SimulatedClock::starting_at(SystemTime::UNIX_EPOCH + START);
        let simulated = Clock::Simulated(clock.clone());
        let aws =
            Aws { fault, clock: simulated, issued: BTreeMap::new(), calls: 0, registry: Registry::default() };
        Self::with(tempfile::tempdir().unwrap(), clock, Arc::new(Mutex::new(aws))).await
    }

    /// Applies a changed configuration: a registry with that probe, and the same output.
    async fn reload(&mut self, probe: &str) {
        let path = self.folder.path().join("ecr-sidecar.yaml");
        let probe = if probe.is_empty() { String::new() } else { format!(", probe: {{{probe}}}") };
        let text = format!(
            "registries: [{{host: {HOST}{probe}}}]\noutputs: [{{type: docker-config, path: {}}}]\n",
            self.path().display()
        );
        overwrite(&path, &text);
        let path = path.display().to_string();
        let env = [
            ("ECR_SIDECAR_CONFIG", path.as_str()),
            ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        let context = Context { env: Environment::from_pairs(env), ..Context::default() };
        let config = config::load(&Flags::default(), &context).await.unwrap();
        self.engine.apply(&config).await;
    }

    fn set_registry(&self, fault: Option<RegistryFault>) {
        self.aws.lock().unwrap().registry.fault = fault;
    }

    /// When the registry was asked, for which path, with which `auth`.
    fn asked(&self) -> Vec<(SystemTime, String, String)> {
        self.aws.lock().unwrap().registry.asked.clone()
    }

    /// The diagnosis of the probe, empty when it succeeded; none before its first result.
    fn probe(&self) -> Option<String> {
        self.status.read(|status| {
            let probe = status.probes.values().next()?;
            let id = |problem: &Problem| problem.remedy.diagnosis.id().to_owned();
            probe.checked_at.map(|_| probe.last_error.as_ref().map(id).unwrap_or_default())
        })
    }

    /// The process is killed, and another one started on what it left.
    async fn restart(self) -> Self {
        drop(self.engine);
        Self::with(self.folder, self.clock, self.aws).await
    }

    async fn with(folder: tempfile::TempDir, clock: SimulatedClock, aws: Arc<Mutex<Aws>>) -> Self {
        let path = folder.path().join("config.json").display().to_string();
        let env = [
            ("ECR_SIDECAR_REGISTRIES", HOST),
            ("ECR_SIDECAR_DOCKER_CONFIG", path.as_str()),
            ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        let context = Context { env: Environment::from_pairs(env), ..Context::default() };
        let config = config::load(&Flags::default(), &context).await.unwrap();
        let simulated = Clock::Simulated(clock.clone());
        let connector = SharedHttpConnector::new(AwsConnector(Arc::clone(&aws)));
        let client = http_client_fn(move |_, _| connector.clone());
        let status = StatusBoard::new(simulated.now());
        let mut engine = Engine::new(Dependencies {
            sdk: context.sdk.config(client),
            env: context.env,
            clock: simulated,
            status: status.clone(),
            watcher: Some(FileWatcher::default()),
        });
        engine.apply(&config).await;
        Self { folder, clock, aws, status, engine }
    }

    fn set(&self, fault: Fault) {
        self.aws.lock().unwrap().fault = fault;
    }

    fn now(&self) -> SystemTime {
        Clock::Simulated(self.clock.clone()).now()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("config.json")
    }

    /// The `auth` in the file; fails when the file is not whole.
    fn auth(&self) -> Option<String> {
        let bytes = std::fs::read(self.path()).ok()?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("the file is whole");
        Some(value["auths"][HOST]["auth"].as_str()?.to_owned())
    }

    fn lets_in(&self) -> bool {
        self.auth().is_some_and(|auth| self.aws.lock().unwrap().lets_in(&auth))
    }

    fn is_ready(&self) -> bool {
        self.status.read(|status| readiness::ready(status, self.now())).is_good()
    }

    fn calls(&self) -> u64 {
        self.aws.lock().unwrap().calls
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Lets time pass until `condition`; returns how long it took, `None` if longer than `limit`.
    async fn pass_until(&self, limit: Duration, condition: impl Fn(&Self) -> bool) -> Option<Duration> {
        let start = tokio::time::Instant::now();
        while !condition(self) {
            if start.elapsed() > limit {
                return None;
            }
            self.pass(Duration::from_secs(1)).await;
        }
        Some(start.elapsed())
    }

    async fn has_first_token(&self) {
        self.pass_until(MINUTE, Self::is_ready).await.expect("ready within a minute");
    }
}

fn disturb(path: &Path, rng: &mut Rng) {
    use std::io::Write;
    match rng.u8(0..4) {
        0 => std::fs::remove_file(path).unwrap_or_default(),
        1 => std::fs::File::create(path).unwrap().write_all(b"{\"auths\":{}}").unwrap(),
        2 => std::fs::File::create(path).unwrap().write_all(b"{\"auths\":{\"").unwrap(),
        _ => {} // as often as not, nothing
    }
}

#[tokio::test(start_paused = true)]
async fn random_faults_over_days_never_cost_the_last_good_credential() {
    let seeds = match std::env::var("SIMULATION_SEED") {
        Ok(seed) => vec![seed.parse().expect("SIMULATION_SEED is a number")],
        Err(_) => (0..8).collect(),
    };
    for seed in seeds {
        days_of_faults(seed, 3).await;
    }
}

async fn days_of_faults(seed: u64, days: u32) {
    let mut rng = Rng::with_seed(seed);
    let world = World::start().await;
    world.has_first_token().await;
    let end = world.now() + 24 * HOUR * days;
    while world.now() < end {
        let fault = if rng.bool() { Fault::None } else { FAULTS[rng.usize(..FAULTS.len())] };
        world.set(fault);
        let until = world.now() + Duration::from_secs(rng.u64(30..6 * 3600));
        let calls = world.calls();
        let started = world.now();
        while world.now() < until {
            if rng.u8(..) < 4 {
                disturb(&world.path(), &mut rng);
                world.pass(Duration::from_secs(12)).await; // it is noticed within ten seconds, also without inotify
            }
            world.pass(MINUTE).await;
            let what = format!(
                "seed {seed}, {fault:?}, {:?} after the start",
                world.now().duration_since(SystemTime::UNIX_EPOCH + START)
            );
            assert!(world.auth().is_some(), "{what}: the file lost its credential");
            assert_eq!(world.is_ready(), world.lets_in(), "{what}: readiness and what is in the file differ");
        }
        let hours = until.duration_since(started).unwrap().as_secs() / 3600 + 1;
        let made = world.calls() - calls;
        assert!(made <= 200 * hours, "seed {seed}, {fault:?}: {made} calls in {hours} h");
    }
    world.set(Fault::None);
    let recovered = world.pass_until(2 * HOUR, |world| world.lets_in() && world.is_ready()).await;
    assert!(recovered.is_some(), "seed {seed}: no recovery");
    world.engine.stop().await;
}

#[tokio::test(start_paused = true)]
async fn each_fault_alone_is_ridden_through_while_the_token_lives_and_fixed_within_the_plans_time() {
    for fault in FAULTS {
        let world = World::start().await;
        world.has_first_token().await;
        let first = world.auth();
        world.set(fault);
        world.pass(LIFETIME - HOUR).await; // the refresh at half of the life has failed for hours
        if fault != Fault::Slow {
            assert_eq!(world.auth(), first, "{fault:?}: the last good credential stays");
        }
        assert!(world.is_ready() && world.lets_in(), "{fault:?}");
        let calls = world.calls();
        assert!(calls <= 400, "{fault:?}: {calls} calls in 11 h");
        world.set(Fault::None);
        let recovered = world.pass_until(HOUR, |world| world.auth() != first && world.is_ready()).await;
        // An hour is left: no registry waits longer than a quarter of it, a throttled one included.
        assert!(recovered.is_some_and(|time| time <= HOUR / 4), "{fault:?}: {recovered:?}");
        world.engine.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_the_life_ends_readiness_at_expiry_and_keeps_the_file() {
    let world = World::start().await;
    world.has_first_token().await;
    let first = world.auth();
    world.set(Fault::Refused);
    world.pass(LIFETIME - MINUTE).await;
    assert!(world.is_ready());
    world.pass(2 * MINUTE).await;
    assert!(!world.is_ready());
    assert_eq!(world.auth(), first);
    let calls = world.calls();
    world.pass(24 * HOUR).await;
    assert!(world.calls() - calls <= 24 * 200, "{} calls in a day", world.calls() - calls);
    assert_eq!(world.auth(), first);
    world.set(Fault::None);
    let recovered = world.pass_until(HOUR, World::is_ready).await;
    assert!(recovered.is_some_and(|time| time <= 2 * MINUTE), "{recovered:?}");
    world.engine.stop().await;
}

#[tokio::test(start_paused = true)]
async fn clock_steps_cost_a_handful_of_calls_and_end_in_readiness() {
    let mut rng = Rng::with_seed(7);
    let world = World::start().await;
    world.has_first_token().await;
    for _ in 0..60 {
        let hours = rng.i64(-400..400);
        world.clock.step(hours * 360);
        let calls = world.calls();
        world.pass(5 * MINUTE).await;
        assert!(world.calls() - calls <= 10, "{} calls after a step of {hours}/10 h", world.calls() - calls);
        assert!(world.is_ready(), "not ready after a step of {hours}/10 h");
    }
    world.engine.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_suspended_machine_refreshes_when_it_wakes() {
    let world = World::start().await;
    world.has_first_token().await;
    let first = world.auth();
    world.clock.step(9 * 3600); // monotonic time stood still
    let refreshed = world.pass_until(5 * MINUTE, |world| world.auth() != first).await;
    assert!(refreshed.is_some_and(|time| time <= 2 * MINUTE), "{refreshed:?}");
    world.engine.stop().await;
}

#[tokio::test(start_paused = true)]
async fn tokens_expired_on_arrival_are_published_flagged_and_asked_for_slowly() {
    let world = World::start_with(Fault::ExpiredOnArrival).await;
    world.pass_until(MINUTE, |world| world.auth().is_some()).await.expect("published");
    let calls = world.calls();
    world.pass(HOUR).await;
    assert!(world.calls() - calls <= 60, "{} calls an hour", world.calls() - calls);
    let flagged = world.status.read(|status| status.tokens.values().all(|token| token.clock_fault.is_some()));
    assert!(flagged);
    world.engine.stop().await;
}

/// A pod that is restarted in an outage finds good credentials, and says so.
#[tokio::test(start_paused = true)]
async fn a_process_killed_and_restarted_in_an_outage_is_ready_while_its_file_is_good() {
    let world = World::start().await;
    world.has_first_token().await;
    world.pass(7 * HOUR).await; // renewed since, so that there have been two tokens
    world.set(Fault::Refused);
    let world = world.restart().await;
    world.pass(MINUTE).await;
    assert!(world.is_ready() && world.lets_in());
    let calls = world.calls();
    world.pass(2 * HOUR).await;
    // With hours of life left, AWS is spared: without, it would be asked once a minute.
    assert!(world.calls() - calls <= 40, "{} calls in 2 h", world.calls() - calls);
    world.pass(11 * HOUR).await;
    assert_eq!(world.is_ready(), world.lets_in());
    assert!(!world.lets_in(), "the token has ended");
    world.set(Fault::None);
    assert!(world.pass_until(HOUR, World::is_ready).await.is_some());
    world.engine.stop().await;
}

const EVERY: Duration = Duration::from_secs(15 * 60);
const PROBE: &str = "repository: team/app, every: 15m";

/// No two requests are nearer to each other than configured.
fn assert_spaced(asked: &[(SystemTime, String, String)], every: Duration, what: &str) {
    for pair in asked.windows(2) {
        let pause = pair[1].0.duration_since(pair[0].0).unwrap();
        assert!(pause >= every, "{what}: {pause:?} between two requests");
    }
}

#[tokio::test(start_paused = true)]
async fn two_days_of_probes_cost_no_more_than_is_configured_and_nothing_else() {
    hours_of_probes(48, "", None).await;
    for (hours, fault) in [(48, None), (48, Some(RegistryFault::Denied))] {
        hours_of_probes(hours, PROBE, fault).await;
    }
    for fault in REGISTRY_FAULTS {
        hours_of_probes(6, PROBE, Some(fault)).await;
    }
}

async fn hours_of_probes(hours: u32, probe: &str, fault: Option<RegistryFault>) {
    let mut world = World::start().await;
    world.set_registry(fault);
    world.reload(probe).await;
    world.has_first_token().await;
    let end = world.now() + HOUR * hours;
    while world.now() < end {
        world.pass(MINUTE).await;
        assert!(world.is_ready(), "{fault:?}: readiness does not depend on a probe");
    }
    let asked = world.asked();
    let what = format!("{fault:?}: {} requests in {hours} h", asked.len());
    // A refresh is at half of the life, give or take a tenth of it: 4.8 to 7.2 h.
    let (calls, hours) = (world.calls(), f64::from(hours));
    assert!(((hours / 7.2) as u64..=(hours / 4.8) as u64 + 1).contains(&calls), "{what}: {calls} of the API");
    world.engine.stop().await;
    if probe.is_empty() {
        return assert!(asked.is_empty(), "{what}");
    }
    assert!(asked.iter().all(|(_, path, _)| path == "/v2/team/app/manifests/latest"), "{what}");
    assert!(asked.len() as f64 <= 4.0 * hours, "{what}");
    assert_spaced(&asked, EVERY, &what);
    let fails = !matches!(fault, None | Some(RegistryFault::NoSuchTag));
    let result = world.status.read(|status| status.probes.values().next().map(|it| it.last_error.is_some()));
    assert_eq!(result, Some(fails), "{what}");
    // A pause is at most a tenth longer than it has to be; that of a failing probe is at most four intervals.
    let least = if fails { hours / 1.1 - 1.0 } else { 4.0 * hours / 1.1 };
    assert!(asked.len() as f64 >= least.floor(), "{what}");
    let tokens: BTreeSet<_> = asked.iter().map(|(_, _, auth)| auth).collect();
    assert!(tokens.len() as f64 >= (hours / 7.2).floor(), "{what}: it is what is published then");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_recovers_is_seen_within_four_intervals() {
    let mut world = World::start().await;
    world.reload(PROBE).await;
    world.set_registry(Some(RegistryFault::Denied));
    world.has_first_token().await;
    world.pass(24 * HOUR).await;
    assert_eq!(world.probe().as_deref(), Some("pull-denied"));
    world.set_registry(None);
    let recovered = world.pass_until(24 * HOUR, |world| world.probe().as_deref() == Some("")).await;
    assert!(recovered.is_some_and(|time| time <= EVERY * 4 * 11 / 10 + MINUTE), "{recovered:?}");
    world.engine.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_follows_the_configuration() {
    let mut world = World::start().await;
    world.reload(PROBE).await;
    assert!(world.pass_until(MINUTE, |world| world.probe().is_some()).await.is_some());
    assert_eq!(world.asked().len(), 1);
    world.reload(PROBE).await;
    world.pass(EVERY * 9 / 10).await;
    assert_eq!(world.asked().len(), 1, "one that stays keeps its schedule");
    world.reload("repository: other, tag: v1, every: 15m").await;
    assert_eq!(world.probe(), None, "what is known is of another image");
    assert!(world.pass_until(MINUTE, |world| world.probe().is_some()).await.is_some());
    assert_eq!(world.asked()[1].1, "/v2/other/manifests/v1");
    world.reload("").await;
    assert!(world.status.read(|status| status.probes.is_empty()));
    world.pass(HOUR).await;
    assert_eq!(world.asked().len(), 2, "a probe that is removed asks no more");

    // A configuration that flaps asks once a minute at most.
    for round in 0..600 {
        world.reload(["", PROBE, "repository: other"][round % 3]).await;
        world.pass(Duration::from_secs(10)).await;
    }
    let asked = world.asked();
    assert!(asked.len() <= 2 + 101, "{} requests in 100 minutes", asked.len());
    assert_spaced(&asked, MINUTE, "a configuration that flaps");
    world.engine.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_without_a_live_credential_asks_nothing_and_goes_on_when_there_is_one() {
    let mut world = World::start_with(Fault::Refused).await;
    world.reload(PROBE).await;
    world.pass(MINUTE).await;
    assert_eq!(world.probe().as_deref(), Some("nothing-published"));
    world.pass(3 * HOUR).await;
    assert_eq!(world.asked().len(), 0);
    world.set(Fault::None);
    assert!(world.pass_until(HOUR, World::is_ready).await.is_some());
    let probed = world.pass_until(HOUR, |world| world.probe().as_deref() == Some("")).await;
    assert!(probed.is_some_and(|time| time <= Duration::from_secs(10)), "{probed:?}");

    world.set(Fault::Refused);
    world.pass(14 * HOUR).await;
    assert_eq!(world.probe().as_deref(), Some("published-expired"));
    let asked = world.asked();
    assert!(asked.len() <= 4 * 13, "{}: an expired credential is not sent", asked.len());
    assert_spaced(&asked, EVERY, "an outage");
    world.pass(14 * HOUR).await;
    assert_eq!(world.asked().len(), asked.len());
    world.engine.stop().await;
}

/// What `run` does with it: it ends with this message and status 1.
#[tokio::test(start_paused = true)]
async fn a_panicking_task_is_reported_with_its_message() {
    let mut world = World::start().await;
    world.engine.spawn(async { panic!("a fault of ours") });
    let reported = world.engine.panicked().await.to_string();
    assert!(reported.contains("internal fault") && reported.contains("a fault of ours"), "{reported}");
}
