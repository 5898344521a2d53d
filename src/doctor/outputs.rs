//! Each docker config.json: could it be written, and would the consumer read it?

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use tokio::time::Instant;

use super::report::{Finding, Step};
use crate::{
    config::Config,
    env::Environment,
    failure::{Diagnose, diagnosis::Diagnosis},
    fs::read::TIME_LIMIT,
    output::{
        OutputConfig,
        file::{DockerConfigFile, DryRun},
    },
    tasks,
};

/// How long all of it may take; the volume of a base has a limit of its own.
pub(super) const LIMIT: Duration = TIME_LIMIT.saturating_add(Duration::from_secs(2));
const DOCKER_CONFIG: &str = "DOCKER_CONFIG";

/// Who reads the file: `UID`, or `UID:GID` and more groups behind commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Consumer {
    uid: u32,
    gids: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a numeric user, and perhaps its groups, such as 999 or 65534:65534,1337")]
pub(crate) struct ConsumerError;

impl FromStr for Consumer {
    type Err = ConsumerError;

    fn from_str(text: &str) -> Result<Self, ConsumerError> {
        let (uid, gids) = text.split_once(':').unwrap_or((text, ""));
        let number = |text: &str| text.parse().map_err(|_| ConsumerError);
        let gids = gids.split(',').filter(|gid| !gid.is_empty()).map(number).collect::<Result<_, _>>()?;
        Ok(Self { uid: number(uid)?, gids })
    }
}

impl Consumer {
    /// Whether the permission bits let it: 4 to read, 1 to pass through a directory.
    fn may(&self, bit: u32, uid: u32, gid: u32, mode: u32) -> bool {
        let class = if self.uid == uid {
            mode >> 6
        } else if self.gids.contains(&gid) {
            mode >> 3
        } else {
            mode
        };
        self.uid == 0 || class & bit != 0
    }
}

/// Checks every docker config.json, all at a time: each may be on a volume that hangs.
pub(super) async fn check(config: &Config, env: &Environment, consumer: Option<&Consumer>) -> Vec<Finding> {
    let mut checks = Vec::new();
    for output in &config.outputs {
        let OutputConfig::DockerConfig(settings) = output else { continue };
        let (file, path) = (DockerConfigFile::new(settings.clone()), settings.path.clone());
        let named = env.get(DOCKER_CONFIG).map(str::to_owned);
        let check = tokio::spawn(async move {
            let base = file.read_base(TIME_LIMIT).await;
            let check = move || {
                let named = of_docker_config(&path, named.as_deref());
                (file.dry_run(base), directories(&path), named)
            };
            tasks::blocking(check).await
        });
        checks.push((output.id().to_string(), check));
    }
    let until = Instant::now() + LIMIT;
    let mut findings = Vec::new();
    for (subject, check) in checks {
        let checked = tokio::time::timeout_at(until, check).await;
        let finding = match checked.map(tasks::joined) {
            Ok(Some((Ok(dry_run), directories, of_docker_config))) => {
                findings.extend(of_file(&subject, &dry_run, &directories, consumer));
                of_docker_config
            }
            Ok(Some((Err(error), ..))) => Step::Output.problem(subject, error.problem()),
            Ok(None) | Err(_) => {
                let what = "the volume does not respond";
                Step::Output.timed_out(subject, what, LIMIT, Diagnosis::VolumeHangs)
            }
        };
        findings.push(finding);
    }
    findings
}

struct Directory {
    path: PathBuf,
    uid: u32,
    gid: u32,
    mode: u32,
}

fn directories(path: &Path) -> Vec<Directory> {
    let of = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.mode());
        Some(Directory { path: path.to_owned(), uid, gid, mode })
    };
    path.ancestors().skip(1).filter_map(of).collect()
}

