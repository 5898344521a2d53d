//! One prober a registry that is to be probed. `once` has none.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::AbortHandle;

use super::Engine;
use crate::{
    config::Config,
    pull_probe::{ProbeSettings, Prober, Shared},
    registry::RegistryHost,
    status::ProbeStatus,
};

#[derive(Default)]
pub(super) struct Probers {
    running: BTreeMap<RegistryHost, RunningProber>,
    shared: Shared,
}

struct RunningProber {
    settings: ProbeSettings,
    task: AbortHandle,
}

impl Engine {
    /// One whose settings stay keeps its schedule.
    pub(super) fn apply_probes(&mut self, config: &Config) {
        if self.dependencies.watcher.is_none() {
            return;
        }
        let desired: BTreeMap<_, _> =
            config.probes().map(|settings| (settings.image.host.clone(), settings)).collect();
        let stale = self
            .probers
            .running
            .extract_if(.., |host, running| desired.get(host).is_none_or(|it| **it != running.settings));
        let stale: BTreeSet<_> = stale
            .map(|(host, running)| {
                running.task.abort();
                host
            })
            .collect();
        self.probers.shared.retain(|host| desired.contains_key(host));
        self.dependencies.status.update(|status| {
            status.probes.retain(|host, _| !stale.contains(host));
            for (host, settings) in &desired {
                let image = settings.image.to_string();
                status
                    .probes
                    .entry(host.clone())
                    .or_insert_with(|| ProbeStatus { image, ..ProbeStatus::default() });
            }
        });
        for (host, settings) in desired {
            if !self.probers.running.contains_key(&host) {
                self.start_prober(host, settings.clone());
            }
        }
    }

    fn start_prober(&mut self, host: RegistryHost, settings: ProbeSettings) {
        let prober = Prober {
            settings: settings.clone(),
            outputs: self.outputs.subscribe(),
            connection: self.connection.clone(),
            sdk: self.dependencies.sdk.clone(),
            clock: self.dependencies.clock.clone(),
            status: self.dependencies.status.clone(),
            shared: self.probers.shared.clone(),
        };
        let task = self.tasks.spawn(async move { match prober.run().await {} });
        self.probers.running.insert(host, RunningProber { settings, task });
    }
}
