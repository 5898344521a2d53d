use serde_json::Value;

use super::{effective::Effective, *};
use crate::aws::profile_file::Profiles;

const FULL: &str = include_str!("../../tests/data/full.yaml");
const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn context(variables: &[(&str, &str)]) -> Context {
    let env = Environment::from_pairs(variables.iter().copied());
    let sdk = SdkSettings::of(&env, &Profiles::default()).unwrap();
    Context { env, sdk }
}

fn with_env(variables: &[(&str, &str)]) -> Result<Config, Problems> {
    parsed(&Flags::default(), variables, None)
}

fn with_file(text: &str, variables: &[(&str, &str)]) -> Result<Config, Problems> {
    parsed(&Flags::default(), variables, Some(text))
}

fn parsed(flags: &Flags, variables: &[(&str, &str)], text: Option<&str>) -> Result<Config, Problems> {
    loaded(flags, variables, text).map(|(config, _)| config)
}

fn effective(text: &str, variables: &[(&str, &str)]) -> String {
    loaded(&Flags::default(), variables, Some(text)).unwrap().1.to_yaml()
}

fn loaded(
    flags: &Flags,
    variables: &[(&str, &str)],
    text: Option<&str>,
) -> Result<(Config, Effective), Problems> {
    let file = text.map(|text| ConfigFile {
        path: "/etc/ecr-sidecar.yaml".into(),
        text: Zeroizing::new(text.to_owned()),
    });
    resolve::load(flags, &context(variables), file.as_ref(), Purpose::Keep)
}

fn problems(outcome: Result<Config, Problems>) -> String {
    outcome.expect_err("it has problems").to_string()
}

#[test]
fn the_simple_case_needs_no_file() {
    let config = with_env(&[("ECR_SIDECAR_REGISTRIES", &format!("{HOST}, public.ecr.aws"))]).unwrap();
    let keys: Vec<_> = config.tokens().keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["ecr eu-west-1 as default", "ecr-public us-east-1 as default"]);
    let OutputConfig::DockerConfig(output) = &config.outputs[0] else { panic!("another output") };
    assert_eq!(
        (output.path.to_str().unwrap(), output.mode.to_string().as_str()),
        (DEFAULT_DOCKER_CONFIG, "0640")
    );
    assert_eq!(config.health.listen, DEFAULT_LISTEN);
}

#[test]
fn nothing_configured_means_the_own_registry_of_the_region() {
    let config = with_env(&[("AWS_REGION", "eu-west-1")]).unwrap();
    assert!(matches!(config.registries, Registries::Own(key) if key.region.as_str() == "eu-west-1"));
    assert!(problems(with_env(&[])).contains("AWS_REGION"));
}

#[test]
fn the_file_of_the_design_is_understood() {
    let config = with_file(FULL, &[]).unwrap();
    let Registries::Listed(registries) = &config.registries else { panic!("listed") };
    assert_eq!(registries.len(), 4);
    assert!(!registries[1].required);
    assert_eq!(registries[2].key.identity, "billing");
    assert_eq!(
        registries[3].key.endpoint.as_ref().map(EndpointUrl::as_str),
        Some("https://vpce-0abc.api.ecr.eu-west-1.vpce.amazonaws.com")
    );
    let billing = &config.identities["billing"];
    assert_eq!(billing.assume_roles[0].external_id.as_deref(), Some("gitops"));
    assert_eq!(billing.sts_region.as_str(), "eu-west-1");
    assert_eq!(config.health.hosts, ["ecr-sidecar.flux-system.svc"]);
}

#[test]
fn what_config_prints_is_a_configuration_again() {
    let first = with_file(FULL, &[]).unwrap();
    let yaml = effective(FULL, &[]);
    let again = with_file(&yaml, &[]).unwrap_or_else(|problems| panic!("{problems}\n{yaml}"));
    assert_eq!(
        (&first.identities, &first.registries, &first.outputs, &first.health),
        (&again.identities, &again.registries, &again.outputs, &again.health)
    );
    assert!(yaml.contains("identity: billing # file"), "{yaml}");
    assert!(yaml.contains("region: us-east-1 # from the host"), "{yaml}");
}

