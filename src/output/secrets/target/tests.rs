mod driver;
mod world;

use proptest::prelude::*;

use self::driver::{Driver, edited, incidents, written};
use super::{
    super::{desired::Coverage, reconcile::Found},
    *,
};
use crate::{
    failure::diagnosis::Diagnosis,
    output::secrets::desired::{Content, InPlace},
};

const SECOND: Duration = Duration::from_secs(1);

pub(in super::super) fn finished(outcome: Outcome) -> Event {
    Event::Finished { outcome, failing: 0, random: 1.0 }
}

/// Found as desired, in that version.
pub(in super::super) fn synced(version: &str) -> Outcome {
    let found = Found { coverage: Coverage::All, in_place: Arc::default(), version: version.into() };
    Outcome {
        cleanup: false,
        found: Some(found),
        desired: Arc::default(),
        drift: None,
        warnings: Vec::new(),
        deferred: false,
        result: Ok(false),
    }
}

/// The API server gave no answer.
pub(in super::super) fn failure() -> Outcome {
    Outcome { found: None, result: Err(problem("no answer", Class::Transient)), ..synced("") }
}

fn problem(message: &str, class: Class) -> Problem {
    Problem { message: message.into(), remedy: Diagnosis::ApiServerUnreachable.into(), class }
}

fn content() -> Content {
    Content::DockerConfig { adopt: false, base: None }
}

#[test]
fn in_sync_there_is_nothing_to_do() {
    let mut driver = Driver::in_sync();
    driver.send(Event::Observed("1".into()));
    driver.send(Event::Wanted(content()));
    assert_eq!(driver.due_in(), None);
    driver.send(Event::Resync);
    assert_eq!(driver.run(synced("1")), [], "and a resync writes and logs nothing");
    assert_eq!(driver.due_in(), None);
}

#[test]
fn each_change_calls_for_a_reconciliation_and_one_in_the_cluster_for_an_urgent_one() {
    for (event, is_urgent) in [
        (Event::Observed("2".into()), true),
        (Event::Deleted, true),
        (Event::NotListed, true),
        (Event::Resync, false),
        (Event::RetryNow, false),
        (Event::Unwanted, false),
    ] {
        let mut driver = Driver::in_sync();
        driver.send(event);
        assert!(driver.is_due());
        assert_eq!(driver.is_urgent(), is_urgent);
        assert!(!driver.start().defers);
        assert!(!driver.is_urgent());
    }
}

#[test]
fn a_list_without_a_secret_that_never_existed_is_no_change() {
    let mut driver = Driver::new();
    let missing = problem("there is no Secret", Class::Denied);
    driver.run(Outcome { found: None, result: Err(missing), ..synced("") });
    assert!(!driver.target.existed());
    driver.send(Event::NotListed);
    assert!(!driver.is_urgent());
    assert!(driver.due_in() > Some(Duration::ZERO), "the pause goes on");
}

/// A lagging watch reports an older version before a reconciliation: one is enough. A version that it reports during
/// one calls for another, but for the one that we wrote.
#[test]
fn a_version_observed_during_a_run_counts_unless_we_wrote_it() {
    let mut driver = Driver::new();
    driver.send(Event::Observed("1".into()));
    driver.run(synced("2"));
    assert_eq!(driver.due_in(), None, "observed before");
    driver.send(Event::Observed("3".into()));
    assert!(driver.is_due(), "observed between");
    for (event, is_due) in [
        (Event::Observed("4".into()), true),
        (Event::Observed("3".into()), false),
        (Event::Deleted, true),
        (Event::Resync, true),
        (Event::Wanted(content()), false),
    ] {
        driver.send(Event::Resync);
        driver.start();
        driver.send(event);
        driver.finish(synced("3"));
        assert_eq!(driver.is_due(), is_due);
    }
}

