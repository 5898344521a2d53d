//! What the doctor promises whatever it finds.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use ecr_emulator::{Fault, SECRET_ACCESS_KEY, Service};
use ecr_sidecar::failure::diagnosis::Diagnosis as D;
use test_support::{
    Harness,
    harness::{DEADLINE, HOST, KEYS},
    output,
};

use crate::{
    BINARY,
    rows::{doctor, first},
};

/// Every file below the folder: mode, time of its last change, content.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
    let mut seen = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            seen.extend(snapshot(&path));
        }
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        seen.insert(path, (metadata.mode(), metadata.mtime(), content));
    }
    seen
}

#[test]
fn it_changes_nothing_and_shows_no_secret() {
    let harness = Harness::new(BINARY).without_keys();
    harness
        .write("out/config.json", r#"{"auths":{"ghcr.io":{"auth":"Zm9vOmJhcg=="}},"credsStore":"desktop"}"#);
    harness.write("out/..stale.tmp", "left by another process");
    let before = snapshot(&harness.at("."));
    let token = harness.web_identity_token("me");
    for format in ["text", "json"] {
        let mut command = harness.command("doctor");
        command.args(["--output", format]).envs(KEYS).env("AWS_CA_BUNDLE", harness.emulator.ca_file());
        command.env("HTTPS_PROXY", harness.emulator.proxy().replace("http://", "http://me:hunter2@"));
        command.env("ECR_SIDECAR_LOG", "trace").env("RUST_LOG", "trace");
        let output = output(&mut command, DEADLINE);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(HOST), "{said}");
        for secret in [SECRET_ACCESS_KEY, "hunter2", "Zm9vOmJhcg", &token, "Authorization"] {
            assert!(!said.contains(secret), "{secret} is in:\n{said}");
        }
    }
    assert!(snapshot(&harness.at(".")) == before, "it has changed something");
    assert!(harness.emulator.pulls().len() >= 2);
}

/// It has a time for each step, so that it ends at all; `limits_add_up` holds what they come to.
#[test]
fn it_ends_when_everything_hangs() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let kubeconfig = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
         clusters: [{{name: c, cluster: {{server: 'https://{}'}}}}], users: [{{name: u, user: {{token: t}}}}]}}",
        silent.local_addr().unwrap()
    );
    for (service, id) in [
        (Service::Sts, D::Unreachable),
        (Service::Ecr, D::Unreachable),
        (Service::Registry, D::RegistryUnreachable),
    ] {
        let harness = Harness::new(BINARY).without_keys();
        if service == Service::Registry {
            harness.once(|command| {
                command.envs(KEYS);
            });
        }
        harness.emulator.set_fault(service, Fault::Hang);
        let report = doctor(&harness, |command: &mut Command| {
            command.env("KUBECONFIG", harness.write("kubeconfig", &kubeconfig));
            command.args(["--image", &format!("{HOST}/app:1.0")]);
            command.env("ECR_SIDECAR_DOCKER_CONFIG_SECRET", "apps/ecr-credentials,shop/ecr-credentials");
            // One token for each: they hang at the same time, not one after the other.
            let hosts = ["eu-west-1", "us-east-1", "us-west-2", "eu-central-1", "eu-north-1"];
            let hosts = hosts.map(|region| format!("123456789012.dkr.ecr.{region}.amazonaws.com"));
            command.env("ECR_SIDECAR_REGISTRIES", hosts.join(","));
            if service == Service::Sts {
                command.env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/irsa");
                command.env("AWS_WEB_IDENTITY_TOKEN_FILE", harness.web_identity_file("me"));
            } else {
                command.envs(KEYS);
            }
        });
        assert_eq!(first(&report)["diagnosis"], id.id(), "{service:?}: {report:#}");
        let findings = report["findings"].as_array().unwrap();
        let of_cluster = findings.iter().find(|it| it["step"] == "kubernetes").unwrap();
        assert_eq!(of_cluster["diagnosis"], D::ApiServerUnreachable.id(), "{report:#}");
        let of_pull = findings.iter().find(|it| it["step"] == "pull" && it["outcome"] == "fail").unwrap();
        assert!(of_pull["saw"].as_str().unwrap().contains("no answer within"), "{report:#}");
    }
}
