//! What `/metrics` says, read by Prometheus's own parser, and that it is what `/status` says.

use std::fs;

use ecr_emulator::{Fault, Service};
use jiff::Timestamp;
use test_support::{
    Harness, Running, Signal,
    harness::{DEADLINE, HOST},
    http, wait_for,
};

use crate::{
    BINARY,
    scrapes::{self, OPEN_METRICS, PROMETHEUS, Scrape, scrape},
};

/// What thousands of scrapes may add to the resident memory, in KiB: a tenth of a byte each.
const GROWTH: u64 = 256;

const TOKEN: &[(&str, &str)] = &[("identity", "default"), ("service", "ecr"), ("region", "eu-west-1")];

fn with<'a>(labels: &[(&'a str, &'a str)], name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    labels.iter().copied().chain([(name, value)]).collect()
}

fn refreshes(scrape: &Scrape, result: &str) -> f64 {
    scrape.value("ecr_sidecar_token_refreshes_total", &with(TOKEN, "result", result))
}

fn reloads(scrape: &Scrape, result: &str) -> f64 {
    scrape.value("ecr_sidecar_config_reloads_total", &[("result", result)])
}

/// Scrapes until it is as wanted.
#[track_caller]
fn wait_scrape(sidecar: &Running, what: &str, wanted: impl Fn(&Scrape) -> bool) -> Scrape {
    wait_for(what, DEADLINE, || Some(scrape(sidecar, OPEN_METRICS)).filter(&wanted))
}

#[test]
fn both_formats_are_what_prometheus_itself_parses() {
    if !scrapes::can_read() {
        return;
    }
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    let by_default = http::request(sidecar.health(), "GET", "/metrics");
    assert!(by_default.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"));
    scrapes::lint(&by_default.body);

    let prometheus = scrape(&sidecar, PROMETHEUS);
    let open_metrics = scrape(&sidecar, OPEN_METRICS);
    assert!(open_metrics.content_type.starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(open_metrics.body.ends_with("\n# EOF\n"), "{}", open_metrics.body);
    let series =
        |scrape: &Scrape| scrape.samples.iter().map(|sample| sample.labels.clone()).collect::<Vec<_>>();
    assert_eq!(series(&prometheus), series(&open_metrics));
    for (name, kind, unit) in [
        ("ecr_sidecar_token_expiry_timestamp_seconds", "gauge", Some("seconds")),
        ("ecr_sidecar_token_last_success_timestamp_seconds", "gauge", Some("seconds")),
        ("ecr_sidecar_token_refreshes", "counter", None),
        ("ecr_sidecar_token_refresh_duration_seconds", "histogram", Some("seconds")),
        ("ecr_sidecar_output_in_sync", "gauge", None),
        ("ecr_sidecar_output_writes", "counter", None),
        ("ecr_sidecar_config_reloads", "counter", None),
        ("ecr_sidecar_build", "info", None),
        ("process_cpu_seconds", "counter", Some("seconds")),
        ("process_resident_memory_bytes", "gauge", Some("bytes")),
        ("process_start_time_seconds", "gauge", Some("seconds")),
    ] {
        assert_eq!(open_metrics.types.get(name).map(String::as_str), Some(kind), "{name}");
        assert_eq!(open_metrics.units.get(name).map(String::as_str), unit, "{name}");
    }

    let head = http::request(sidecar.health(), "HEAD", "/metrics");
    assert_eq!((head.code, head.body.as_str()), (200, ""));
    assert_eq!(http::request(sidecar.health(), "POST", "/metrics").code, 405);
}

#[test]
fn the_figures_are_those_of_status_and_of_the_process() {
    if !scrapes::can_read() {
        return;
    }
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    let (status, scrape) = (sidecar.status(), scrape(&sidecar, OPEN_METRICS));
    let (token, output) = (&status["tokens"][0], &status["outputs"][0]);
    let seconds = |time: &serde_json::Value| time.as_str().unwrap().parse::<Timestamp>().unwrap().as_second();
    let timestamp = |name: &str, labels: &[(&str, &str)]| scrape.value(name, labels).floor() as i64;
    let id = format!("docker-config {}", harness.file().display());
    let of_output = [("output", id.as_str())];
    let expiry = seconds(&token["expires_at"]);
    assert_eq!(timestamp("ecr_sidecar_token_expiry_timestamp_seconds", TOKEN), expiry);
    assert_eq!(timestamp("ecr_sidecar_output_expiry_timestamp_seconds", &of_output), expiry);
    assert_eq!(
        timestamp("ecr_sidecar_token_last_success_timestamp_seconds", TOKEN),
        seconds(&token["obtained_at"])
    );
    assert_eq!(refreshes(&scrape, "success"), token["refreshed"].as_f64().unwrap());
    assert_eq!(
        scrape.value("ecr_sidecar_output_writes_total", &with(&of_output, "result", "success")),
        output["writes"].as_f64().unwrap()
    );
    for (name, labels, value) in [
        ("ecr_sidecar_ready", &[][..], 1.0),
        ("ecr_sidecar_output_in_sync", &of_output, 1.0),
        ("ecr_sidecar_token_clock_fault", TOKEN, 0.0),
        ("ecr_sidecar_token_consecutive_failures", TOKEN, 0.0),
        ("ecr_sidecar_token_registries", TOKEN, 1.0),
        ("ecr_sidecar_token_refresh_duration_seconds_count", TOKEN, 1.0),
        ("ecr_sidecar_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0),
        ("ecr_sidecar_token_registry_info", &with(&with(TOKEN, "registry", HOST), "required", "true"), 1.0),
    ] {
        assert_eq!(scrape.value(name, labels), value, "{name}");
    }
    assert_eq!(timestamp("process_start_time_seconds", &[]), seconds(&status["started_at"]));
    let resident = scrape.value("process_resident_memory_bytes", &[]) / 1024.0;
    let rss = sidecar.rss_kib() as f64;
    assert!((resident - rss).abs() < 1024.0, "{resident} KiB in the scrape, {rss} of the process");
    let open = scrape.value("process_open_fds", &[]);
    assert!((3.0..100.0).contains(&open), "{open}");
}

#[test]
fn counters_rise_with_what_they_count() {
    if !scrapes::can_read() {
        return;
    }
    let harness = Harness::new(BINARY);
    let file = |more: &str| {
        let out = harness.file();
        format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config, path: {}}}]\n{more}\n",
            out.display()
        )
    };
    let sidecar = harness.run_with_file(&file(""));
    sidecar.wait_ready();
    let first = scrape(&sidecar, OPEN_METRICS);
    assert_eq!((refreshes(&first, "success"), refreshes(&first, "denied")), (1.0, 0.0));

    sidecar.signal(Signal::HUP);
    wait_scrape(&sidecar, "a second refresh", |scrape| refreshes(scrape, "success") == 2.0);

    harness.emulator.set_fault(Service::Ecr, Fault::AccessDenied);
    sidecar.signal(Signal::HUP);
    let failed = wait_scrape(&sidecar, "a failure", |scrape| refreshes(scrape, "denied") >= 1.0);
    assert_eq!(refreshes(&failed, "success"), 2.0);
    assert!(failed.value("ecr_sidecar_token_consecutive_failures", TOKEN) >= 1.0);
    assert!(failed.value("ecr_sidecar_token_refresh_duration_seconds_count", TOKEN) >= 3.0);
    assert_eq!(failed.value("ecr_sidecar_ready", &[]), 1.0, "the last good credential stays");
    harness.emulator.clear_faults();

    assert_eq!((reloads(&failed, "success"), reloads(&failed, "failure")), (0.0, 0.0));
    harness.put("ecr-sidecar.yaml", "registrys: 1");
    let refused = wait_scrape(&sidecar, "a refusal", |scrape| reloads(scrape, "failure") == 1.0);
    assert_eq!(refused.value("ecr_sidecar_config_last_reload_successful", &[]), 0.0);
    harness.put("ecr-sidecar.yaml", &file("log: {filter: debug}"));
    let reloaded = wait_scrape(&sidecar, "a reload", |scrape| reloads(scrape, "success") == 1.0);
    assert_eq!(reloaded.value("ecr_sidecar_config_last_reload_successful", &[]), 1.0);
}

