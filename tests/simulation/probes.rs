//! Pull probes: what they ask of the registry, how often, and when a recovery is seen.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use crate::{
    HOUR, MINUTE,
    aws::{Fault, REGISTRY_FAULTS, RegistryFault},
    world::World,
};

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
