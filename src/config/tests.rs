mod effective;
mod outputs;
mod properties;
mod sources;
mod violations;

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

fn with_env(variables: &[(&str, &str)]) -> Result<Config, Violations> {
    parsed(&Flags::default(), variables, None)
}

fn with_file(text: &str, variables: &[(&str, &str)]) -> Result<Config, Violations> {
    parsed(&Flags::default(), variables, Some(text))
}

fn parsed(flags: &Flags, variables: &[(&str, &str)], text: Option<&str>) -> Result<Config, Violations> {
    loaded(flags, variables, text).map(|(config, _)| config)
}

fn effective(text: &str, variables: &[(&str, &str)]) -> String {
    loaded(&Flags::default(), variables, Some(text)).unwrap().1.to_yaml()
}

fn loaded(
    flags: &Flags,
    variables: &[(&str, &str)],
    text: Option<&str>,
) -> Result<(Config, Effective), Violations> {
    let file = text.map(|text| ConfigFile {
        path: "/etc/ecr-sidecar.yaml".into(),
        text: Zeroizing::new(text.to_owned()),
    });
    resolve::load(flags, &context(variables), file.as_ref(), Purpose::Keep)
}

fn violations(outcome: Result<Config, Violations>) -> String {
    outcome.expect_err("it has violations").to_string()
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
    assert!(violations(with_env(&[])).contains("AWS_REGION"));
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
fn the_kept_schema_is_the_generated_one() {
    let kept: Value = serde_json::from_str(include_str!("../../config.schema.json")).unwrap();
    assert_eq!(kept, schema(), "regenerate it: ecr-sidecar config --schema > config.schema.json");
}

/// A liveness probe that failed with the file would have a working sidecar killed.
#[tokio::test]
async fn a_probe_finds_its_address_in_a_file_that_is_rejected() {
    use std::io::Write;
    let listen = async |text: &str, variables: &[(&str, &str)]| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let flags = Flags([(setting::CONFIG.flag, file.path().display().to_string())].into());
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
            .contains("ECR_SIDECAR_HEALTH_LISTEN: invalid value `x`")
    );
}
