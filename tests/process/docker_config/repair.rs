//! What happens to the file is repaired, whatever it is.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
};

use ecr_emulator::Service;
use serde_json::json;
use test_support::{
    Harness,
    files::{auth, mode, names, overwrite, replace, wait_auth},
    harness::{DEADLINE, HOST},
    wait::spin_for,
};

use super::{FOREIGN, wait_until};
use crate::BINARY;

#[test]
fn whatever_happens_to_the_file_it_comes_back() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    let file = harness.file();
    let folder = harness.at("out");
    let credential = wait_auth(&file, HOST);
    let forged = json!({"auths": {HOST: {"auth": FOREIGN}}}).to_string();

    type Harm<'a> = (&'a str, &'a dyn Fn());
    let harms: [Harm<'_>; 10] = [
        ("deleted", &|| fs::remove_file(&file).unwrap()),
        ("emptied", &|| drop(File::create(&file).unwrap())),
        ("edited in place", &|| overwrite(&file, &forged)),
        ("edited by rename", &|| replace(&file, &forged)),
        ("emptied of entries", &|| replace(&file, "{\"auths\":{}}")),
        ("garbled", &|| overwrite(&file, "}{")),
        ("closed to the group", &|| fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap()),
        ("opened to everyone", &|| fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap()),
        // It may be at work there still.
        ("its directory removed", &|| {
            wait_until("the directory gone", || fs::remove_dir_all(&folder).is_ok() || !folder.exists());
        }),
        ("its directory replaced", &|| {
            fs::rename(&folder, harness.at("before")).unwrap();
            fs::create_dir_all(&folder).unwrap(); // it may be there again
        }),
    ];
    for (harm, inflict) in harms {
        inflict();
        wait_until(&format!("the file back that was {harm}"), || {
            auth(&file, HOST).as_ref() == Some(&credential) && mode(&file) == 0o640
        });
        // Each of them is noticed again.
        sidecar.wait_status("the output in order", |status| status["outputs"][0]["last_error"].is_null());
    }
    wait_until("nothing but the file to be there", || names(&folder) == ["config.json"]);
    assert_eq!(harness.emulator.count(Service::Ecr), 1, "none of this concerns AWS");
    assert_eq!(sidecar.get("/readyz").0, 200);
}

/// Opened to everyone the moment that it has its name: faster than the sidecar can check what it has written.
#[test]
fn a_mode_that_another_process_sets_at_once_is_not_taken_for_that_of_the_file_system() {
    /// Fewer than make a conflict.
    const TIMES: usize = 15;
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    let file = harness.file();
    for time in 0..TIMES {
        spin_for(&format!("the mode back, time {time}"), DEADLINE, || (mode(&file) == 0o640).then_some(()));
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    }
    wait_until("the mode back", || mode(&file) == 0o640);
    assert_eq!(sidecar.count_log("does not keep the mode"), 0);
}

#[test]
fn a_file_that_is_no_docker_config_is_set_aside_and_reported() {
    let harness = Harness::new(BINARY);
    replace(&harness.file(), "not json");
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    assert!(auth(&harness.file(), HOST).is_some());
    assert_eq!(fs::read_to_string(harness.at("out/config.json.invalid")).unwrap(), "not json");
    sidecar.wait_log("was set aside as", DEADLINE);
}
