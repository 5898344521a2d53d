//! A clock that steps, a machine that was suspended, and tokens whose dates cannot be right.

use fastrand::Rng;

use crate::{HOUR, MINUTE, aws::Fault, world::World};

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
