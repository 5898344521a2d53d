//! The docker config.json that the running sidecar keeps: put back, carried along, whole at any time.

mod atomicity;
mod failing;
mod merge;
mod permissions;
mod repair;

use test_support::{
    harness::{DEADLINE, HOST},
    wait_for,
};

const FOREIGN: &str = "Zm9yZWlnbjpzZWNyZXQ="; // foreign:secret

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, DEADLINE, || holds().then_some(()));
}

/// A file that names registries and outputs, for `run_with_file`.
fn yaml(outputs: &[&str]) -> String {
    let outputs: String =
        outputs.iter().map(|output| format!("- {{type: docker-config, {output}}}\n")).collect();
    format!("registries: [{{host: {HOST}}}]\noutputs:\n{outputs}")
}
