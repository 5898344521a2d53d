//! The status as metrics, in the text of Prometheus and of OpenMetrics: a pure function of (status, now, format).
//!
//! Written by hand. A client library keeps a registry of its own, which would have to be updated next to the [`Status`]
//! and could differ from it; the text itself is short ([`text`]), and a real parser reads it in
//! `both_formats_are_what_prometheus_itself_parses` (`tests/metrics/endpoint.rs`).
//!
//! Invariants:
//! * The number of series is bounded by tokens, outputs, pull probes and diagnoses: Secrets and namespaces are counted, not
//!   labelled (`a_thousand_failing_secrets_are_a_series_a_diagnosis`), and of registries at most [`NAMED_REGISTRIES`] are
//!   named (`a_thousand_registries_are_counted_and_some_named`), and each that is probed.
//! * A label takes any text (`labels_are_escaped`).
//! * Nothing that counts ever falls while its token or output is configured (`counters_rise_with_what_they_count`, and
//!   for Secrets that go `our_entry_leaves_with_the_namespace_and_the_secret_stays`).
//!
//! There is no `_created`: it would double the counters, and `process_start_time_seconds` holds for all of them.

mod text;

use std::time::SystemTime;

pub use self::text::Format;
use self::text::{Labels, Page, Sample};
use super::{process::ProcessMetrics, readiness};
use crate::{
    aws::token::TokenKey,
    failure::Class,
    status::{OutputStatus, Status, TokenStatus},
};

/// Registries that are named; beyond them there is their number, and `/status`.
const NAMED_REGISTRIES: usize = 100;

pub fn render(status: &Status, now: SystemTime, process: &ProcessMetrics, format: Format) -> String {
    let mut page = Page::new(format);
    of_tokens(&mut page, status);
    of_outputs(&mut page, status);
    of_probes(&mut page, status);
    of_the_whole(&mut page, status, now);
    of_the_process(&mut page, status, process);
    page.end()
}

fn of_tokens(page: &mut Page, status: &Status) {
    let tokens: Vec<_> = status.tokens.values().map(|token| (labels_of(&token.key), token)).collect();
    let each = |value: &dyn Fn(&TokenStatus) -> Option<f64>| -> Vec<Sample> {
        tokens.iter().filter_map(|(labels, token)| Some((labels.clone(), value(token)?))).collect()
    };
    page.gauge(
        "ecr_sidecar_token_expiry_timestamp_seconds",
        "When the token in hand expires.",
        each(&|token| token.expires_at.map(timestamp)),
    );
    page.gauge(
        "ecr_sidecar_token_last_success_timestamp_seconds",
        "When the token in hand was obtained.",
        each(&|token| token.obtained_at.map(timestamp)),
    );
    page.gauge(
        "ecr_sidecar_token_consecutive_failures",
        "Attempts to obtain a token that failed since the last success.",
        each(&|token| Some(f64::from(token.failures_in_a_row))),
    );
    page.gauge(
        "ecr_sidecar_token_clock_fault",
        "Whether the token's dates and this machine's clock disagree.",
        each(&|token| Some(flag(has_clock_fault(token)))),
    );
    page.gauge(
        "ecr_sidecar_token_registries",
        "Registries that the token serves.",
        each(&|token| Some(token.registries.len() as f64)),
    );
    let registries = tokens.iter().flat_map(|(labels, token)| {
        token.registries.iter().map(|served| {
            labels.with("registry", served.host.as_str()).with("required", &served.required.to_string())
        })
    });
    page.info(
        "ecr_sidecar_token_registry_info",
        "A registry that the token serves; at most a hundred are named.",
        registries.take(NAMED_REGISTRIES),
    );
    let refreshes = tokens.iter().flat_map(|(labels, token)| {
        let failed = Class::ALL.map(|class| (class.as_str(), token.failed.of(class)));
        let results = [("success", token.refreshed)].into_iter().chain(failed);
        results.map(|(result, count)| (labels.with("result", result), count as f64))
    });
    page.counter(
        "ecr_sidecar_token_refreshes_total",
        "Attempts to obtain a token, by success or the class of the failure.",
        refreshes,
    );
    page.histograms(
        "ecr_sidecar_token_refresh_duration_seconds",
        "How long attempts to obtain a token took.",
        tokens.iter().map(|(labels, token)| (labels, &token.durations)),
    );
}

