//! What the doctor says of rights and Secrets, and that the engine says the same.

use std::process::Command;

use ecr_emulator::IMAGE;
use ecr_sidecar::failure::diagnosis::Diagnosis as D;
use serde_json::Value;
use test_support::{
    Running,
    harness::{DEADLINE, HOST},
    iam::{allow_all_but, allow_what_we_ship},
    kubernetes::audit::Request,
    output,
};

use crate::{
    BINARY,
    cluster::{Cluster, SECRET, argocd, by_file},
};

/// `ecr-sidecar doctor`, and its findings about the cluster.
fn doctor(cluster: &Cluster, change: impl FnOnce(&mut Command)) -> (Value, Vec<Value>) {
    let mut command = Command::new(BINARY);
    command.args(["doctor", "--output", "json"]).env_clear().envs(cluster.harness.environment());
    command.env("HTTPS_PROXY", cluster.harness.emulator.proxy());
    command.env("AWS_CA_BUNDLE", cluster.harness.emulator.ca_file());
    cluster.prepare(&mut command);
    change(&mut command);
    let output = output(&mut command, DEADLINE);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let of_cluster = findings.iter().filter(|it| it["step"] == "kubernetes").cloned().collect();
    (report, of_cluster)
}

/// The rights that `manifests` prints, without its Secrets.
fn rights(cluster: &Cluster) -> String {
    let manifests = cluster.manifests(|_| {});
    let documents = manifests.split("---\n").filter(|document| !document.contains("kind: Secret\n"));
    documents.collect::<Vec<_>>().join("---\n")
}

/// The log says so, and `/status` says the same.
fn is_reported(sidecar: &Running, id: &str) {
    sidecar.wait_log(&format!("\"diagnosis\":\"{id}\""), DEADLINE);
    sidecar.wait_status(id, |status| status.to_string().contains(&format!("\"diagnosis\":\"{id}\"")));
}

#[test]
fn where_all_is_well_it_reports_it() {
    let Some(cluster) = Cluster::new("doctor-well") else { return };
    cluster.server.apply(&cluster.manifests(|_| {}));
    let mark = cluster.server.audit_mark();
    let (report, findings) = doctor(&cluster, |_| {});
    assert_eq!(report["healthy"], true, "{report:#}");
    assert_eq!(findings[0]["saw"], "has the 4 permissions that it needs", "{report:#}");
    assert_eq!(findings[1]["saw"], "the Secret doctor-well/ecr-credentials can be managed", "{report:#}");
    let user = cluster.account.user();
    let changes = cluster.server.count_requests(mark, |request| {
        request.user == user && request.is_write() && request.resource != "selfsubjectaccessreviews"
    });
    assert_eq!(changes, 0, "it changes nothing");
}

#[test]
fn rights_that_are_missing_are_reported_with_the_rule() {
    let Some(cluster) = Cluster::new("doctor-rights") else { return };
    let (report, findings) = doctor(&cluster, |_| {});
    assert_eq!(report["healthy"], false);
    let [finding] = findings.as_slice() else { panic!("{report:#}") };
    assert_eq!(finding["diagnosis"], "right-missing", "{report:#}");
    assert_eq!(
        finding["saw"],
        "may not get, list, patch, watch secrets ecr-credentials in namespace doctor-rights"
    );
    let rule = "Role in namespace doctor-rights: {apiGroups: [\"\"], resources: [secrets], \
                resourceNames: [ecr-credentials], verbs: [get, list, patch, watch]}";
    assert!(finding["remedy"].as_str().unwrap().contains(rule), "{finding}");
    is_reported(&cluster.start(|_| {}), "right-missing");

    cluster.server.apply(&rights(&cluster));
    let (report, findings) = doctor(&cluster, |_| {});
    assert_eq!(findings[1]["diagnosis"], "right-missing", "{report:#}");
    assert!(findings[1]["saw"].as_str().unwrap().starts_with("there is no Secret"), "{report:#}");
}

