use std::time::Duration;

use super::*;
use crate::{
    aws::token::Service,
    failure::{Problem, diagnosis::Diagnosis},
    status::{OutputId, ProbeStatus, Served, StatusBoard, Targets},
};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn key(identity: &str) -> TokenKey {
    TokenKey {
        identity: identity.into(),
        service: Service::Ecr,
        region: "eu-west-1".parse().unwrap(),
        endpoint: None,
        fips: None,
        dual_stack: None,
    }
}

/// A token until 1,000 s that serves so many registries, and an output that holds them.
fn status(registries: usize) -> Status {
    let hosts = (0..registries).map(|n| format!("{n:012}.dkr.ecr.eu-west-1.amazonaws.com"));
    let served: Vec<_> = hosts.map(|host| Served { host: host.parse().unwrap(), required: true }).collect();
    let mut output = OutputStatus::new(OutputId::new("docker-config", "/c"));
    output.in_place = served.iter().map(|served| (served.host.clone(), at(1000))).collect();
    (output.reconciled, output.writes) = (true, 1);
    let mut token = TokenStatus::new(key("default"), served, false);
    (token.obtained_at, token.expires_at, token.refreshed) = (Some(at(10)), Some(at(1000)), 1);
    token.durations.add(Duration::from_millis(500));
    let board = StatusBoard::new(at(1));
    board.update(|status| {
        status.tokens.insert(token.key.clone(), token);
        status.outputs.insert(output.id.clone(), output);
    });
    board.read(Clone::clone)
}

fn problem() -> Problem {
    Problem { message: "no".into(), remedy: Diagnosis::PullDenied.into(), class: Class::Denied }
}

fn text(status: &Status, format: Format) -> String {
    render(status, at(100), &ProcessMetrics::default(), format)
}

/// The value of the one sample whose line begins like that.
#[track_caller]
fn value(text: &str, start: &str) -> f64 {
    let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(start)).collect();
    let [line] = lines[..] else { panic!("{} lines with {start} in\n{text}", lines.len()) };
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

const OF_TOKEN: &str = r#"{identity="default",service="ecr",region="eu-west-1""#;

