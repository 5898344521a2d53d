//! Logs the first readiness, and each change of it that lasts.

use std::time::Duration;

use crate::{admin::readiness, clock::Clock, status::StatusBoard};

/// How often readiness is checked when nothing happens: expiry is no event.
const INTERVAL: Duration = Duration::from_secs(10);
/// A loss of readiness that is over within this time is not logged.
const SETTLES: Duration = Duration::from_secs(1);

pub(super) async fn follow(status: StatusBoard, clock: Clock) {
    let mut changes = status.subscribe();
    let mut was_ready = false;
    loop {
        let probe = || status.read(|status| readiness::ready(status, clock.now()));
        let mut now = probe();
        if was_ready && !now.is_good() {
            // A registry that a reload adds is on its way.
            tokio::time::sleep(SETTLES).await;
            now = probe();
        }
        if now.is_good() && !was_ready {
            status.update(|status| status.has_been_ready = true);
            tracing::info!("ready: every required registry has a credential in every output");
        } else if was_ready && !now.is_good() {
            tracing::error!(reasons = now.text(false).trim_end(), "no longer ready");
        }
        was_ready = now.is_good();
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}