#[test]
fn rights_on_every_namespace_are_asked_for_too() {
    let Some(cluster) = Cluster::new("doctor-all") else { return };
    let text = format!(
        "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {SECRET}, namespaces: {{all: true}}}}]\n"
    );
    let file = cluster.harness.put("all.yaml", &text);
    let (report, findings) = doctor(&cluster, by_file(&file));
    let saw: Vec<_> = findings.iter().map(|it| it["saw"].as_str().unwrap()).collect();
    assert_eq!(
        saw,
        [
            "may not list, watch namespaces in all namespaces",
            "may not create, get, list, patch, watch secrets ecr-credentials in all namespaces"
        ],
        "{report:#}"
    );
}

#[test]
fn argo_cds_templates_are_checked_by_name() {
    let Some(cluster) = Cluster::new("doctor-argocd") else { return };
    cluster.server.apply(&cluster.manifests(argocd("doctor-argocd")));
    let (report, findings) = doctor(&cluster, argocd("doctor-argocd"));
    assert_eq!(report["healthy"], true, "{report:#}");
    assert_eq!(findings.len(), 3, "{report:#}");
}

/// Its registry only AWS knows, which the doctor asks at the same time.
#[test]
fn a_repository_of_the_callers_own_registry_is_no_warning() {
    let Some(cluster) = Cluster::new("doctor-own") else { return };
    let text = "outputs: [{type: argocd-repositories, namespace: doctor-own, names: [team-a, team-b]}]\n";
    let file = cluster.harness.put("own.yaml", text);
    cluster.server.apply(&cluster.manifests(by_file(&file)));
    cluster.server.apply(&format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: team-a, namespace: doctor-own, \
         labels: {{argocd.argoproj.io/secret-type: repository}}}}, stringData: {{url: {HOST}/charts, type: helm}}}}"
    ));
    let (report, findings) = doctor(&cluster, by_file(&file));
    let [rights, first, second] = findings.as_slice() else { panic!("{report:#}") };
    assert_eq!((&rights["outcome"], &first["outcome"]), (&"ok".into(), &"ok".into()), "{report:#}");
    // What is wrong whichever the registry is, is found.
    assert!(second["saw"].as_str().unwrap().contains("there is no Secret doctor-own/team-b"), "{report:#}");
    // `manifests` does not print it: only its owner knows what it is for.
    assert_eq!(second["diagnosis"], "secret-missing", "{report:#}");
}

#[test]
fn a_secret_that_is_not_there_is_no_failure_where_it_may_be_created() {
    let Some(cluster) = Cluster::new("doctor-create") else { return };
    cluster.server.apply(&rights(&cluster).replace("verbs: [", "verbs: [create, "));
    let (report, findings) = doctor(&cluster, |_| {});
    assert_eq!(report["healthy"], true, "{report:#}");
    assert!(findings[1]["saw"].as_str().unwrap().contains("it is created by the first write"), "{report:#}");
    cluster.start(|_| {}).wait_ready();
}

#[test]
fn a_secret_of_another_type_is_reported() {
    let Some(cluster) = Cluster::new("doctor-type") else { return };
    cluster.server.apply(&rights(&cluster));
    let secret =
        format!("{{apiVersion: v1, kind: Secret, metadata: {{name: {SECRET}, namespace: doctor-type}}}}");
    cluster.server.apply(&secret);
    let (report, findings) = doctor(&cluster, |_| {});
    assert_eq!(findings[1]["diagnosis"], "secret-type", "{report:#}");
    assert!(
        findings[1]["remedy"].as_str().unwrap().contains("kubectl -n doctor-type delete secret"),
        "{report:#}"
    );
    is_reported(&cluster.start(|_| {}), "secret-type");
}

