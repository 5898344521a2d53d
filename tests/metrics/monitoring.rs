//! `patches/monitoring/`: what the rules say of time series, and what each query finds in a real scrape.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use test_support::{
    ApiServer, Harness, Signal, clean_command,
    harness::{HOST, configured_by},
    output, program,
};

use crate::{
    BINARY,
    scrapes::{self, OPEN_METRICS, put, read, scrape, succeeded},
};

const DEADLINE: Duration = Duration::from_secs(60);
/// The second of the outputs in [`every_query_finds_something_in_a_real_scrape`].
const SECRET: &str = "docker-config-secret default/of-the-metrics-test";

/// A file of this repository.
fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn rules() -> Value {
    yaml(&file("patches/monitoring/prometheus-rule.yaml"))["spec"].take()
}

fn alerts(rules: &mut Value) -> impl Iterator<Item = &mut Value> {
    let groups = rules["groups"].as_array_mut().unwrap().iter_mut();
    groups.flat_map(|group| group["rules"].as_array_mut().unwrap().iter_mut())
}

/// The scenarios, all of them or those that have something to say of one alert.
fn scenarios(alert: Option<&str>) -> Value {
    let mut scenarios = yaml(include_str!("rules_test.yaml"));
    let is_about = |scenario: &Value, alert: &str| {
        scenario["alert_rule_test"].as_array().unwrap().iter().any(|test| test["alertname"] == alert)
    };
    let tests = scenarios["tests"].as_array_mut().unwrap();
    tests.retain(|scenario| alert.is_none_or(|alert| is_about(scenario, alert)));
    assert!(!tests.is_empty(), "{alert:?}");
    scenarios
}

/// What `promtool` says of the rules, and whether it is content.
fn promtool(arguments: &[&str], rules: &Value, scenarios: &Value) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "rules.yaml", &rules.to_string());
    put(folder.path(), "rules_test.yaml", &scenarios.to_string());
    let mut command = clean_command(program("promtool").unwrap(), folder.path());
    let done = output(command.args(arguments).current_dir(folder.path()), DEADLINE);
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    if !scrapes::can_read() {
        return;
    }
    let unchanged = rules();
    let tried = ["test", "rules", "rules_test.yaml"];
    let (good, said) = promtool(&["check", "rules", "rules.yaml"], &unchanged, &scenarios(None));
    assert!(good, "{said}");
    let (good, said) = promtool(&tried, &unchanged, &scenarios(None));
    assert!(good, "{said}");
    // Of each alert the series distinguish one that never fires, one that always does, and one that does not wait.
    let names: Vec<_> = alerts(&mut rules()).map(|rule| rule["alert"].as_str().unwrap().to_owned()).collect();
    assert!(names.len() >= 9, "{names:?}");
    for name in names {
        let scenarios = scenarios(Some(&name));
        for (key, value) in [("expr", "vector(1) == 0"), ("expr", "vector(1)"), ("for", "0s")] {
            let mut changed = rules();
            let rule = alerts(&mut changed).find(|rule| rule["alert"] == *name).unwrap();
            rule[key] = value.into();
            let (good, said) = promtool(&tried, &changed, &scenarios);
            assert!(!good && said.contains(&name), "{name} with {key}: {value} passes: {said}");
        }
    }
}

#[test]
fn each_alert_leads_to_its_section_of_the_readme() {
    let readme = file("patches/monitoring/README.md");
    let sections: BTreeSet<_> = readme.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let mut rules = rules();
    let mut names = BTreeSet::new();
    for rule in alerts(&mut rules) {
        let name = rule["alert"].as_str().unwrap();
        let url = rule["annotations"]["runbook_url"].as_str().unwrap();
        let (page, anchor) = url.split_once('#').unwrap();
        let repository = env!("CARGO_PKG_REPOSITORY");
        assert_eq!(page, format!("{repository}/blob/main/patches/monitoring/README.md"));
        assert_eq!(anchor, name.to_lowercase());
        names.insert(name);
    }
    assert_eq!(names, sections);
}

#[test]
fn the_operator_knows_every_field() {
    if !scrapes::can_read() {
        return;
    }
    for (name, kind) in [("pod-monitor", "PodMonitor"), ("prometheus-rule", "PrometheusRule")] {
        let text = file(&format!("patches/monitoring/{name}.yaml"));
        let known: Value = read(&["manifest", "--kind", kind], &text);
        assert_eq!(known["metadata"]["name"], "ecr-sidecar");
    }
}

#[test]
fn the_pod_monitor_finds_what_open_health_opens() {
    let monitor = yaml(&file("patches/monitoring/pod-monitor.yaml"));
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    let is_found = |place: &str, labels: &Value, container: &Value, policy: &str| {
        assert_eq!(monitor["spec"]["selector"]["matchLabels"], *labels, "{place}");
        assert_eq!(endpoint["port"], container["ports"][0]["name"], "{place}");
        let policy = yaml(&file(policy));
        let from = &policy["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"];
        let kustomization = yaml(&file("patches/monitoring/kustomization.yaml"));
        assert_eq!(from["kubernetes.io/metadata.name"], kustomization["namespace"], "{place}");
    };
    for (folder, containers) in
        [("flux", "initContainers"), ("argocd", "initContainers"), ("standalone/deployment", "containers")]
    {
        let component = yaml(&file(&format!("patches/{folder}/open-health/kustomization.yaml")));
        let pod = yaml(component["patches"][0]["patch"].as_str().unwrap())["spec"]["template"].take();
        let policy = format!("patches/{folder}/open-health/network-policy.yaml");
        is_found(folder, &pod["metadata"]["labels"], &pod["spec"][containers][0], &policy);
    }
    let helm = |name: &str| yaml(&file(&format!("patches/argocd-helm/{name}.yaml")))["repoServer"].take();
    let labels = &helm("values-open-health")["podLabels"];
    for (values, containers) in [("values", "initContainers"), ("values-plain-container", "extraContainers")]
    {
        is_found(values, labels, &helm(values)[containers][0], "patches/argocd-helm/network-policy.yaml");
    }
}

