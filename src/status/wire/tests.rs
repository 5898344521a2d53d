use super::*;
use crate::{
    aws::token::{ClockFault, Service, TokenKey},
    failure::{
        Class,
        diagnosis::{Diagnosis, Remedy},
    },
    status::{self as board, OutputId, StatusBoard, TargetStatus},
};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn denied() -> failure::Problem {
    let remedy = Remedy::with(Diagnosis::SourceIncomplete, "AWS_ROLE_ARN");
    failure::Problem { message: "denied".into(), remedy, class: Class::Denied }
}

fn full_board() -> StatusBoard {
    let board = StatusBoard::new(at(0));
    let host: crate::registry::RegistryHost = "registry.example:8443".parse().unwrap();
    let probed = host.clone();
    let key = TokenKey {
        identity: "billing".into(),
        service: Service::EcrPublic,
        region: "eu-west-1".parse().unwrap(),
        endpoint: Some("https://ecr.example".parse().unwrap()),
        fips: Some(true),
        dual_stack: Some(false),
    };
    let served = board::Served { host: host.clone(), required: true };
    let mut token = TokenStatus::new(key.clone(), vec![served], false);
    token.principal =
        Some(Principal { source: "environment".into(), arn: Some("arn:aws:iam::1:user/a".into()) });
    token.obtained_at = Some(at(1));
    token.expires_at = Some(at(2));
    token.next_attempt = Some(at(3));
    token.clock_fault = Some(ClockFault::TooShort);
    token.refreshed = 4;
    token.failed.add(Class::Clock);
    token.failed.add(Class::Denied);
    token.failures_in_a_row = 5;
    token.last_error = Some(denied());
    let id = OutputId::new("docker-config-secret", "apps/ecr");
    let mut output = OutputStatus::new(id.clone());
    output.in_place.insert(host, at(6));
    output.written_at = Some(at(7));
    output.writes = 8;
    output.failed = 9;
    output.warnings = vec![
        failure::Warning::new("a warning".into(), Diagnosis::CredsStore),
        failure::Warning::without_remedy("a note".into()),
    ];
    output.last_error = Some(denied());
    output.targets = Some(board::Targets {
        total: 10,
        in_sync: 7,
        discovered: true,
        failing: vec![TargetStatus { name: "apps/ecr".into(), last_error: denied() }],
        more_failing: 2,
        ..Default::default()
    });
    let probe = ProbeStatus {
        image: "registry.example:8443/app:1.0".into(),
        checked_at: Some(at(10)),
        succeeded_at: Some(at(9)),
        next_attempt: Some(at(11)),
        failures_in_a_row: 12,
        found: Some("manifest: 1.0".into()),
        last_error: Some(denied()),
    };
    board.update(|status| {
        status.probes.insert(probed, probe);
        status.has_been_ready = true;
        status.configuration =
            ConfigurationStatus { reloads: 1, rejected: 2, last_error: Some("invalid".into()) };
        status.tokens.insert(key, token);
        status.outputs.insert(id, output);
    });
    board
}

#[test]
fn a_full_board_round_trips() {
    let status = full_board().read(|status| Status::from(status));
    let json = serde_json::to_string(&status).unwrap();
    let problem = r#"{"message":"denied","diagnosis":"source-incomplete","remedy":"set what is missing, or unset the rest of this source (AWS_ROLE_ARN)","class":"denied"}"#;
    let expected = [
        &format!(r#"{{"version":"{}","#, env!("CARGO_PKG_VERSION")),
        r#""started_at":"1970-01-01T00:00:00Z","has_been_ready":true,"#,
        r#""configuration":{"reloads":1,"rejected":2,"last_error":"invalid"},"#,
        r#""tokens":[{"identity":"billing","service":"ecr-public","region":"eu-west-1","#,
        r#""endpoint":"https://ecr.example","fips":true,"dual_stack":false,"#,
        r#""registries":[{"host":"registry.example:8443","required":true}],"awaits_own_registry":false,"#,
        r#""principal":{"source":"environment","arn":"arn:aws:iam::1:user/a"},"#,
        r#""obtained_at":"1970-01-01T00:00:01Z","expires_at":"1970-01-01T00:00:02Z","#,
        r#""next_attempt":"1970-01-01T00:00:03Z","clock_fault":"too-short","refreshed":4,"failed":2,"#,
        r#""failures_in_a_row":5,"last_error":"#,
        problem,
        "}],",
        r#""outputs":[{"type":"docker-config-secret","target":"apps/ecr","#,
        r#""in_place":{"registry.example:8443":"1970-01-01T00:00:06Z"},"#,
        r#""written_at":"1970-01-01T00:00:07Z","writes":8,"failed":9,"warnings":["a warning","a note"],"#,
        r#""warning_details":[{"message":"a warning","diagnosis":"creds-store","#,
        r#""remedy":"remove `credsStore` from the file or Secret, and from its `base`"},{"message":"a note"}],"#,
        r#""last_error":"#,
        problem,
        r#","targets":{"total":10,"in_sync":7,"discovered":true,"#,
        r#""failing":[{"name":"apps/ecr","last_error":"#,
        problem,
        r#"}],"more_failing":2}}],"#,
        r#""probes":[{"registry":"registry.example:8443","image":"registry.example:8443/app:1.0","#,
        r#""checked_at":"1970-01-01T00:00:10Z","succeeded_at":"1970-01-01T00:00:09Z","#,
        r#""next_attempt":"1970-01-01T00:00:11Z","failures_in_a_row":12,"found":"manifest: 1.0","last_error":"#,
        problem,
        "}]}",
    ];
    assert_eq!(json, expected.concat());
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
}

#[test]
fn an_empty_board_round_trips() {
    let status = StatusBoard::new(at(0)).read(|status| Status::from(status));
    let json = serde_json::to_string(&status).unwrap();
    assert!(!json.contains("probes"), "{json}");
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
}

#[test]
fn another_version_is_understood_and_another_program_is_not() {
    let newer =
        r#"{"version":"9","tokens":[{"identity":"a","new":[1],"expires_at":"never"}],"outputs":[{}],"x":{}}"#;
    let status: Status = serde_json::from_str(newer).unwrap();
    assert_eq!((status.tokens[0].identity.as_str(), status.tokens[0].expires_at), ("a", Moment(None)));
    for other in ["", "<html>", "{}", "[]", "null", r#"{"status":"ok"}"#, r#"{"version":"1","tokens":"#] {
        assert!(serde_json::from_str::<Status>(other).is_err(), "{other}");
    }
}