fn of_outputs(page: &mut Page, status: &Status) {
    let outputs: Vec<_> =
        status.outputs.iter().map(|(id, output)| (Labels::of("output", &id.to_string()), output)).collect();
    let in_sync = |output: &OutputStatus| flag(output.is_in_sync(status.tokens.values()));
    page.gauge(
        "ecr_sidecar_output_in_sync",
        "Whether the output has, everywhere, every token that was obtained.",
        outputs.iter().map(|(labels, output)| (labels.clone(), in_sync(output))),
    );
    let first_expiry = |output: &OutputStatus| output.in_place.values().min().copied().map(timestamp);
    page.gauge(
        "ecr_sidecar_output_expiry_timestamp_seconds",
        "When the first of the credentials expires that consumers of the output read now.",
        outputs.iter().filter_map(|(labels, output)| Some((labels.clone(), first_expiry(output)?))),
    );
    let targets = outputs.iter().filter_map(|(labels, output)| Some((labels, output.targets.as_ref()?)));
    let states = targets.clone().flat_map(|(labels, targets)| {
        let out_of_sync = targets.total.saturating_sub(targets.in_sync);
        let states = [("in_sync", targets.in_sync), ("out_of_sync", out_of_sync)];
        states.map(|(state, count)| (labels.with("state", state), count as f64))
    });
    page.gauge(
        "ecr_sidecar_output_targets",
        "Secrets of the output, by whether they are as desired.",
        states,
    );
    let failures = targets.flat_map(|(labels, targets)| {
        let counts = targets.failures.iter();
        counts.map(|(diagnosis, count)| (labels.with("diagnosis", diagnosis.id()), *count as f64))
    });
    page.gauge(
        "ecr_sidecar_output_failing_targets",
        "Secrets of the output that cannot be written, by diagnosis.",
        failures,
    );
    page.counter(
        "ecr_sidecar_output_writes_total",
        "Writes of the output, and reconciliations that failed.",
        outputs.iter().flat_map(|(labels, output)| results(labels, output.writes, output.failed)),
    );
}

/// Of those that have finished once.
fn of_probes(page: &mut Page, status: &Status) {
    let checked = status.probes.iter().filter_map(|(host, probe)| {
        Some((Labels::of("registry", host.as_str()), probe.checked_at?, probe.last_error.is_none()))
    });
    let checked: Vec<_> = checked.collect();
    page.gauge(
        "ecr_sidecar_pull_probe_success",
        "Whether the registry gave the manifest of the last pull probe, or allowed it.",
        checked.iter().map(|(labels, _, succeeded)| (labels.clone(), flag(*succeeded))),
    );
    page.gauge(
        "ecr_sidecar_pull_probe_timestamp_seconds",
        "When the last pull probe finished.",
        checked.iter().map(|(labels, at, _)| (labels.clone(), timestamp(*at))),
    );
}

fn of_the_whole(page: &mut Page, status: &Status, now: SystemTime) {
    let ready = readiness::ready(status, now).is_good();
    let configuration = &status.configuration;
    page.single(
        "ecr_sidecar_ready",
        "Whether every required registry has an unexpired credential in every output.",
        Some(flag(ready)),
    );
    page.single(
        "ecr_sidecar_config_last_reload_successful",
        "Whether the configuration file, as it is now, is the running configuration.",
        Some(flag(configuration.last_error.is_none())),
    );
    page.counter(
        "ecr_sidecar_config_reloads_total",
        "Changes of the configuration file, by whether they were applied.",
        results(&Labels::default(), configuration.reloads, configuration.rejected),
    );
    page.info("ecr_sidecar_build_info", "The program.", [Labels::of("version", status.version)]);
}

fn of_the_process(page: &mut Page, status: &Status, process: &ProcessMetrics) {
    let count = |figure: Option<u64>| figure.map(|figure| figure as f64);
    page.counter(
        "ecr_sidecar_log_lines_dropped_total",
        "Log lines that were dropped, since standard error was not read.",
        [(Labels::default(), process.log_lines_dropped as f64)],
    );
    let cpu = process.cpu.map(|cpu| (Labels::default(), cpu.as_secs_f64()));
    page.counter("process_cpu_seconds_total", "Processor time.", cpu);
    page.single("process_resident_memory_bytes", "Memory in use.", count(process.resident_memory));
    page.single("process_virtual_memory_bytes", "Address space in use.", count(process.virtual_memory));
    page.single("process_open_fds", "Open file descriptors.", count(process.open_fds));
    page.single("process_max_fds", "The limit of open file descriptors.", count(process.max_fds));
    let started = Some(timestamp(status.started_at));
    page.single("process_start_time_seconds", "When the process started.", started);
}

fn results(labels: &Labels, success: u64, failure: u64) -> [Sample; 2] {
    [("success", success), ("failure", failure)]
        .map(|(result, count)| (labels.with("result", result), count as f64))
}

/// By its dates, or by AWS's answer to ours.
fn has_clock_fault(token: &TokenStatus) -> bool {
    token.clock_fault.is_some()
        || token.last_error.as_ref().is_some_and(|problem| problem.class == Class::Clock)
}

fn labels_of(key: &TokenKey) -> Labels {
    let TokenKey { identity, service, region, endpoint, fips, dual_stack } = key;
    let mut labels =
        Labels::of("identity", identity).with("service", service.as_str()).with("region", region.as_str());
    let optional = [
        ("endpoint", endpoint.as_ref().map(ToString::to_string)),
        ("fips", fips.map(|fips| fips.to_string())),
        ("dual_stack", dual_stack.map(|dual_stack| dual_stack.to_string())),
    ];
    for (name, value) in optional {
        labels = value.map(|value| labels.with(name, &value)).unwrap_or(labels);
    }
    labels
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn timestamp(time: SystemTime) -> f64 {
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH);
    since(time).map_or_else(|error| -error.duration().as_secs_f64(), |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests;