#[test]
fn kustomize_builds_monitor_rules_and_dashboard() {
    let Some(kubectl) = program("kubectl") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut command = clean_command(kubectl, folder.path());
    command.arg("kustomize").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("patches/monitoring"));
    let built = succeeded(output(&mut command, DEADLINE), "");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&built).unwrap();
    let kinds: BTreeMap<_, _> = objects.iter().map(|it| (it["kind"].as_str().unwrap(), it)).collect();
    assert_eq!(kinds.keys().copied().collect::<Vec<_>>(), ["ConfigMap", "PodMonitor", "PrometheusRule"]);
    assert!(objects.iter().all(|object| object["metadata"]["namespace"] == "monitoring"));
    let dashboard = kinds["ConfigMap"]["data"]["ecr-sidecar.json"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(dashboard).unwrap()["title"], "ecr-sidecar");
}

/// The queries of all panels, as Grafana would send them.
fn panel_queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&file("patches/monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries = targets.map(|target| {
        let query = target["expr"].as_str().unwrap();
        let query = query.replace("$namespace", ".*").replace("$__rate_interval", "5m");
        query.replace("$__range", "1h")
    });
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let labels = variables.filter_map(|variable| {
        let query = variable["query"]["query"].as_str()?;
        let (series, label) = query.strip_prefix("label_values(")?.strip_suffix(')')?.split_once(", ")?;
        Some(format!("{series}{{{label}!=\"\"}}"))
    });
    queries.chain(labels).collect()
}

#[derive(Deserialize)]
struct Found {
    series: u64,
    selectors: BTreeMap<String, u64>,
}

#[test]
fn every_query_finds_something_in_a_real_scrape() {
    if !scrapes::can_read() {
        return;
    }
    let Some(server) = ApiServer::shared() else { return };
    let harness = Harness::new(BINARY);
    let path = harness.put(
        "ecr-sidecar.yaml",
        &format!(
            "registries: [{{host: {HOST}, probe: {{repository: app}}}}]\noutputs:\n- {{type: docker-config, path: {}}}\n\
             - {{type: docker-config-secret, name: of-the-metrics-test, namespaces: {{names: [default]}}}}\n",
            harness.file().display()
        ),
    );
    let sidecar = harness.run(|command| {
        configured_by(command, &path);
        command.env("KUBECONFIG", server.kubeconfig());
        // The registry by its own name.
        command.env("HTTPS_PROXY", harness.emulator.proxy()).env("AWS_CA_BUNDLE", harness.emulator.ca_file());
    });
    sidecar.wait_ready();
    sidecar.wait_status("a pull probe", |status| !status["probes"][0]["succeeded_at"].is_null());
    let first = scrape(&sidecar, OPEN_METRICS);
    sidecar.signal(Signal::HUP);
    sidecar.wait_status("both outputs with another token", |status| {
        let outputs = status["outputs"].as_array().unwrap();
        status["tokens"][0]["refreshed"] == 2
            && outputs.iter().all(|output| output["writes"].as_u64() >= Some(2))
    });
    sidecar.wait_ready();
    let second = scrape(&sidecar, OPEN_METRICS);
    for (state, count) in [("in_sync", 1.0), ("out_of_sync", 0.0)] {
        let labels = [("output", SECRET), ("state", state)];
        assert_eq!(second.value("ecr_sidecar_output_targets", &labels), count, "{state}");
    }

    let mut rules = rules();
    let of_rules: Vec<_> = alerts(&mut rules).map(|rule| rule["expr"].as_str().unwrap().to_owned()).collect();
    let of_panels = panel_queries();
    assert!(of_panels.len() > 10, "{of_panels:?}");
    let now = Timestamp::now().as_second();
    let scrapes = [(now - 60, first), (now, second)]
        .map(|(at, scrape)| json!({"at": at, "contentType": scrape.content_type, "body": scrape.body}));
    let request = json!({
        "target": {"job": "ecr-sidecar", "namespace": "flux-system", "pod": "a", "instance": "a:9808"},
        "scrapes": scrapes,
        "queries": of_rules.iter().chain(&of_panels).collect::<Vec<_>>(),
    });
    let found: BTreeMap<String, Found> = read(&["query"], &request.to_string());
    for query in &of_panels {
        assert!(found[query].series > 0, "{query} finds nothing");
    }
    for query in &of_rules {
        assert_eq!(found[query].series, 0, "{query} fires, and all is well");
        let selectors = &found[query].selectors;
        assert!(
            !selectors.is_empty() && selectors.values().all(|count| *count > 0),
            "{query}: {selectors:?}"
        );
    }
}
