//! A row: how a failure is caused, and where it has to be reported.

use std::{process::Command, sync::Mutex, thread};

use ecr_emulator::Settings;
use ecr_sidecar::failure::diagnosis::Diagnosis;
use serde_json::Value;
use test_support::{Harness, harness::DEADLINE, output, wait_for};

use crate::BINARY;

/// How many harnesses there are at a time.
const AT_A_TIME: usize = 6;

/// One failure.
pub(crate) struct Row {
    pub(crate) diagnosis: Diagnosis,
    pub(crate) settings: Settings,
    /// Causes it: in the harness, and for the program that is started in it.
    pub(crate) cause: fn(&Harness, &mut Command),
}

/// An AWS as usual.
pub(crate) fn row(diagnosis: Diagnosis, cause: fn(&Harness, &mut Command)) -> Row {
    Row { diagnosis, settings: Settings::default(), cause }
}

/// Each row in a harness of its own: reported in the log, in `/status`, and first of all by the doctor.
pub(crate) fn are_reported_everywhere(rows: Vec<Row>) {
    each(rows, |row| {
        let harness = Harness::with(BINARY, row.settings.clone()).without_keys();
        let running = harness.run(|command| (row.cause)(&harness, command));
        let id = row.diagnosis.id();
        let line = wait_for(&format!("{id} in the log"), DEADLINE, || {
            let lines = running.log_lines();
            let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.into_iter().find(|line| line["diagnosis"] == id)
        });
        assert!(line["remedy"].as_str().unwrap().starts_with(row.diagnosis.remedy()), "{line}");
        let problem = wait_for(&format!("{id} in /status"), DEADLINE, || problem(&running.status(), id));
        assert_eq!(problem["remedy"], line["remedy"], "{problem}");
        drop(running);
        found_by_the_doctor(&harness, row);
    });
}

/// Each row in a harness of its own: reported first of all by the doctor, which asks where the engine has no reason to.
pub(crate) fn are_reported_by_the_doctor(rows: Vec<Row>) {
    each(rows, |row| found_by_the_doctor(&Harness::with(BINARY, row.settings.clone()).without_keys(), row));
}

fn each(rows: Vec<Row>, check: impl Fn(&Row) + Sync) {
    let rows = Mutex::new(rows);
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let row = rows.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
                    let Some(row) = row else { return };
                    eprintln!("row {}", row.diagnosis.id());
                    check(&row);
                }
            });
        }
    });
}

/// The problem of that name, anywhere in the status.
fn problem(status: &Value, id: &str) -> Option<Value> {
    match status {
        Value::Object(fields) if fields.get("diagnosis").is_some_and(|it| it == id) => Some(status.clone()),
        Value::Object(fields) => fields.values().find_map(|value| problem(value, id)),
        Value::Array(values) => values.iter().find_map(|value| problem(value, id)),
        _ => None,
    }
}

fn found_by_the_doctor(harness: &Harness, row: &Row) {
    let report = doctor(harness, |command| (row.cause)(harness, command));
    let first = first(&report);
    assert_eq!(first["diagnosis"], row.diagnosis.id(), "{report:#}");
    assert!(first["remedy"].as_str().unwrap().starts_with(row.diagnosis.remedy()), "{first}");
}

/// What `ecr-sidecar doctor` reports; its exit status is as it should be.
pub(crate) fn doctor(harness: &Harness, prepare: impl FnOnce(&mut Command)) -> Value {
    let mut command = harness.command("doctor");
    command.args(["--output", "json"]).env("AWS_CA_BUNDLE", harness.emulator.ca_file());
    prepare(&mut command);
    report_of(&mut command)
}

pub(crate) fn report_of(command: &mut Command) -> Value {
    let output = output(command, DEADLINE);
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let expected = if report["healthy"] == true { 0 } else { 1 };
    assert_eq!(output.status.code(), Some(expected), "{report:#}\n{said}");
    report
}

/// The first finding that fails; if none does, the first that is warned of.
pub(crate) fn first(report: &Value) -> Value {
    let findings = report["findings"].as_array().unwrap();
    let of =
        |outcome: &str| findings.iter().find(|it| it["outcome"] == outcome && it["diagnosis"].is_string());
    of("fail").or_else(|| of("warn")).unwrap_or_else(|| panic!("all is well: {report:#}")).clone()
}
