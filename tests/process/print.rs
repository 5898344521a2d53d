//! `ecr-sidecar print HOST`: one credential, now.

use std::{
    fs,
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ecr_emulator::{Fault, Service};
use test_support::{
    Harness,
    harness::{DEADLINE, HOST, KEYS, PUBLIC},
    output,
};

use crate::BINARY;

fn print(harness: &Harness, host: &str, prepare: impl FnOnce(&mut Command)) -> Output {
    let mut command = harness.command("print");
    // Without a home there is no cache, which is tests/process/helper.rs's.
    prepare(command.arg(host).envs(KEYS).env_remove("HOME"));
    output(&mut command, DEADLINE)
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What was printed, as the `auth` of a docker config.
#[track_caller]
fn printed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    let line = String::from_utf8(output.stdout.clone()).unwrap();
    let line = line.strip_suffix('\n').expect("one line");
    assert!(line.starts_with("AWS:") && !line.contains(char::is_whitespace));
    STANDARD.encode(line)
}

#[track_caller]
fn refused(output: &Output, status: i32, parts: &[&str]) {
    let said = said(output);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(status), &b""[..]), "{said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn a_living_token_in_the_file_is_printed_without_asking_aws() {
    let harness = Harness::new(BINARY).without_keys();
    let _running = harness.run_ready(|_| {});
    let counts = harness.counts();
    let print = print(&harness, HOST, |command| {
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    });
    assert_eq!(Some(&printed(&print)), harness.auths().get(HOST));
    assert_eq!((said(&print).as_str(), harness.counts()), ("", counts));
}

#[test]
fn settings_for_aws_matter_only_when_aws_is_asked() {
    let harness = Harness::new(BINARY).without_keys();
    let invalid = |command: &mut Command| {
        command.env("AWS_ENDPOINT_URL", "localhost:4566").env("AWS_REGION", "eu-west-1a");
        command.env("HTTPS_PROXY", "socks5://127.0.0.1:1080");
    };
    refused(&print(&harness, HOST, invalid), 64, &["AWS_ENDPOINT_URL", "AWS_REGION", "HTTPS_PROXY"]);
    let _running = harness.run_ready(|_| {});
    let print = print(&harness, HOST, invalid);
    assert_eq!(Some(&printed(&print)), harness.auths().get(HOST));
    assert_eq!(said(&print), "");
}

#[test]
fn without_a_file_aws_is_asked() {
    let harness = Harness::new(BINARY).without_keys();
    for host in [HOST, PUBLIC] {
        let auth = printed(&print(&harness, host, |command| {
            command.env("ECR_SIDECAR_REGISTRIES", format!("{HOST},{PUBLIC}"));
        }));
        harness.admits(host, &auth);
    }
    assert_eq!((harness.emulator.count(Service::Ecr), harness.emulator.count(Service::EcrPublic)), (1, 1));
    assert!(harness.nothing_written());
}

#[test]
fn an_ended_token_is_never_printed() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.push_fault(Service::Ecr, Fault::ExpiredOnArrival, 1);
    harness.once(|command| {
        command.envs(KEYS);
    });
    let ended = harness.auths().remove(HOST).unwrap();
    harness.emulator.set_fault(Service::Ecr, Fault::AccessDenied);
    refused(&print(&harness, HOST, |_| {}), 69, &[HOST, "expired at", "AccessDenied", "to fix it:"]);
    harness.emulator.clear_faults();
    assert_ne!(printed(&print(&harness, HOST, |_| {})), ended);
}

#[test]
fn a_token_of_unknown_end_is_the_last_resort() {
    let harness = Harness::new(BINARY).without_keys();
    harness.once(|command| {
        command.envs(KEYS);
    });
    let in_file = harness.auths().remove(HOST).unwrap();
    fs::remove_file(harness.at("out/.config.json.ecr-sidecar")).unwrap();
    assert_ne!(printed(&print(&harness, HOST, |_| {})), in_file);

    harness.emulator.set_fault(Service::Ecr, Fault::AccessDenied);
    let last_resort = print(&harness, HOST, |_| {});
    assert_eq!(printed(&last_resort), in_file);
    let said = said(&last_resort);
    assert!(
        said.contains("using the one on disk, which may expire soon") && said.contains("AccessDenied"),
        "{said}"
    );

    let file = fs::File::options().write(true).open(harness.file()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the file system's time is the machine's")]
    let long_ago = SystemTime::now() - Duration::from_secs(13 * 3600);
    file.set_modified(long_ago).unwrap();
    refused(&print(&harness, HOST, |_| {}), 69, &["older than 12 hours", "AccessDenied"]);
}

#[test]
fn a_registry_that_is_not_configured_is_asked_for_by_the_default_identity() {
    let harness = Harness::new(BINARY).without_keys();
    let other = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    harness.admits(other, &printed(&print(&harness, other, |_| {})));
    // with nothing configured at all, the name has the region
    let auth = printed(&print(&harness, HOST, |command| {
        command.env_remove("ECR_SIDECAR_REGISTRIES");
    }));
    harness.admits(HOST, &auth);
}

#[test]
fn a_registry_has_the_identity_that_is_configured_for_it() {
    let harness = Harness::new(BINARY).without_keys();
    let config = harness.write(
        "config.yaml",
        &format!(
            "identities: {{broken: {{source: static, accessKeyIdFile: /none, secretAccessKeyFile: /none}}}}\n\
             registries: [{{host: {HOST}, identity: broken}}]\n"
        ),
    );
    let print = print(&harness, HOST, |command| {
        command.env("ECR_SIDECAR_CONFIG", &config).env_remove("ECR_SIDECAR_REGISTRIES");
    });
    refused(&print, 69, &["/none"]);
}

#[test]
fn a_bad_host_and_a_bad_configuration_are_status_64() {
    let harness = Harness::new(BINARY).without_keys();
    refused(&print(&harness, "https://x/", |_| {}), 64, &["https://x/"]);
    refused(&print(&harness, "ghcr.io", |_| {}), 64, &["ghcr.io", "is not configured", "`registries`"]);
    let bad = print(&harness, HOST, |command| {
        command.env("ECR_SIDECAR_FILE_MODE", "0666");
    });
    refused(&bad, 64, &["ECR_SIDECAR_FILE_MODE"]);
}

#[test]
fn a_failure_that_is_transient_is_waited_out() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.push_fault(Service::Ecr, Fault::Status(500), 2);
    harness.admits(HOST, &printed(&print(&harness, HOST, |_| {})));
    assert_eq!(harness.emulator.count(Service::Ecr), 3);
}

/// Argo CD Image Updater kills a script after 10 seconds.
#[test]
fn it_ends_within_ten_seconds_while_aws_hangs() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.set_fault(Service::Ecr, Fault::Hang);
    let mut command = harness.command("print");
    let hung = output(command.arg(HOST).envs(KEYS), Duration::from_secs(10));
    refused(&hung, 69, &["no answer within", "has none"]);
}