/// `tests/docs/configuration.rs` holds that `full.yaml` has every key of the schema.
#[test]
fn every_key_of_the_file_is_printed_with_its_value() {
    fn missing(given: &Value, printed: &Value, path: &str) -> Vec<String> {
        let below =
            |key: &str, given: &Value, printed: &Value| missing(given, printed, &format!("{path}/{key}"));
        match given {
            Value::Object(entries) => {
                entries.iter().flat_map(|(key, given)| below(key, given, &printed[key])).collect()
            }
            Value::Array(items) => items
                .iter()
                .enumerate()
                .flat_map(|(index, given)| below(&index.to_string(), given, &printed[index]))
                .collect(),
            leaf if leaf == printed => Vec::new(),
            _ => vec![path.to_owned()],
        }
    }
    let yaml = effective(FULL, &[]);
    let value = |text: &str| yaml::parse(text).unwrap().value;
    assert_eq!(missing(&value(FULL), &value(&yaml), ""), Vec::<String>::new(), "{yaml}");
}

#[test]
fn the_effective_configuration_has_defaults_and_origins() {
    let file = "registries: [{host: Public.ECR.aws}]\noutputs:\n- {type: docker-config-secret, name: a}\n\
                - {type: docker-config-secret, name: b, namespaces: {names: [team-a, team-b]}}\n";
    let variables =
        [("ECR_SIDECAR_LOG", "debug"), ("ECR_SIDECAR_FILE_MODE", "600"), ("AWS_REGION", "eu-west-1")];
    assert_eq!(
        effective(file, &variables),
        "\
# file: /etc/ecr-sidecar.yaml
identities:
  default:
    source: auto # default
    stsRegion: eu-west-1 # from AWS_REGION
registries:
  - host: public.ecr.aws # file
    identity: default # default
    region: us-east-1 # from the host
    optional: false # default
outputs:
  - type: docker-config-secret # file
    name: a # file
    # namespaces: the pod's own
    adopt: false # default
    prune: false # default
  - type: docker-config-secret # file
    name: b # file
    namespaces:
      names: [team-a, team-b] # file
    adopt: false # default
    prune: false # default
  - type: docker-config # default
    path: /var/run/ecr-sidecar/config.json # default
    mode: \"600\" # environment ECR_SIDECAR_FILE_MODE
refresh:
  at: 50% # default
  jitter: 10% # default
health:
  listen: \"127.0.0.1:9808\" # default
  startupGrace: 60s # default
log:
  filter: debug # environment ECR_SIDECAR_LOG
"
    );
    let own = effective("", &[("AWS_REGION", "eu-west-1")]);
    assert!(
        own.contains("\n# registries: the caller's own in eu-west-1 (from AWS_REGION)\noutputs:\n"),
        "{own}"
    );
}

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

    let flags = Flags([(variable::REGISTRIES, "public.ecr.aws".to_owned())].into());
    let config = parsed(&flags, &[("ECR_SIDECAR_REGISTRIES", HOST)], None).unwrap();
    assert!(
        matches!(&config.registries, Registries::Listed(list) if list[0].host.as_str() == "public.ecr.aws")
    );
}

#[test]
fn problems_of_values_are_told_at_once_too() {
    let told = problems(with_file(
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
        assert!(told.contains(&format!("\n  {path}: found ")), "{path} is not in:\n{told}");
    }
}

#[test]
fn problems_of_shape_hide_none_of_values_and_make_none_up() {
    let told = problems(with_file(
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
        told.lines().skip(1).map(|line| line.trim().split_once(": found ").unwrap().0).collect();
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
        "{told}"
    );
    assert!(told.contains("outputs[3]: found what outputs[2] keeps already"), "{told}");
    // A key or variable that is misspelt is why this lacks.
    for told in [
        problems(with_file("registrys: [{host: public.ecr.aws}]\n", &[])),
        problems(with_env(&[("ECR_SIDECAR_REGISTRY", HOST)])),
    ] {
        assert!(told.starts_with("the configuration has 1 problem:"), "{told}");
    }
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
        assert_eq!(config.unwrap_or_else(|problems| panic!("{problems}")).path, None);
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
        let told = problems(with_env(&[("ECR_SIDECAR_REGISTRIES", HOST), (name, value)]));
        assert!(told.contains(&format!("{name}: found an unknown variable")), "{told}");
        assert!(told.contains(&format!("did you mean `{nearest}")), "{told}");
    }
}

#[test]
fn white_space_around_variables_and_flags_is_not_theirs_and_empty_is_unset() {
    let flag = |value: &str| Flags([(variable::REGISTRIES, value.to_owned())].into());
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
        let told = problems(with_file(text, &[]));
        assert!(!told.contains("CANARY"), "{text}\n{told}");
    }
}

