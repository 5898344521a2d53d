//! When the sidecar is ready, and what it answers when it is not.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use ecr_emulator::{Fault, Service, Settings};
use jiff::Timestamp;
use test_support::{
    Harness,
    files::{auth, wait_auth},
    harness::{DEADLINE, HOST, configured_by},
    http, wait_for,
};

use crate::BINARY;

#[test]
fn a_503_names_the_registry_the_reason_and_the_remedy_and_livez_does_not_depend_on_aws() {
    let harness = Harness::new(BINARY);
    harness.emulator.set_fault(Service::Ecr, Fault::AccessDenied);
    let sidecar = harness.run(|_| {});
    let status = sidecar
        .wait_status("a failure", |status| status["tokens"][0]["failed"].as_u64().is_some_and(|n| n > 0));
    let problem = &status["tokens"][0]["last_error"];
    let remedy = problem["remedy"].as_str().unwrap();
    for path in ["/readyz", "/startupz", "/readyz?verbose"] {
        let (code, body) = sidecar.get(path);
        assert_eq!(code, 503, "{path}");
        for part in [HOST, "[-]registry", "AccessDenied", remedy, "\nnot ok\n"] {
            assert!(body.contains(part), "{path}: no {part:?} in {body}");
        }
    }
    assert_eq!(problem["class"], "denied");
    assert_eq!(sidecar.get("/livez"), (200, "ok\n".into()));
}

#[test]
fn it_is_not_ready_from_the_first_answer_on_until_there_is_a_credential() {
    let harness = Harness::new(BINARY);
    harness.emulator.set_fault(Service::Ecr, Fault::Hang);
    let address = SocketAddr::from(([127, 0, 0, 1], test_support::free_port()));
    let outputs: String = (0..50)
        .map(|n| format!("- {{type: docker-config, path: {}}}\n", harness.at(&n.to_string()).display()))
        .collect();
    let file =
        harness.put("ecr-sidecar.yaml", &format!("registries: [{{host: {HOST}}}]\noutputs:\n{outputs}"));
    let _sidecar = harness.run(|command| {
        configured_by(command, &file);
        command.env("ECR_SIDECAR_HEALTH_LISTEN", address.to_string());
    });
    let mut answers = 0;
    while answers < 200 {
        let path = ["/readyz", "/startupz"][answers % 2];
        match http::try_request(address, "GET", path) {
            Ok(answer) => assert_eq!(answer.code, 503, "{path}, answer {answers}: {}", answer.body),
            Err(_) if answers == 0 => continue, // it doesn't listen yet
            Err(error) => panic!("{error}"),
        }
        answers += 1;
    }
}

#[test]
fn readyz_is_true_exactly_while_the_credential_in_the_file_lives() {
    let harness =
        Harness::with(BINARY, Settings { token_lifetime: Duration::from_secs(12), ..Settings::default() });
    let sidecar = harness.run(|_| {});
    let credential = wait_auth(&harness.file(), HOST);
    sidecar.wait_ready();
    harness.emulator.set_fault(Service::Ecr, Fault::Status(500));
    let end =
        sidecar.status()["outputs"][0]["in_place"][HOST].as_str().unwrap().parse::<Timestamp>().unwrap();
    let (end, rounding) = (SystemTime::from(end), Duration::from_secs(1));
    let body = wait_for("the end of readiness", DEADLINE, || {
        let before = now();
        let (code, body) = sidecar.get("/readyz");
        let after = now();
        assert!(code == 200 || after >= end, "false before its time: {body}");
        assert!(code == 503 || before < end + rounding, "true after its time");
        (code == 503).then_some(body)
    });
    for part in [HOST, "its credential expired at", "HTTP 500"] {
        assert!(body.contains(part), "no {part:?} in {body}");
    }
    // An error takes nothing away, and who has started once has started.
    assert_eq!(auth(&harness.file(), HOST), Some(credential));
    assert_eq!(sidecar.get("/startupz").0, 200);
    assert_eq!(sidecar.get("/livez").0, 200);
    sidecar.wait_log("no longer ready", DEADLINE);

    harness.emulator.clear_faults();
    sidecar.wait_ready();
}

#[expect(clippy::disallowed_methods, reason = "an expiry is a time of day")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[test]
fn after_its_grace_startupz_is_true_whatever_aws_does() {
    let harness = Harness::new(BINARY);
    harness.emulator.set_fault(Service::Ecr, Fault::Status(500));
    let file = |grace: &str| {
        let out = harness.file();
        format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config, path: {}}}]\n\
             health: {{startupGrace: {grace}}}\n",
            out.display()
        )
    };
    let sidecar = harness.run_with_file(&file("1s"));
    sidecar.wait_get("/startupz", 200);
    assert_eq!(sidecar.get("/readyz").0, 503);
    let (_, body) = sidecar.get("/startupz?verbose");
    assert!(body.contains(&format!("[-]registry {HOST}")), "{body}");
    drop(sidecar);

    let sidecar = harness.run_with_file(&file("1h"));
    sidecar.wait_status("three failures", |status| status["tokens"][0]["failed"].as_u64() >= Some(3));
    assert_eq!(sidecar.get("/startupz").0, 503);
}
