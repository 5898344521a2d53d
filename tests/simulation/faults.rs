//! Faults of AWS, each alone and at random over days, with a file that others damage; outages, also across a restart; and
//! a fault of ours.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use fastrand::Rng;

use crate::{
    HOUR, LIFETIME, MINUTE, START,
    aws::{FAULTS, Fault},
    world::World,
};

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
