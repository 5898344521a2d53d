//! Every scripted fault, singly: what is published stays, whole; readiness stays while the token lives; the
//! failure is of the right class, said once with its remedy; and it ends with its cause.

use std::{process::Command, thread, time::Duration};

use ecr_emulator::{Fault, POD_IDENTITY_TOKEN, Service};
use serde_json::Value;
use test_support::{
    Harness, Running,
    harness::{DEADLINE, HOST, KEYS, PUBLIC, seconds_between},
};

use crate::BINARY;

const TRANSIENT: &str = "transient";
const THROTTLED: &str = "throttled";
const BAD_ANSWER: &str = "bad-answer";
const STALE_INPUT: &str = "stale-input";
const STALE_CREDENTIALS: &str = "stale-credentials";
const CLOCK: &str = "clock";
const DENIED: &str = "denied";

fn error(status: u16, code: &str, message: &str) -> Fault {
    Fault::Error { status, code: code.into(), message: message.into() }
}

/// What can befall any of the services, and its class.
fn faults_of_any_service() -> Vec<(Fault, &'static str)> {
    vec![
        (Fault::Status(500), TRANSIENT),
        (Fault::Status(502), TRANSIENT),
        (Fault::Status(503), TRANSIENT),
        (Fault::Status(429), THROTTLED),
        (Fault::Status(403), DENIED),
        (Fault::Throttled, THROTTLED),
        (Fault::AccessDenied, DENIED),
        (Fault::Hang, TRANSIENT),
        (Fault::Reset, TRANSIENT),
        (Fault::Garbage, TRANSIENT),
        (Fault::SlowBody(Duration::from_millis(100)), TRANSIENT),
        (Fault::Html, BAD_ANSWER),
        (Fault::Huge, BAD_ANSWER),
    ]
}

/// What can befall a token.
fn bent_tokens() -> Vec<(Fault, &'static str)> {
    [Fault::EmptyList, Fault::NoExpiry, Fault::NotBase64, Fault::NotAws, Fault::EmptyPassword]
        .map(|fault| (fault, BAD_ANSWER))
        .into()
}

#[test]
fn ecr_may_fail_in_every_way_and_the_credential_stays() {
    let coded = [
        (error(500, "ServerException", "x"), TRANSIENT),
        (error(400, "ThrottlingException", "Rate exceeded"), THROTTLED),
        (error(400, "UnrecognizedClientException", "x"), DENIED),
        (error(400, "InvalidParameterException", "x"), DENIED),
        (error(403, "InvalidSignatureException", "Signature expired: it is now later"), CLOCK),
        (error(400, "RequestTimeTooSkewed", "x"), CLOCK),
        (error(400, "ExpiredTokenException", "x"), STALE_CREDENTIALS),
    ];
    survives(Service::Ecr, [faults_of_any_service(), bent_tokens(), coded.into()].concat(), |_, command| {
        command.envs(KEYS);
    });
}

#[test]
fn ecr_public_may_fail_in_its_ways_and_the_credential_stays() {
    let faults = [(Fault::Throttled, THROTTLED), (Fault::AccessDenied, DENIED), (Fault::Huge, BAD_ANSWER)];
    survives(Service::EcrPublic, [bent_tokens(), faults.into()].concat(), |_, command| {
        command.envs(KEYS).env("ECR_SIDECAR_REGISTRIES", PUBLIC);
    });
}

/// The session of the web identity ends before its time, and STS fails when it is asked for a new one.
#[test]
fn sts_may_fail_in_every_way_and_the_credential_stays() {
    let coded = [
        (error(400, "InvalidIdentityToken", "x"), STALE_INPUT),
        (error(400, "ExpiredTokenException", "x"), STALE_INPUT),
        (error(400, "IDPCommunicationError", "x"), TRANSIENT),
        (error(403, "IDPRejectedClaim", "x"), DENIED),
        (error(403, "RegionDisabledException", "x"), DENIED),
    ];
    survives(Service::Sts, [faults_of_any_service(), coded.into()].concat(), |harness, command| {
        command.env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/irsa");
        command.env("AWS_WEB_IDENTITY_TOKEN_FILE", harness.web_identity_file("me"));
    });
}

