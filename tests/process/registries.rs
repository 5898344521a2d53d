//! Which calls the registries cost, and which credential each is given: one call for every identity, API,
//! region and endpoint, and one write of the file.

use std::{collections::BTreeSet, fmt::Write};

use ecr_emulator::Service;
use test_support::{
    Harness,
    harness::{DEADLINE, HOST, KEYS, PUBLIC},
    http, wait_for,
};

use crate::BINARY;

#[test]
fn a_thousand_registries_of_one_region_cost_one_call_and_one_write() {
    let harness = Harness::new(BINARY).without_keys();
    let hosts: Vec<_> =
        (0..1000).map(|n| format!("{:012}.dkr.ecr.eu-west-1.amazonaws.com", 1000 + n)).collect();
    let mut yaml = "registries:\n".to_owned();
    for host in &hosts {
        writeln!(yaml, "- host: {host}").unwrap();
    }
    let config = harness.write("config.yaml", &yaml);
    let running = harness.run_ready(|command| {
        command.env("ECR_SIDECAR_CONFIG", config).env_remove("ECR_SIDECAR_REGISTRIES");
    });
    assert_eq!(harness.counts(), [0, 1, 0, 0, 0]);
    assert_eq!(running.status()["outputs"][0]["writes"], 1);
    let auths = harness.auths();
    assert!(auths.keys().eq(&hosts));
    assert_eq!(auths.values().collect::<BTreeSet<_>>().len(), 1);
    harness.pull(&hosts[0]);
    harness.pull(&hosts[999]);

    running.refresh();
    running.wait_refreshed(2);
    assert_eq!(harness.counts(), [0, 2, 0, 0, 0]);
    assert_eq!(running.status()["outputs"][0]["writes"], 2);
    assert_ne!(harness.auths(), auths);
}

#[test]
fn two_regions_and_ecr_public_cost_three_calls_each_in_its_region() {
    let harness = Harness::new(BINARY).without_keys();
    let hosts = [
        "123456789012.dkr.ecr.us-east-1.amazonaws.com",
        "999999999999.dkr.ecr.us-east-1.amazonaws.com",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
        "999999999999.dkr.ecr.eu-west-1.amazonaws.com",
        PUBLIC,
    ];
    let running = harness.run_ready(|command| {
        command.env("ECR_SIDECAR_REGISTRIES", hosts.join(","));
    });
    assert_eq!(harness.counts(), [0, 2, 1, 0, 0]);
    let regions: BTreeSet<_> =
        harness.calls(Service::Ecr).into_iter().filter_map(|call| call.region).collect();
    assert!(regions.iter().eq(["eu-west-1", "us-east-1"]), "{regions:?}");
    assert_eq!(harness.only_call(Service::EcrPublic).region.as_deref(), Some("us-east-1"));
    for host in hosts {
        harness.pull(host);
    }
    assert_eq!(running.status()["tokens"].as_array().unwrap().len(), 3);
}

#[test]
fn registries_of_one_region_under_other_endpoints_and_names_are_calls_of_their_own() {
    let [harness, vpc] = [(); 2].map(|()| Harness::new(BINARY).without_keys());
    let config = harness.write(
        "config.yaml",
        &format!(
            "registries:\n- host: {HOST}\n- {{host: 999999999999.dkr.ecr.eu-west-1.amazonaws.com, endpoint: '{}'}}\n",
            vpc.emulator.endpoint()
        ),
    );
    harness.once_pulls(HOST, |command| {
        command.envs(KEYS).env("ECR_SIDECAR_CONFIG", config).env_remove("ECR_SIDECAR_REGISTRIES");
    });
    assert_eq!((harness.counts(), vpc.counts()), ([0, 1, 0, 0, 0], [0, 1, 0, 0, 0]));
    let auths = harness.auths();
    assert_ne!(auths[HOST], auths["999999999999.dkr.ecr.eu-west-1.amazonaws.com"]);
}

#[test]
fn with_nothing_but_a_region_the_callers_own_registry_is_kept() {
    for variable in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        let harness = Harness::new(BINARY).without_keys();
        let running = harness.run_ready(|command| {
            command.env_remove("ECR_SIDECAR_REGISTRIES").env(variable, "ap-southeast-2");
        });
        let own = "123456789012.dkr.ecr.ap-southeast-2.amazonaws.com";
        assert!(harness.auths().keys().eq([own]));
        harness.pull(own);
        assert_eq!(harness.counts(), [0, 1, 0, 0, 0]);
        let token = running.token();
        assert_eq!(
            (&token["registries"][0]["host"], &token["awaits_own_registry"]),
            (&own.into(), &false.into())
        );
        assert!(running.get("/readyz?verbose").1.contains(&format!("[+]registry {own}")));
    }
}

