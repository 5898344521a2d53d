//! The health endpoint and the log follow the file.

use ecr_emulator::{Fault, Service};
use test_support::{
    Harness, clean_command,
    files::wait_auth,
    free_port,
    harness::{DEADLINE, HOST, SIBLING, configured_by},
    http, output, wait_for,
};

use super::{file, wait_reloads};
use crate::BINARY;

#[test]
fn another_grace_at_the_same_address_is_applied() {
    let harness = Harness::new(BINARY);
    harness.emulator.set_fault(Service::Ecr, Fault::Status(500));
    let address = format!("127.0.0.1:{}", free_port());
    let text = |grace: &str| {
        file(&harness, &[HOST], &format!("health: {{listen: '{address}', startupGrace: {grace}}}"))
    };
    let path = harness.put("ecr-sidecar.yaml", &text("1h"));
    let running = harness.run(|command| {
        configured_by(command, &path);
        command.env_remove("ECR_SIDECAR_HEALTH_LISTEN");
    });
    assert_eq!(running.get("/startupz").0, 503);
    harness.put("ecr-sidecar.yaml", &text("0s"));
    wait_reloads(&running, 1);
    running.wait_get("/startupz", 200);
    assert_eq!(running.get("/readyz").0, 503);
}

/// The listener of loopback and that of all addresses exclude each other.
#[test]
fn another_address_with_the_same_port_is_applied_or_the_old_one_stays() {
    let harness = Harness::new(BINARY);
    let port = free_port();
    let text = |ip: &str| file(&harness, &[HOST], &format!("health: {{listen: '{ip}:{port}'}}"));
    let path = harness.put("ecr-sidecar.yaml", &text("127.0.0.1"));
    let running = harness.run(|command| {
        configured_by(command, &path);
        command.env_remove("ECR_SIDECAR_HEALTH_LISTEN");
    });
    running.wait_ready();
    harness.put("ecr-sidecar.yaml", &text("0.0.0.0"));
    wait_reloads(&running, 1);
    assert_eq!(http::get(([127, 0, 0, 2], port).into(), "/readyz").0, 200);
    // An address for documentation, which no machine has.
    harness.put("ecr-sidecar.yaml", &text("192.0.2.1"));
    let status = running.wait_status("a rejection", |status| status["configuration"]["rejected"] == 1);
    assert!(status["configuration"]["last_error"].as_str().unwrap().contains("192.0.2.1"), "{status}");
    assert_eq!(http::get(([127, 0, 0, 2], port).into(), "/readyz").0, 200);
}

#[test]
fn the_health_endpoint_and_the_log_filter_follow_the_file() {
    let harness = Harness::new(BINARY);
    let address = |port| format!("127.0.0.1:{port}");
    let (first, second) = (free_port(), free_port());
    let text = |port, filter| {
        file(
            &harness,
            &[HOST],
            &format!("health: {{listen: '{}'}}\nlog: {{filter: {filter}}}", address(port)),
        )
    };
    let path = harness.put("ecr-sidecar.yaml", &text(first, "info"));
    let sidecar = harness.run(|command| {
        command.env_remove("ECR_SIDECAR_HEALTH_LISTEN");
        configured_by(command, &path);
    });
    let ready = |port: u16| {
        http::try_request(([127, 0, 0, 1], port).into(), "GET", "/readyz")
            .is_ok_and(|answer| answer.code == 200)
    };
    wait_for("readiness at the first address", DEADLINE, || ready(first).then_some(()));
    harness.put("ecr-sidecar.yaml", &text(second, "error"));
    wait_for("readiness at the second address", DEADLINE, || ready(second).then_some(()));
    wait_for("the first address to close", DEADLINE, || (!ready(first)).then_some(()));
    // The probes find it by the same file.
    let mut probe = clean_command(BINARY, &harness.at("."));
    let answer = output(probe.args(["health", "ready"]).env("ECR_SIDECAR_CONFIG", &path), DEADLINE);
    assert!(answer.status.success(), "{answer:?}");
    let lines = sidecar.log_lines().len();
    harness.put("ecr-sidecar.yaml", &text(second, "error").replace(HOST, SIBLING));
    wait_auth(&harness.file(), SIBLING);
    assert_eq!(sidecar.log_lines().len(), lines, "nothing below ERROR is logged any more");
}
