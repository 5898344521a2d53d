//! `registries[].probe`: the published credential, tried at its registry while the sidecar runs.

use std::{process::Command, thread};

use ecr_emulator::{Fault, Service};
use serde_json::Value;
use test_support::{
    Harness, Running, Signal,
    harness::{DEADLINE, HOST, KEYS, PUBLIC, SIBLING, configured_by},
    output,
};

use crate::{
    BINARY,
    lifecycle::{HANGING_MOUNT, fuse},
};

const MANIFEST: &str = "/v2/app/manifests/1.0";

/// Every name of AWS and of registries leads to the emulator.
fn harness() -> Harness {
    Harness::new(BINARY).without_keys()
}

/// The configuration with these probes.
fn file(harness: &Harness, probes: &[(&str, &str)]) -> String {
    let registries = [HOST, SIBLING].map(|host| {
        let probe =
            probes.iter().find(|(of, _)| *of == host).map(|(_, probe)| format!(", probe: {{{probe}}}"));
        format!("{{host: {host}{}}}", probe.unwrap_or_default())
    });
    let path = harness.file();
    format!(
        "registries: [{}]\noutputs: [{{type: docker-config, path: {}}}]\n",
        registries.join(", "),
        path.display()
    )
}

fn prepare(harness: &Harness, command: &mut Command, probe: &str) {
    let path = harness.put("ecr-sidecar.yaml", &file(harness, &[(HOST, probe)]));
    configured_by(command, &path);
    command.envs(KEYS).env("AWS_CA_BUNDLE", harness.emulator.ca_file());
}

fn run(harness: &Harness, probe: &str) -> Running {
    harness.run(|command| prepare(harness, command, probe))
}

/// The only probe, once it has a result.
#[track_caller]
fn probed(running: &Running) -> Value {
    let status = running.wait_status("a probe", |status| !status["probes"][0]["checked_at"].is_null());
    assert_eq!(status["probes"].as_array().unwrap().len(), 1, "{status}");
    status["probes"][0].clone()
}

fn requests(harness: &Harness) -> Vec<String> {
    harness
        .emulator
        .pulls()
        .into_iter()
        .map(|pull| format!("{} {}{}", pull.method, pull.host, pull.path))
        .collect()
}

#[test]
fn a_probe_is_one_manifest_request_with_the_published_credential() {
    let harness = harness();
    let running = run(&harness, "repository: app, tag: '1.0'");
    running.wait_ready();
    let probe = probed(&running);
    assert_eq!(probe["image"], format!("{HOST}/app:1.0"));
    let found = format!("manifest: 1.0 (credential of docker-config {})", harness.file().display());
    assert_eq!((&probe["found"], &probe["last_error"]), (&found.into(), &Value::Null));
    assert_eq!(requests(&harness), [format!("GET {HOST}{MANIFEST}")]);
    assert_eq!(harness.emulator.pulls()[0].token, 1);
    let (_, metrics) = running.get("/metrics");
    assert!(
        metrics.contains(&format!("ecr_sidecar_pull_probe_success{{registry=\"{HOST}\"}} 1")),
        "{metrics}"
    );
    let line: Value = serde_json::from_str(&running.wait_log("pull probe succeeded", DEADLINE)).unwrap();
    assert_eq!((&line["registry"], &line["level"]), (&HOST.into(), &"INFO".into()));
    let mut table = harness.command("status");
    let table = output(table.args(["--health-listen", &running.health().to_string()]), DEADLINE);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let row = table.lines().find(|line| line.starts_with(&format!("{HOST}/app:1.0 "))).unwrap();
    assert!(table.contains("\nPULL PROBE ") && row.contains(" ok "), "{table}");

    // What refreshes everything does not probe.
    running.refresh();
    running.wait_refreshed(2);
    running.wait_ready();
    assert_eq!(requests(&harness).len(), 1);
}

#[test]
fn a_probe_without_a_tag_is_about_the_right_alone_and_with_one_about_the_image() {
    for (probe, found, diagnosis) in [
        ("repository: app", "manifest: allowed; the repository has no tag latest (credential of ", ""),
        ("repository: app, tag: latest", "", "image-missing"),
        ("repository: nothing", "", "repository-missing"),
    ] {
        let harness = harness();
        let running = run(&harness, probe);
        let probe = probed(&running);
        assert!(probe["found"].as_str().unwrap_or_default().starts_with(found), "{probe}");
        assert_eq!(probe["last_error"]["diagnosis"].as_str().unwrap_or_default(), diagnosis, "{probe}");
        assert!(running.is_ready());
    }
}

