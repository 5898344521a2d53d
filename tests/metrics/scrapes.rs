//! What Prometheus makes of a scrape: by `promtool`, and by `tests/tools/prometheus`.

use std::{collections::BTreeMap, path::Path, process::Output, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};
use test_support::{Running, clean_command, files::overwrite, http, output, program};

/// What Prometheus sends when it wants the one format or the other.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
    application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
pub(crate) const PROMETHEUS: &str = "text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

const DEADLINE: Duration = Duration::from_secs(60);

/// A scrape as Prometheus understands it.
#[derive(Debug, Deserialize)]
pub(crate) struct Scrape {
    #[serde(default)]
    pub(crate) content_type: String,
    #[serde(default)]
    pub(crate) body: String,
    pub(crate) samples: Vec<Sample>,
    pub(crate) types: BTreeMap<String, String>,
    pub(crate) units: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Sample {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Scrape {
    /// The value of the series with that name, these labels and no others.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().copied().chain([("__name__", name)]);
        let wanted: BTreeMap<_, _> =
            labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let found = self.samples.iter().find(|sample| sample.labels == wanted);
        found.unwrap_or_else(|| panic!("no {wanted:?} in\n{}", self.body)).value
    }
}

/// Whether the programs are here; if not, the test has been skipped already.
pub(crate) fn can_read() -> bool {
    program("scrapes").is_some() && program("promtool").is_some()
}

/// Asks for the metrics in a format; they must parse.
#[track_caller]
pub(crate) fn scrape(sidecar: &Running, accept: &str) -> Scrape {
    let answer = http::get_with(sidecar.health(), "/metrics", &[("accept", accept)]);
    assert_eq!(answer.code, 200);
    let content_type = answer.head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap();
    let parsed: Scrape = read(&["parse", "--content-type", content_type], &answer.body);
    Scrape { content_type: content_type.to_owned(), body: answer.body, ..parsed }
}

/// Runs `scrapes` with an input.
#[track_caller]
pub(crate) fn read<T: DeserializeOwned>(arguments: &[&str], input: &str) -> T {
    let folder = tempfile::tempdir().unwrap();
    let file = put(folder.path(), "input", input);
    let mut command = clean_command(program("scrapes").unwrap(), folder.path());
    let done = output(command.args(arguments).arg("--file").arg(file), DEADLINE);
    serde_json::from_str(&succeeded(done, input)).unwrap()
}

/// Has `promtool` check a scrape in Prometheus's format.
#[track_caller]
pub(crate) fn lint(body: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = put(folder.path(), "input", body);
    let mut shell = clean_command("sh", folder.path());
    shell.args(["-c", "exec \"$0\" check metrics <\"$1\""]).arg(program("promtool").unwrap()).arg(file);
    let done = output(&mut shell, DEADLINE);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(said, "", "{body}");
    succeeded(done, body);
}

#[track_caller]
pub(crate) fn succeeded(done: Output, input: &str) -> String {
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}\n{input}");
    String::from_utf8(done.stdout).unwrap()
}

pub(crate) fn put(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    overwrite(&path, text);
    path
}
