//! What the chart says of itself, and what it has a copy of.

use std::path::Path;

use test_support::{DockerRegistry, clean_command, files::replace, markdown::blocks_of, output};

use super::{DEADLINE, Helm, chart, file, values};
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

/// Its other blocks are run on a node.
#[test]
fn the_values_of_its_readme_are_those_that_are_tested() {
    let [shown]: [String; 1] = blocks_of("yaml", &file("README.md")).try_into().unwrap();
    assert_eq!(Objects::parse(&shown), Objects::parse(&values("selector")));
}

/// By the commands of the release workflow.
#[test]
fn what_is_pushed_is_what_is_here_without_the_values_of_the_tests() {
    let Some(registry) = DockerRegistry::start() else { return };
    let workflow = read(".github/workflows/release.yaml");
    for command in [
        "helm package charts/ecr-sidecar\n",
        "helm push \"$package\" \"oci://$CHARTS\" 2>&1 | tee pushed",
        "sed -n 's/^Digest: //p' pushed",
    ] {
        assert!(workflow.contains(command), "{command}");
    }
    let charts = format!("oci://{}/charts", registry.addr());
    let version = "--kube-version=1.36.0";
    for helm in Helm::both() {
        let folder = tempfile::tempdir().unwrap();
        let run = |program: &Path, arguments: &[&str]| {
            let mut command = clean_command(program, folder.path());
            let done = output(command.args(arguments).current_dir(folder.path()), DEADLINE);
            let said = String::from_utf8(done.stderr).unwrap();
            assert!(done.status.success(), "{said}");
            (String::from_utf8(done.stdout).unwrap(), said)
        };
        let package = format!("ecr-sidecar-{}.tgz", env!("CARGO_PKG_VERSION"));
        run(&helm.0, &["package", chart().to_str().unwrap()]);
        let (listed, _) = run(Path::new("tar"), &["-tzf", &package]);
        assert!(listed.contains("ecr-sidecar/README.md") && !listed.contains("/ci/"), "{listed}");
        let (printed, said) = run(&helm.0, &["push", &package, &charts, "--plain-http"]);
        let mut lines = printed.lines().chain(said.lines());
        assert!(lines.any(|line| line.starts_with("Digest: sha256:")), "{printed}{said}");

        let pushed = format!("{charts}/ecr-sidecar");
        let template =
            ["template", "ecr-sidecar", &pushed, "--plain-http", "--namespace=ecr-sidecar", version];
        let (rendered, _) = run(&helm.0, &template);
        // Where it was pulled from may come first.
        let (_, rendered) = rendered.split_once("---\n").unwrap();
        assert_eq!(Objects::parse(rendered), helm.template("", &[version]).unwrap());
    }
}
