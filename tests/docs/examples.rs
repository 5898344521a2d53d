//! What the pages show of YAML: configuration of ours is accepted, the rest is Kubernetes'.

use serde_json::Value;
use test_support::{files::replace, harness::HOST, markdown};

use crate::pages;

/// The keys that a configuration of ours has at its top.
const OURS: [&str; 6] = ["identities", "registries", "outputs", "refresh", "health", "log"];

#[test]
fn configuration_that_is_shown_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let mut accepted = 0;
    for page in pages::all() {
        for block in markdown::blocks(&page.text).iter().filter(|block| block.info == "yaml") {
            let place = format!("{}:{}", page.name, block.line);
            let mut value: Value =
                serde_saphyr::from_str(&block.text).unwrap_or_else(|e| panic!("{place}: {e}"));
            // The chart's values, of which the rest is held by its schema.
            if value["config"].is_object() {
                value = value["config"].take();
            }
            let keys: Vec<_> = value.as_object().unwrap_or_else(|| panic!("{place}")).keys().collect();
            if value["kind"].is_string() || keys == ["spec"] {
                continue;
            }
            assert!(keys.iter().all(|key| OURS.contains(&key.as_str())), "{place}: whose is this? {keys:?}");
            // It shows but a part: without registries it would take AWS_REGION.
            let mut whole = value.clone();
            if whole["registries"].is_null() {
                whole["registries"] = serde_json::json!([{"host": HOST}]);
            }
            let file = folder.path().join("config.yaml");
            replace(&file, &whole.to_string());
            let done = pages::run(&["config", "--config", file.to_str().unwrap()]);
            assert!(done.status.success(), "{place}: {}", String::from_utf8_lossy(&done.stderr));
            accepted += 1;
        }
    }
    assert!(accepted >= 4, "{accepted}");
}
