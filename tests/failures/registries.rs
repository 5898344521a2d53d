//! What goes wrong between a token and the registry, which the engine never asks, and the doctor does.

use ecr_emulator::{Fault, Service};
use ecr_sidecar::failure::diagnosis::Diagnosis as D;
use test_support::{
    Harness,
    harness::{HOST, KEYS, PUBLIC},
};

use crate::{
    BINARY,
    rows::{are_reported_by_the_doctor, doctor, first, row},
};

fn refuses(harness: &Harness, status: u16) {
    let (code, message) = ("DENIED".to_owned(), "no".to_owned());
    harness.emulator.set_fault(Service::Registry, Fault::Error { status, code, message });
}

#[test]
fn a_registry_that_does_not_let_the_token_in() {
    are_reported_by_the_doctor(vec![
        // A name of one's own that leads to a registry of another region than was configured for it.
        row(D::OtherRegion, |harness, command| {
            harness.emulator.name_registry("ecr.internal.example", "us-east-1");
            let registry = "{host: ecr.internal.example, region: eu-west-1}";
            let file = harness.write("config.yaml", &format!("registries: [{registry}]\n"));
            command.envs(KEYS).env("ECR_SIDECAR_CONFIG", file).env_remove("ECR_SIDECAR_REGISTRIES");
        }),
        row(D::RegistryForbidden, |harness, command| {
            refuses(harness, 403);
            command.envs(KEYS);
        }),
        row(D::TokenRefused, |harness, command| {
            refuses(harness, 401);
            command.envs(KEYS);
        }),
        row(D::RegistryUnreachable, |harness, command| {
            harness.emulator.set_fault(Service::Registry, Fault::Status(503));
            command.envs(KEYS);
        }),
        // It works where the repositories' policies admit the principal; that is worth a word.
        row(D::OtherAccount, |_, command| {
            command.envs(KEYS).env("ECR_SIDECAR_REGISTRIES", "999999999999.dkr.ecr.eu-west-1.amazonaws.com");
        }),
    ]);
}

#[test]
fn where_all_is_well_every_step_reports_it() {
    let harness = Harness::new(BINARY).without_keys();
    let report = doctor(&harness, |command| {
        command.envs(KEYS).env("ECR_SIDECAR_REGISTRIES", format!("{HOST},{PUBLIC}"));
    });
    assert_eq!(report["healthy"], true, "{report:#}");
    let findings = report["findings"].as_array().unwrap();
    let steps: Vec<_> = findings.iter().map(|finding| finding["step"].as_str().unwrap()).collect();
    for step in ["configuration", "network", "clock", "identity", "sts", "ecr", "registry", "output"] {
        assert!(steps.contains(&step), "{step}: {report:#}");
    }
    let (pulls, others): (Vec<_>, Vec<_>) = findings.iter().partition(|finding| finding["step"] == "pull");
    assert!(others.iter().all(|finding| finding["outcome"] == "ok"), "{report:#}");
    assert_eq!(pulls.len(), 1, "that no pull was tried is reported once: {report:#}");
    assert_eq!(pulls[0]["outcome"], "skip", "{report:#}");
    assert_eq!(harness.emulator.pulls().len(), 2, "both registries were asked");
}

#[test]
fn the_callers_own_registry_is_asked_too() {
    let harness = Harness::new(BINARY).without_keys();
    let report = doctor(&harness, |command| {
        command.envs(KEYS).env_remove("ECR_SIDECAR_REGISTRIES").env("AWS_REGION", "eu-west-1");
    });
    assert_eq!(report["healthy"], true, "{report:#}");
    assert_eq!(harness.emulator.pulls()[0].host, HOST);
}

#[test]
fn one_registry_failing_hides_no_other() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.name_registry("ecr.internal.example", "us-east-1");
    let text = format!("registries: [{{host: ecr.internal.example, region: eu-west-1}}, {{host: {HOST}}}]\n");
    let file = harness.write("config.yaml", &text);
    let report = doctor(&harness, |command| {
        command.envs(KEYS).env("ECR_SIDECAR_CONFIG", file).env_remove("ECR_SIDECAR_REGISTRIES");
    });
    assert_eq!(first(&report)["subject"], "ecr.internal.example");
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.iter().any(|it| it["subject"] == HOST && it["outcome"] == "ok"), "{report:#}");
}
