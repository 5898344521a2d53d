//! What goes wrong on the way to AWS: the network, certificates, proxies, and the clock.

use std::{fs, process::Command};

use ecr_emulator::{Emulator, Fault, Service, Settings};
use ecr_sidecar::failure::diagnosis::Diagnosis as D;
use test_support::{
    Harness, free_port,
    harness::{DEADLINE, HOST, KEYS, configured_by},
    root,
};

use crate::{
    BINARY,
    aws::refuses,
    rows::{are_reported_everywhere, doctor, first, report_of, row},
};

#[test]
fn the_network_and_the_clock() {
    are_reported_everywhere(vec![
        row(D::Throttled, |harness, command| {
            harness.emulator.set_fault(Service::Ecr, Fault::Throttled);
            command.envs(KEYS);
        }),
        row(D::NotAws, |harness, command| {
            harness.emulator.set_fault(Service::Ecr, Fault::Html);
            command.envs(KEYS);
        }),
        row(D::Unreachable, |_, command| {
            let closed = format!("http://127.0.0.1:{}", free_port());
            command.envs(KEYS).env("AWS_ENDPOINT_URL", closed);
        }),
        row(D::UnknownCa, |harness, command| {
            let other_aws = Emulator::start(Settings::default()).unwrap();
            let ca = harness.write("stranger.pem", &fs::read_to_string(other_aws.ca_file()).unwrap());
            command.envs(KEYS).env("AWS_ENDPOINT_URL", harness.emulator.https_endpoint());
            command.env("AWS_CA_BUNDLE", ca);
        }),
        row(D::NoCaBundle, |harness, command| {
            command.envs(KEYS).env("AWS_ENDPOINT_URL", harness.emulator.https_endpoint());
            command.env("AWS_CA_BUNDLE", "/nowhere/ca.pem");
        }),
        row(D::ProxyRefuses, |harness, command| {
            harness.emulator.refuse_proxy(Some(403));
            command.envs(KEYS).env_remove("AWS_ENDPOINT_URL");
            command.env("AWS_CA_BUNDLE", harness.emulator.ca_file());
        }),
        row(D::EndpointConflict, |_, command| {
            command.envs(KEYS).env("AWS_USE_FIPS_ENDPOINT", "true");
        }),
        // The SDK corrects itself by the answer's `Date`; this is a clock that it cannot correct.
        row(D::ClockOff, |harness, command| {
            refuses(
                harness,
                Service::Ecr,
                403,
                "InvalidSignatureException",
                "Signature expired: it is now later",
            );
            command.envs(KEYS);
        }),
    ]);
}

/// What the SDK corrects is reported all the same, before it matters.
#[test]
fn a_clock_that_is_twenty_minutes_off_is_found_by_the_doctor() {
    for (offset, direction) in [(1200, "behind"), (-1200, "ahead")] {
        let harness = Harness::new(BINARY).without_keys();
        harness.emulator.set_clock_offset(offset);
        let report = doctor(&harness, |command| {
            command.envs(KEYS);
        });
        let found = first(&report);
        assert_eq!(found["diagnosis"], D::ClockOff.id(), "{report:#}");
        assert!(found["remedy"].as_str().unwrap().contains(direction), "{found}");
    }
}

/// A VPC endpoint outside of its VPC. Names are looked up in files alone, so that no DNS server is asked.
#[test]
fn a_name_that_resolves_to_nothing() {
    if !root() {
        return;
    }
    let harness = Harness::new(BINARY);
    let nsswitch = harness.put("nsswitch.conf", "hosts: files\n");
    let file = harness.put(
        "config.yaml",
        &format!(
            "registries: [{{host: {HOST}, endpoint: 'http://vpce-0abc.api.ecr.eu-west-1.vpce.amazonaws.com'}}]\n\
             outputs: [{{type: docker-config, path: {}}}]\n",
            harness.file().display()
        ),
    );
    let mounts = format!("mount --bind {} /etc/nsswitch.conf", nsswitch.display());
    let sidecar = harness.run_with_mounts(&mounts, |command| configured_by(command, &file));
    sidecar.wait_log(&format!("\"diagnosis\":\"{}\"", D::NameUnresolved.id()), DEADLINE);
    sidecar.wait_status("it in /status", |status| {
        status["tokens"][0]["last_error"]["diagnosis"] == D::NameUnresolved.id()
    });
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-e", "-c"]);
    command.arg(format!("{mounts}\nexec {BINARY} doctor --output json"));
    command.env_clear().envs(harness.environment());
    configured_by(&mut command, &file);
    let report = report_of(&mut command);
    assert_eq!(first(&report)["diagnosis"], D::NameUnresolved.id(), "{report:#}");
}
