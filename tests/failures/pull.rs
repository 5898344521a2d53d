//! A pull with the published credential, under the policies of `patches/iam`: what consumers do, and what keeps them
//! from it.

use std::{ffi::OsString, fs, process::Command, time::SystemTime};

use ecr_emulator::{Attachment, CHART, Fault, IMAGE, Service};
use ecr_sidecar::failure::diagnosis::Diagnosis as D;
use serde_json::Value;
use test_support::{
    Harness,
    harness::{DEADLINE, HOST, KEYS, configured_by},
};

use crate::{
    BINARY,
    rows::{are_reported_by_the_doctor, are_reported_everywhere, doctor, first, row},
};

const USER: &str = "arn:aws:iam::123456789012:user/emulated";
const PULL: &str = include_str!("../../patches/iam/pull-policy.json");
const CACHE: &str = include_str!("../../patches/iam/pull-through-cache-policy.json");
const ACROSS: &str = include_str!("../../patches/iam/cross-account/pull-policy.json");
const REPOSITORY: &str = include_str!("../../patches/iam/cross-account/repository-policy.json");
const OTHER_HOST: &str = "999999999999.dkr.ecr.eu-west-1.amazonaws.com";
const OTHER_REPOSITORY: &str = "arn:aws:ecr:eu-west-1:999999999999:repository/app";

fn user() -> Attachment {
    Attachment::Identity(USER.to_owned())
}

/// A published credential for `registries`.
fn published(registries: &str) -> Harness {
    let harness = Harness::new(BINARY).without_keys();
    publish(&harness, registries);
    harness
}

fn publish(harness: &Harness, registries: &str) {
    harness.once(|command| {
        command.envs(KEYS).env("ECR_SIDECAR_REGISTRIES", registries);
    });
}

/// What doctor reports of a pull; the credential that is published is shown nowhere, and its file stays as it is.
fn pull(harness: &Harness, image: &str, prepare: impl FnOnce(&mut Command)) -> Value {
    let before = files(harness);
    let report = doctor(harness, |command| {
        command.envs(KEYS).args(["--image", image]);
        prepare(command);
    });
    assert_eq!(files(harness), before, "it writes nothing");
    let text = report.to_string();
    for auth in harness.auths().values() {
        assert!(!text.contains(auth.as_str()), "{text}");
    }
    report
}

/// What is next to the published file, with the times of the last changes.
fn files(harness: &Harness) -> Vec<(OsString, SystemTime)> {
    let entries = fs::read_dir(harness.at("out")).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> =
        entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().modified().unwrap())).collect();
    files.sort();
    files
}

/// `policy` without one of its actions.
fn without(policy: &str, action: &str) -> String {
    let mut policy: Value = serde_json::from_str(policy).unwrap();
    for statement in policy["Statement"].as_array_mut().unwrap() {
        if let Some(actions) = statement["Action"].as_array_mut() {
            actions.retain(|it| it != action);
        }
    }
    policy.to_string()
}

fn steps(report: &Value) -> Vec<(&str, &str)> {
    let findings = report["findings"].as_array().unwrap().iter();
    let pulls = findings.filter(|finding| finding["step"] == "pull");
    pulls
        .map(|it| (it["outcome"].as_str().unwrap(), it["saw"].as_str().unwrap().split(':').next().unwrap()))
        .collect()
}

#[test]
fn under_the_shipped_policies_every_consumers_steps_pass() {
    let harness = published(HOST);
    harness.emulator.set_policies(user(), &[PULL]);
    let all = ["login", "list of tags", "manifest", "first layer, HEAD", "first layer, GET"];
    for (consumer, expected) in [
        (None, &all[..]),
        (Some("flux"), &all[..]),
        (Some("argocd"), &all[..]),
        (Some("helm"), &all[..]),
        (Some("kubelet"), &["login", "manifest", "first layer, HEAD", "first layer, GET"][..]),
        (Some("docker"), &["login", "manifest", "first layer, HEAD", "first layer, GET"][..]),
    ] {
        let image = if consumer == Some("helm") { CHART } else { IMAGE };
        let report = pull(&harness, &format!("{HOST}/{image}"), |command| {
            command.args(consumer.iter().flat_map(|name| ["--as-consumer", name]));
        });
        assert_eq!(report["healthy"], true, "{consumer:?}: {report:#}");
        assert_eq!(
            steps(&report),
            expected.iter().map(|step| ("ok", *step)).collect::<Vec<_>>(),
            "{consumer:?}"
        );
    }
}

