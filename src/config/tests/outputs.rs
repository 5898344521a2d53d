use super::*;

/// One output would write its password into what another keeps.
#[test]
fn outputs_that_work_against_each_other_are_rejected() {
    let report = |outputs: &str| {
        let file = format!(
            "registries: [{{host: {HOST}}}]\noutputs:\n- {{type: argocd-repo-creds, namespace: argocd}}\n{outputs}"
        );
        with_file(&file, &[]).err().map(|violations| violations.to_string()).unwrap_or_default()
    };
    let repositories = |namespace: &str, which: &str| {
        report(&format!("- {{type: argocd-repositories, namespace: {namespace}, {which}}}\n"))
    };
    for bad in [
        "selector: argocd.argoproj.io/secret-type",
        "selector: argocd.argoproj.io/secret-type=repo-creds",
        "selector: 'argocd.argoproj.io/secret-type in (repository, repo-creds)'",
        "selector: 'argocd.argoproj.io/secret-type!=repository'",
        "selector: app.kubernetes.io/managed-by=ecr-sidecar",
        "selector: '!team'",
        "names: [a, ecr-123456789012-eu-west-1-oci]",
    ] {
        let report = repositories("argocd", bad);
        assert!(
            report.contains("outputs[1].") && report.contains("credential templates of outputs[0]"),
            "{bad}: {report}"
        );
        assert_eq!(repositories("other", bad), "", "{bad}");
    }
    for good in [
        "selector: argocd.argoproj.io/secret-type=repository",
        "selector: ecr-sidecar/refresh=enabled",
        "selector: 'ecr=enabled,argocd.argoproj.io/secret-type'",
        "names: [team-a-charts]",
    ] {
        assert_eq!(repositories("argocd", good), "", "{good}");
    }
    let secret = |namespace: &str| {
        report(&format!(
            "- {{type: docker-config-secret, name: a, namespaces: {{names: [{namespace}]}}}}\n\
             - {{type: argocd-repositories, namespace: argocd, names: [a]}}\n"
        ))
    };
    assert!(secret("argocd").contains("outputs[2]: found what outputs[1] keeps already"));
    assert_eq!(secret("flux-system"), "");
}
