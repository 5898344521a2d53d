//! `argocd-image-updater/`: a registry in the format of Image Updater 1.x, `registry-scanner/pkg/registry/config.go` and
//! `pkg/image/credentials.go` of its repository.

use serde_json::Value;

use crate::build::{Objects, read};

/// What a registry may have. Image Updater rejects a file with any other key.
const KEYS: [&str; 13] = [
    "name",
    "api_url",
    "ping",
    "credentials",
    "credsexpire",
    "tagsortmode",
    "prefix",
    "insecure",
    "ca_file",
    "ca_data",
    "defaultns",
    "limit",
    "default",
];

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn file(name: &str) -> String {
    read(&format!("patches/argocd-image-updater/{name}"))
}

#[test]
fn the_registry_reads_the_pull_secret_of_its_namespace_again_before_a_token_expires() {
    let objects = Objects::parse(&file("config.yaml"));
    let config = objects.get("ConfigMap", "argocd-image-updater-config");
    let by_manifests = yaml(config["data"]["registries.conf"].as_str().unwrap())["registries"].clone();
    let by_chart = yaml(&file("values.yaml"))["config"]["registries"].clone();
    let namespace = config["metadata"]["namespace"].as_str().unwrap();
    for (namespace, registries) in [(namespace, by_manifests), ("argocd", by_chart)] {
        let [registry] = registries.as_array().unwrap().as_slice() else { panic!("{registries}") };
        let unknown = registry.as_object().unwrap().keys().find(|key| !KEYS.contains(&key.as_str()));
        assert_eq!(unknown, None, "{registry}");
        let text = |key: &str| registry[key].as_str().unwrap_or_else(|| panic!("no {key}: {registry}"));
        assert!(!text("name").is_empty());
        assert_eq!(text("api_url"), format!("https://{}", text("prefix")));
        assert_eq!(text("credentials"), format!("pullsecret:{namespace}/ecr-credentials"));
        let minutes: u32 = text("credsexpire").strip_suffix('m').unwrap().parse().unwrap();
        assert!((1..4 * 60).contains(&minutes), "{minutes}");
    }
}
