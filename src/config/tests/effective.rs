use super::*;

#[test]
fn what_config_prints_is_a_configuration_again() {
    let first = with_file(FULL, &[]).unwrap();
    let yaml = effective(FULL, &[]);
    let again = with_file(&yaml, &[]).unwrap_or_else(|violations| panic!("{violations}\n{yaml}"));
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
