//! What is no file, in the place of the file: FIFOs, sockets, directories.

use std::{
    fs,
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Stdio},
};

use test_support::{Harness, files::replace, harness::DEADLINE};

use super::{is_ours, wait_until};
use crate::BINARY;

fn fifo(path: &Path) -> bool {
    Command::new("mkfifo").arg(path).stderr(Stdio::null()).status().unwrap().success()
}

/// Puts it in the place of the file: the sidecar may be faster than one attempt.
fn put_in_place(path: &Path, make: &dyn Fn(&Path) -> bool) {
    wait_until("something in the place of the file", || {
        let _ = fs::remove_file(path);
        make(path)
    });
}

/// At the start and while it runs, at each of the three names.
#[test]
fn what_is_no_file_is_replaced() {
    type Put<'a> = (&'static str, &'a dyn Fn(&Path) -> bool);
    let things: [Put<'_>; 3] = [
        ("a FIFO", &fifo),
        ("a socket", &|path| UnixListener::bind(path).is_ok()),
        ("an empty directory", &|path| fs::create_dir(path).is_ok()),
    ];
    let harness = Harness::new(BINARY);
    fs::create_dir(harness.at("out")).unwrap();
    for (what, make) in things {
        let (invalid, expiries) =
            (harness.at("out/config.json.invalid"), harness.at("out/.config.json.ecr-sidecar"));
        for path in [&harness.file(), &expiries, &invalid] {
            put_in_place(path, make);
        }
        let sidecar = harness.run(|_| {});
        sidecar.wait_ready();
        sidecar.wait_log(&format!("was {what}"), DEADLINE);
        assert!(is_ours(&harness) && fs::symlink_metadata(&expiries).unwrap().is_file(), "{what}");

        put_in_place(&harness.file(), make);
        wait_until(&format!("the file in the place of {what}"), || is_ours(&harness));
        replace(&harness.file(), "not json");
        wait_until("the unusable file aside", || {
            // The test must not open a FIFO either.
            let is_file = fs::symlink_metadata(&invalid).is_ok_and(|metadata| metadata.is_file());
            is_file && fs::read_to_string(&invalid).unwrap() == "not json" && is_ours(&harness)
        });
    }
}

#[test]
fn a_full_directory_in_the_place_of_the_file_is_reported_and_heals() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    put_in_place(&harness.file(), &|path| fs::create_dir_all(path.join("x")).is_ok());
    let line = sidecar.wait_log("output not written", DEADLINE);
    assert!(line.contains("not-a-file") && line.contains("is a directory"), "{line}");
    sidecar.wait_get("/readyz", 503);
    fs::remove_dir(harness.file().join("x")).unwrap(); // the sidecar replaces what is empty
    sidecar.wait_ready();
    assert!(is_ours(&harness));
}