/// The same with the Pod Identity agent.
#[test]
fn the_pod_identity_agent_may_fail_in_every_way_and_the_credential_stays() {
    let coded = [(error(404, "ResourceNotFoundException", "x"), DENIED), (Fault::NoExpiry, BAD_ANSWER)];
    survives(Service::PodIdentity, [faults_of_any_service(), coded.into()].concat(), |harness, command| {
        let url = format!("{}/v1/credentials", harness.emulator.endpoint());
        command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
        command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN", POD_IDENTITY_TOKEN);
    });
}

/// Each fault alone, all at a time: what they take is mostly waiting.
#[track_caller]
fn survives(
    service: Service,
    faults: Vec<(Fault, &'static str)>,
    identity: impl Fn(&Harness, &mut Command) + Sync,
) {
    let identity = &identity;
    thread::scope(|scope| {
        for (fault, class) in faults {
            let name = format!("{fault:?} of {service:?}");
            let check = move || survives_one(service, fault, class, identity);
            thread::Builder::new().name(name).spawn_scoped(scope, check).unwrap();
        }
    });
}

fn survives_one(service: Service, fault: Fault, class: &str, identity: impl Fn(&Harness, &mut Command)) {
    let harness = Harness::new(BINARY).without_keys();
    let running = harness.run(|command| identity(&harness, command));
    running.wait_refreshed(1);
    let published = harness.bytes();
    let host = harness.auths().into_keys().next().unwrap();

    let takes_long = matches!(fault, Fault::Hang | Fault::SlowBody(_));
    harness.emulator.set_fault(service, fault);
    harness.emulator.expire_credentials(); // so that their source is asked too
    running.refresh();
    let failed = running.wait_token("the failure", |token| token["failed"] == 1);
    let problem = &failed["last_error"];
    assert_eq!(problem["class"], class, "{problem}");
    assert!(problem["remedy"].as_str().is_some_and(|remedy| remedy.len() > 20), "{problem}");
    still_good(&harness, &running, &published, &host);
    if service != Service::Sts && service != Service::PodIdentity {
        assert_eq!(failed["refreshed"], 1);
    }
    let said = running.wait_logged("token refresh failed", 1);
    assert_eq!((&said[0]["class"], &said[0]["error"]), (&problem["class"], &problem["message"]));
    assert_eq!(said[0]["remedy"], problem["remedy"]);

    if [TRANSIENT, BAD_ANSWER].contains(&class) && !takes_long {
        running.wait_token("a second failure", |token| token["failed"].as_u64() >= Some(2));
        running.wait_logged("token refresh failed", 1); // a lasting failure is said once
        still_good(&harness, &running, &published, &host);
    }

    harness.emulator.clear_faults();
    running.refresh();
    let recovered = running.wait_refreshed(2);
    assert_eq!((&recovered["last_error"], &recovered["failures_in_a_row"]), (&Value::Null, &0.into()));
    let said = running.wait_logged("token refreshed", 2);
    assert!(said[1]["failures_before"].as_u64() >= Some(1), "{said:?}");
    assert_ne!(harness.bytes(), published);
    assert_eq!(running.status()["outputs"][0]["writes"], 2, "one write a token, and none for a failure");
    harness.pull(&host);
}

/// What is published is as it was, whole, admitted, and readiness says so.
#[track_caller]
fn still_good(harness: &Harness, running: &Running, published: &[u8], host: &str) {
    assert!(harness.bytes() == published, "the file has changed");
    let (code, said) = running.get("/readyz?verbose");
    assert_eq!(code, 200, "{said}");
    assert_eq!(running.get("/livez").0, 200);
    harness.pull(host);
}

/// A session is used whatever STS says of its end; ECR says when it has ended.
#[test]
fn session_dates_that_cannot_be_right_do_no_harm() {
    for fault in [Fault::NoExpiry, Fault::ExpiredOnArrival, Fault::FarFuture] {
        let harness = Harness::new(BINARY).without_keys();
        harness.emulator.set_fault(Service::Sts, fault.clone());
        let running = harness.run(|command| {
            command.env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/irsa");
            command.env("AWS_WEB_IDENTITY_TOKEN_FILE", harness.web_identity_file("me"));
        });
        running.wait_refreshed(1);
        assert_eq!(harness.counts(), [1, 1, 0, 0, 0], "{fault:?}");
        harness.emulator.expire_credentials();
        running.refresh();
        let token = running.wait_refreshed(2);
        assert_eq!(token["failed"], 0, "{fault:?}");
        assert!(harness.counts()[0] <= 3 && harness.counts()[1] <= 3, "{fault:?}: {:?}", harness.counts());
    }
}

#[test]
fn a_password_with_colons_is_a_good_one() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.set_fault(Service::Ecr, Fault::ColonPassword);
    harness.once_pulls(HOST, |command| {
        command.envs(KEYS);
    });
}

