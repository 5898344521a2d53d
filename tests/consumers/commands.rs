//! Commands of consumers that more than one test runs.

use std::{path::Path, process::Command};

use crate::{CHART, IMAGE, setting::Pull};

pub(crate) fn helm_pull(helm: &Path, pull: &Pull<'_>) -> Command {
    let (prefix, chart, version) = CHART;
    let mut command = pull.command(helm);
    let reference = format!("oci://{}/{prefix}/{chart}", pull.host);
    command.args(["pull", &reference, "--version", version, "-d"]).arg(&pull.folder);
    command
}

pub(crate) fn skopeo_copy(skopeo: &Path, pull: &Pull<'_>) -> Command {
    let mut command = pull.command(skopeo);
    let source = format!("docker://{}", image(pull.host));
    let target = format!("dir:{}", pull.folder.join("image").display());
    command.args(["--insecure-policy", "copy", &source, &target]);
    command
}

pub(crate) fn image(host: &str) -> String {
    format!("{host}/{}:{}", IMAGE.0, IMAGE.1)
}
