//! Times that are not what they claim: a forged expiry, and any time of the file.

use std::{fs, process::Command};

use serde_json::json;
use test_support::{
    Harness,
    files::{config, overwrite},
    harness::{DEADLINE, HOST},
};

use crate::BINARY;

#[test]
fn a_forged_expiry_is_not_believed() {
    let harness = Harness::new(BINARY);
    harness.run(|_| {}).wait_ready();
    let expiries = harness.at("out/.config.json.ecr-sidecar");
    let known: serde_json::Value = config(&expiries).unwrap();
    let digest = known.as_object().unwrap().keys().next().unwrap();
    overwrite(&expiries, &json!({digest: 253_402_300_799_u64}).to_string()); // the year 9999
    harness.emulator.set_fault(ecr_emulator::Service::Ecr, ecr_emulator::Fault::AccessDenied);
    let sidecar = harness.run(|_| {});
    sidecar.wait_status("a refused refresh", |status| status["tokens"][0]["failed"] != 0);
    assert_eq!(
        sidecar.get("/readyz").0,
        503,
        "AWS has given no token, and nobody knows of the one in the file"
    );
}

/// On tmpfs a time may be any number.
#[test]
fn print_takes_any_time_of_the_file() {
    let harness = Harness::new(BINARY);
    harness.run(|_| {}).wait_ready();
    fs::remove_file(harness.at("out/.config.json.ecr-sidecar")).unwrap();
    harness.emulator.set_fault(ecr_emulator::Service::Ecr, ecr_emulator::Fault::AccessDenied);
    for time in ["@9223372036854775807", "@-9223372036854775808", "@253402300799"] {
        let touched = Command::new("touch").args(["-d", time]).arg(harness.file()).status().unwrap();
        assert!(touched.success());
        let printed = harness.spawn(BINARY, |command| {
            command.args(["print", HOST]);
        });
        let code = printed.wait_exit(DEADLINE).code();
        assert!(matches!(code, Some(0 | 69)), "{time}: {code:?} {}", printed.stderr());
        assert!(!printed.stderr().contains("panicked"), "{time}: {}", printed.stderr());
    }
}
