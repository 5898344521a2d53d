//! What happens to a Secret that is worth a line of log.

use super::{
    conflict::{INTERVAL, WINDOW},
    reconcile::Drift,
};
use crate::{
    failure::{Problem, Warning, diagnosis::Diagnosis, log_problem},
    kubernetes::ObjectRef,
    output::warning_log,
    status::OutputId,
};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incident {
    Warning(Warning),
    Written {
        registries: usize,
    },
    Restored(Drift),
    Conflict {
        drift: Drift,
        restores: u64,
    },
    Failed(Problem),
    Recovered,
    Removed,
    NotRemoved(Problem),
    /// It is tried again.
    CleanupFailed(Problem),
}

impl Incident {
    pub(super) fn log(&self, output: &OutputId, secret: &ObjectRef) {
        match self {
            Self::Warning(warning) => warning_log::log(warning, output, Some(secret)),
            Self::Written { registries } => {
                tracing::info!(%output, %secret, registries, "output written");
            }
            Self::Restored(Drift::Gone) => tracing::warn!(%output, %secret, "Secret was deleted; recreated"),
            Self::Restored(Drift::Edited(manager)) => {
                tracing::warn!(%output, %secret, manager, "Secret was modified by field manager {manager}; restored");
            }
            Self::Conflict { drift, restores } => {
                let manager = match drift {
                    Drift::Gone => "unknown",
                    Drift::Edited(manager) => manager,
                };
                tracing::error!(
                    %output, %secret, manager, restores,
                    diagnosis = Diagnosis::SecretConflict.id(), remedy = Diagnosis::SecretConflict.remedy(),
                    "ownership conflict over a Secret; credentials are restored every {} s, anything else every {} s",
                    INTERVAL.as_secs(), WINDOW.as_secs()
                );
            }
            Self::Failed(problem) => {
                log_problem!(warn, problem, { %output, %secret }, "output not written");
            }
            Self::Recovered => tracing::info!(%output, %secret, "output in sync again"),
            Self::Removed => {
                tracing::info!(%output, %secret, "Secret no longer managed; removed our entries");
            }
            Self::CleanupFailed(problem) => {
                log_problem!(
                    warn, problem, { %output, %secret },
                    "Secret no longer managed; our entries are not removed yet"
                );
            }
            Self::NotRemoved(problem) => {
                tracing::warn!(%output, %secret, error = problem.message, "Secret no longer managed; left as it is");
            }
        }
    }
}
