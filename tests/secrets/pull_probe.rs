//! Pull probes with the credential of Secrets, under the printed rights.

use std::process::Command;

use test_support::{
    Running,
    harness::{DEADLINE, HOST},
};

use crate::cluster::{Cluster, by_file};

/// Runs with a probe and this output.
fn run(cluster: &Cluster, output: &str) -> Running {
    let text = format!("registries: [{{host: {HOST}, probe: {{repository: app}}}}]\noutputs: [{output}]\n");
    let file = cluster.harness.put("probe.yaml", &text);
    cluster.run(|command: &mut Command| {
        by_file(&file)(command);
        // The registry by its own name.
        command.env("HTTPS_PROXY", cluster.harness.emulator.proxy());
        command.env("AWS_CA_BUNDLE", cluster.harness.emulator.ca_file());
    })
}

fn wait_found(sidecar: &Running, place: &str) {
    let place = format!("(credential of {place})");
    sidecar.wait_status(&place, |status| {
        status["probes"][0]["found"].as_str().is_some_and(|found| found.ends_with(&place))
    });
}

#[test]
fn a_probe_reads_the_secret_that_the_consumer_reads() {
    let Some(cluster) = Cluster::new("probed") else { return };
    let sidecar = run(&cluster, "{type: docker-config-secret, name: probed-pull}");
    wait_found(&sidecar, "docker-config-secret probed-pull in its own namespace (Secret probed/probed-pull)");
    assert_eq!(cluster.harness.emulator.pulls().len(), 1);
}

#[test]
fn a_probe_reads_a_template_of_argo_cd() {
    let Some(cluster) = Cluster::new("probed-argocd") else { return };
    let sidecar = run(&cluster, "{type: argocd-repo-creds, namespace: probed-argocd}");
    let status = sidecar.wait_status("the probe", |status| !status["probes"][0]["succeeded_at"].is_null());
    let found = status["probes"][0]["found"].as_str().unwrap();
    assert!(found.contains("argocd-repo-creds probed-argocd (Secret probed-argocd/"), "{found}");
}

#[test]
fn a_probe_finds_a_secret_where_they_are_discovered() {
    let Some(cluster) = Cluster::new("probed-found") else { return };
    let output = "{type: docker-config-secret, name: probed-found, namespaces: {selector: 'probed=yes'}}";
    let sidecar = run(&cluster, output);
    sidecar.wait_ready(); // with nothing to keep
    let line = sidecar.wait_log("pull probe failed", DEADLINE);
    assert!(line.contains("nothing-published") && line.contains("in none of the Secrets"), "{line}");
    cluster.namespace_with("probed-found-a", "{probed: 'yes'}");
    let id = "docker-config-secret probed-found in namespaces with probed=yes";
    wait_found(&sidecar, &format!("{id} (Secret probed-found-a/probed-found)"));
}
