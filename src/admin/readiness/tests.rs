use super::*;
use crate::{
    aws::token::{Service, TokenKey},
    failure::{Class, Problem, diagnosis::Diagnosis},
    status::{Served, StatusBoard, TargetStatus, Targets},
};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// One token until 1,000 s, one registry, and one output that holds its credential.
fn well(required: bool) -> Status {
    let key = TokenKey {
        identity: "default".into(),
        service: Service::Ecr,
        region: "eu-west-1".parse().unwrap(),
        endpoint: None,
        fips: None,
        dual_stack: None,
    };
    let host: RegistryHost = HOST.parse().unwrap();
    let mut token = TokenStatus::new(key.clone(), vec![Served { host: host.clone(), required }], false);
    token.expires_at = Some(at(1000));
    let mut output = OutputStatus::new(OutputId::new("docker-config", "/c"));
    output.in_place.insert(host, at(1000));
    let board = StatusBoard::new(at(0));
    board.update(|status| {
        status.tokens.insert(key, token);
        status.outputs.insert(output.id.clone(), output);
    });
    board.read(Clone::clone)
}

fn with_output(status: &Status, change: impl FnOnce(&mut OutputStatus)) -> Status {
    let mut status = status.clone();
    status.outputs.values_mut().next().map(change);
    status
}

#[tokio::test]
async fn ready_is_true_exactly_while_what_is_in_the_file_is_good() {
    let status = well(true);
    assert!(ready(&status, at(999)).is_good());
    assert!(!ready(&status, at(1000)).is_good());
    // a newer token that could not be written doesn't count, an older one in the file does
    assert!(
        ready(
            &with_output(&status, |output| *output.in_place.values_mut().next().unwrap() = at(500)),
            at(499)
        )
        .is_good()
    );
    assert!(
        !ready(
            &with_output(&status, |output| *output.in_place.values_mut().next().unwrap() = at(500)),
            at(501)
        )
        .is_good()
    );
    assert!(!ready(&with_output(&status, |output| output.in_place.clear()), at(0)).is_good());
}

#[tokio::test]
async fn not_ready_before_there_is_anything_to_check() {
    let mut status = well(true);
    status.outputs.clear();
    assert_eq!(ready(&status, at(0)).text(false), "[-]configuration is being applied\nnot ok\n");
    status.tokens.clear();
    assert!(!ready(&status, at(0)).is_good());
    status.startup_grace = Duration::from_secs(60);
    assert!(!started(&status, at(0)).is_good());
}

#[tokio::test]
async fn a_503_names_the_registry_the_reason_and_the_remedy() {
    let problem = Problem {
        message: "disk full".into(),
        remedy: Diagnosis::VolumeFull.into(),
        class: Class::Transient,
    };
    let status = with_output(&well(true), |output| {
        output.in_place.clear();
        output.last_error = Some(problem);
    });
    let text = ready(&status, at(0)).text(false);
    assert_eq!(
        text,
        format!(
            "[-]registry {HOST} in docker-config /c its credential is not there: disk full ({})\nnot ok\n",
            Diagnosis::VolumeFull.remedy()
        )
    );
}

/// The credential of the output is that of its other Secrets: `everywhere_but_where_it_fails` (`output/secrets`).
#[tokio::test]
async fn a_failing_target_is_reported_and_does_not_count() {
    let failing = |count: usize| {
        let problem = Problem {
            message: "the API server refused: exceeded quota: q (HTTP 403)".into(),
            remedy: Diagnosis::QuotaExceeded.into(),
            class: Class::Denied,
        };
        let named = (0..count.min(20))
            .map(|number| TargetStatus { name: format!("tenant-{number}/ecr"), last_error: problem.clone() });
        with_output(&well(true), |output| {
            output.targets = Some(Targets {
                total: 1000,
                in_sync: 1000 - count,
                discovered: true,
                failing: named.collect(),
                more_failing: count.saturating_sub(20),
                ..Targets::default()
            });
        })
    };
    let result = ready(&failing(1), at(0));
    assert!(result.is_good());
    let text = result.text(false);
    let expected = format!(
        "[-]Secrets of docker-config /c 999 of 1000 in sync, 1 failing\n\
         [-]Secret tenant-0/ecr the API server refused: exceeded quota: q (HTTP 403) ({})\nok\n",
        Diagnosis::QuotaExceeded.remedy()
    );
    assert_eq!(text, expected);
    // However many a tenant makes: a bounded text.
    let text = ready(&failing(999), at(0)).text(true);
    assert_eq!(text.lines().count(), 1 + 1 + 20 + 1 + 1, "{text}");
    assert!(text.contains("[-]979 more Secrets of docker-config /c failing\n"), "{text}");
    assert!(ready(&failing(0), at(0)).text(false) == "ok\n");
    // What counts is the credential: without one in any Secret it is not ready.
    let mut none = failing(1000);
    none.outputs.values_mut().for_each(|output| output.in_place.clear());
    assert!(!ready(&none, at(0)).is_good());
}

#[tokio::test]
async fn an_optional_registry_is_told_and_does_not_count() {
    let status = with_output(&well(false), |output| output.in_place.clear());
    let result = ready(&status, at(0));
    assert!(result.is_good());
    assert_eq!(result.text(false), "ok\n");
    assert!(result.text(true).contains("(optional)"));
}

#[tokio::test]
async fn started_after_the_grace_period_whatever_aws_does() {
    let mut status = with_output(&well(true), |output| output.in_place.clear());
    status.startup_grace = Duration::from_secs(60);
    assert!(!started(&status, at(59)).is_good());
    assert!(started(&status, at(60)).is_good());
    status.has_been_ready = true;
    assert!(started(&status, at(1)).is_good());
}

#[tokio::test(start_paused = true)]
async fn live_until_a_loop_is_stuck() {
    let status = well(true);
    tokio::time::advance(HEARTBEAT_DEADLINE).await;
    assert!(live(&status, Instant::now()).is_good());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!live(&status, Instant::now()).is_good());
}
