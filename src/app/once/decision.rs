//! When `once` ends and with which exit status, as a pure function of the status: `each_status_has_its_decision`.

use crate::status::{OutputStatus, Status, Targets, TokenStatus};

/// `once` gives up on an output after this many failures.
const OUTPUT_TRIES: u64 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    /// Waiting cannot improve it.
    pub(super) is_final: bool,
    pub(super) exit: Exit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Every token that exists is in every output, and every required one exists.
    Written,
    /// The same, and some Secrets that do not decide the outcome fail.
    PartlyWritten,
    NotWritten,
}

pub(super) fn decide(status: &Status) -> Decision {
    let is_in_outputs = |token: &TokenStatus| status.outputs.values().all(|output| output.holds(token));
    let was_asked_for = |token: &TokenStatus| token.refreshed + token.failed.total() > 0;
    let is_denied = |token: &TokenStatus| {
        let problem = token.last_error.as_ref();
        is_required(token) && problem.is_some_and(|problem| problem.class.needs_intervention())
    };
    let is_written = status.tokens.values().all(|token| match token.refreshed {
        0 => token.failed.total() > 0 && !is_required(token),
        _ => is_in_outputs(token),
    });
    let exit = match is_written {
        false => Exit::NotWritten,
        true if status.outputs.values().any(|output| output.failing_targets() > 0) => Exit::PartlyWritten,
        true => Exit::Written,
    };
    let is_settled = status.outputs.values().all(is_settled);
    let all_asked_for = status.tokens.values().all(was_asked_for);
    let is_denied = || status.tokens.values().any(is_denied) && obtained(status).all(is_in_outputs);
    let is_broken = || status.outputs.values().any(|output| is_broken(output, status));
    let is_final =
        (is_written && is_settled) || (all_asked_for && (is_broken() || (is_settled && is_denied())));
    Decision { is_final, exit }
}

fn is_required(token: &TokenStatus) -> bool {
    token.awaits_own_registry() || token.registries.iter().any(|served| served.required)
}

