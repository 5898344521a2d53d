//! `charts/ecr-sidecar`, rendered by the real helm 3 and 4.
//!
//! Its containers are among those of `containers.rs`, so what is asked of every container of ours is asked of them, too.

mod fields;
mod metadata;
mod render;
mod rights;
mod schema;
mod takeover;

use std::{fs, path::PathBuf, time::Duration};

use test_support::{clean_command, files::overwrite, output, program};

use crate::build::{Objects, ROOT};

const DEADLINE: Duration = Duration::from_secs(60);

/// Values that the chart has been given, by the names of their files in `ci/`.
pub(crate) const VALUES: [&str; 5] = ["argocd", "cronjob", "monitoring", "names", "selector"];

/// A helm of this machine.
pub(crate) struct Helm(PathBuf);

impl Helm {
    /// Both; empty when one of them is not here.
    pub(crate) fn both() -> Vec<Self> {
        let both: Vec<_> = ["helm3", "helm4"].iter().filter_map(|name| program(name)).collect();
        if both.len() == 2 { both.into_iter().map(Self).collect() } else { Vec::new() }
    }

    /// One of them.
    pub(crate) fn newest() -> Option<Self> {
        program("helm4").map(Self)
    }

    /// What `helm template` renders as the release `ecr-sidecar` in the namespace of that name; the message when it
    /// does not.
    pub(crate) fn template(&self, values: &str, arguments: &[&str]) -> Result<Objects, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("values.yaml");
        overwrite(&file, values);
        let mut command = clean_command(&self.0, folder.path());
        command.args(["template", "ecr-sidecar", "--namespace=ecr-sidecar", "--values"]).arg(file);
        let done = output(command.arg(chart()).args(arguments), DEADLINE);
        if done.status.success() {
            Ok(Objects::parse(&String::from_utf8(done.stdout).unwrap()))
        } else {
            Err(String::from_utf8(done.stderr).unwrap())
        }
    }

    #[track_caller]
    pub(crate) fn rendered(&self, values: &str) -> Objects {
        self.template(values, &[]).unwrap_or_else(|message| panic!("{message}\n{values}"))
    }

    /// `helm lint --strict`: whether it passes, and what it prints.
    pub(crate) fn lint(&self, values: &str) -> (bool, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("values.yaml");
        overwrite(&file, values);
        let mut command = clean_command(&self.0, folder.path());
        let done =
            output(command.args(["lint", "--strict"]).arg(chart()).arg("--values").arg(file), DEADLINE);
        let said = [done.stdout, done.stderr].concat();
        (done.status.success(), String::from_utf8(said).unwrap())
    }
}

fn chart() -> PathBuf {
    PathBuf::from(ROOT).join("charts/ecr-sidecar")
}

/// A file of the chart.
pub(crate) fn file(name: &str) -> String {
    fs::read_to_string(chart().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// One of [`VALUES`].
pub(crate) fn values(name: &str) -> String {
    file(&format!("ci/{name}-values.yaml"))
}

/// What the newest helm renders with each of [`VALUES`]; empty when there is none.
pub(crate) fn all() -> Vec<(&'static str, Objects)> {
    let Some(helm) = Helm::newest() else { return Vec::new() };
    VALUES.iter().map(|name| (*name, helm.rendered(&values(name)))).collect()
}
