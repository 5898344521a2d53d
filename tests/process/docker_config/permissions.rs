//! The mode and the group of the file.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
};

use test_support::{Harness, files::mode, harness::DEADLINE, root};

use super::{wait_until, yaml};
use crate::BINARY;

#[test]
fn mode_and_group_do_not_depend_on_the_umask() {
    for umask in ["000", "022", "077", "777"] {
        for (wanted, bits) in [(None, 0o640), (Some("0600"), 0o600), (Some("0644"), 0o644)] {
            let harness = Harness::new(BINARY);
            fs::create_dir(harness.at("out")).unwrap(); // with the umask 777 only root could use its own
            let sidecar = harness.spawn("sh", |command| {
                command.args(["-c", &format!("umask {umask}; exec {BINARY} once")]);
                command.envs(wanted.map(|mode| ("ECR_SIDECAR_FILE_MODE", mode)));
            });
            assert!(sidecar.wait_exit(DEADLINE).success());
            assert_eq!(mode(&harness.file()), bits, "umask {umask}, {wanted:?}");
        }
    }
}

#[test]
fn the_file_gets_the_group_of_a_setgid_directory_or_the_one_that_is_configured() {
    if !root() {
        return;
    }
    let harness = Harness::new(BINARY);
    fs::create_dir(harness.at("out")).unwrap();
    chown(harness.at("out"), None, Some(1234)).unwrap();
    fs::set_permissions(harness.at("out"), Permissions::from_mode(0o2775)).unwrap();
    let other = harness.at("other/config.json");
    let sidecar = harness.run_with_file(&yaml(&[
        &format!("path: {}", harness.file().display()),
        &format!("path: {}, group: 4321", other.display()),
    ]));
    sidecar.wait_ready();
    let group = |path: &Path| fs::metadata(path).unwrap().gid();
    assert_eq!((group(&harness.file()), mode(&harness.file())), (1234, 0o640));
    assert_eq!((group(&other), mode(&other)), (4321, 0o640));
    chown(harness.file(), None, Some(0)).unwrap();
    wait_until("the group back", || group(&harness.file()) == 1234);
}