fn obtained(status: &Status) -> impl Iterator<Item = &TokenStatus> {
    status.tokens.values().filter(|token| token.refreshed > 0)
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
    // Failures are counted over all Secrets: each of those that fail has to have failed often enough itself.
    let targets_are_broken = output.targets.as_ref().is_none_or(|targets| {
        let all_tried = obtained(status).all(|token| has_been_tried(token, targets));
        all_tried && targets.given_up == targets.failing()
    });
    let has_failed = output.failed >= OUTPUT_TRIES && output.last_error.is_some();
    has_failed && targets_are_broken && is_settled(output)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{
        aws::token::{Service, TokenKey},
        failure::{
            Class::{self, Denied, Transient},
            Problem,
            diagnosis::Diagnosis,
        },
        status::{OutputId, Served, StatusBoard},
    };

    const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn problem(class: Class) -> Option<Problem> {
        Some(Problem { message: "no".into(), remedy: Diagnosis::RightMissing.into(), class })
    }

    /// AWS has not answered yet.
    fn awaited() -> TokenStatus {
        let key = TokenKey {
            identity: "default".into(),
            service: Service::Ecr,
            region: "eu-west-1".parse().unwrap(),
            endpoint: None,
            fips: None,
            dual_stack: None,
        };
        TokenStatus::new(key, vec![Served { host: HOST.parse().unwrap(), required: true }], false)
    }

    fn obtained() -> TokenStatus {
        TokenStatus { expires_at: Some(at(1000)), refreshed: 1, ..awaited() }
    }

    /// The last call failed.
    fn failed(class: Class, mut token: TokenStatus) -> TokenStatus {
        token.failed.add(class);
        TokenStatus { last_error: problem(class), ..token }
    }

    fn empty(targets: Option<Targets>) -> OutputStatus {
        let id = OutputId::new("docker-config-secret", "all namespaces/ecr");
        OutputStatus { reconciled: true, targets, ..OutputStatus::new(id) }
    }

    /// The output holds a credential until then.
    fn holds(until: u64, targets: Option<Targets>) -> OutputStatus {
        OutputStatus { in_place: [(HOST.parse().unwrap(), at(until))].into(), ..empty(targets) }
    }

    /// The output has failed so often.
    fn fails(failed: u64, class: Class, output: OutputStatus) -> OutputStatus {
        OutputStatus { failed, last_error: problem(class), ..output }
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

    #[tokio::test]
    async fn each_status_has_its_decision() {
        const ENDS: bool = true;
        const WAITS: bool = false;
        const DISCOVERED: bool = true;
        const NAMED: bool = false;
        use Exit::{NotWritten, PartlyWritten, Written};
        let none = targets(DISCOVERED, 0, 0, 0).map(|targets| Targets { total: 0, ..targets });
        let table = [
            ("written", obtained(), holds(1000, None), ENDS, Written),
            ("an older one is there", obtained(), holds(9, None), WAITS, NotWritten),
            ("nothing yet", awaited(), empty(None), WAITS, NotWritten),
            ("AWS denies", failed(Denied, awaited()), empty(None), ENDS, NotWritten),
            ("AWS is away", failed(Transient, awaited()), empty(None), WAITS, NotWritten),
            ("one failure of a file", obtained(), fails(1, Transient, empty(None)), WAITS, NotWritten),
            ("three failures of a file", obtained(), fails(3, Transient, empty(None)), ENDS, NotWritten),
            (
                "a named Secret fails",
                obtained(),
                fails(3, Denied, empty(targets(NAMED, 3, 1, 1))),
                ENDS,
                NotWritten,
            ),
            (
                "three named Secrets have failed once each",
                obtained(),
                fails(3, Transient, empty(targets(NAMED, 1, 3, 0))),
                WAITS,
                NotWritten,
            ),
            (
                "a named Secret fails, others have not been tried",
                obtained(),
                fails(3, Denied, empty(targets(NAMED, 1, 1, 1))),
                WAITS,
                NotWritten,
            ),
            (
                "a named Secret fails that holds the credential",
                obtained(),
                holds(1000, targets(NAMED, 3, 1, 0)),
                ENDS,
                PartlyWritten,
            ),
            (
                "an output fails before AWS was asked",
                awaited(),
                fails(3, Denied, empty(None)),
                WAITS,
                NotWritten,
            ),
            (
                "AWS denies the next token, and the first one is not written",
                failed(Denied, obtained()),
                empty(None),
                WAITS,
                NotWritten,
            ),
            (
                "AWS denies, and one discovered may still succeed",
                failed(Denied, awaited()),
                holds(1000, targets(DISCOVERED, 3, 1, 0)),
                WAITS,
                NotWritten,
            ),
            (
                "AWS is away, one discovered fails, and others have not been tried",
                failed(Transient, awaited()),
                fails(3, Denied, empty(targets(DISCOVERED, 0, 1, 1))),
                WAITS,
                NotWritten,
            ),
            (
                "all discovered are in sync",
                obtained(),
                holds(1000, targets(DISCOVERED, 4, 0, 0)),
                ENDS,
                Written,
            ),
            (
                "one discovered fails for good",
                obtained(),
                fails(3, Denied, holds(1000, targets(DISCOVERED, 3, 1, 1))),
                ENDS,
                PartlyWritten,
            ),
            (
                "one discovered may still succeed",
                obtained(),
                fails(3, Transient, holds(1000, targets(DISCOVERED, 3, 1, 0))),
                WAITS,
                PartlyWritten,
            ),
            (
                "some discovered have not been tried",
                obtained(),
                holds(1000, targets(DISCOVERED, 2, 1, 1)),
                WAITS,
                PartlyWritten,
            ),
            (
                "all discovered fail for good",
                obtained(),
                fails(12, Denied, empty(targets(DISCOVERED, 0, 4, 4))),
                ENDS,
                NotWritten,
            ),
            ("namespaces cannot be listed", obtained(), fails(3, Denied, empty(none)), ENDS, NotWritten),
        ];
        for (what, token, output, is_final, exit) in table {
            let board = StatusBoard::new(at(0));
            board.update(|status| {
                status.tokens.insert(token.key.clone(), token);
                status.outputs.insert(output.id.clone(), output);
            });
            assert_eq!(board.read(decide), Decision { is_final, exit }, "{what}");
        }
    }
}