/// It may have been created, and deleted again before the list, of which no watch then reports anything.
#[test]
fn a_list_without_it_during_its_creation_calls_for_another_run() {
    let mut driver = Driver::new();
    driver.send(Event::NotListed);
    driver.start();
    driver.send(Event::NotListed);
    driver.finish(written("1", Drift::Gone));
    assert!(driver.is_due());
}

#[test]
fn what_fails_is_retried_after_growing_pauses() {
    let mut driver = Driver::new();
    for pause in [1010, 2010, 4010, 8010, 10_010, 10_010] {
        driver.run(failure());
        assert_eq!(driver.due_in(), Some(Duration::from_millis(pause)));
        driver.wait(Duration::from_millis(pause));
    }
    driver.run(failure());
    driver.send(Event::Observed("2".into()));
    assert!(!driver.is_due(), "an edit does not end the pause");
    driver.send(Event::RetryNow);
    assert!(driver.is_due());
    driver.run(synced("2"));
    driver.send(Event::Resync);
    driver.run(failure());
    assert_eq!(driver.due_in(), Some(Duration::from_millis(1010)), "a success ends the row");
}

#[test]
fn what_only_a_person_can_fix_is_retried_slowly_and_soon_after_an_edit() {
    let denied = || Outcome { result: Err(problem("another type", Class::Denied)), ..synced("1") };
    let mut driver = Driver::new();
    for pause in [1010, 2010, 4010, 8010, 16_010, 32_010, 60_010, 60_010] {
        driver.run(denied());
        assert_eq!(driver.due_in(), Some(Duration::from_millis(pause)));
        driver.wait(Duration::from_millis(pause));
    }
    for edit in [Event::Observed("2".into()), Event::NotListed, Event::Deleted] {
        driver.run(denied());
        driver.send(Event::Observed("1".into()));
        assert_eq!(driver.due_in(), Some(Duration::from_millis(60_010)), "the same version is no edit");
        driver.send(edit);
        assert_eq!(
            driver.due_in(),
            Some(Duration::from_millis(10_010)),
            "not at once: many edits are no flood"
        );
        driver.wait(Duration::from_millis(10_010));
    }
    for edit in [Event::Observed("2".into()), Event::Deleted] {
        driver.start();
        driver.send(edit);
        driver.finish(denied());
        assert_eq!(driver.due_in(), Some(Duration::from_millis(10_010)), "edited while it was reconciled");
        driver.wait(Duration::from_millis(10_010));
    }
    driver.run(synced("2"));
    driver.send(Event::Observed("3".into()));
    assert_eq!(driver.due_in(), Some(Duration::ZERO), "a success ends the pause");
}

#[test]
fn pauses_are_jittered_and_longer_when_many_fail() {
    assert_eq!(retry_pause(RETRY, 1, 0, 0.0), Duration::from_millis(750));
    assert_eq!(retry_pause(RETRY, 1, 0, 1.0), SECOND);
    assert_eq!(retry_pause(RETRY, u32::MAX, 1000, 1.0), 20 * SECOND);
    assert!(retry_pause(RETRY, u32::MAX, usize::MAX, 2.0) > 20 * SECOND, "and nothing overflows");
}

#[test]
fn a_failure_is_logged_when_it_is_new_and_so_is_the_recovery() {
    let fails = |driver: &mut Driver, message: &str, failing| {
        driver.send(Event::RetryNow);
        driver.start();
        let outcome = Outcome { result: Err(problem(message, Class::Denied)), ..failure() };
        incidents(driver.send(Event::Finished { outcome, failing, random: 0.5 })).0
    };
    let mut driver = Driver::in_sync();
    assert_eq!(fails(&mut driver, "a", 0), [Incident::Failed(problem("a", Class::Denied))]);
    assert_eq!(fails(&mut driver, "a", 1), []);
    assert_eq!(fails(&mut driver, "b", 1), [Incident::Failed(problem("b", Class::Denied))]);
    assert_eq!(fails(&mut driver, "c", SHOWN), [], "enough others are logged");
    assert!(driver.target.is_given_up() && driver.target.problem().is_some());
    driver.send(Event::RetryNow);
    assert_eq!(driver.run(synced("1")), [Incident::Recovered]);
    assert!(!driver.target.is_given_up() && driver.target.problem().is_none());
}