/// A proxy or mirror may give that answer to anyone.
#[test]
fn a_host_that_is_not_of_ecr_has_to_have_the_image() {
    const MIRROR: &str = "ecr.internal.example";
    for (probe, diagnosis) in [("repository: app", "image-missing"), ("repository: app, tag: '1.0'", "")] {
        let harness = harness();
        harness.emulator.name_registry(MIRROR, "eu-west-1");
        let text = file(&harness, &[(HOST, probe)]).replace(HOST, &format!("{MIRROR}, region: eu-west-1"));
        let path = harness.put("ecr-sidecar.yaml", &text);
        let running = harness.run(|command| {
            configured_by(command, &path);
            command.envs(KEYS).env("AWS_CA_BUNDLE", harness.emulator.ca_file());
        });
        let probe = probed(&running);
        assert_eq!(probe["last_error"]["diagnosis"].as_str().unwrap_or_default(), diagnosis, "{probe}");
    }
}

/// Whatever the registry does: a sentence of its own, no credential in it, no other host asked, and nothing else affected.
#[test]
fn a_registry_that_does_anything_but_answer_is_reported_and_gets_nothing_more() {
    let evil = Fault::Redirect(format!("https://evil.example{MANIFEST}"));
    let faults = [
        (evil, "not-aws", "HTTP 302: a redirect, which is not followed"),
        (Fault::Html, "not-aws", "HTTP 200, and the response is not a manifest"),
        (Fault::Status(404), "not-aws", "HTTP 404"),
        (Fault::Huge, "registry-unreachable", "cannot be reached: "),
        (Fault::Garbage, "registry-unreachable", "cannot be reached: "),
        (Fault::Reset, "registry-unreachable", "cannot be reached: "),
        (Fault::Hang, "registry-unreachable", "no answer within 4 s"),
        (Fault::Status(503), "registry-unreachable", "HTTP 503"),
        (Fault::Throttled, "throttled", "HTTP 429: Rate exceeded"),
        (Fault::Echo, "", ""),
    ];
    thread::scope(|scope| {
        for (fault, diagnosis, sentence) in faults {
            scope.spawn(move || is_reported(&fault, diagnosis, sentence));
        }
    });
}

fn is_reported(fault: &Fault, diagnosis: &str, sentence: &str) {
    let harness = harness();
    harness.emulator.set_fault(Service::Registry, fault.clone());
    let running = harness.run(|command| {
        prepare(&harness, command, "repository: app, tag: '1.0'");
        command.env("ECR_SIDECAR_LOG", "trace");
    });
    running.wait_ready();
    let probe = probed(&running);
    let problem = &probe["last_error"];
    let message = problem["message"].as_str().unwrap();
    assert!(message.contains(sentence), "{fault:?}: {probe}");
    assert!(diagnosis.is_empty() || problem["diagnosis"] == diagnosis, "{fault:?}: {probe}");
    assert_eq!(harness.emulator.count(Service::Registry), 1, "{fault:?}");
    assert!(harness.emulator.connects().keys().all(|host| host == HOST), "{fault:?}");
    assert!(running.is_ready(), "{fault:?}");
    assert_eq!(running.token()["failed"], 0, "{fault:?}");
    let (_, metrics) = running.get("/metrics");
    assert!(
        metrics.contains(&format!("ecr_sidecar_pull_probe_success{{registry=\"{HOST}\"}} 0")),
        "{metrics}"
    );
    running.wait_log("pull probe failed", DEADLINE);
    let shown = format!("{}{}{metrics}", running.stderr(), running.status());
    for auth in harness.auths().values() {
        let password = String::from_utf8(decoded(auth)).unwrap();
        let password = password.strip_prefix("AWS:").unwrap();
        assert!(!shown.contains(auth.as_str()) && !shown.contains(password), "{fault:?}: {shown}");
    }
    assert_eq!(running.count_log("pull probe failed"), 1);
}

fn decoded(auth: &str) -> Vec<u8> {
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, auth).unwrap()
}

