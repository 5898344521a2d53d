use super::{
    super::{
        desired::Content,
        target::{
            Event,
            tests::{failure, finished, synced},
        },
    },
    *,
};

fn target(is_urgent: bool) -> Target {
    Target::new(Content::Repository, is_urgent)
}

/// The next one, which is reconciled without a difference.
fn pick(targets: &mut Targets, picks: u64, now: Instant) -> ObjectRef {
    let at = next(targets, 0, picks, now).unwrap();
    let target = targets.get_mut(&at).unwrap();
    target.on_event(Event::Picked(picks + 1), now);
    target.on_event(finished(synced("1")), now);
    at
}

#[test]
fn noisy_secrets_hold_up_no_other() {
    const NOISY: usize = 40;
    let now = Instant::now();
    let noisy = (0..NOISY).map(|number| (ObjectRef::new(format!("a-{number}"), "pull"), target(true)));
    // One that is merely due, last by name.
    let mut targets: Targets = noisy.chain([(ObjectRef::new("quiet", "pull"), target(false))]).collect();
    let mut picked = Vec::new();
    for number in 0..1000 {
        let at = pick(&mut targets, number, now);
        let is_noisy = at.namespace != "quiet";
        let event = if is_noisy { Event::Observed("edited".into()) } else { Event::Resync };
        targets.get_mut(&at).unwrap().on_event(event, now);
        picked.push(at.namespace);
    }
    let longest = |wanted: &str| picked.split(|one| one == wanted).map(<[_]>::len).max().unwrap();
    // Each other one at most once, and those that are picked regardless of urgency.
    assert!(longest("quiet") <= NOISY + 4, "{}", longest("quiet"));
    for noisy in 0..NOISY {
        let name = format!("a-{noisy}");
        assert!(longest(&name) <= NOISY + 4, "{name}: {}", longest(&name));
    }
}

#[test]
fn what_has_just_happened_does_not_wait_for_the_many() {
    let now = Instant::now();
    let many = (0..1000).map(|number| (ObjectRef::new(format!("many-{number:04}"), "pull"), target(false)));
    let mut targets: Targets = many.collect();
    let urgent = ObjectRef::new("zzz", "pull");
    let mut edited = target(false);
    edited.on_event(Event::Picked(99), now);
    edited.on_event(finished(synced("1")), now);
    edited.on_event(Event::Observed("2".into()), now);
    targets.insert(urgent.clone(), edited);
    let picks = (0..4).map(|picks| next(&targets, 0, picks, now)).collect::<Vec<_>>();
    assert!(picks[1..].iter().all(|picked| picked.as_ref() == Some(&urgent)), "{picks:?}");
}

#[test]
fn of_none_that_is_due_none_is_next() {
    let now = Instant::now();
    let mut targets = Targets::new();
    assert_eq!(next(&targets, 0, 0, now), None);
    assert_eq!(wake_at(&targets, 0, now), now + HEARTBEAT);
    targets.insert(ObjectRef::new("a", "pull"), target(false));
    pick(&mut targets, 0, now);
    assert_eq!(next(&targets, 0, 1, now), None);
    assert_eq!(wake_at(&targets, 0, now), now + HEARTBEAT);
}

#[test]
fn only_so_many_are_reconciled_at_a_time() {
    let now = Instant::now();
    let targets: Targets = [(ObjectRef::new("a", "pull"), target(true))].into();
    assert!(next(&targets, CONCURRENCY - 1, 0, now).is_some());
    assert_eq!(wake_at(&targets, CONCURRENCY - 1, now), now);
    assert_eq!(next(&targets, CONCURRENCY, 0, now), None);
    assert_eq!(wake_at(&targets, CONCURRENCY, now), now + HEARTBEAT);
}

/// Ninety-nine fail all the time, the hundredth is edited: it is the next one whenever it is.
#[test]
fn a_failing_target_delays_no_other() {
    let mut now = Instant::now();
    let failing = (0..99).map(|number| (ObjectRef::new(format!("a-{number:02}"), "pull"), target(false)));
    let mut targets: Targets = failing.collect();
    for picks in 0..99 {
        let at = next(&targets, 0, picks, now).unwrap();
        let target = targets.get_mut(&at).unwrap();
        target.on_event(Event::Picked(picks + 1), now);
        target.on_event(finished(failure()), now);
    }
    let healthy = ObjectRef::new("z", "pull");
    targets.insert(healthy.clone(), target(false));
    // Their pauses are not over.
    assert_eq!(pick(&mut targets, 99, now), healthy);
    assert!(wake_at(&targets, 0, now) > now);
    // They are over: all are due.
    now += Duration::from_secs(30);
    for (picks, version) in (101..).zip(["2", "3", "4"]) {
        targets.get_mut(&healthy).unwrap().on_event(Event::Observed(version.into()), now);
        assert_eq!(pick(&mut targets, picks, now), healthy);
    }
}