#[test]
fn only_what_another_field_manager_changed_is_restored() {
    let rewritten = || written("2", edited());
    let plain = [Incident::Written { registries: 0 }];
    let mut driver = Driver::new();
    assert_eq!(driver.run(rewritten()), plain, "found so at the start");
    driver.send(Event::Deleted);
    assert_eq!(driver.run(written("3", Drift::Gone)), [Incident::Restored(Drift::Gone)]);
    assert_eq!(driver.edit_and_restore("4"), [Incident::Restored(edited())]);
    driver.desired = Arc::new(CredentialSet::default());
    driver.send(Event::Resync);
    assert_eq!(driver.run(rewritten()), plain, "it has another token");
    driver.send(Event::BaseChanged);
    driver.send(Event::RetryNow);
    assert_eq!(driver.run(rewritten()), plain, "its base has changed");
}

#[test]
fn in_a_conflict_checks_are_paced_and_harmless_differences_deferred() {
    let mut driver = Driver::in_sync();
    let mut waits = Vec::new();
    for edit in 0..20 {
        driver.send(Event::Observed(format!("edit {edit}")));
        let wait = driver.due_in().unwrap();
        waits.push(wait);
        driver.wait(wait);
        let job = driver.start();
        assert_eq!(job.defers, edit > 3, "{edit}");
        let incidents = driver.finish(written("w", edited()));
        let expected = match edit {
            0..3 => vec![Incident::Restored(edited())],
            3 => vec![Incident::Conflict { drift: edited(), restores: 4 }],
            _ => Vec::new(),
        };
        assert_eq!(incidents, expected, "{edit}");
    }
    assert!(waits[..4].iter().all(Duration::is_zero), "{waits:?}");
    assert_eq!(waits[19], 2 * SECOND, "{waits:?}");
    // What no consumer notices waits for a minute, then is restored once.
    driver.wait(2 * SECOND);
    driver.send(Event::Observed("label".into()));
    assert!(driver.start().defers);
    driver.finish(Outcome { deferred: true, ..synced("label") });
    let wait = driver.due_in().unwrap();
    assert!(wait > 50 * SECOND, "{wait:?}");
    driver.wait(wait);
    assert!(!driver.start().defers);
    driver.finish(synced("done"));
    driver.wait(WINDOW);
    assert_eq!(driver.edit_and_restore("after"), [Incident::Restored(edited())], "it is over");
}

#[test]
fn a_failure_of_what_was_deferred_has_its_pause() {
    let mut driver = Driver::in_sync();
    for edit in 0..4 {
        driver.edit_and_restore(&edit.to_string());
    }
    driver.wait(SECOND);
    driver.send(Event::Observed("label".into()));
    driver.run(Outcome { deferred: true, ..synced("label") });
    driver.wait(WINDOW);
    driver.run(failure());
    assert!(driver.due_in() > Some(Duration::ZERO));
    driver.send(Event::Unwanted);
    driver.run(Outcome { result: Err(problem("a", Class::Transient)), ..synced("label") });
    assert_eq!(driver.due_in(), Some(Duration::from_millis(1010)), "of the deferred nothing is left");
}

#[test]
fn what_is_no_longer_wanted_is_cleaned_up_and_forgotten() {
    let denied = problem("no", Class::Denied);
    for (result, expected) in [
        (Ok(true), vec![Incident::Removed]),
        (Ok(false), vec![]),
        (Err(denied.clone()), vec![Incident::NotRemoved(denied)]),
    ] {
        let mut driver = Driver::in_sync();
        driver.send(Event::Unwanted);
        assert!(!driver.target.is_wanted());
        assert!(driver.start().cleanup);
        driver.send(Event::Unwanted);
        let outcome = Outcome { cleanup: true, result, ..synced("2") };
        assert_eq!(incidents(driver.send(finished(outcome))), (expected, true));
    }
    let mut driver = Driver::in_sync();
    driver.send(Event::Unwanted);
    assert_eq!(driver.run(failure()), []);
    assert_eq!(driver.due_in(), Some(Duration::from_millis(1010)), "tried again");
}