#[test]
fn numbers_are_shown_as_they_are_written() {
    let told = problems(with_file(
        "registries: [12345678901, 0x1F, 1e3, {host: 123456789012}]\nidentities: {a: {expectAccount: 012345678901}}\n\
         outputs: [{type: docker-config, path: /x, mode: 0640}, {type: docker-config, path: no}]\n",
        &[],
    ));
    for shown in [
        "registries[0]: found `12345678901`,",
        "registries[1]: found `0x1F`,",
        "registries[2]: found `1e3`,",
        "registries[3].host: found `123456789012`,",
        "identities.a.expectAccount: found `012345678901`,",
        "outputs[0].mode: found `0640`,",
        "outputs[1].path: found `no`,",
    ] {
        assert!(told.contains(shown), "{shown} is not in:\n{told}");
    }
}

#[test]
fn problems_are_short_lines_and_not_without_end() {
    let many = "registries:\n".to_owned() + &"- {hots: \"a\\n[+] ok\\e[2J\"}\n".repeat(10_000);
    let told = problems(with_file(&many, &[]));
    assert!(told.lines().count() <= 2 * 100 + 1, "{}", told.lines().count());
    let told =
        problems(with_file(&format!("log: {{filter: \"a=b=c\\n[+] {}\"}}", "x ".repeat(100_000)), &[]));
    assert!(told.len() < 1_000 && told.lines().count() == 3, "{told}");
}

#[test]
fn selectors_that_the_api_server_rejects_are_rejected() {
    let told = problems(with_file(
        "registries: [{host: public.ecr.aws}]\noutputs:\n\
         - {type: docker-config-secret, name: a, namespaces: {selector: 'a in b'}}\n\
         - {type: argocd-repositories, namespace: argocd, selector: 'a=b,'}\n",
        &[],
    ));
    assert!(told.contains("outputs[0].namespaces.selector: found `a in b`"), "{told}");
    assert!(told.contains("outputs[1].selector: found `a=b,`"), "{told}");
}

/// One output would write its password into what another keeps.
#[test]
fn outputs_that_work_against_each_other_are_rejected() {
    let told = |outputs: &str| {
        let file = format!(
            "registries: [{{host: {HOST}}}]\noutputs:\n- {{type: argocd-repo-creds, namespace: argocd}}\n{outputs}"
        );
        with_file(&file, &[]).err().map(|problems| problems.to_string()).unwrap_or_default()
    };
    let repositories = |namespace: &str, which: &str| {
        told(&format!("- {{type: argocd-repositories, namespace: {namespace}, {which}}}\n"))
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
        let said = repositories("argocd", bad);
        assert!(
            said.contains("outputs[1].") && said.contains("credential templates of outputs[0]"),
            "{bad}: {said}"
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
        told(&format!(
            "- {{type: docker-config-secret, name: a, namespaces: {{names: [{namespace}]}}}}\n\
             - {{type: argocd-repositories, namespace: argocd, names: [a]}}\n"
        ))
    };
    assert!(secret("argocd").contains("outputs[2]: found what outputs[1] keeps already"));
    assert_eq!(secret("flux-system"), "");
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Text with what YAML and the keys of the file are made of.
    fn text() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            Just("registries"),
            Just("outputs"),
            Just("identities"),
            Just("health"),
            Just("log"),
            Just("host"),
            Just("type"),
            Just("docker-config"),
            Just("path"),
            Just("selector"),
            Just("CANARY"),
            Just("&a"),
            Just("*a"),
            Just("!!int"),
            Just("0x1F"),
            Just("1e999"),
            Just("|"),
            Just("- "),
            Just(": "),
            Just("\n  "),
            Just("\n"),
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(", "),
            Just("'"),
            Just("\""),
            Just("#"),
            Just("\t"),
            Just("\u{feff}"),
            Just("\u{202e}"),
            Just("---"),
            Just("~"),
            Just("<<"),
        ];
        prop_oneof![
            proptest::collection::vec(word, 0..40).prop_map(|words| words.concat()),
            "\\PC{0,60}",
            "(CANARY|[a-z]{1,8}): [^\\n]{0,20}\n.{0,20}",
        ]
    }

    proptest! {
        #[test]
        fn no_text_of_a_file_panics_or_breaks_out_of_its_line(text in text()) {
            if let Err(problems) = with_file(&text, &[]) {
                for problem in &problems.0 {
                    let line = problem.to_string();
                    prop_assert!(!line.contains(char::is_control), "{:?}", line);
                    prop_assert!(line.len() < 6_000);
                }
            }
        }

        #[test]
        fn no_variable_of_ours_panics(
            name in "ECR_SIDECAR_(CONFIG|REGISTRIES|DOCKER_CONFIG|FILE_MODE|DOCKER_CONFIG_SECRET|ARGOCD_NAMESPACE|HEALTH_LISTEN|LOG_FORMAT|LOG|[A-Z0-9_]{0,20})",
            value in "\\PC{0,30}|[\\x00-\\x7f]{0,30}|(https?://)?[a-z]{0,5}:CANARY@[a-z.]{0,9}",
        ) {
            if let Err(problems) = with_env(&[("AWS_REGION", "eu-west-1"), (&name, &value)]) {
                let told = problems.to_string();
                prop_assert!(!told.contains("CANARY"), "{}", told);
                prop_assert!(told.lines().all(|line| !line.contains(char::is_control)), "{:?}", told);
            }
        }
    }
}

