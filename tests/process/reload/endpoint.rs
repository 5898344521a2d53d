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

/// `0.0.0.0` is what lets Prometheus in: our own listener is in its way.
#[test]
fn it_moves_between_an_address_and_all_of_them_at_the_same_port() {
    let harness = Harness::new(BINARY);
    let port = free_port();
    let text = |ip: &str| file(&harness, &[HOST], &format!("health: {{listen: '{ip}:{port}'}}"));
    let path = harness.put("ecr-sidecar.yaml", &text("127.0.0.1"));
    let sidecar = harness.run(|command| {
        command.env_remove("ECR_SIDECAR_HEALTH_LISTEN");
        configured_by(command, &path);
    });
    sidecar.wait_ready();
    // A request that comes while it moves may be cut off.
    let is_live = |last| http::try_request(([127, 0, 0, last], port).into(), "GET", "/livez").is_ok();
    for ip in ["0.0.0.0", "127.0.0.1"] {
        harness.put("ecr-sidecar.yaml", &text(ip));
        wait_for(ip, DEADLINE, || (is_live(1) && is_live(2) == (ip == "0.0.0.0")).then_some(()));
    }
    // Where one of them is another process's, ours is back.
    let _other = std::net::TcpListener::bind(("127.0.0.3", port)).unwrap();
    harness.put("ecr-sidecar.yaml", &text("0.0.0.0"));
    sidecar.wait_log("Address already in use", DEADLINE);
    wait_for("the address before", DEADLINE, || is_live(1).then_some(()));
    let configuration = &sidecar.status()["configuration"];
    assert_eq!((&configuration["reloads"], &configuration["rejected"]), (&2.into(), &1.into()));
}