#[test]
fn an_output_that_can_not_be_written_is_out_of_sync() {
    if !scrapes::can_read() {
        return;
    }
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    let full = harness.file().with_file_name("full"); // an empty one would be replaced
    fs::create_dir_all(full.join("x")).unwrap();
    // Until the sidecar is the slower one: it puts the file back.
    wait_for("a folder in the place of the file", DEADLINE, || {
        let _ = fs::remove_file(harness.file());
        fs::rename(&full, harness.file()).ok()
    });
    let id = format!("docker-config {}", harness.file().display());
    let of_output = [("output", id.as_str())];
    let out = wait_scrape(&sidecar, "an output out of sync", |scrape| {
        scrape.value("ecr_sidecar_output_writes_total", &with(&of_output, "result", "failure")) >= 1.0
    });
    assert_eq!(out.value("ecr_sidecar_output_in_sync", &of_output), 0.0);
    assert_eq!(out.value("ecr_sidecar_ready", &[]), 0.0);
}

/// As many as Prometheus makes in thirty hours.
#[test]
fn thousands_of_scrapes_cost_no_growth() {
    const MANY: usize = 3600;
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    let address = sidecar.health();
    let scrape = |times: usize| {
        for n in 0..times {
            let accept = [PROMETHEUS, OPEN_METRICS][n % 2];
            assert_eq!(http::get_with(address, "/metrics", &[("accept", accept)]).code, 200);
        }
    };
    scrape(200); // all that it will ever need is in memory
    // What leaks grows every time; what an allocator does on a busy machine does not.
    let grown = [(); 3].map(|()| {
        let before = sidecar.rss_kib();
        scrape(MANY / 3);
        sidecar.rss_kib().saturating_sub(before)
    });
    assert!(
        grown.iter().any(|grown| *grown < GROWTH / 3),
        "KiB more after {} scrapes each: {grown:?}",
        MANY / 3
    );
}
