//! The rights, the policy and the Secrets are those that `ecr-sidecar manifests` prints for the same configuration.
//!
//! Those of the values in `ci/` are compared in the module `rights` of `patches/`, with those of all other containers.

use std::{process::Command, time::Duration};

use test_support::{files::overwrite, output};

use super::Helm;
use crate::{
    build::{Objects, read},
    containers::BINARY,
    rights::{self, is_right},
};

/// What `config` is in the values, and the file of the sidecar.
fn compare(helm: &Helm, config: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    overwrite(&file, config);
    let mut command = Command::new(BINARY);
    command.args(["manifests", "--namespace=ecr-sidecar", "--service-account=ecr-sidecar", "--config"]);
    let printed = output(command.arg(file).env_clear(), Duration::from_secs(30));
    assert!(printed.status.success(), "{}\n{config}", String::from_utf8_lossy(&printed.stderr));
    let printed = Objects::parse(&String::from_utf8(printed.stdout).unwrap());

    let values: String = config.lines().map(|line| format!("  {line}\n")).collect();
    let rendered = helm.rendered(&format!("config:\n{values}"));
    let given = rendered.0.iter().filter(|object| is_right(object));
    assert_eq!(rights::sorted(given), rights::sorted(printed.0.iter()), "{config}");
}

#[test]
fn they_are_those_that_manifests_prints_for_every_kind_of_output() {
    let Some(helm) = Helm::newest() else { return };
    compare(&helm, &read("tests/data/full.yaml"));
    for outputs in [
        // Nothing but a file: no right.
        "{type: docker-config, path: /out/config.json}",
        "{type: docker-config-secret, name: of-its-own}",
        "{type: docker-config-secret, name: b, namespaces: {names: [z, a]}}, {type: docker-config-secret, name: a.b, namespaces: {names: [a]}}",
        "{type: docker-config-secret, name: '123', namespaces: {selector: 'a in (b, c)'}}",
        "{type: docker-config-secret, name: a, namespaces: {all: true}, prune: true}, {type: docker-config-secret, name: b, namespaces: {selector: c}}",
        // Left out by all of them, by one of them, and named by another output.
        "{type: docker-config-secret, name: a, namespaces: {all: true, exclude: [q, p]}}, \
         {type: docker-config-secret, name: b, namespaces: {all: true, exclude: [p]}, prune: true}, \
         {type: docker-config-secret, name: c, namespaces: {all: true, exclude: [p, q]}}, \
         {type: argocd-repositories, namespace: q, names: [a]}",
        "{type: argocd-repositories, namespace: argocd, names: [b, a]}, {type: docker-config-secret, name: c, namespaces: {names: [argocd]}}",
        "{type: argocd-repositories, namespace: argocd, selector: a=b}, {type: docker-config-secret, name: c, namespaces: {all: true, exclude: [argocd]}}",
        "{type: argocd-repositories, namespace: argocd, names: [a]}, {type: argocd-repositories, namespace: other, selector: c}, \
         {type: docker-config-secret, name: c, namespaces: {all: true}}, {type: docker-config-secret, name: d}",
    ] {
        compare(&helm, &format!("registries: [{{host: public.ecr.aws}}]\noutputs: [{outputs}]"));
    }
}

/// The names of Argo CD's templates follow from the hosts.
#[test]
fn a_template_has_the_name_that_the_sidecar_expects_for_every_host() {
    let Some(helm) = Helm::newest() else { return };
    let long = format!("{}.example", "a".repeat(60));
    let hosts = [
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
        "123456789012.DKR.ECR.us-gov-west-1.amazonaws.com",
        "123456789012.dkr.ecr.ap-southeast-5.amazonaws.com",
        "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
        "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
        "123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov",
        "123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
        "123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk",
        "123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov",
        "public.ecr.aws",
        "ecr-public.aws.com",
        // These, too, say their region; from here on, a hash is in the names.
        "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
        "123456789012.dkr-ecr.us-east-1.on.aws",
    ];
    let others = [
        "123456789012.dkr.ecr.cn-north-1.amazonaws.com",
        "123456789012.dkr.ecr.xx-north-1.amazonaws.com",
        "ecr.internal.example:8443",
        "10.0.0.1:5000",
        &long,
    ];
    let registries = hosts.map(|host| format!("{{host: '{host}'}}"));
    for registry in
        registries.into_iter().chain(others.map(|host| format!("{{host: '{host}', region: eu-west-1}}")))
    {
        compare(
            &helm,
            &format!("registries: [{registry}]\noutputs: [{{type: argocd-repo-creds, namespace: argocd}}]"),
        );
    }
}

#[test]
fn without_rbac_there_is_none_and_without_the_policy_the_rest() {
    let Some(helm) = Helm::newest() else { return };
    let selector = super::values("selector");
    let kinds = |more: &str| {
        let rendered = helm.rendered(&format!("{selector}{more}"));
        let rights = rendered.0.iter().filter(|object| is_right(object));
        rights.map(|object| object["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds("rbac: {create: false}"), [""; 0]);
    assert_eq!(kinds("rbac: {admissionPolicy: false}"), ["ClusterRole", "ClusterRoleBinding"]);
}