#[test]
fn what_is_wanted_again_during_its_cleanup_is_kept() {
    for result in [Ok(true), Ok(false), Err(problem("no", Class::Denied))] {
        let mut driver = Driver::in_sync();
        driver.send(Event::Unwanted);
        assert!(driver.start().cleanup);
        driver.send(Event::Wanted(content()));
        let outcome = Outcome { cleanup: true, result, ..synced("2") };
        assert_eq!(incidents(driver.send(finished(outcome))), (vec![], false));
        assert!(driver.is_due() && !driver.start().cleanup);
        let again = driver.finish(written("3", Drift::Gone));
        assert_eq!(again, [Incident::Written { registries: 0 }], "it was not another who removed it");
    }
    // And the other way round.
    let mut driver = Driver::in_sync();
    driver.send(Event::Resync);
    driver.start();
    driver.send(Event::Unwanted);
    assert_eq!(incidents(driver.send(finished(written("2", Drift::Gone)))), (vec![], false));
    assert!(driver.start().cleanup);
}

#[test]
fn warnings_are_logged_once_and_bounded() {
    let mut driver = Driver::new();
    let warning = |number: usize| Warning::without_remedy(number.to_string());
    let warnings = |count| (0..count).map(warning).collect::<Vec<_>>();
    let first = driver.run(Outcome { warnings: warnings(2), ..synced("1") });
    assert_eq!(first, [0, 1].map(|number| Incident::Warning(warning(number))));
    driver.send(Event::Resync);
    let more = driver.run(Outcome { warnings: warnings(1000), ..synced("1") });
    assert_eq!(more.len(), SHOWN - 1, "without those that are known");
    assert_eq!(driver.target.warnings().len(), SHOWN + 1);
}

/// Written, in sync, failed, or left as it is: by `number`.
fn any_outcome(job: &Job, number: u64) -> Outcome {
    let each = |count: u64| number.is_multiple_of(count);
    let class = if each(2) { Class::Denied } else { Class::Transient };
    let found =
        Found { coverage: Coverage::All, in_place: Arc::new(InPlace::new()), version: number.to_string() };
    Outcome {
        cleanup: job.cleanup,
        found: (!each(5)).then_some(found),
        desired: Arc::default(),
        drift: Some(if each(3) { Drift::Gone } else { edited() }),
        warnings: Vec::new(),
        deferred: job.defers && each(4),
        result: if each(7) { Err(problem("no", class)) } else { Ok(!each(4)) },
    }
}

proptest! {
    #[test]
    fn a_target_survives_every_order_of_events(events in proptest::collection::vec((0_u8..8, 0_u64..100_000), 0..60)) {
        let mut driver = Driver::new();
        for (event, millis) in events {
            driver.wait(Duration::from_millis(millis));
            match event {
                0 => drop(driver.send(Event::Observed(millis.to_string()))),
                1 => drop(driver.send(Event::Deleted)),
                2 => drop(driver.send(Event::Unwanted)),
                3 => drop(driver.send(Event::Wanted(content()))),
                _ if driver.is_due() => {
                    let job = driver.start();
                    let outcome = any_outcome(&job, millis);
                    let failed = outcome.result.is_err();
                    let (_, is_forgotten) = incidents(driver.send(finished(outcome)));
                    let due = driver.due_in();
                    prop_assert!(is_forgotten || !failed || due > Some(Duration::ZERO), "without a pause");
                    // What is to be done is done within a bounded time.
                    prop_assert!(due.is_none_or(|due| due <= 61 * SECOND), "{:?}", due);
                }
                _ => {}
            }
        }
    }
}
