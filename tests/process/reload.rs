//! The configuration file changes while the sidecar runs: a valid change is applied, a bad one rejected, and
//! either way what is published stays whole.

mod endpoint;
mod registries;
mod rejections;
mod tokens;

use test_support::{Harness, Running, harness::HOST};

/// A configuration with these registries and this output, and any other line.
fn file(harness: &Harness, hosts: &[&str], more: &str) -> String {
    let hosts: Vec<_> = hosts.iter().map(|host| format!("{{host: {host}}}")).collect();
    let path = harness.file();
    format!(
        "registries: [{}]\noutputs: [{{type: docker-config, path: {}}}]\n{more}\n",
        hosts.join(", "),
        path.display()
    )
}

fn running(harness: &Harness) -> Running {
    let running = harness.run_with_file(&file(harness, &[HOST], ""));
    running.wait_ready();
    running
}

fn wait_reloads(running: &Running, times: u64) {
    running.wait_status(&format!("reload {times}"), |status| status["configuration"]["reloads"] == times);
}