#[test]
fn readiness_ends_with_the_token_and_the_file_stays() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.set_token_lifetime(Duration::from_secs(21));
    let running = harness.run_ready(|_| {});
    let published = harness.bytes();
    harness.emulator.set_fault(Service::Ecr, Fault::Status(503));
    test_support::wait_for("the end of readiness", DEADLINE, || (!running.is_ready()).then_some(()));
    let (_, said) = running.get("/readyz");
    assert!(said.contains(HOST) && said.contains("expired at") && said.contains("HTTP 503"), "{said}");
    assert!(harness.bytes() == published);
    assert_eq!(running.get("/livez").0, 200);
    running.wait_logged("no longer ready", 1);

    harness.emulator.clear_faults();
    running.wait_ready();
    harness.pull(HOST);
}

#[test]
fn a_token_that_expired_before_it_arrived_is_published_and_flagged_and_renewed_slowly() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.set_fault(Service::Ecr, Fault::ExpiredOnArrival);
    let running = harness.run(|command| {
        command.envs(KEYS);
    });
    let token = running.wait_refreshed(1);
    assert_eq!(token["clock_fault"], "expired-on-arrival");
    assert!(seconds_between(&token["obtained_at"], &token["next_attempt"]) >= 59.0, "{token}"); // whole seconds
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
    harness.pull(HOST); // it may well be good: the dates are wrong, not the token
    running.wait_logged("implausible token expiry (clock skew?); refreshing at a reduced rate", 1);
    let (code, said) = running.get("/readyz");
    assert_eq!(code, 503);
    assert!(said.contains("set the clock"), "{said}");
}

#[test]
fn a_token_that_expired_before_it_arrived_does_not_replace_a_live_one() {
    let harness = Harness::new(BINARY).without_keys();
    let running = harness.run_ready(|_| {});
    let published = harness.bytes();
    harness.emulator.set_fault(Service::Ecr, Fault::ExpiredOnArrival);
    running.refresh();
    let token = running.wait_token("the second token", |token| token["refreshed"] == 2);
    assert_eq!(token["clock_fault"], "expired-on-arrival");
    assert!(seconds_between(&token["obtained_at"], &token["next_attempt"]) >= 59.0, "{token}");
    running.wait_logged("new token is already expired; keeping the current token", 1);
    still_good(&harness, &running, &published, HOST);
}

#[test]
fn a_token_of_a_hundred_years_is_published_flagged_and_renewed_as_usual() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.set_fault(Service::Ecr, Fault::FarFuture);
    let running = harness.run_ready(|_| {});
    let token = running.token();
    assert_eq!(token["clock_fault"], "too-long");
    assert!(seconds_between(&token["obtained_at"], &token["next_attempt"]) <= 12.0 * 3600.0, "{token}");
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
    harness.pull(HOST);
}

/// AWS's clock is ten minutes ahead of this machine's: the SDK corrects itself by the answer's `Date`.
#[test]
fn a_clock_that_is_off_by_minutes_is_corrected_at_the_second_try() {
    for offset in [600, -600] {
        let harness = Harness::new(BINARY).without_keys();
        harness.emulator.set_clock_offset(offset);
        let running = harness.run(|command| {
            command.envs(KEYS);
        });
        let token = running.wait_refreshed(1);
        assert_eq!(token["failed"], 0, "{token}");
        assert_eq!(harness.emulator.count(Service::Ecr), 2);
        harness.pull(HOST);
    }
}

#[test]
fn ten_megabytes_of_answer_are_rejected_without_holding_them() {
    let harness = Harness::new(BINARY).without_keys();
    let running = harness.run_ready(|_| {});
    let before = running.peak_kib();
    harness.emulator.set_fault(Service::Ecr, Fault::Huge);
    running.refresh();
    running.wait_token("the third failure", |token| token["failed"].as_u64() >= Some(3));
    let grown = running.peak_kib() - before;
    assert!(grown < 5 * 1024, "{grown} KiB more than before for answers of 11 MB");
}
