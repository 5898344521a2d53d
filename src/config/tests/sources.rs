use super::*;

#[test]
fn environment_goes_over_file_and_flags_over_both() {
    let file =
        "registries: [{host: public.ecr.aws}]\noutputs: [{type: docker-config, path: /file, mode: '0600'}]\n";
    let variables = [("ECR_SIDECAR_REGISTRIES", HOST), ("ECR_SIDECAR_DOCKER_CONFIG", "/env")];
    let config = with_file(file, &variables).unwrap();
    let OutputConfig::DockerConfig(output) = &config.outputs[0] else { panic!("another output") };
    assert_eq!((output.path.to_str(), output.mode.to_string().as_str()), (Some("/env"), "0600"));
    assert!(effective(file, &variables).contains("path: /env # environment ECR_SIDECAR_DOCKER_CONFIG"));
    assert!(matches!(&config.registries, Registries::Listed(list) if list[0].host.as_str() == HOST));

    let flags = Flags([(setting::REGISTRIES.flag, "public.ecr.aws".to_owned())].into());
    let config = parsed(&flags, &[("ECR_SIDECAR_REGISTRIES", HOST)], None).unwrap();
    assert!(
        matches!(&config.registries, Registries::Listed(list) if list[0].host.as_str() == "public.ecr.aws")
    );
}

/// Names of Services that were seen, or that would meet a variable of ours: each with what Kubernetes sets for it.
#[test]
fn what_kubernetes_sets_for_a_service_is_never_ours() {
    for service in
        ["", "_METRICS", "_CONFIG", "_HEALTH_LISTEN", "_REGISTRIES", "_LOG", "_SERVICE", "_PORT", "_X_PORT_Y"]
    {
        let of_service = |suffix: &str| format!("ECR_SIDECAR{service}{suffix}");
        let variables = [
            (of_service("_SERVICE_HOST"), "10.0.0.1"),
            (of_service("_SERVICE_PORT"), "9808"),
            (of_service("_SERVICE_PORT_HTTP_METRICS"), "9808"),
            (of_service("_PORT"), "tcp://10.0.0.1:9808"),
            (of_service("_PORT_9808_TCP"), "tcp://10.0.0.1:9808"),
            (of_service("_PORT_9808_TCP_PROTO"), "tcp"),
            (of_service("_PORT_9808_TCP_PORT"), "9808"),
            (of_service("_PORT_9808_TCP_ADDR"), "10.0.0.1"),
            (of_service("_PORT_53_UDP"), "udp://[fd00::1]:53"),
            (of_service("_PORT_53_SCTP_ADDR"), "fd00::1"),
        ];
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let config = with_env(&[&variables[..], &[("ECR_SIDECAR_REGISTRIES", HOST)]].concat());
        assert_eq!(config.unwrap_or_else(|violations| panic!("{violations}")).path, None);
        assert_eq!(own_variables(&context(&variables).env).count(), 0, "{service}");
    }
}

/// Each is near a variable of ours or of a Service.
#[test]
fn a_misspelt_variable_is_an_error_with_the_nearest_name() {
    for (name, value, nearest) in [
        ("ECR_SIDECAR_REGISTRY", HOST, "ECR_SIDECAR_REGISTRIES"),
        ("ECR_SIDECAR_CONFIG_FILE", "/x", "ECR_SIDECAR_CONFIG"),
        ("ECR_SIDECAR_HEALTH_PORT", "9808", "ECR_SIDECAR_HEALTH_LISTEN"),
        ("ECR_SIDECAR_HEALTH_LISTEN_PORT", "9808", "ECR_SIDECAR_HEALTH_LISTEN"),
        ("ECR_SIDECAR_LOG_FORMAT_PORT_", "json", "ECR_SIDECAR_LOG_FORMAT"),
        ("ECR_SIDECAR_LOG_PORT_TCP", "json", "ECR_SIDECAR_LOG"),
    ] {
        let report = violations(with_env(&[("ECR_SIDECAR_REGISTRIES", HOST), (name, value)]));
        assert!(report.contains(&format!("{name}: found an unknown variable")), "{report}");
        assert!(report.contains(&format!("did you mean `{nearest}")), "{report}");
    }
}

#[test]
fn white_space_around_variables_and_flags_is_not_theirs_and_empty_is_unset() {
    let flag = |value: &str| Flags([(setting::REGISTRIES.flag, value.to_owned())].into());
    let variables = [
        ("ECR_SIDECAR_DOCKER_CONFIG", " /x\n"),
        ("ECR_SIDECAR_FILE_MODE", "0600\r\n"),
        ("ECR_SIDECAR_HEALTH_LISTEN", "\t127.0.0.1:1 "),
        ("ECR_SIDECAR_LOG_FORMAT", "json\n"),
        ("ECR_SIDECAR_LOG", " debug "),
        ("ECR_SIDECAR_ARGOCD_NAMESPACE", " \n"),
        ("ECR_SIDECAR_REGISTRIES", HOST),
    ];
    let config = parsed(&flag(" public.ecr.aws , \n"), &variables, None).unwrap();
    assert!(
        matches!(&config.registries, Registries::Listed(list) if list[0].host.as_str() == "public.ecr.aws")
    );
    let [OutputConfig::DockerConfig(output)] = &config.outputs[..] else { panic!("{:?}", config.outputs) };
    assert_eq!((output.path.to_str().unwrap(), output.mode.to_string().as_str()), ("/x", "0600"));
    assert_eq!((config.health.listen.port(), config.log.filter.to_string().as_str()), (1, "debug"));
    let config = parsed(&flag(" "), &variables, None).unwrap();
    assert!(matches!(&config.registries, Registries::Listed(list) if list[0].host.as_str() == HOST));
}

#[test]
fn unknown_variables_are_reported_and_those_of_a_service_are_not() {
    let report = violations(with_env(&[
        ("ECR_SIDECAR_REGISTRY", HOST),
        ("ECR_SIDECAR_SERVICE_HOST", "10.0.0.1"),
        ("ECR_SIDECAR_PORT_80_TCP", "x"),
    ]));
    assert!(report.contains("did you mean `ECR_SIDECAR_REGISTRIES`?"), "{report}");
    assert!(!report.contains("SERVICE_HOST:") && !report.contains("PORT_80_TCP:"), "{report}");
}

#[test]
fn a_bad_variable_is_reported_by_its_name() {
    assert!(
        violations(with_env(&[("ECR_SIDECAR_REGISTRIES", "https://x")]))
            .contains("ECR_SIDECAR_REGISTRIES: invalid value `https://x`")
    );
}