/// And a base that is not there: warnings alike, each with its name and remedy.
#[test]
fn a_secret_of_argo_cd_that_brings_no_credential_is_reported() {
    let Some(cluster) = Cluster::new("doctor-unused") else { return };
    let repository = |name: &str, labels: &str, url: &str| {
        format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: doctor-unused, labels: {{{labels}}}}}, \
             stringData: {{url: '{url}', type: helm}}}}\n---\n"
        )
    };
    let label = "argocd.argoproj.io/secret-type: repository";
    cluster.server.apply(&repository("elsewhere", label, "ghcr.io/charts"));
    cluster.server.apply(&repository("unlabelled", "", &format!("{HOST}/charts")));
    let text = format!(
        "registries: [{{host: {HOST}}}]\noutputs:\n\
         - {{type: argocd-repositories, namespace: doctor-unused, names: [elsewhere, unlabelled]}}\n\
         - {{type: docker-config-secret, name: {SECRET}, base: /nowhere/base.json}}\n"
    );
    let file = cluster.harness.put("unused.yaml", &text);
    cluster.server.apply(&cluster.manifests(by_file(&file)));
    let (report, findings) = doctor(&cluster, by_file(&file));
    assert_eq!(report["healthy"], true, "{report:#}");
    let sidecar = cluster.run(by_file(&file));
    for (diagnosis, secret) in [
        (D::RegistryNotConfigured, "elsewhere"),
        (D::ArgocdSecretIgnored, "unlabelled"),
        (D::BaseUnusable, ""),
    ] {
        let id = diagnosis.id();
        let line = sidecar.wait_log(&format!("\"diagnosis\":\"{id}\""), DEADLINE);
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["remedy"], diagnosis.remedy(), "{line}");
        sidecar.wait_status(id, |status| {
            let outputs = status["outputs"].as_array().unwrap().iter();
            let details = outputs.filter_map(|output| output["warning_details"].as_array()).flatten();
            details.clone().any(|it| it["diagnosis"] == id && it["message"] == line["warning"])
        });
        if !secret.is_empty() {
            assert_eq!(line["secret"], format!("doctor-unused/{secret}"), "{line}");
        }
        let finding = findings.iter().find(|it| it["diagnosis"] == id);
        let finding = finding.unwrap_or_else(|| panic!("{report:#}"));
        assert_eq!((&finding["outcome"], &finding["remedy"]), (&"warn".into(), &line["remedy"]), "{finding}");
        assert_eq!(finding["saw"], line["warning"], "{finding}");
    }
}

#[test]
fn a_secret_that_others_filled_is_reported() {
    let Some(cluster) = Cluster::new("doctor-foreign") else { return };
    cluster.server.apply(&rights(&cluster));
    let config = r#"{"auths":{"ghcr.io":{"auth":"Zm9vOmJhcg=="}}}"#;
    cluster.server.kubectl([
        "create",
        "secret",
        "generic",
        SECRET,
        "-n",
        "doctor-foreign",
        "--type=kubernetes.io/dockerconfigjson",
        &format!("--from-literal=.dockerconfigjson={config}"),
    ]);
    let (report, findings) = doctor(&cluster, |_| {});
    assert_eq!(findings[1]["diagnosis"], "secret-unmanaged", "{report:#}");
    assert!(!report.to_string().contains("Zm9vOmJhcg"), "{report:#}");
    is_reported(&cluster.start(|_| {}), "secret-unmanaged");
}

/// The findings about a pull, with what it saw.
fn pull_findings(report: &Value) -> Vec<(&str, &str)> {
    let findings = report["findings"].as_array().unwrap().iter().filter(|it| it["step"] == "pull");
    findings.map(|it| (it["outcome"].as_str().unwrap(), it["saw"].as_str().unwrap())).collect()
}

