//! What stops nothing, and may keep a consumer from working: in the log, in `/status`, by `status` and by the doctor alike.

use std::{fs, os::unix::fs::symlink, process::Command};

use ecr_sidecar::failure::diagnosis::Diagnosis as D;
use serde_json::Value;
use test_support::{
    Harness,
    harness::{DEADLINE, HOST, KEYS, configured_by},
    output,
};

use crate::{
    BINARY,
    rows::{doctor, first},
};

/// How it is caused, before the doctor and again before the sidecar that is started after it.
type Cause = fn(&Harness, &mut Command);

/// The warning that the doctor finds.
fn is_found(harness: &Harness, diagnosis: D, cause: Cause) {
    let report = doctor(harness, |command| cause(harness, command.envs(KEYS)));
    let found = first(&report);
    assert_eq!(
        (&found["diagnosis"], &found["outcome"]),
        (&diagnosis.id().into(), &"warn".into()),
        "{report:#}"
    );
    assert_eq!(found["remedy"], diagnosis.remedy(), "{found}");
    assert_eq!(report["healthy"], true, "it stops nothing");
}

/// The line of log; and where the warning lasts, the same in `/status` and by `status`.
fn is_logged(harness: &Harness, diagnosis: D, cause: Cause, lasts: bool) {
    let running = harness.run(|command| cause(harness, command.envs(KEYS)));
    let line = running.wait_log(&format!("\"diagnosis\":\"{}\"", diagnosis.id()), DEADLINE);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["message"], "output has a warning");
    assert_eq!(line["remedy"], diagnosis.remedy(), "{line}");
    let message = line["warning"].as_str().unwrap();
    assert!(!message.contains(diagnosis.remedy()), "{line}");
    running.wait_ready();
    if !lasts {
        return;
    }
    let output_status = running.status()["outputs"][0].clone();
    let details = output_status["warning_details"].as_array().unwrap();
    let known = details.iter().find(|it| it["diagnosis"] == diagnosis.id());
    let known = known.unwrap_or_else(|| panic!("{output_status:#}"));
    assert_eq!((&known["message"], &known["remedy"]), (&line["warning"], &line["remedy"]));
    assert!(output_status["warnings"].as_array().unwrap().contains(&line["warning"]), "{output_status:#}");
    let mut command = harness.command("status");
    let table = output(command.env("ECR_SIDECAR_HEALTH_LISTEN", running.health().to_string()), DEADLINE);
    let table = String::from_utf8(table.stdout).unwrap();
    let shown = format!("  {message}\n  remedy: {}\n", diagnosis.remedy());
    assert!(table.contains(&shown), "{shown} is not in:\n{table}");
}

fn put(harness: &Harness, config: &str) {
    harness.write("out/config.json", config);
}

#[test]
fn a_warning_has_a_name_and_a_remedy_wherever_it_is_shown() {
    let rows: [(D, Cause); 4] = [
        (D::CredsStore, |harness, _| put(harness, r#"{"credsStore": "desktop"}"#)),
        (D::EntryInvalid, |harness, _| put(harness, r#"{"auths": {"ghcr.io": {"auth": "?"}}}"#)),
        (D::BaseUnusable, |harness, command| {
            let (path, base) = (harness.file(), harness.at("missing.json"));
            let output =
                format!("{{type: docker-config, path: {}, base: {}}}", path.display(), base.display());
            let text = format!("registries: [{{host: {HOST}}}]\noutputs: [{output}]\n");
            configured_by(command, &harness.put("ecr-sidecar.yaml", &text));
        }),
        (D::ConsumerCannotRead, |_, command| {
            command.env("ECR_SIDECAR_FILE_MODE", "0600");
        }),
    ];
    for (diagnosis, cause) in rows {
        let harness = Harness::new(BINARY).without_keys();
        is_found(&harness, diagnosis, cause);
        is_logged(&harness, diagnosis, cause, true);
    }
}

/// They are over once the file is written.
#[test]
fn what_a_write_replaces_is_reported_before_and_once() {
    let rows: [(D, Cause); 2] = [
        (D::FileSetAside, |harness, _| put(harness, "{torn")),
        (D::PathReplaced, |harness, _| {
            fs::create_dir_all(harness.at("out")).unwrap();
            if !harness.file().is_symlink() {
                symlink("/nowhere/config.json", harness.file()).unwrap();
            }
        }),
    ];
    for (diagnosis, cause) in rows {
        let harness = Harness::new(BINARY).without_keys();
        is_found(&harness, diagnosis, cause);
        is_logged(&harness, diagnosis, cause, false);
    }
}

/// The doctor has no token, so that no entry competes with it and no expiry is stored.
#[test]
fn what_only_a_running_sidecar_finds_is_reported_by_it() {
    let rows: [(D, Cause); 2] = [
        (D::RepositoryEntry, |harness, _| {
            put(harness, &format!(r#"{{"auths": {{"{HOST}/team/app": {{"auth": "cm9ib3Q6eA=="}}}}}}"#));
        }),
        (D::ExpiriesNotStored, |harness, _| {
            fs::create_dir_all(harness.at("out/.config.json.ecr-sidecar/full")).unwrap();
        }),
    ];
    for (diagnosis, cause) in rows {
        is_logged(&Harness::new(BINARY).without_keys(), diagnosis, cause, true);
    }
}

#[test]
fn what_was_removed_already_calls_for_nothing() {
    let harness = Harness::new(BINARY);
    put(&harness, &format!(r#"{{"auths": {{"https://{HOST}": {{"auth": "QVdTOm9sZA=="}}}}}}"#));
    let running = harness.run(|_| {});
    let line: Value = serde_json::from_str(&running.wait_log("output has a warning", DEADLINE)).unwrap();
    assert!(line["warning"].as_str().unwrap().starts_with("removed the entry"), "{line}");
    assert!(line.get("diagnosis").is_none() && line.get("remedy").is_none(), "{line}");
}
