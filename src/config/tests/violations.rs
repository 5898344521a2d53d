use super::*;

#[test]
fn violations_of_values_are_reported_at_once_too() {
    let report = violations(with_file(
        "identities:\n  a: {source: static, roleArn: x, expectAccount: '12'}\n\
         registries:\n- {host: 'https://public.ecr.aws'}\n- {host: ecr.internal.example}\n\
         - {host: public.ecr.aws, identity: aa}\n- {host: public.ecr.aws, endpoint: 'ftp://x'}\n\
         - {host: 123456789012.dkr.ecr.eu-west-1.amazonaws.com, region: us-east-1}\n\
         outputs: [{type: docker-config, path: /x, mode: '0999'}]\n\
         refresh: {at: 99%}\nhealth: {listen: localhost, startupGrace: 1d}\nlog: {filter: 'a=b=c'}\n",
        &[],
    ));
    for path in [
        "identities.a.roleArn",
        "identities.a.accessKeyIdFile",
        "identities.a.secretAccessKeyFile",
        "identities.a.expectAccount",
        "registries[0].host",
        "registries[1].region",
        "registries[2].identity",
        "registries[3].endpoint",
        "registries[3].host",
        "registries[4].region",
        "outputs[0].mode",
        "refresh",
        "health.listen",
        "log.filter",
    ] {
        assert!(report.contains(&format!("\n  {path}: ")), "{path} is not in:\n{report}");
    }
}

#[test]
fn violations_of_shape_hide_none_of_values_and_make_none_up() {
    let report = violations(with_file(
        "identities:\n  a: 5\n  b: {source: statik, accessKeyIdFile: /a, expectAccount: '12'}\n\
         \x20 c: {source: static, accessKeyIdFile: /a, secretAccesKeyFile: /b, assumeRoles: [{roleArn: x}]}\n\
         \x20 e: {source: static}\n\
         registries:\n- {host: 'https://public.ecr.aws', optional: 'no'}\n- {hots: public.ecr.aws}\n\
         - {host: ecr.internal.example, region: 5}\n- {host: public.ecr.aws, identity: a}\n\
         - {host: public.ecr.aws, identity: d, endpoint: 'ftp://x'}\n\
         outputs:\n- 5\n- {type: docker-config, path: /x, mode: '0999', groop: 5}\n\
         - {type: docker-config, path: /y}\n- {type: docker-config, path: /y}\n\
         - {type: docker-config-secret, name: A_B, namespaces: {names: [5], all: 'yes'}}\n\
         - {type: argocd-repositories, namespace: a, selektor: b=c}\n\
         refresh: {at: 90, jitter: 60%}\nhealth: {listen: localhost}\nlog: {format: jsn, filter: 'a=b=c'}\n",
        &[],
    ));
    let mut places: Vec<_> =
        report.lines().skip(1).map(|line| line.trim().split_once(": ").unwrap().0).collect();
    places.sort_unstable();
    assert_eq!(
        places,
        [
            "health.listen",
            "identities.a",
            "identities.b.expectAccount",
            "identities.b.source",
            "identities.c.assumeRoles[0].roleArn",
            "identities.c.secretAccesKeyFile",
            "identities.e.accessKeyIdFile",
            "identities.e.secretAccessKeyFile",
            "log.filter",
            "log.format",
            "outputs[0]",
            "outputs[1].groop",
            "outputs[1].mode",
            "outputs[3]",
            "outputs[4].name",
            "outputs[4].namespaces.all",
            "outputs[4].namespaces.names[0]",
            "outputs[5].selektor",
            "refresh.at",
            "registries[0].host",
            "registries[0].optional",
            "registries[1].host",
            "registries[1].hots",
            "registries[2].region",
            "registries[4].endpoint",
            "registries[4].host",
            "registries[4].identity",
        ],
        "{report}"
    );
    assert!(report.contains("outputs[3]: found what outputs[2] keeps already"), "{report}");
    // A key or variable that is misspelt is why this lacks.
    for report in [
        violations(with_file("registrys: [{host: public.ecr.aws}]\n", &[])),
        violations(with_env(&[("ECR_SIDECAR_REGISTRY", HOST)])),
    ] {
        assert!(report.starts_with("the configuration has 1 problem:"), "{report}");
    }
}

