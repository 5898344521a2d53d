//! `manifests --pod-pull-secrets`, where there is nothing to print; what is printed is in tests/secrets.

use super::{printed, sidecar};

const ACCOUNT: [&str; 5] = ["manifests", "--namespace", "apps", "--service-account", "ecr-sidecar"];

#[test]
fn without_its_flag_manifests_prints_no_policy_for_pods_and_with_it_nothing_else_changes() {
    let arguments = [&ACCOUNT[..], &["--registries=public.ecr.aws", "--docker-config-secret=pull"]].concat();
    let without = printed(&sidecar(&arguments));
    let with = printed(&sidecar(&[&arguments[..], &["--pod-pull-secrets"]].concat()));
    let added = with.strip_prefix(&without).unwrap_or_else(|| panic!("{with}"));
    assert!(!without.contains("Mutating") && added.starts_with("---\n"), "{with}");
    assert_eq!(added.matches("\nkind: ").count(), 2, "{added}");
    assert_eq!(added.matches("\nkind: MutatingAdmissionPolicy").count(), 2, "{added}");
}

#[test]
fn what_a_policy_for_pods_needs_and_the_configuration_lacks_is_named() {
    let selector = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    let text = "registries: [{host: public.ecr.aws}]\noutputs: [{type: docker-config-secret, name: pull, \
                namespaces: {selector: 'tier>1'}}]\n";
    std::io::Write::write_all(&mut selector.as_file(), text.as_bytes()).unwrap();
    let selector = format!("--config={}", selector.path().display());
    for (more, expected) in [
        (&["--registries=public.ecr.aws"][..], "--docker-config-secret NAME"),
        (&["--registries=public.ecr.aws", "--argocd-namespace=argocd"], "type: docker-config-secret"),
        (&[&selector], "`tier>1`"),
    ] {
        let output = sidecar(&[&ACCOUNT[..], more, &["--pod-pull-secrets"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(64), &b""[..]), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    let mut own = test_support::clean_command(super::BINARY, std::path::Path::new("/nonexistent"));
    own.args(ACCOUNT)
        .args(["--docker-config-secret=pull", "--pod-pull-secrets"])
        .env("AWS_REGION", "eu-west-1");
    let output = test_support::output(&mut own, super::DEADLINE);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("list the registries"), "{said}");
}