#[test]
fn a_failure_that_lasts_is_logged_once() {
    let harness = harness();
    harness.emulator.set_fault(Service::Registry, Fault::AccessDenied);
    let running = run(&harness, "repository: app, every: 1m");
    running.wait_status("a second failure", |status| status["probes"][0]["failures_in_a_row"] == 2);
    assert_eq!(harness.emulator.count(Service::Registry), 2);
    harness.put("ecr-sidecar.yaml", &file(&harness, &[]));
    running.wait_log("configuration reloaded", DEADLINE); // every line before it is there
    assert_eq!(running.count_log("pull probe failed"), 1);
}

#[test]
fn probes_are_added_and_removed_while_it_runs() {
    let harness = harness();
    let running = run(&harness, "repository: app, tag: '1.0'");
    probed(&running);
    let both = [(HOST, "repository: app, tag: '1.0'"), (SIBLING, "repository: charts/hello, tag: '1.0.0'")];
    harness.put("ecr-sidecar.yaml", &file(&harness, &both));
    running.wait_status("both", |status| {
        status["probes"].as_array().is_some_and(|probes| {
            probes.len() == 2 && probes.iter().all(|probe| !probe["succeeded_at"].is_null())
        })
    });
    let expected =
        [format!("GET {HOST}{MANIFEST}"), format!("GET {SIBLING}/v2/charts/hello/manifests/1.0.0")];
    assert_eq!(requests(&harness), expected, "the one that stays is not asked again");
    harness.put("ecr-sidecar.yaml", &file(&harness, &[]));
    running.wait_status("none", |status| status["probes"].is_null());
    assert!(!running.get("/metrics").1.contains("pull_probe_success{"));
    assert!(running.is_ready());
}

#[test]
fn once_probes_nothing() {
    let harness = harness();
    // It waits for a second registry, longer than a first probe would.
    harness.emulator.set_fault(Service::EcrPublic, Fault::Hang);
    let text = file(&harness, &[(HOST, "repository: app")]).replace(SIBLING, PUBLIC);
    let path = harness.put("ecr-sidecar.yaml", &text);
    let once = harness.once(|command| {
        configured_by(command, &path);
        command.args(["--timeout", "10s"]).envs(KEYS).env("AWS_CA_BUNDLE", harness.emulator.ca_file());
    });
    assert_eq!(once.code, Some(69), "{}", once.stderr);
    assert!(harness.auths().contains_key(HOST));
    assert_eq!(harness.emulator.count(Service::Registry), 0);
}

#[test]
fn a_probe_that_finds_no_credential_says_so_and_asks_nothing() {
    let harness = harness();
    harness.emulator.set_fault(Service::Ecr, Fault::AccessDenied);
    let running = run(&harness, "repository: app");
    let problem = probed(&running)["last_error"].clone();
    assert_eq!(problem["diagnosis"], "nothing-published", "{problem}");
    assert_eq!(problem["message"], format!("no output holds a credential for {HOST}"));
    assert_eq!(harness.emulator.count(Service::Registry), 0);
    harness.emulator.clear_faults();
    running.refresh();
    running.wait_status("a success", |status| !status["probes"][0]["succeeded_at"].is_null());
    running.wait_ready();
}

#[test]
fn a_probe_of_a_volume_that_hangs_says_so_and_holds_up_nothing() {
    if !fuse() {
        return;
    }
    let harness = harness();
    std::fs::create_dir(harness.at("out")).unwrap();
    let mounts = format!("{HANGING_MOUNT} out");
    let running = harness.run_with_mounts(&mounts, |command| prepare(&harness, command, "repository: app"));
    let problem = probed(&running)["last_error"].clone();
    assert_eq!(problem["diagnosis"], "volume-hangs", "{problem}");
    assert_eq!(running.token()["refreshed"], 1);
    assert_eq!(running.get("/livez").0, 200);
    assert_eq!(harness.emulator.count(Service::Registry), 0);
    running.signal(Signal::TERM);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn a_probe_needs_no_right_and_no_secret_more() {
    let harness = harness();
    let printed = |probe: &str| {
        let outputs = "[{type: docker-config-secret, name: a}, {type: argocd-repo-creds, namespace: argocd}]";
        let text = format!("registries: [{{host: {HOST}{probe}}}]\noutputs: {outputs}\n");
        let mut command = harness.command("manifests");
        configured_by(&mut command, &harness.put("ecr-sidecar.yaml", &text));
        command.args(["--service-account", "reflector", "--namespace", "flux-system"]);
        let printed = output(&mut command, DEADLINE);
        assert!(printed.status.success(), "{printed:?}");
        printed.stdout
    };
    assert_eq!(printed(", probe: {repository: app}"), printed(""));
}