/// By mistake: a mount of the wrong key, a path that was mixed up.
#[test]
fn a_file_that_is_no_configuration_is_not_shown() {
    for text in [
        "CANARY-token",
        "eyJhbGciOiJSUzI1NiJ9.CANARY.CANARY",
        "-----BEGIN RSA PRIVATE KEY-----\nCANARY\n-----END RSA PRIVATE KEY-----\n",
        "[default]\naws_access_key_id = CANARY\naws_secret_access_key = CANARY\n",
        "apiVersion: v1\nkind: Config\nusers: [{name: a, user: {token: CANARY}}]\n",
        "apiVersion: v1\nkind: Secret\nstringData: {password: CANARY}\n",
        "{\"auths\": {\"ghcr.io\": {\"auth\": \"CANARY\"}}}",
        "{\"AccessKeyId\": \"CANARY\", \"SecretAccessKey\": \"CANARY\"}",
        "CANARY0wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY: x",
        "- CANARY",
        "a: \"CANARY",
        "a: CANARY: b",
        "CANARY: 1\nCANARY: 2",
        "registries: [{host: 'https://me:CANARY@registry.example'}]",
        "registries: [{host: 'https://me:CANARY'}]",
        "registries: [{host: public.ecr.aws, endpoint: 'https://me:CANARY@x'}]",
        "registries: [{host: public.ecr.aws, endpoint: 'https://me:CANARY'}]",
        "registries: ['wJalrXUtnFEMI/K7MDENG/bPxRfiCYCANARY0KEY']",
        "log: {filter: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYCANARY0KEY=='}",
        "identities: {a: {assumeRoles: [{roleArn: x, externalId: {CANARY: 1}}]}}",
    ] {
        let report = violations(with_file(text, &[]));
        assert!(!report.contains("CANARY"), "{text}\n{report}");
    }
}

#[test]
fn numbers_are_shown_as_they_are_written() {
    let report = violations(with_file(
        "registries: [12345678901, 0x1F, 1e3, {host: 123456789012}]\nidentities: {a: {expectAccount: 012345678901}}\n\
         outputs: [{type: docker-config, path: /x, mode: 0640}, {type: docker-config, path: no}]\n",
        &[],
    ));
    for shown in [
        "registries[0]: invalid value `12345678901`,",
        "registries[1]: invalid value `0x1F`,",
        "registries[2]: invalid value `1e3`,",
        "registries[3].host: invalid value `123456789012`,",
        "identities.a.expectAccount: invalid value `012345678901`,",
        "outputs[0].mode: invalid value `0640`,",
        "outputs[1].path: invalid value `no`,",
    ] {
        assert!(report.contains(shown), "{shown} is not in:\n{report}");
    }
}

#[test]
fn violations_are_short_lines_and_not_without_end() {
    let many = "registries:\n".to_owned() + &"- {hots: \"a\\n[+] ok\\e[2J\"}\n".repeat(10_000);
    let report = violations(with_file(&many, &[]));
    assert!(report.lines().count() <= 2 * 100 + 1, "{}", report.lines().count());
    let report =
        violations(with_file(&format!("log: {{filter: \"a=b=c\\n[+] {}\"}}", "x ".repeat(100_000)), &[]));
    assert!(report.len() < 1_000 && report.lines().count() == 3, "{report}");
}

#[test]
fn selectors_that_the_api_server_rejects_are_rejected() {
    let report = violations(with_file(
        "registries: [{host: public.ecr.aws}]\noutputs:\n\
         - {type: docker-config-secret, name: a, namespaces: {selector: 'a in b'}}\n\
         - {type: argocd-repositories, namespace: argocd, selector: 'a=b,'}\n",
        &[],
    ));
    assert!(report.contains("outputs[0].namespaces.selector: invalid value `a in b`"), "{report}");
    assert!(report.contains("outputs[1].selector: invalid value `a=b,`"), "{report}");
}

