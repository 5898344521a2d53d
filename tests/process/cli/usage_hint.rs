//! Started without a word, where there is nothing to be found: five lines, and then an end.

use std::{fs, path::Path, process::Output};

use test_support::{clean_command, output};

use super::{BINARY, DEADLINE};

const BAD_CONFIGURATION: i32 = 64;

fn started(arguments: &[&str], home: &Path, variables: &[(&str, &str)]) -> Output {
    let mut command = clean_command(BINARY, home);
    output(command.args(arguments).envs(variables.iter().copied()), DEADLINE)
}

fn complaint(output: &Output) -> String {
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn five_lines_name_what_was_sought_and_what_to_do_next() {
    for arguments in [&[][..], &["run"], &["once"]] {
        for region in [&[][..], &[("AWS_REGION", "eu-west-1")]] {
            let done = started(arguments, Path::new("/nonexistent"), region);
            assert_eq!(done.status.code(), Some(BAD_CONFIGURATION));
            let said = complaint(&done);
            let lines: Vec<_> = said.lines().collect();
            assert_eq!(lines.len(), 5, "{said}");
            for sought in [
                "--config",
                "ECR_SIDECAR_",
                "AWS_ACCESS_KEY_ID",
                "/nonexistent/.aws/config",
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            ] {
                assert!(lines[1].contains(sought), "{sought}: {said}");
            }
            assert!(lines[2].contains("On this machine: set AWS_PROFILE"), "{said}");
            assert!(lines[3].contains("In a cluster: ") && lines[3].contains("role-arn"), "{said}");
        }
    }
}

#[test]
fn in_a_cluster_its_next_step_comes_first() {
    let done = started(&["run"], Path::new("/nonexistent"), &[("KUBERNETES_SERVICE_HOST", "127.0.0.1")]);
    assert_eq!(done.status.code(), Some(BAD_CONFIGURATION));
    let said = complaint(&done);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 5, "{said}");
    assert!(lines[2].contains("In a cluster: "), "{said}");
}

/// Who has configured anything, or has a profile, gets an error that names what is wrong with that.
#[test]
fn what_a_user_lacks_who_has_begun_is_named() {
    let home = tempfile::tempdir().unwrap();
    let nowhere = Path::new("/nonexistent");
    let flags = ["once", "--docker-config", "/nonexistent/config.json"];
    let lacks_region = "no region in AWS_REGION or the profile";
    assert!(complaint(&started(&flags, nowhere, &[])).contains(lacks_region));
    assert!(complaint(&started(&["once"], nowhere, &[("ECR_SIDECAR_LOG", "off")])).contains(lacks_region));
    assert!(complaint(&started(&["once"], nowhere, &[("AWS_PROFILE", "me")])).contains(lacks_region));
    fs::create_dir(home.path().join(".aws")).unwrap();
    fs::File::create(home.path().join(".aws/config")).unwrap();
    assert!(complaint(&started(&["once"], home.path(), &[])).contains(lacks_region));
}
