//! `tests/tools/consumers` finds in a cluster and in a file what the consumers would find, and is refused as they are.
#![allow(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use serde_json::{Value, json};
use test_support::{ApiServer, DockerRegistry, clean_command, files::overwrite, output, program};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

/// `AWS:token`, and the SHA-256 of `token`.
const AUTH: &str = "QVdTOnRva2Vu";
const SHA_256: &str = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";

#[test]
fn the_keychain_of_flux_reads_pull_secrets_of_the_right_type() {
    let (Some(consumers), Some(server)) = (Consumers::new(), ApiServer::shared()) else { return };
    let Some(registry) = DockerRegistry::start() else { return };
    let digest = registry.push_image("team/app", "v1");
    let config =
        format!(r#"{{"auths":{{"{HOST}":{{"auth":"{AUTH}"}},"{}":{{"auth":"{AUTH}"}}}}}}"#, registry.addr());
    server.apply(&format!(
        "
{{apiVersion: v1, kind: Namespace, metadata: {{name: keychain}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: ours, namespace: keychain}}
type: kubernetes.io/dockerconfigjson
stringData: {{.dockerconfigjson: '{config}'}}
---
apiVersion: v1
kind: Secret
metadata: {{name: opaque, namespace: keychain}}
stringData: {{.dockerconfigjson: '{config}'}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: flux, namespace: keychain}}
imagePullSecrets: [{{name: ours}}]
"
    ));
    let keychain = |arguments: &[&str], image: &str| {
        let kubeconfig = server.kubeconfig();
        let cluster = ["keychain", "--namespace=keychain", "--image", image, "--kubeconfig"];
        consumers.run(cluster.iter().map(Path::new).chain([kubeconfig.as_path()]), arguments)
    };
    let image = format!("{HOST}/team/app:v1");
    let found = json!({"username": "AWS", "passwordSha256": SHA_256});
    assert_eq!(said(&keychain(&["--secret=ours"], &image)), found);
    assert_eq!(said(&keychain(&["--service-account=flux"], &image)), found);
    for arguments in [&["--secret=opaque"][..], &[]] {
        assert_eq!(said(&keychain(arguments, &image)), json!({"username": "", "passwordSha256": ""}));
    }
    assert_failed(&keychain(&["--secret=missing"], &image), "not found");

    let image = format!("{}/team/app:v1", registry.addr());
    let pulled = said(&keychain(&["--secret=ours", "--pull", "--tags"], &image));
    assert_eq!((&pulled["digest"], &pulled["tags"]), (&json!(digest), &json!(["v1"])));
}

#[test]
fn the_parser_of_docker_reads_the_file_and_the_secret_of_a_helm_repository() {
    let (Some(consumers), Some(server)) = (Consumers::new(), ApiServer::shared()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let config = format!(r#"{{"auths":{{"{HOST}":{{"auth":"{AUTH}"}}}}}}"#);
    overwrite(&file, &config);
    let from_file = |host: &str| {
        consumers.run([Path::new("docker-config"), Path::new("--file"), &file], &["--host", host])
    };
    let found = json!({"username": "AWS", "passwordSha256": SHA_256});
    assert_eq!(said(&from_file(HOST)), found);
    assert_eq!(said(&from_file("public.ecr.aws")), json!({"username": "", "passwordSha256": ""}));

    server.apply(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: helm}}}}\n---\n\
         {{apiVersion: v1, kind: Secret, metadata: {{name: ours, namespace: helm}}, \
         type: kubernetes.io/dockerconfigjson, stringData: {{.dockerconfigjson: '{config}'}}}}\n"
    ));
    let kubeconfig = server.kubeconfig();
    let secret = ["docker-config", "--namespace=helm", "--secret=ours", "--host", HOST, "--kubeconfig"];
    assert_eq!(said(&consumers.run(secret.iter().map(Path::new).chain([kubeconfig.as_path()]), &[])), found);

    overwrite(&file, &config[..config.len() - 3]);
    assert_failed(&from_file(HOST), "unexpected EOF");
}

