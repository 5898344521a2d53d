//! `ecr-sidecar once`: the engine until everything is written, or until waiting cannot help.
//!
//! When it ends and with which exit status is a pure function of the status: `each_status_has_its_decision`.

use std::time::Duration;

use super::{AppError, checked_sdk_config, load};
use crate::{
    admin::readiness,
    clock::Clock,
    config::{Context, Flags},
    engine::{Dependencies, Engine},
    status::{OutputStatus, Status, StatusBoard, Targets, TokenStatus},
    telemetry,
};

/// `once` gives up on an output after this many failures.
const OUTPUT_TRIES: u64 = 3;

/// One refresh, all outputs written, or [`AppError::NotWritten`] after `timeout`, or earlier when only a
/// person can help.
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
    let reasons = status.read(|status| readiness::ready(status, clock.now())).text(false);
    if !status.read(is_written) {
        return Err(AppError::NotWritten(reasons.trim_end().to_owned()));
    }
    if status.read(|status| status.outputs.values().any(|output| output.failing_targets() > 0)) {
        telemetry::print_error(&format!(
            "ecr-sidecar: some Secrets could not be written:\n{}",
            reasons.trim_end()
        ));
    }
    Ok(())
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

/// Written, or beyond what waiting can fix.
fn is_finished(status: &Status) -> bool {
    let denied = status.tokens.values().any(|token| {
        let required = token.awaits_own_registry || token.registries.iter().any(|served| served.required);
        required && token.last_error.as_ref().is_some_and(|problem| problem.class.needs_intervention())
    });
    let all_asked = status.tokens.values().all(|token| token.refreshed + token.failed.total() > 0);
    let mut refreshed = status.tokens.values().filter(|token| token.refreshed > 0);
    let all_written = refreshed.all(|token| is_in_outputs(token, status));
    let broken = || status.outputs.values().any(|output| is_broken(output, status));
    let settled = status.outputs.values().all(is_settled);
    (is_written(status) && settled)
        || (all_asked && broken())
        || (denied && all_asked && all_written && settled)
}

/// Whether nothing is worth waiting for in its Secrets; where their names are configured, each has to be written.
fn is_settled(output: &OutputStatus) -> bool {
    let discovered = output.targets.as_ref().filter(|targets| targets.discovered);
    discovered.is_none_or(Targets::are_settled)
}

