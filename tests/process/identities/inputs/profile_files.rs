//! Profile files that cannot be read: named with the reason, and of no harm to identities that do not need them.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
    time::Duration,
};

use test_support::{
    Harness,
    files::overwrite,
    harness::{DEADLINE, HOST, KEYS},
    output, root, wait_for,
};

use super::{CANARY, done, said};
use crate::BINARY;

/// Puts something at the place of the credentials file.
type Put = fn(&Path);

#[test]
fn a_profile_file_that_cannot_be_used_is_named_with_the_reason() {
    let put: [(Put, &str); 6] = [
        (|path| fs::create_dir(path).unwrap(), "it is a directory"),
        (|path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()), "it is a FIFO"),
        (|path| overwrite(path, b"\xff\xfe[\0d\0"), "UTF-16"),
        (|path| overwrite(path, b"[default]\naws_secret_access_key = \xffCANARY\n"), "not UTF-8"),
        (
            |path| overwrite(path, b"aws_secret_access_key = CANARY\n"),
            "line 1 stands before the first section",
        ),
        (|path| overwrite(path, &vec![b'#'; (1 << 20) + 1]), "larger than the limit"),
    ];
    for (put, reason) in put {
        let harness = Harness::new(BINARY).without_keys();
        let path = harness.write(".aws/credentials", "");
        fs::remove_file(&path).unwrap();
        put(&path);
        for command in ["once", "doctor"] {
            let mut command = harness.command(command);
            command.env("KUBERNETES_SERVICE_HOST", "10.0.0.1"); // where no credentials means: annotate
            let (exit, said) = said(command);
            assert!(matches!(exit, Some(69 | 1)), "{said}");
            assert!(said.contains(".aws/credentials") && said.contains(reason), "{reason} is not in: {said}");
            assert!(!said.contains(CANARY) && !said.contains("annotate"), "{said}");
        }
        let mut doctor = harness.command("doctor");
        let output = output(doctor.args(["--output", "json"]), DEADLINE);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let found = findings.iter().any(|it| it["step"] == "files" && it["diagnosis"] == "profile-file");
        assert!(found, "{reason}: {report:#}");
    }
}

#[test]
fn a_profile_file_that_a_variable_names_has_to_be_there() {
    let harness = Harness::new(BINARY).without_keys();
    for variable in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
        let once = harness.once(|command| done(command.env(variable, harness.at("nowhere/file"))));
        once.failed_with(&["nowhere/file", variable, "No such file", "profile-file"]);
    }
    // An identity that rests on none of them goes on.
    harness.once_pulls(HOST, |command| {
        command.envs(KEYS).env("AWS_CONFIG_FILE", harness.at("nowhere/file"));
    });
}

#[test]
fn a_profile_file_of_another_user_is_named_with_the_reason() {
    if !root() {
        return test_support::skip("it takes root to be another user");
    }
    let harness = Harness::new(BINARY).without_keys();
    let path = harness.write(".aws/credentials", "[default]\naws_access_key_id = CANARY\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(harness.at("."), fs::Permissions::from_mode(0o755)).unwrap();
    let as_another = |command: &str| {
        let mut command = harness.command(command);
        command.uid(65532).gid(65532).env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        command.env("ECR_SIDECAR_DOCKER_CONFIG", "/tmp/ecr-sidecar-unused/config.json");
        said(command).1
    };
    for command in ["once", "doctor"] {
        let said = as_another(command);
        assert!(said.contains("/.aws/credentials: Permission denied"), "{said}");
        assert!(!said.contains("annotate the service account"), "{said}");
    }
    // A home that is closed altogether, as root's is, may hold no file at all.
    fs::set_permissions(harness.at(".aws"), fs::Permissions::from_mode(0o700)).unwrap();
    let said = as_another("once");
    assert!(said.contains("/.aws/c") && said.contains("Permission denied"), "{said}");
    assert!(said.contains("annotate the service account"), "{said}");
}

#[test]
fn hung_files_of_profiles_hold_up_no_other_identity() {
    let harness = Harness::new(BINARY).without_keys();
    // Opened in the usual way it would wait for a writer for ever.
    let path = harness.write(".aws/credentials", "");
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let config = harness.write(
        "config.yaml",
        &format!(
            "identities: {{default: {{source: environment}}, other: {{source: profile, profile: p}}}}\n\
             registries: [{{host: {HOST}}}, {{host: 999999999999.dkr.ecr.us-east-1.amazonaws.com, identity: other}}]\n\
             outputs: [{{type: docker-config, path: {}}}]\n",
            harness.file().display()
        ),
    );
    let running = harness.run(|command| {
        command.envs(KEYS).env("ECR_SIDECAR_CONFIG", config);
        command.env_remove("ECR_SIDECAR_REGISTRIES").env_remove("ECR_SIDECAR_DOCKER_CONFIG");
    });
    wait_for("the credential of the other identity", DEADLINE, || {
        (harness.file().exists() && harness.auths().contains_key(HOST)).then_some(())
    });
    running.wait_log("it is a FIFO", DEADLINE);
    assert_eq!(running.get("/livez").0, 200);
    running.stop(Duration::from_secs(30));
}