#[tokio::test]
async fn a_counter_a_histogram_and_an_info_are_written_as_each_format_has_them() {
    let status = status(1);
    let prometheus = text(&status, Format::Prometheus);
    let open_metrics = text(&status, Format::OpenMetrics);
    assert!(!prometheus.contains("# EOF") && !prometheus.contains("# UNIT"), "{prometheus}");
    assert!(open_metrics.ends_with("\n# EOF\n"), "{open_metrics}");
    for part in [
        "# TYPE ecr_sidecar_token_refreshes_total counter\n",
        "# TYPE ecr_sidecar_build_info gauge\n",
        "# TYPE ecr_sidecar_token_refresh_duration_seconds histogram\n",
    ] {
        assert!(prometheus.contains(part), "{part}");
    }
    for part in [
        "# TYPE ecr_sidecar_token_refreshes counter\n",
        "# TYPE ecr_sidecar_build info\n",
        "# UNIT ecr_sidecar_token_refresh_duration_seconds seconds\n",
        "# UNIT ecr_sidecar_token_expiry_timestamp_seconds seconds\n",
    ] {
        assert!(open_metrics.contains(part), "{part}");
    }
    // But for what begins with a #, and the last line, they are the same.
    let samples = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    assert_eq!(samples(&prometheus), samples(&open_metrics));
    for (bound, count) in [("0.1", 0.0), ("0.5", 1.0), ("1.0", 1.0), ("15.0", 1.0), ("+Inf", 1.0)] {
        let bucket = format!(r#"ecr_sidecar_token_refresh_duration_seconds_bucket{OF_TOKEN},le="{bound}"}}"#);
        assert_eq!(value(&prometheus, &bucket), count, "{bucket}");
    }
}

#[tokio::test]
async fn every_figure_is_that_of_the_status() {
    let mut status = status(2);
    let token = status.tokens.values_mut().next().unwrap();
    token.failures_in_a_row = 3;
    (0..3).for_each(|_| token.failed.add(Class::Denied));
    status.configuration.rejected = 2;
    status.configuration.last_error = Some("no".into());
    let other = "999999999999.dkr.ecr.eu-west-1.amazonaws.com";
    let probe = |error: bool, checked_at| ProbeStatus {
        checked_at,
        last_error: error.then(problem),
        ..ProbeStatus::default()
    };
    let probes = [
        ("public.ecr.aws", probe(false, Some(at(50)))),
        (other, probe(true, Some(at(60)))),
        ("registry.example", probe(false, None)),
    ];
    status.probes = probes.map(|(host, probe)| (host.parse().unwrap(), probe)).into();
    let text = text(&status, Format::Prometheus);
    assert!(!text.contains("registry.example"), "a probe that has not run yet has no result: {text}");
    for (start, expected) in [
        (r#"ecr_sidecar_pull_probe_success{registry="public.ecr.aws"}"#.into(), 1.0),
        (r#"ecr_sidecar_pull_probe_timestamp_seconds{registry="public.ecr.aws"}"#.into(), 50.0),
        (format!(r#"ecr_sidecar_pull_probe_success{{registry="{other}"}}"#), 0.0),
        (format!(r#"ecr_sidecar_pull_probe_timestamp_seconds{{registry="{other}"}}"#), 60.0),
        (format!("ecr_sidecar_token_expiry_timestamp_seconds{OF_TOKEN}}}"), 1000.0),
        (format!("ecr_sidecar_token_last_success_timestamp_seconds{OF_TOKEN}}}"), 10.0),
        (format!("ecr_sidecar_token_consecutive_failures{OF_TOKEN}}}"), 3.0),
        (format!("ecr_sidecar_token_clock_fault{OF_TOKEN}}}"), 0.0),
        (format!("ecr_sidecar_token_registries{OF_TOKEN}}}"), 2.0),
        (format!(r#"ecr_sidecar_token_refreshes_total{OF_TOKEN},result="success"}}"#), 1.0),
        (format!(r#"ecr_sidecar_token_refreshes_total{OF_TOKEN},result="denied"}}"#), 3.0),
        (format!(r#"ecr_sidecar_token_refreshes_total{OF_TOKEN},result="throttled"}}"#), 0.0),
        (r#"ecr_sidecar_output_in_sync{output="docker-config /c"}"#.into(), 1.0),
        (r#"ecr_sidecar_output_expiry_timestamp_seconds{output="docker-config /c"}"#.into(), 1000.0),
        (r#"ecr_sidecar_output_writes_total{output="docker-config /c",result="success"}"#.into(), 1.0),
        (r#"ecr_sidecar_output_writes_total{output="docker-config /c",result="failure"}"#.into(), 0.0),
        (r#"ecr_sidecar_config_reloads_total{result="failure"}"#.into(), 2.0),
        ("ecr_sidecar_config_last_reload_successful ".into(), 0.0),
        ("ecr_sidecar_ready ".into(), 1.0),
        ("process_start_time_seconds ".into(), 1.0),
    ] {
        assert_eq!(value(&text, &start), expected, "{start}");
    }
}

#[tokio::test]
async fn an_output_is_in_sync_while_it_has_all_that_was_obtained() {
    let in_sync = |change: &dyn Fn(&mut TokenStatus, &mut OutputStatus)| {
        let mut status = status(1);
        let token = status.tokens.values_mut().next().unwrap();
        change(token, status.outputs.values_mut().next().unwrap());
        value(&text(&status, Format::Prometheus), "ecr_sidecar_output_in_sync")
    };
    let targets = |in_sync| Targets { total: 2, in_sync, ..Targets::default() };
    assert_eq!(in_sync(&|_, _| {}), 1.0);
    assert_eq!(in_sync(&|token, _| token.expires_at = Some(at(2000))), 0.0, "an older one");
    assert_eq!(in_sync(&|token, _| token.expires_at = Some(at(500))), 1.0, "another sidecar's");
    assert_eq!(in_sync(&|_, output| output.in_place.clear()), 0.0);
    assert_eq!(in_sync(&|_, output| output.reconciled = false), 0.0);
    assert_eq!(in_sync(&|_, output| output.targets = Some(targets(2))), 1.0);
    assert_eq!(in_sync(&|_, output| output.targets = Some(targets(1))), 0.0);
    let without_token = |token: &mut TokenStatus, output: &mut OutputStatus| {
        token.expires_at = None;
        output.in_place.clear();
    };
    assert_eq!(in_sync(&without_token), 1.0, "an output is not to blame for AWS");
}

#[tokio::test]
async fn a_thousand_failing_secrets_are_a_series_a_diagnosis() {
    let mut status = status(1);
    let failures = [(Diagnosis::QuotaExceeded, 999), (Diagnosis::SecretType, 1)].into();
    let targets = Targets { total: 2000, in_sync: 1000, more_failing: 1000, failures, ..Targets::default() };
    status.outputs.values_mut().for_each(|output| output.targets = Some(targets.clone()));
    let text = text(&status, Format::Prometheus);
    let of = r#"ecr_sidecar_output_failing_targets{output="docker-config /c",diagnosis="#;
    assert_eq!(value(&text, &format!(r#"{of}"quota-exceeded"}}"#)), 999.0);
    assert_eq!(text.lines().filter(|line| line.starts_with(of)).count(), 2, "{text}");
}

#[tokio::test]
async fn a_thousand_registries_are_counted_and_some_named() {
    let one = text(&status(1), Format::Prometheus).lines().count();
    let thousand = text(&status(1000), Format::Prometheus);
    assert_eq!(thousand.lines().count(), one + NAMED_REGISTRIES - 1);
    assert_eq!(value(&thousand, "ecr_sidecar_token_registries{"), 1000.0);
}

#[tokio::test]
async fn tokens_of_the_same_region_are_told_apart() {
    let mut status = status(1);
    for change in [
        (|key: &mut TokenKey| key.identity = "other".into()) as fn(&mut TokenKey),
        |key| key.service = Service::EcrPublic,
        |key| key.endpoint = "https://vpce.example".parse().ok(),
        |key| key.fips = Some(true),
        |key| key.dual_stack = Some(true),
    ] {
        let mut key = key("default");
        change(&mut key);
        status.tokens.insert(key.clone(), TokenStatus::new(key, Vec::new(), false));
    }
    let text = text(&status, Format::Prometheus);
    let name = "ecr_sidecar_token_registries{";
    let series: std::collections::BTreeSet<_> =
        text.lines().filter(|line| line.starts_with(name)).map(|line| line.split_once("} ")).collect();
    assert_eq!(series.len(), 6, "{series:?}");
}
