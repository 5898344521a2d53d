//! Entries that are not ours: those of the base, and those that stand in the file.

use std::{collections::BTreeSet, fs};

use ecr_emulator::Service;
use serde_json::json;
use test_support::{
    Harness, Signal,
    files::{auth, config, replace},
    harness::{DEADLINE, HOST},
    wait_for,
};

use super::{FOREIGN, wait_until, yaml};
use crate::BINARY;

#[test]
fn a_changed_base_is_merged_and_a_lost_one_keeps_its_last_entries() {
    let harness = Harness::new(BINARY);
    let base = harness.put("base/base.json", &json!({"auths": {"ghcr.io": {"auth": FOREIGN}}}).to_string());
    let file = harness.file();
    let sidecar =
        harness.run_with_file(&yaml(&[&format!("path: {}, base: {}", file.display(), base.display())]));
    sidecar.wait_ready();
    assert_eq!(auth(&file, "ghcr.io").as_deref(), Some(FOREIGN));
    let credential = auth(&file, HOST);

    replace(&base, &json!({"auths": {"docker.io": {"auth": FOREIGN}}, "psFormat": "x"}).to_string());
    wait_until("the new base", || auth(&file, "docker.io").is_some());
    let merged = config(&file).unwrap();
    assert_eq!(merged["psFormat"], "x");
    assert_eq!(auth(&file, "ghcr.io"), None, "what the base no longer has goes");
    assert_eq!(auth(&file, HOST), credential);

    fs::remove_file(&base).unwrap();
    sidecar.wait_log("the entries that it had last are kept", DEADLINE);
    assert_eq!(config(&file), Some(merged));
    assert_eq!(sidecar.get("/readyz").0, 200);

    replace(&base, "{}");
    wait_until("the emptied base", || auth(&file, "docker.io").is_none());
    assert_eq!(auth(&file, HOST), credential);
}

#[test]
fn what_is_not_ours_survives_rotations_and_what_would_win_over_us_goes() {
    let harness = Harness::new(BINARY);
    let foreign = json!({
        "auths": {
            "ghcr.io": {"auth": FOREIGN, "email": "a@example.com", "x": {"deep": [1, 2.50, null]}},
            "https://index.docker.io/v1/": {"identitytoken": "t"},
        },
        "credHelpers": {"gcr.io": "gcloud"},
        "HttpHeaders": {"X-Meta": "y"},
        "futureKey": [true, 12345678901234567890u64],
    });
    let mut before = foreign.clone();
    before["auths"][format!("https://{HOST}")] = json!({"auth": FOREIGN});
    before["credHelpers"][HOST] = json!("ecr-login");
    replace(&harness.file(), &before.to_string());

    let sidecar = harness.run(|_| {});
    let mut credentials = BTreeSet::new();
    for rotation in 0..3 {
        if rotation > 0 {
            sidecar.signal(Signal::HUP);
        }
        let credential = wait_for("another credential", DEADLINE, || {
            auth(&harness.file(), HOST).filter(|auth| !credentials.contains(auth))
        });
        let mut expected = foreign.clone();
        expected["auths"][HOST] = json!({"auth": credential});
        assert_eq!(config(&harness.file()), Some(expected), "rotation {rotation}");
        credentials.insert(credential);
        sidecar.wait_ready();
    }
    assert_eq!(harness.emulator.count(Service::Ecr), 3);
}