/// Templates as the sidecar keeps them, one of a team, and two repositories made by a user.
const ARGOCD: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: argocd}}
---
apiVersion: v1
kind: Secret
metadata: {name: ecr-helm, namespace: argocd, labels: {argocd.argoproj.io/secret-type: repo-creds}}
stringData: {url: HOST, type: helm, enableOCI: 'true', username: AWS, password: token}
---
apiVersion: v1
kind: Secret
metadata: {name: ecr-oci, namespace: argocd, labels: {argocd.argoproj.io/secret-type: repo-creds}}
stringData: {url: 'oci://HOST', type: oci, username: AWS, password: token}
---
apiVersion: v1
kind: Secret
metadata: {name: team, namespace: argocd, labels: {argocd.argoproj.io/secret-type: repo-creds}}
stringData: {url: HOST/team, type: helm, username: team, password: token}
---
apiVersion: v1
kind: Secret
metadata: {name: own, namespace: argocd, labels: {argocd.argoproj.io/secret-type: repository}}
stringData: {url: HOST/own, type: helm, username: stale}
---
apiVersion: v1
kind: Secret
metadata: {name: bare, namespace: argocd, labels: {argocd.argoproj.io/secret-type: repository}}
stringData: {url: HOST/bare, type: helm, project: apps}
---
apiVersion: v1
kind: Secret
metadata: {name: unlabelled, namespace: argocd}
stringData: {url: 'https://HOST', username: AWS, password: token}
";

#[test]
fn argo_cd_takes_the_own_credentials_of_a_repository_else_the_longest_template() {
    let (Some(consumers), Some(server)) = (Consumers::new(), ApiServer::shared()) else { return };
    server.apply(&ARGOCD.replace("HOST", HOST));
    let kubeconfig = server.kubeconfig();
    let matched = |url: &str, arguments: &[&str]| {
        let cluster = ["argocd-match", "--namespace=argocd", "--url", url, "--kubeconfig"];
        said(&consumers.run(cluster.iter().map(Path::new).chain([kubeconfig.as_path()]), arguments))
    };
    for (url, secret) in [
        ("HOST/charts/web", json!("ecr-helm")),
        ("  HOST/Charts.git ", json!("ecr-helm")),
        ("oci://HOST/charts/web", json!("ecr-oci")),
        ("https://HOST/charts/web", Value::Null),
        ("999999999999.dkr.ecr.eu-west-1.amazonaws.com/charts", Value::Null),
        ("HOST/team/web", json!("team")),
        ("oci://HOST/team/web", json!("ecr-oci")),
        ("HOST/own", json!("own")),
        ("HOST/own/below", json!("ecr-helm")),
        ("HOST/bare", json!("ecr-helm")),
    ] {
        assert_eq!(matched(&url.replace("HOST", HOST), &[])["secret"], secret, "{url}");
    }
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    let found = matched(&format!("{HOST}/web"), &["--password-to", password.to_str().unwrap()]);
    let expected = json!({
        "secret": "ecr-helm", "type": "helm", "enableOCI": "true", "username": "AWS", "passwordSha256": SHA_256,
    });
    assert_eq!(found, expected);
    assert_eq!(fs::read_to_string(password).unwrap(), "token");
}

/// The program, in a home of its own.
struct Consumers {
    program: PathBuf,
    home: tempfile::TempDir,
}

impl Consumers {
    fn new() -> Option<Self> {
        Some(Self { program: program("consumers")?, home: tempfile::tempdir().unwrap() })
    }

    fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a Path>, further: &[&str]) -> Output {
        let mut command = clean_command(&self.program, self.home.path());
        output(command.args(arguments).args(further), Duration::from_secs(60))
    }
}

#[track_caller]
fn said(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn assert_failed(output: &Output, part: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains(part), "{stderr}");
}