/// With the credential in a Secret of each kind of output, under the rights that `manifests` prints, and the policies in
/// `patches/iam`.
#[test]
fn a_pull_is_tried_with_the_credential_in_the_secret() {
    let Some(cluster) = Cluster::new("doctor-pulls") else { return };
    allow_what_we_ship(&cluster.harness.emulator);
    cluster.namespace_with("doctor-pulls-team", "{doctor-pulls: on-it}");
    for (at, output) in [
        ("doctor-pulls/ecr-credentials", "{type: docker-config-secret, name: ecr-credentials}"),
        (
            "doctor-pulls/ecr-123456789012-eu-west-1-helm",
            "{type: argocd-repo-creds, namespace: doctor-pulls}",
        ),
        (
            "doctor-pulls/team-charts",
            "{type: argocd-repositories, namespace: doctor-pulls, selector: doctor-pulls=on-it}",
        ),
        // Last: from then on its policy holds the account to these Secrets.
        (
            "doctor-pulls-team/selected",
            "{type: docker-config-secret, name: selected, namespaces: {selector: doctor-pulls=on-it}}",
        ),
    ] {
        cluster.server.apply(&format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: team-charts, namespace: doctor-pulls, labels: \
             {{doctor-pulls: on-it, argocd.argoproj.io/secret-type: repository}}}}, stringData: {{url: '{HOST}/charts', type: helm}}}}"
        ));
        let text = format!("registries: [{{host: {HOST}}}]\noutputs: [{output}]\n");
        let file = cluster.harness.put("pulls.yaml", &text);
        let image = |command: &mut Command| {
            by_file(&file)(command);
            command.args(["--image", &format!("{HOST}/{IMAGE}"), "--as-consumer", "kubelet"]);
        };
        cluster.permit(&cluster.manifests(by_file(&file)));
        let (report, _) = doctor(&cluster, image);
        let before = pull_findings(&report);
        let nothing = format!("no output holds a credential for {HOST}");
        assert_eq!(before, [("fail", &*nothing)], "{at}: {report:#}");

        let done = cluster.once_with(by_file(&file));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let mark = cluster.server.audit_mark();
        let (report, _) = doctor(&cluster, image);
        assert_eq!(report["healthy"], true, "{at}: {report:#}");
        let pulled = pull_findings(&report);
        assert_eq!(pulled.len(), 4, "{report:#}");
        allow_all_but(&cluster.harness.emulator, "ecr:BatchGetImage");
        let (report, _) = doctor(&cluster, image);
        allow_what_we_ship(&cluster.harness.emulator);
        let denied = pull_findings(&report);
        let (_, saw) = denied.iter().find(|(outcome, _)| *outcome == "fail").unwrap();
        assert!(saw.contains("ecr:BatchGetImage") && saw.contains(&format!("Secret {at}")), "{at}: {saw}");
        let user = cluster.account.user();
        let count = |condition: fn(&Request) -> bool| {
            cluster.server.count_requests(mark, |request| request.user == user && condition(request))
        };
        assert_eq!(count(|request| request.code == 403), 0, "{at}: it needs no other right");
        let written = count(|it| it.is_write() && it.resource != "selfsubjectaccessreviews");
        assert_eq!(written, 0, "{at}: it changes nothing");
    }
}

/// Whoever has a namespace that the selector matches can fill the Secret there before us.
#[test]
fn a_pull_is_not_tried_with_what_a_tenant_put_into_its_secret() {
    let Some(cluster) = Cluster::new("doctor-tenant") else { return };
    for name in ["doctor-tenant-a", "doctor-tenant-b"] {
        cluster.namespace_with(name, "{doctor-tenant: on-it}");
    }
    let config = format!(r#"{{"auths":{{"{HOST}":{{"auth":"QVdTOmZha2U="}}}}}}"#);
    cluster.server.kubectl([
        "create",
        "secret",
        "generic",
        SECRET,
        "--namespace=doctor-tenant-a",
        "--type=kubernetes.io/dockerconfigjson",
        &format!("--from-literal=.dockerconfigjson={config}"),
    ]);
    let text = format!(
        "registries: [{{host: {HOST}}}]\n\
         outputs: [{{type: docker-config-secret, name: {SECRET}, namespaces: {{selector: doctor-tenant=on-it}}}}]\n"
    );
    let file = cluster.harness.put("tenant.yaml", &text);
    cluster.permit(&cluster.manifests(by_file(&file)));
    cluster.once_with(by_file(&file));
    let (report, _) = doctor(&cluster, |command| {
        by_file(&file)(command);
        command.args(["--image", &format!("{HOST}/{IMAGE}")]);
    });
    let pulled = pull_findings(&report);
    assert!(pulled.len() == 5 && pulled.iter().all(|(outcome, _)| *outcome == "ok"), "{report:#}");
}