#[test]
fn the_own_registry_survives_a_refresh_and_once_knows_it_too() {
    let harness = Harness::new(BINARY).without_keys();
    let own = |command: &mut std::process::Command| {
        command.env_remove("ECR_SIDECAR_REGISTRIES").env("AWS_REGION", "eu-west-1");
    };
    harness.once_pulls(HOST, |command| own(command.envs(KEYS)));
    let running = harness.run_ready(own);
    running.refresh();
    running.wait_refreshed(2);
    harness.pull(HOST);
    assert!(harness.auths().keys().eq([HOST]));
}

/// A registry by a name without a region: its port, region and API endpoint are configured.
#[test]
fn a_registry_with_a_port_a_region_and_an_endpoint_is_kept_under_the_name_that_was_said() {
    let [harness, vpc] = [(); 2].map(|()| Harness::new(BINARY).without_keys());
    let host = vpc.emulator.add_registry("eu-central-1");
    let config = harness.write(
        "config.yaml",
        &format!(
            "registries: [{{host: '{host}', region: eu-central-1, endpoint: '{}'}}]\n",
            vpc.emulator.endpoint()
        ),
    );
    let once = harness.once(|command| {
        command.envs(KEYS).env("ECR_SIDECAR_CONFIG", config).env_remove("ECR_SIDECAR_REGISTRIES");
    });
    assert_eq!(once.code, Some(0), "{}", once.stderr);
    assert_eq!(harness.counts(), [0; 5], "AWS_ENDPOINT_URL comes after the registry's own endpoint");
    assert_eq!(vpc.only_call(Service::Ecr).region.as_deref(), Some("eu-central-1"));
    let auth = format!("Basic {}", harness.auths()[&host]);
    let answer = http::get_with(http::address(&host), "/v2/", &[("Authorization", &auth)]);
    assert_eq!(answer.code, 200, "{answer:?}");
    assert_eq!(vpc.emulator.pulls()[0].region.as_deref(), Some("eu-central-1"));
}

#[test]
fn a_name_that_has_no_region_is_rejected_with_the_remedy() {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| {
        command.envs(KEYS).env("ECR_SIDECAR_REGISTRIES", format!("{HOST},ecr.internal.example:8443"));
    });
    assert_eq!(once.code, Some(64), "{}", once.stderr);
    once.has(&["found nothing", "the AWS region of this registry"]);
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn an_optional_registry_is_kept_when_it_can_be_and_missed_by_no_consumer() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.set_fault(Service::EcrPublic, ecr_emulator::Fault::AccessDenied);
    let config = harness.write(
        "config.yaml",
        &format!("registries: [{{host: {HOST}}}, {{host: {PUBLIC}, optional: true}}]\n"),
    );
    let running = harness.run_ready(|command| {
        command.env("ECR_SIDECAR_CONFIG", &config).env_remove("ECR_SIDECAR_REGISTRIES");
    });
    wait_for("the refusal", DEADLINE, || (running.status()["tokens"][1]["failed"] == 1).then_some(()));
    assert!(running.is_ready());
    assert!(running.get("/readyz?verbose").1.contains("[-]registry public.ecr.aws"));
    let once = harness.once(|command| {
        command.envs(KEYS).env("ECR_SIDECAR_CONFIG", &config).env_remove("ECR_SIDECAR_REGISTRIES");
    });
    assert_eq!(once.code, Some(0), "{}", once.stderr);
    assert!(harness.auths().keys().eq([HOST]));

    harness.emulator.clear_faults();
    running.refresh();
    wait_for("both", DEADLINE, || (harness.auths().len() == 2).then_some(()));
    harness.pull(PUBLIC);
}

#[test]
fn one_broken_region_delays_no_other() {
    let harness = Harness::new(BINARY).without_keys();
    let elsewhere = Harness::new(BINARY).without_keys();
    elsewhere.emulator.set_fault(Service::Ecr, ecr_emulator::Fault::Hang);
    let config = harness.write(
        "config.yaml",
        &format!(
            "registries:\n- host: {HOST}\n- {{host: 123456789012.dkr.ecr.us-east-1.amazonaws.com, endpoint: '{}'}}\n",
            elsewhere.emulator.endpoint()
        ),
    );
    let running = harness.run(|command| {
        command.envs(KEYS).env("ECR_SIDECAR_CONFIG", config).env_remove("ECR_SIDECAR_REGISTRIES");
    });
    let first = "the credential of the region that works, while the other one is being asked";
    wait_for(first, DEADLINE, || (!harness.nothing_written()).then_some(()));
    assert!(harness.auths().keys().eq([HOST]));
    harness.pull(HOST);
    let status = running.status();
    let hung =
        &status["tokens"].as_array().unwrap().iter().find(|token| token["region"] == "us-east-1").unwrap();
    assert_eq!(hung["refreshed"], 0);
    assert!(!running.is_ready());
}
