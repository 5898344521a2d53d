//! What the program says of itself, and to whoever meets it for the first time.

mod manifests;
mod manual;
mod usage;
mod usage_hint;
mod version;

use std::{path::Path, process::Output, time::Duration};

use test_support::{clean_command, output};

use crate::BINARY;

const DEADLINE: Duration = Duration::from_secs(90);

fn sidecar(arguments: &[&str]) -> Output {
    output(clean_command(BINARY, Path::new("/nonexistent")).args(arguments), DEADLINE)
}

#[track_caller]
fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}