fn of_file(
    subject: &str,
    dry_run: &DryRun,
    directories: &[Directory],
    consumer: Option<&Consumer>,
) -> Vec<Finding> {
    let DryRun { exists, uid, gid, mode, warnings } = dry_run;
    let is = if *exists { "can be replaced" } else { "can be written" };
    let would_be = format!("{is}, as {uid}:{gid} with mode {mode:04o}");
    let of_mode = match consumer {
        Some(consumer) => {
            let user = consumer.uid;
            let closed = directories.iter().find(|it| !consumer.may(1, it.uid, it.gid, it.mode));
            let obstacle = match closed {
                Some(it) => Some(format!("user {user} may not enter the directory {}", it.path.display())),
                None if !consumer.may(4, *uid, *gid, *mode) => Some(format!("user {user} could not read it")),
                None => None,
            };
            match obstacle {
                Some(obstacle) => Step::Output.fail(
                    subject,
                    format!("{would_be}; {obstacle}"),
                    Diagnosis::ConsumerCannotRead,
                ),
                None => Step::Output.ok(subject, format!("{would_be}; user {user} can read it")),
            }
        }
        None if mode & 0o044 == 0 => {
            let saw = format!(
                "{would_be}; only user {uid} can read it (to check another user: --consumer UID:GID)"
            );
            Step::Output.warn(subject, saw, Diagnosis::ConsumerCannotRead)
        }
        None => {
            let saw = format!("{would_be}; to check another user: --consumer UID:GID");
            Step::Output.ok(subject, saw)
        }
    };
    let warnings = warnings.iter().map(|warning| Step::Output.warning(subject, warning.clone()));
    warnings.chain([of_mode]).collect()
}

/// Whether `DOCKER_CONFIG`, as this process has it, leads to the file.
fn of_docker_config(path: &Path, named: Option<&str>) -> Finding {
    let directory = path.parent().unwrap_or(Path::new("."));
    let is_config_json = path.file_name().is_some_and(|name| name == "config.json");
    match named {
        Some(value) if is_config_json && same(Path::new(value), directory) => {
            Step::Output.ok(DOCKER_CONFIG, format!("is {value}"))
        }
        Some(value) => {
            let saw = format!("is {value} here, and the file is {}", path.display());
            Step::Output.warn(DOCKER_CONFIG, saw, Diagnosis::ConsumerReadsElsewhere)
        }
        None => {
            let saw = format!("is not set here; the consumer needs {}", directory.display());
            Step::Output.ok(DOCKER_CONFIG, saw)
        }
    }
}

fn same(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Outcome;

    fn written(mode: u32) -> DryRun {
        DryRun { exists: false, uid: 65534, gid: 1337, mode, warnings: Vec::new() }
    }

    fn outcome(mode: u32, consumer: Option<&str>) -> Outcome {
        let folder = [Directory { path: "/d".into(), uid: 0, gid: 1337, mode: 0o2750 }];
        let consumer = consumer.map(|text| text.parse().unwrap());
        let findings = of_file("c", &written(mode), &folder, consumer.as_ref());
        findings[0].outcome
    }

    #[test]
    fn a_consumer_reads_by_its_user_its_groups_or_as_anybody() {
        assert_eq!(outcome(0o640, Some("999:1337")), Outcome::Ok);
        assert_eq!(outcome(0o640, Some("999:5,1337")), Outcome::Ok);
        assert_eq!(outcome(0o640, Some("999")), Outcome::Fail);
        assert_eq!(outcome(0o600, Some("999:1337")), Outcome::Fail);
        assert_eq!(outcome(0o644, Some("999:7")), Outcome::Fail, "the directory");
        assert_eq!(outcome(0o600, Some("0")), Outcome::Ok);
        assert_eq!(outcome(0o600, None), Outcome::Warn);
        assert_eq!(outcome(0o640, None), Outcome::Ok);
    }

    #[test]
    fn a_consumer_is_numbers() {
        assert!("999".parse::<Consumer>().is_ok());
        for bad in ["", "argocd", "1:x", ":1"] {
            assert_eq!(bad.parse::<Consumer>(), Err(ConsumerError), "{bad}");
        }
    }
}
