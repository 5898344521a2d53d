//! What a reload costs at AWS, and which tokens it replaces.

use ecr_emulator::{Fault, Service};
use test_support::{
    Harness,
    files::{auth, replace},
    harness::{DEADLINE, HOST},
    wait_for,
};

use super::{file, wait_reloads};
use crate::BINARY;

#[test]
fn a_reload_that_changes_only_settings_asks_aws_for_nothing() {
    let harness = Harness::new(BINARY);
    let other = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    let text = |more: &str| file(&harness, &[HOST, other], more);
    harness.put("ecr-sidecar.yaml", &text(""));
    let running = harness.run_with_file(&text("refresh: {at: 50%, jitter: 0%}"));
    running.wait_ready();
    let settings = [
        "refresh: {at: 40%, jitter: 0%}",
        "refresh: {at: 41%, jitter: 1%}",
        "refresh: {at: 40%, jitter: 0%}\nlog: {filter: debug}",
        "refresh: {at: 40%, jitter: 0%}\nhealth: {startupGrace: 1h}",
        "identities: {unused: {source: environment}}",
        "identities: {default: {source: auto}}\nrefresh: {at: 60%}",
    ];
    for (reload, more) in (1..).zip(settings.iter().cycle().take(24)) {
        replace(&harness.at("ecr-sidecar.yaml"), &text(more));
        wait_reloads(&running, reload);
    }
    running.wait_ready();
    assert_eq!(harness.emulator.count(Service::Ecr), 2, "one call a token");
}

#[test]
fn another_refresh_policy_is_followed_by_the_token_in_hand() {
    let harness = Harness::new(BINARY);
    let text = |at: &str| file(&harness, &[HOST], &format!("refresh: {{at: {at}, jitter: 0%}}"));
    let running = harness.run_with_file(&text("50%"));
    running.wait_ready();
    let hours_to_next = |status: &serde_json::Value| {
        let time = |name: &str| status["tokens"][0][name].as_str()?.parse::<jiff::Timestamp>().ok();
        Some(
            (time("next_attempt")?.duration_since(time("obtained_at")?).as_secs_f64() / 360.0).round() / 10.0,
        )
    };
    for (at, hours) in [("25%", 3.0), ("75%", 9.0), ("50%", 6.0)] {
        replace(&harness.at("ecr-sidecar.yaml"), &text(at));
        running.wait_status(at, |status| hours_to_next(status) == Some(hours));
    }
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
    // What was due under the new policy is due at once.
    harness.emulator.set_token_lifetime(std::time::Duration::from_secs(60));
    running.signal(test_support::Signal::HUP);
    running.wait_status("a token of a minute", |status| status["tokens"][0]["refreshed"] == 2);
    replace(&harness.at("ecr-sidecar.yaml"), &text("20%"));
    running.wait_status("the next one after 12 s", |status| status["tokens"][0]["refreshed"] == 3);
}

#[test]
fn a_reload_keeps_the_back_off_of_a_failing_token() {
    let harness = Harness::new(BINARY);
    harness.emulator.set_fault(Service::Ecr, Fault::AccessDenied); // polled slowly
    let text = |at: usize| file(&harness, &[HOST], &format!("refresh: {{at: {at}%, jitter: 0%}}"));
    let running = harness.run_with_file(&text(50));
    let failed = running.wait_status("a failure", |status| status["tokens"][0]["failed"] == 1);
    for reload in 1..=10 {
        replace(&harness.at("ecr-sidecar.yaml"), &text(20 + reload));
        wait_reloads(&running, reload as u64);
    }
    let status = running.status();
    for field in ["failed", "next_attempt", "failures_in_a_row"] {
        assert_eq!(status["tokens"][0][field], failed["tokens"][0][field], "{field}");
    }
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
}

#[test]
fn another_setting_of_an_identity_replaces_its_own_tokens_only() {
    let harness = Harness::new(BINARY);
    let other = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    let text = |region: &str| {
        format!(
            "identities:\n  a: {{source: environment}}\n  b: {{source: environment, stsRegion: {region}}}\n\
             registries: [{{host: {HOST}, identity: a}}, {{host: {other}, identity: b}}]\n\
             outputs: [{{type: docker-config, path: {}}}]\n",
            harness.file().display()
        )
    };
    let running = harness.run_with_file(&text("eu-west-1"));
    running.wait_ready();
    let before = auth(&harness.file(), other);
    replace(&harness.at("ecr-sidecar.yaml"), &text("eu-central-1"));
    wait_for("another token", DEADLINE, || (auth(&harness.file(), other) != before).then_some(()));
    let regions: Vec<_> = harness.emulator.calls().into_iter().filter_map(|call| call.region).collect();
    let of = |region: &str| regions.iter().filter(|it| *it == region).count();
    assert_eq!((of("eu-west-1"), of("us-east-1")), (1, 2));
}