#[test]
fn a_probe_names_a_repository_a_tag_and_an_interval_that_spares_ecr() {
    let registry = |probe: &str| format!("registries: [{{host: {HOST}, probe: {{{probe}}}}}]");
    let probe = |probe: &str| {
        let config = with_file(&registry(probe), &[]).unwrap();
        let probes: Vec<_> = config.probes().cloned().collect();
        let [probe] = &probes[..] else { panic!("{probes:?}") };
        (probe.image.to_string(), probe.every.as_secs())
    };
    assert_eq!(probe("repository: team/app"), (format!("{HOST}/team/app"), 15 * 60));
    assert_eq!(probe("repository: a, tag: v1.0, every: 1m"), (format!("{HOST}/a:v1.0"), 60));
    assert_eq!(probe("repository: ghcr.io/x, every: 24h").1, 86_400);
    let long = "a".repeat(257);
    for (probe, key, expected) in [
        ("every: 5m", "repository", "this key is required"),
        ("repository: Team/App", "repository", "invalid value `Team/App`, expected lower-case letters"),
        ("repository: team/app:1.0", "repository", "expected lower-case letters"),
        ("repository: /team", "repository", "expected lower-case letters"),
        ("repository: a/../b", "repository", "expected lower-case letters"),
        ("repository: 'a b'", "repository", "expected lower-case letters"),
        ("repository: ''", "repository", "expected lower-case letters"),
        (&format!("repository: {long}"), "repository", "expected lower-case letters"),
        (&format!("repository: {HOST}/team/app"), "repository", "expected the repository without the host"),
        ("repository: a, tag: ''", "tag", "expected up to 128 letters"),
        ("repository: a, tag: '-x'", "tag", "expected up to 128 letters"),
        ("repository: a, tag: 'sha256:00'", "tag", "expected up to 128 letters"),
        ("repository: a, every: 59s", "every", "invalid value `59s`, expected a duration from 1m to 24h"),
        ("repository: a, every: 25h", "every", "expected a duration from 1m to 24h"),
        ("repository: a, every: often", "every", "expected a duration from 1m to 24h"),
        ("repository: a, every: 15", "every", "a text: put it in quotes"),
        ("repository: a, evry: 15m", "evry", "did you mean `every`?"),
    ] {
        let report = violations(with_file(&registry(probe), &[]));
        let path = format!("\n  registries[0].probe.{key}: ");
        assert!(report.contains(&path) && report.contains(expected), "{probe}: {report}");
        assert_eq!(report.lines().count(), 2, "{report}");
    }
    assert_eq!(with_env(&[("AWS_REGION", "eu-west-1")]).unwrap().probes().count(), 0);
}

#[test]
fn health_hosts_are_dns_names() {
    let config =
        with_file("registries: [{host: public.ecr.aws}]\nhealth: {hosts: [ECR.svc, pod-1]}", &[]).unwrap();
    assert_eq!(config.health.hosts, ["ecr.svc", "pod-1"]);
    for bad in ["a:9808", "http://a", "", "a..b", "*.svc", "[::1]", "a b", "ä"] {
        let file = format!("registries: [{{host: public.ecr.aws}}]\nhealth: {{hosts: [ok, {bad:?}]}}");
        assert!(violations(with_file(&file, &[])).contains("health.hosts[1]: invalid value "), "{bad}");
    }
}

#[tokio::test]
async fn broken_yaml_and_missing_files_name_the_file() {
    assert!(violations(with_file("a: [", &[])).contains("expected YAML"));
    let flags = Flags([(setting::CONFIG.flag, "/nowhere/c.yaml".to_owned())].into());
    let report = violations(load(&flags, &context(&[])).await);
    assert!(report.contains("/nowhere/c.yaml: found a file that cannot be read: No such file"), "{report}");
}
