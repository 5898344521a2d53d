//! What the chart says of itself, and what it has a copy of.

use test_support::files::replace;

use super::{chart, file};
use crate::build::{Objects, ROOT, read};

#[test]
fn its_version_and_image_are_those_of_the_program() {
    let about = Objects::parse(&file("Chart.yaml")).0.swap_remove(0);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(about["version"], version);
    assert_eq!(about["appVersion"], version);
    let images = about["annotations"]["artifacthub.io/images"].as_str().unwrap();
    let images = Objects::parse(images).0.swap_remove(0);
    assert_eq!(images[0]["image"], format!("ghcr.io/ecr-sidecar/ecr-sidecar:{version}"));
}

/// Helm packages what is in the folder of the chart only.
#[test]
fn its_rules_are_those_of_monitoring() {
    const COPY: &str = "files/prometheus-rule.yaml";
    let rules = read("patches/monitoring/prometheus-rule.yaml");
    if std::env::var_os("UPDATE").is_some() {
        replace(&chart().join(COPY), &rules);
    }
    assert!(file(COPY) == rules, "{ROOT}: {COPY} is stale: UPDATE=1 cargo test --test patches chart");
}