#[test]
fn unknown_variables_are_told_and_those_of_a_service_are_not() {
    let told = problems(with_env(&[
        ("ECR_SIDECAR_REGISTRY", HOST),
        ("ECR_SIDECAR_SERVICE_HOST", "10.0.0.1"),
        ("ECR_SIDECAR_PORT_80_TCP", "x"),
    ]));
    assert!(told.contains("did you mean `ECR_SIDECAR_REGISTRIES`?"), "{told}");
    assert!(!told.contains("SERVICE_HOST:") && !told.contains("PORT_80_TCP:"), "{told}");
}

#[test]
fn a_bad_variable_is_told_by_its_name() {
    assert!(
        problems(with_env(&[("ECR_SIDECAR_REGISTRIES", "https://x")]))
            .contains("ECR_SIDECAR_REGISTRIES: found `https://x`")
    );
}

#[test]
fn health_hosts_are_dns_names() {
    let config =
        with_file("registries: [{host: public.ecr.aws}]\nhealth: {hosts: [ECR.svc, pod-1]}", &[]).unwrap();
    assert_eq!(config.health.hosts, ["ecr.svc", "pod-1"]);
    for bad in ["a:9808", "http://a", "", "a..b", "*.svc", "[::1]", "a b", "ä"] {
        let file = format!("registries: [{{host: public.ecr.aws}}]\nhealth: {{hosts: [ok, {bad:?}]}}");
        assert!(problems(with_file(&file, &[])).contains("health.hosts[1]: found"), "{bad}");
    }
}

#[tokio::test]
async fn broken_yaml_and_missing_files_name_the_file() {
    assert!(problems(with_file("a: [", &[])).contains("accepted: YAML"));
    let flags = Flags([(variable::CONFIG, "/nowhere/c.yaml".to_owned())].into());
    let told = problems(load(&flags, &context(&[])).await);
    assert!(told.contains("/nowhere/c.yaml: found a file that cannot be read: No such file"), "{told}");
}

#[test]
fn the_kept_schema_is_the_generated_one() {
    let kept: Value = serde_json::from_str(include_str!("../../config.schema.json")).unwrap();
    assert_eq!(kept, schema(), "regenerate it: ecr-sidecar config --schema > config.schema.json");
}

/// A liveness probe that failed with the file would have a working sidecar killed.
#[tokio::test]
async fn a_probe_finds_its_address_in_a_file_that_is_refused() {
    use std::io::Write;
    let listen = async |text: &str, variables: &[(&str, &str)]| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let flags = Flags([(variable::CONFIG, file.path().display().to_string())].into());
        health_listen(&flags, &Environment::from_pairs(variables.iter().copied())).await.unwrap().to_string()
    };
    assert_eq!(listen("registrys: []\nhealth: {listen: \"127.0.0.1:1\"}", &[]).await, "127.0.0.1:1");
    assert_eq!(
        listen("registries: [\nhealth: {listen: '127.0.0.1:2', startupGrace: 5s}", &[]).await,
        "127.0.0.1:2"
    );
    assert_eq!(listen("registries: [\nhealth:\n  listen: \"[::1]:3\" # loopback", &[]).await, "[::1]:3");
    assert_eq!(listen("registries: [", &[]).await, DEFAULT_LISTEN.to_string());
    assert_eq!(
        listen("health: {listen: x}", &[("ECR_SIDECAR_HEALTH_LISTEN", "127.0.0.1:4")]).await,
        "127.0.0.1:4"
    );
    let bad = Environment::from_pairs([("ECR_SIDECAR_HEALTH_LISTEN", "x")]);
    assert!(
        health_listen(&Flags::default(), &bad)
            .await
            .unwrap_err()
            .to_string()
            .contains("ECR_SIDECAR_HEALTH_LISTEN: found `x`")
    );
}
