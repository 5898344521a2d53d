//! `ecr-sidecar once`: the engine until everything is written, or until waiting cannot help.

use std::time::Duration;

use super::{AppError, checked_sdk_config, load};
use crate::{
    clock::Clock,
    config::{Flags, Surroundings},
    engine::{Engine, Surface},
    health::verdict,
    status::{OutputStatus, Status, StatusBoard, Targets, TokenStatus},
    telemetry,
};

/// `once` gives up on an output after this many failures.
const OUTPUT_TRIES: u64 = 3;

/// One refresh, all outputs written, or [`AppError::NotWritten`] after `timeout`, or earlier when only a
/// person can help.
pub async fn once(flags: &Flags, surroundings: &Surroundings, timeout: Duration) -> Result<(), AppError> {
    let config = load(flags, surroundings)?;
    telemetry::start(&config.log);
    let sdk = checked_sdk_config(&config, surroundings).await?;
    let clock = Clock::System;
    let status = StatusBoard::new(clock.now());
    let mut engine = Engine::new(Surface {
        env: surroundings.env.clone(),
        sdk,
        clock: clock.clone(),
        status: status.clone(),
        watcher: None,
    });
    let mut changes = status.subscribe();
    engine.apply(&config).await;
    let finished = async {
        while !status.read(is_finished) {
            if changes.changed().await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = finished => {}
        () = tokio::time::sleep(timeout) => {}
        panicked = engine.panicked() => return Err(panicked.into()),
    }
    std::mem::forget(engine); // the process ends: tearing it down would only take time
    if status.read(is_written) {
        return Ok(());
    }
    let reasons = status.read(|status| verdict::ready(status, clock.now())).text(false);
    Err(AppError::NotWritten(reasons.trim_end().to_owned()))
}

/// Every token that exists is in every output, and every required one exists.
fn is_written(status: &Status) -> bool {
    status.tokens.values().all(|token| {
        let required = token.awaits_own_registry || token.registries.iter().any(|served| served.required);
        if token.refreshed > 0 { is_in_outputs(token, status) } else { token.failed.total() > 0 && !required }
    })
}

/// Every output has the token for each of its registries.
fn is_in_outputs(token: &TokenStatus, status: &Status) -> bool {
    status.outputs.values().all(|output| output.holds(token))
}

/// Written, or beyond what waiting can mend.
fn is_finished(status: &Status) -> bool {
    let denied = status.tokens.values().any(|token| {
        let required = token.awaits_own_registry || token.registries.iter().any(|served| served.required);
        required && token.last_error.as_ref().is_some_and(|problem| problem.class.needs_a_person())
    });
    let all_asked = status.tokens.values().all(|token| token.refreshed + token.failed.total() > 0);
    let mut refreshed = status.tokens.values().filter(|token| token.refreshed > 0);
    let all_written = refreshed.all(|token| is_in_outputs(token, status));
    let broken = || status.outputs.values().any(|output| is_broken(output, status));
    is_written(status) || (all_asked && broken()) || (denied && all_asked && all_written)
}

/// It has failed often enough, and each of its Secrets has had its turn with every token.
fn is_broken(output: &OutputStatus, status: &Status) -> bool {
    let has_been_tried = |token: &TokenStatus, targets: &Targets| {
        let Some(expires_at) = token.expires_at else { return true };
        token.registries.iter().all(|served| targets.have_been_tried(&served.host, expires_at))
    };
    let mut refreshed = status.tokens.values().filter(|token| token.refreshed > 0);
    let all_tried =
        output.targets.as_ref().is_none_or(|targets| refreshed.all(|token| has_been_tried(token, targets)));
    output.failed >= OUTPUT_TRIES && output.last_error.is_some() && all_tried
}