/// It has failed often enough, and each of its Secrets has been tried with every token.
fn is_broken(output: &OutputStatus, status: &Status) -> bool {
    let has_been_tried = |token: &TokenStatus, targets: &Targets| {
        let Some(expires_at) = token.expires_at else { return true };
        token.registries.iter().all(|served| targets.have_been_tried(&served.host, expires_at))
    };
    let mut refreshed = status.tokens.values().filter(|token| token.refreshed > 0);
    let all_tried =
        output.targets.as_ref().is_none_or(|targets| refreshed.all(|token| has_been_tried(token, targets)));
    // Failures are counted over all Secrets: each of those that fail has to have failed often enough itself.
    let given_up = output.targets.as_ref().is_none_or(|targets| targets.given_up == targets.failing());
    let has_failed = output.failed >= OUTPUT_TRIES && output.last_error.is_some();
    has_failed && all_tried && given_up && is_settled(output)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        aws::token::{Service, TokenKey},
        failure::{Class, Problem, diagnosis::Diagnosis},
        status::{OutputId, Served},
    };

    const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn problem(class: Class) -> Problem {
        Problem { message: "no".into(), remedy: Diagnosis::RightMissing.into(), class }
    }

    /// A token that was obtained, and an output that has written it.
    fn written() -> (TokenStatus, OutputStatus) {
        let key = TokenKey {
            identity: "default".into(),
            service: Service::Ecr,
            region: "eu-west-1".parse().unwrap(),
            endpoint: None,
            fips: None,
            dual_stack: None,
        };
        let mut token =
            TokenStatus::new(key, vec![Served { host: HOST.parse().unwrap(), required: true }], false);
        (token.expires_at, token.refreshed) = (Some(at(1000)), 1);
        let mut output = OutputStatus::new(OutputId::new("docker-config-secret", "all namespaces/ecr"));
        output.in_place.insert(HOST.parse().unwrap(), at(1000));
        output.reconciled = true;
        (token, output)
    }

    /// Four Secrets, of which so many are in sync, fail, and are waited for no longer.
    fn targets(discovered: bool, in_sync: usize, failing: usize, given_up: usize) -> Option<Targets> {
        let aimed_at = [(HOST.parse().unwrap(), at(1000))].into();
        Some(Targets {
            total: 4,
            in_sync,
            discovered,
            more_failing: failing,
            given_up,
            aimed_at,
            ..Targets::default()
        })
    }

    type Change = fn(&mut TokenStatus, &mut OutputStatus);

    #[tokio::test]
    async fn each_status_has_its_decision() {
        // What is so, whether `once` ends then, and whether that is a success.
        let table: &[(&str, Change, bool, bool)] = &[
            ("written", |_, _| {}, true, true),
            (
                "an older one is there",
                |_, output| *output.in_place.values_mut().next().unwrap() = at(9),
                false,
                false,
            ),
            (
                "nothing yet",
                |token, output| {
                    (token.refreshed, token.expires_at) = {
                        output.in_place.clear();
                        (0, None)
                    }
                },
                false,
                false,
            ),
            (
                "AWS denies",
                |token, output| {
                    output.in_place.clear();
                    (token.refreshed, token.expires_at, token.last_error) =
                        (0, None, Some(problem(Class::Denied)));
                    token.failed.add(Class::Denied);
                },
                true,
                false,
            ),
            (
                "AWS is away",
                |token, output| {
                    output.in_place.clear();
                    (token.refreshed, token.expires_at, token.last_error) =
                        (0, None, Some(problem(Class::Transient)));
                    token.failed.add(Class::Transient);
                },
                false,
                false,
            ),
            (
                "one failure of a file",
                |_, output| {
                    output.in_place.clear();
                    (output.failed, output.last_error) = (1, Some(problem(Class::Transient)));
                },
                false,
                false,
            ),
            (
                "three failures of a file",
                |_, output| {
                    output.in_place.clear();
                    (output.failed, output.last_error) = (3, Some(problem(Class::Transient)));
                },
                true,
                false,
            ),
            (
                "a named Secret fails",
                |_, output| {
                    output.in_place.clear();
                    output.targets = targets(false, 3, 1, 1);
                    (output.failed, output.last_error) = (3, Some(problem(Class::Denied)));
                },
                true,
                false,
            ),
            (
                "three named Secrets have failed once each",
                |_, output| {
                    output.in_place.clear();
                    output.targets = targets(false, 1, 3, 0);
                    (output.failed, output.last_error) = (3, Some(problem(Class::Transient)));
                },
                false,
                false,
            ),
            (
                "a named Secret fails, others have not been tried",
                |_, output| {
                    output.in_place.clear();
                    output.targets = targets(false, 1, 1, 1);
                    (output.failed, output.last_error) = (3, Some(problem(Class::Denied)));
                },
                false,
                false,
            ),
            (
                "a named Secret fails that holds the credential",
                |_, output| output.targets = targets(false, 3, 1, 0),
                true,
                true,
            ),
            (
                "an output fails before AWS was asked",
                |token, output| {
                    output.in_place.clear();
                    (token.refreshed, token.expires_at) = (0, None);
                    (output.failed, output.last_error) = (3, Some(problem(Class::Denied)));
                },
                false,
                false,
            ),
            (
                "AWS denies the next token, and the first one is not written",
                |token, output| {
                    output.in_place.clear();
                    token.last_error = Some(problem(Class::Denied));
                    token.failed.add(Class::Denied);
                },
                false,
                false,
            ),
            (
                "AWS denies, and one discovered may still succeed",
                |token, output| {
                    (token.refreshed, token.expires_at, token.last_error) =
                        (0, None, Some(problem(Class::Denied)));
                    token.failed.add(Class::Denied);
                    output.targets = targets(true, 3, 1, 0);
                },
                false,
                false,
            ),
            (
                "AWS is away, one discovered fails, and others have not been tried",
                |token, output| {
                    output.in_place.clear();
                    (token.refreshed, token.expires_at) = (0, None);
                    token.failed.add(Class::Transient);
                    output.targets = targets(true, 0, 1, 1);
                    (output.failed, output.last_error) = (3, Some(problem(Class::Denied)));
                },
                false,
                false,
            ),
            ("all discovered are in sync", |_, output| output.targets = targets(true, 4, 0, 0), true, true),
            (
                "one discovered fails for good",
                |_, output| {
                    output.targets = targets(true, 3, 1, 1);
                    (output.failed, output.last_error) = (3, Some(problem(Class::Denied)));
                },
                true,
                true,
            ),
            (
                "one discovered may still succeed",
                |_, output| {
                    output.targets = targets(true, 3, 1, 0);
                    (output.failed, output.last_error) = (3, Some(problem(Class::Transient)));
                },
                false,
                true,
            ),
            (
                "some discovered have not been tried",
                |_, output| output.targets = targets(true, 2, 1, 1),
                false,
                true,
            ),
            (
                "all discovered fail for good",
                |_, output| {
                    output.in_place.clear();
                    output.targets = targets(true, 0, 4, 4);
                    (output.failed, output.last_error) = (12, Some(problem(Class::Denied)));
                },
                true,
                false,
            ),
            (
                "namespaces cannot be listed",
                |_, output| {
                    output.in_place.clear();
                    output.targets = targets(true, 0, 0, 0).map(|targets| Targets { total: 0, ..targets });
                    (output.failed, output.last_error) = (3, Some(problem(Class::Denied)));
                },
                true,
                false,
            ),
        ];
        for &(what, change, finished, written_then) in table {
            let (mut token, mut output) = written();
            change(&mut token, &mut output);
            let board = StatusBoard::new(at(0));
            board.update(|status| {
                status.tokens.insert(token.key.clone(), token);
                status.outputs.insert(output.id.clone(), output);
            });
            assert_eq!((board.read(is_finished), board.read(is_written)), (finished, written_then), "{what}");
        }
    }
}
