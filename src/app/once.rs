//! `ecr-sidecar once`: the engine until everything is written, or until waiting cannot help.

mod decision;

use std::time::Duration;

use self::decision::{Exit, decide};
use super::{AppError, checked_sdk_config, load};
use crate::{
    admin::readiness,
    clock::Clock,
    config::{Context, Flags},
    engine::{Dependencies, Engine},
    status::StatusBoard,
    telemetry,
};

/// One refresh, all outputs written, or [`AppError::NotWritten`] after `timeout`, or earlier when waiting cannot help.
pub(crate) async fn once(flags: &Flags, context: &Context, timeout: Duration) -> Result<(), AppError> {
    let config = load(flags, context).await?;
    telemetry::start(&config.log);
    let sdk = checked_sdk_config(&config, context).await?;
    let clock = Clock::System;
    let status = StatusBoard::new(clock.now());
    let mut engine = Engine::new(Dependencies {
        env: context.env.clone(),
        sdk,
        clock: clock.clone(),
        status: status.clone(),
        watcher: None,
    });
    let mut changes = status.subscribe();
    engine.apply(&config).await;
    let finished = async {
        while !status.read(decide).is_final {
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
    std::mem::forget(engine); // tearing it down would only take time
    let reasons = status.read(|status| readiness::ready(status, clock.now())).text(false);
    let reasons = reasons.trim_end();
    match status.read(decide).exit {
        Exit::NotWritten => return Err(AppError::NotWritten(reasons.to_owned())),
        Exit::PartlyWritten => {
            telemetry::print_error(&format!("ecr-sidecar: some Secrets could not be written:\n{reasons}"));
        }
        Exit::Written => {}
    }
    Ok(())
}
