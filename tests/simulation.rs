//! Simulated days under random faults: the real engine and a real file, with AWS played at the level of HTTP
//! and time that flies.
//!
//! Whatever happens: the last good file stays, whole; readiness is true exactly while what is in the file
//! would be let in; calls are bounded; and when a fault ends, recovery comes within the plan's time.
//!
//! `SIMULATION_SEED=n` runs one sequence of faults again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

use std::{
    collections::BTreeMap,
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
    fs::watch::FileWatcher,
    status::StatusBoard,
};
use fastrand::Rng;

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
    calls: u64,
}

#[derive(Debug, Clone)]
struct AwsConnector(Arc<Mutex<Aws>>);

impl HttpConnector for AwsConnector {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let mut aws = self.0.lock().unwrap();
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
        let aws = Aws { fault, clock: simulated, issued: BTreeMap::new(), calls: 0 };
        Self::with(tempfile::tempdir().unwrap(), clock, Arc::new(Mutex::new(aws))).await
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

/// What `run` does with it: it ends with this message and status 1.
#[tokio::test(start_paused = true)]
async fn a_panicking_task_is_reported_with_its_message() {
    let mut world = World::start().await;
    world.engine.spawn(async { panic!("a fault of ours") });
    let reported = world.engine.panicked().await.to_string();
    assert!(reported.contains("internal fault") && reported.contains("a fault of ours"), "{reported}");
}
