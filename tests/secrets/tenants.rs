//! Namespaces that are discovered, whose tenants put what they like there.

use std::process::{Command, Output};

use ecr_sidecar::failure::diagnosis::Diagnosis as D;
use serde_json::json;
use test_support::{
    harness::{DEADLINE, HOST},
    output, wait_for,
};

use crate::{
    BINARY,
    cluster::{Cluster, by_file, value},
};

/// One output for the namespaces with the label `NAME: enabled`, in which it keeps the Secret `NAME-pull`.
fn selecting(cluster: &Cluster, name: &str) -> std::path::PathBuf {
    let text = format!(
        "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {name}-pull, \
         namespaces: {{selector: {name}=enabled}}}}]\n"
    );
    cluster.harness.put(&format!("{name}.yaml"), &text)
}

/// Three namespaces, in which three tenants have made the Secret first: of another type, immutable, and with
/// credentials of their own.
fn hostile(cluster: &Cluster, name: &str) {
    let secret = |namespace: &str, more: &str| {
        cluster.namespace_with(namespace, &format!("{{{name}: enabled}}"));
        cluster.server.apply(&format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: {name}-pull, namespace: {namespace}}}, {more}}}"
        ));
    };
    secret(&format!("{name}-x-type"), "type: Opaque");
    let docker = |config: &str| {
        format!(
            "type: kubernetes.io/dockerconfigjson, stringData: {{.dockerconfigjson: '{{\"auths\":{{{config}}}}}'}}"
        )
    };
    secret(&format!("{name}-x-immutable"), &format!("immutable: true, {}", docker("")));
    secret(&format!("{name}-x-unmanaged"), &docker(r#""ghcr.io":{"auth":"bTpw"}"#));
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_tenants_secret_takes_readiness_from_no_other() {
    let Some(cluster) = Cluster::new("tenants") else { return };
    let file = selecting(&cluster, "tenants");
    hostile(&cluster, "tenants");
    for good in ["tenants-a", "tenants-b"] {
        cluster.namespace_with(good, "{tenants: enabled}");
    }
    let sidecar = cluster.run(by_file(&file));
    let body = sidecar.wait_get("/readyz", 200);
    for good in ["tenants-a", "tenants-b"] {
        let text = value(&cluster.secret(good, "tenants-pull").unwrap(), ".dockerconfigjson").unwrap();
        assert!(text.contains(HOST), "{text}");
    }
    let body = if body.contains("3 failing") {
        body
    } else {
        wait_for("the three", DEADLINE, || {
            Some(sidecar.get("/readyz").1).filter(|it| it.contains("3 failing"))
        })
    };
    let lines: Vec<_> = body.lines().collect();
    assert_eq!(lines.len(), 5, "{body}");
    assert!(lines[0].contains("2 of 5 in sync, 3 failing"), "{body}");
    for (line, namespace) in lines[1..].iter().zip(["immutable", "type", "unmanaged"]) {
        assert!(line.starts_with(&format!("[-]Secret tenants-x-{namespace}/tenants-pull ")), "{body}");
    }
    let status = sidecar.status();
    let targets = &status["outputs"][0]["targets"];
    assert_eq!((&targets["total"], &targets["in_sync"]), (&json!(5), &json!(2)));
    let immutable = &targets["failing"][0]["last_error"];
    assert_eq!(immutable["diagnosis"], D::SecretImmutable.id(), "{immutable}");
    let remedy = immutable["remedy"].as_str().unwrap();
    assert!(remedy.contains("kubectl -n tenants-x-immutable delete secret tenants-pull"), "{remedy}");
    let (_, metrics) = sidecar.get("/metrics");
    for diagnosis in [D::SecretImmutable, D::SecretType, D::SecretUnmanaged] {
        let series = format!("diagnosis=\"{}\"}} 1", diagnosis.id());
        assert!(metrics.contains(&series), "{series}");
    }
    // Namespaces that come are no reason either, and are written.
    cluster.namespace_with("tenants-c", "{tenants: enabled}");
    wait_for("the new one", DEADLINE, || cluster.secret("tenants-c", "tenants-pull"));
    assert_eq!(sidecar.get("/readyz").0, 200);
    drop(sidecar);

    let once = cluster.once_with(by_file(&file));
    let said = stderr(&once);
    assert_eq!(once.status.code(), Some(0), "{said}");
    assert!(
        said.contains("3 of 6 in sync, 3 failing") && said.contains("[-]Secret tenants-x-type/"),
        "{said}"
    );
}

#[test]
fn where_all_fail_it_is_not_ready() {
    let Some(cluster) = Cluster::new("allfail") else { return };
    let file = selecting(&cluster, "allfail");
    hostile(&cluster, "allfail");
    let sidecar = cluster.run(by_file(&file));
    sidecar.wait_status("all three", |status| {
        status["outputs"][0]["targets"]["failing"].as_array().is_some_and(|failing| failing.len() == 3)
    });
    let (code, body) = sidecar.get("/readyz");
    assert!(code == 503 && body.contains("0 of 3 in sync, 3 failing"), "{body}");
    drop(sidecar);
    let once = cluster.once_with(by_file(&file));
    assert_eq!(once.status.code(), Some(69), "{}", stderr(&once));
    assert!(stderr(&once).contains("[-]Secret allfail-x-type/allfail-pull"), "{}", stderr(&once));
}

/// What ends it is that nothing but a right helps, not the time: this test has no ten minutes.
#[test]
fn once_ends_where_the_namespaces_cannot_be_listed() {
    let Some(cluster) = Cluster::new("unlisted") else { return };
    let file = selecting(&cluster, "unlisted");
    let mut command = Command::new(BINARY);
    command.args(["once", "--timeout", "10m"]).env_clear().envs(cluster.harness.environment());
    cluster.prepare(&mut command);
    by_file(&file)(&mut command);
    let once = output(&mut command, DEADLINE);
    let said = stderr(&once);
    assert_eq!(once.status.code(), Some(69), "{said}");
    assert!(said.contains("cannot list resource") && said.contains("ClusterRole: {"), "{said}");
}
