//! Where credentials are published: one reconciler per output, each with its own retry state.
//!
//! A reconciler compares desired with actual and writes only a difference. A second event during a write is
//! coalesced, never queued up. That of files is in [`file::reconciler`], that of Kubernetes Secrets in [`secrets`].

pub(crate) mod argocd_names;
mod config;
mod conflict;
pub(crate) mod file;
pub(crate) mod label_selector;
pub(crate) mod published;
pub(crate) mod secret_settings;
pub(crate) mod secrets;
mod warning_log;

pub(crate) use config::OutputConfig;

use std::sync::Arc;

use tokio::sync::{Notify, oneshot, watch};

use self::{
    file::{DockerConfigFile, reconciler::FileReconciler},
    secret_settings::{DockerConfigSecretSettings, ObjectName},
    secrets::{Kind, SecretsReconciler},
};
use crate::{
    clock::Clock,
    credentials::CredentialSet,
    failure::{Class, Diagnose, Problem},
    fs::watch::{FileWatcher, Watched},
    kubernetes::Connection,
    status::{OutputId, StatusBoard},
};

pub(crate) enum Output {
    DockerConfig(Box<DockerConfigFile>),
    Secrets(Kind),
}

pub(crate) struct ReconcilerContext {
    pub id: OutputId,
    pub credentials: watch::Receiver<Arc<CredentialSet>>,
    pub status: StatusBoard,
    pub clock: Clock,
    pub wake: Arc<Notify>,
    /// Whether it reacts to what other processes do: `once` has no time for it.
    pub stays: bool,
}

/// The outputs of the running configuration, for an output that stops because it is no longer one of them: its cleanup
/// may outlast that configuration too.
#[derive(Debug, Clone)]
pub(crate) struct Remaining(watch::Receiver<Arc<[OutputConfig]>>);

impl Remaining {
    pub(crate) fn new(outputs: watch::Receiver<Arc<[OutputConfig]>>) -> Self {
        Self(outputs)
    }

    /// Those that keep docker configs in Secrets of this name.
    fn secrets_named(&self, name: &ObjectName) -> Vec<DockerConfigSecretSettings> {
        let of_name = |output: &OutputConfig| match output {
            OutputConfig::DockerConfigSecret(settings) => {
                Some(settings).filter(|it| it.name == *name).cloned()
            }
            _ => None,
        };
        self.0.borrow().iter().filter_map(of_name).collect()
    }

    async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await // the process ends
        }
    }
}

impl Output {
    pub(crate) fn new(config: &OutputConfig) -> Self {
        match config {
            OutputConfig::DockerConfig(settings) => {
                Self::DockerConfig(Box::new(DockerConfigFile::new(settings.clone())))
            }
            OutputConfig::DockerConfigSecret(settings) => Self::Secrets(Kind::DockerConfig(settings.clone())),
            OutputConfig::ArgocdRepoCreds(settings) => Self::Secrets(Kind::RepoCreds(settings.clone())),
            OutputConfig::ArgocdRepositories(settings) => Self::Secrets(Kind::Repositories(settings.clone())),
        }
    }

    /// Rejects what can never work. Blocks on the file system.
    pub(crate) fn preflight(&self) -> Result<(), Problem> {
        match self {
            Self::DockerConfig(file) => {
                file.check_path().map_err(|error| Problem { class: Class::Denied, ..error.problem() })
            }
            // Rights and Secrets may come later: a sidecar that exits for lack of them would keep its pod from starting.
            Self::Secrets(_) => Ok(()),
        }
    }

    /// Notifies `wake` when files change that call for a reconciliation.
    pub(crate) async fn watch(&self, watcher: &FileWatcher, wake: Arc<Notify>) -> Watched {
        match self {
            Self::DockerConfig(file) => {
                let (kept, inputs) = file.watched();
                watcher.watch_kept(kept, inputs, wake).await
            }
            Self::Secrets(kind) => watcher.watch(kind.watched(), wake).await,
        }
    }

    /// Keeps it as desired until `stop` is dropped (the process ends) or sent to (another configuration is applied); a
    /// write under way is finished first.
    pub(crate) async fn keep(
        self,
        with: ReconcilerContext,
        connection: Connection,
        stop: oneshot::Receiver<Remaining>,
    ) {
        match self {
            Self::DockerConfig(file) => FileReconciler::new(with).run(file, stop).await,
            Self::Secrets(kind) => SecretsReconciler { with, kind, connection }.run(stop).await,
        }
    }
}