#[test]
fn the_first_failure_names_the_action_that_is_missing_and_the_file_that_has_it() {
    let image = format!("{HOST}/{IMAGE}");
    let cached = format!("{HOST}/docker-hub/{IMAGE}");
    for (action, image, file) in [
        ("ecr:ListImages", &image, "patches/iam/pull-policy.json"),
        ("ecr:BatchGetImage", &image, "patches/iam/pull-policy.json"),
        ("ecr:BatchCheckLayerAvailability", &image, "patches/iam/pull-policy.json"),
        ("ecr:GetDownloadUrlForLayer", &image, "patches/iam/pull-policy.json"),
        ("ecr:BatchImportUpstreamImage", &cached, "patches/iam/pull-through-cache-policy.json"),
        ("ecr:CreateRepository", &cached, "patches/iam/pull-through-cache-policy.json"),
    ] {
        let harness = published(HOST);
        harness.emulator.add_pull_through_cache("docker-hub");
        harness.emulator.set_policies(user(), &[&without(PULL, action), &without(CACHE, action)]);
        let report = pull(&harness, image, |command| {
            command.args(["--as-consumer", if image == &cached { "docker" } else { "flux" }]);
        });
        let first = first(&report);
        assert_eq!(first["diagnosis"], D::PullDenied.id(), "{action}: {report:#}");
        let remedy = first["remedy"].as_str().unwrap();
        assert!(remedy.contains(&format!("({action}: ")) && remedy.contains(file), "{action}: {remedy}");
        assert!(remedy.contains(&format!(r#""Action":"{action}""#)), "{remedy}");
    }
}

#[test]
fn a_repository_policy_without_the_principal_is_named() {
    let harness = published(OTHER_HOST);
    harness.emulator.set_policies(user(), &[PULL, ACROSS]);
    let repository = || Attachment::Repository(OTHER_REPOSITORY.to_owned());
    harness.emulator.set_policies(repository(), &[REPOSITORY]);
    let image = format!("{OTHER_HOST}/{IMAGE}");
    let prepare = |command: &mut Command| {
        command.env("ECR_SIDECAR_REGISTRIES", OTHER_HOST);
    };
    let report = pull(&harness, &image, prepare);
    let denied = first(&report);
    assert_eq!(denied["diagnosis"], D::PullDenied.id(), "{report:#}");
    let remedy = denied["remedy"].as_str().unwrap();
    assert!(
        remedy.contains("(ecr:ListImages: ") && remedy.contains("cross-account/repository-policy.json"),
        "{remedy}"
    );
    assert!(remedy.contains(&format!(r#""Principal":{{"AWS":"{USER}"}}"#)), "{remedy}");
    let admitted = REPOSITORY.replace("arn:aws:iam::123456789012:role/ecr-pull", USER);
    harness.emulator.set_policies(repository(), &[&admitted]);
    let report = pull(&harness, &image, prepare);
    assert_eq!(report["healthy"], true, "{report:#}");
}

#[test]
fn what_else_keeps_a_consumer_from_its_image() {
    are_reported_by_the_doctor(vec![
        row(D::NothingPublished, |_, command| {
            command.envs(KEYS).args(["--image", &format!("{HOST}/{IMAGE}")]);
        }),
        row(D::PublishedExpired, |harness, command| {
            // A sidecar that stopped long ago, next to an AWS that issues good tokens.
            harness.emulator.set_fault(Service::Ecr, Fault::ExpiredOnArrival);
            publish(harness, HOST);
            harness.emulator.clear_faults();
            command.envs(KEYS).args(["--image", &format!("{HOST}/{IMAGE}")]);
        }),
        row(D::RepositoryMissing, |harness, command| {
            publish(harness, HOST);
            command.envs(KEYS).args(["--image", &format!("{HOST}/team/nothing:1.0")]);
        }),
        row(D::ImageMissing, |harness, command| {
            publish(harness, HOST);
            command.envs(KEYS).args(["--image", &format!("{HOST}/app:0.0")]);
        }),
        row(D::UpstreamRefused, |harness, command| {
            publish(harness, HOST);
            harness.emulator.add_pull_through_cache("docker-hub");
            harness.emulator.refuse_upstream(true);
            command.envs(KEYS).args(["--as-consumer", "docker", "--image"]);
            command.arg(format!("{HOST}/docker-hub/{IMAGE}"));
        }),
    ]);
}

/// A configuration with a pull probe.
fn probing(harness: &Harness, command: &mut Command, probe: &str) {
    let path = harness.file();
    let text = format!(
        "registries: [{{host: {HOST}, probe: {{{probe}}}}}]\noutputs: [{{type: docker-config, path: {}}}]\n",
        path.display()
    );
    configured_by(command, &harness.put("ecr-sidecar.yaml", &text));
    command.envs(KEYS).env("AWS_CA_BUNDLE", harness.emulator.ca_file());
}

#[test]
fn a_probe_reports_what_keeps_a_consumer_from_its_image() {
    are_reported_everywhere(vec![
        row(D::PullDenied, |harness, command| {
            harness.emulator.set_policies(user(), &[&without(PULL, "ecr:BatchGetImage")]);
            probing(harness, command, "repository: app");
        }),
        row(D::RepositoryMissing, |harness, command| probing(harness, command, "repository: team/nothing")),
        row(D::ImageMissing, |harness, command| probing(harness, command, "repository: app, tag: '0.0'")),
        row(D::NotAws, |harness, command| {
            harness.emulator.set_fault(Service::Registry, Fault::Html);
            probing(harness, command, "repository: app");
        }),
        row(D::RegistryUnreachable, |harness, command| {
            harness.emulator.set_fault(Service::Registry, Fault::Hang);
            probing(harness, command, "repository: app");
        }),
    ]);
}

#[test]
fn a_probe_is_reported_in_the_same_words_by_log_status_and_doctor() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.set_policies(user(), &[&without(PULL, "ecr:BatchGetImage")]);
    let running = harness.run(|command| probing(&harness, command, "repository: app"));
    let line: Value = serde_json::from_str(&running.wait_log("pull probe failed", DEADLINE)).unwrap();
    let status = running.wait_status("the probe", |status| status["probes"][0]["failures_in_a_row"] == 1);
    let problem = &status["probes"][0]["last_error"];
    let report = doctor(&harness, |command| probing(&harness, command, "repository: app"));
    let found = first(&report);
    let message = found["saw"].as_str().unwrap();
    assert!(message.starts_with("manifest (ecr:BatchGetImage, credential of docker-config "), "{message}");
    assert_eq!((&line["error"], &problem["message"]), (&found["saw"], &found["saw"]));
    assert_eq!((&line["remedy"], &problem["remedy"]), (&found["remedy"], &found["remedy"]));
    assert!(found["remedy"].as_str().unwrap().contains(r#""Action":"ecr:BatchGetImage""#), "{found}");
    assert_eq!(found["subject"], format!("{HOST}/app"));
}

#[test]
fn doctor_tries_the_probes_and_reports_that_it_tried_nothing_else() {
    let harness = published(HOST);
    let pulls = || harness.emulator.pulls().into_iter().map(|pull| pull.path).collect::<Vec<_>>();
    for (probe, found) in [("repository: app, tag: '1.0'", "1.0"), ("repository: app", "has no tag latest")] {
        let before = pulls().len();
        let report = doctor(&harness, |command| probing(&harness, command, probe));
        assert_eq!(report["healthy"], true, "{report:#}");
        let of_pull = steps(&report);
        assert_eq!(of_pull[0], ("ok", "manifest"), "{report:#}");
        assert!(report.to_string().contains(found), "{report:#}");
        assert_eq!(of_pull.len(), 2, "{report:#}");
        assert_eq!(of_pull[1].0, "skip", "{report:#}");
        let manifests = pulls()[before..].iter().filter(|path| *path != "/v2/").count();
        assert!(manifests <= 1, "{:?}", pulls());
    }
}

#[test]
fn an_image_that_is_none_ends_with_what_is_expected() {
    let harness = Harness::new(BINARY).without_keys();
    for (image, expected) in
        [(HOST, "expected HOST/REPOSITORY"), ("x.example/App", "not the name of a repository")]
    {
        let mut command = harness.command("doctor");
        let output = test_support::output(
            command.envs(KEYS).args(["--image", image]),
            test_support::harness::DEADLINE,
        );
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}
