//! Each fault does what its name promises.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ecr_emulator::{Emulator, Fault, Service, Settings};
use serde_json::Value;

use crate::common::{Answer, Ask, ECR, ECR_PUBLIC, Signer};

fn start() -> Emulator {
    Emulator::start(Settings::default()).unwrap()
}

fn token_request(emulator: &Emulator) -> Ask {
    Signer::new("ecr").sign(Ask::token(ECR), &emulator.endpoint())
}

fn ask(emulator: &Emulator) -> std::io::Result<Answer> {
    token_request(emulator).send(&emulator.endpoint())
}

/// The one entry of an answer that a fault has bent.
fn bent(fault: Fault) -> Value {
    let emulator = start();
    emulator.set_fault(Service::Ecr, fault);
    let answer = ask(&emulator).unwrap();
    assert_eq!(answer.status, 200);
    answer.json()["authorizationData"][0].clone()
}

fn decoded(entry: &Value) -> String {
    String::from_utf8(STANDARD.decode(entry["authorizationToken"].as_str().unwrap()).unwrap()).unwrap()
}

fn years_from_now(entry: &Value) -> f64 {
    let seconds = entry["expiresAt"].as_f64().unwrap() - jiff::Timestamp::now().as_second() as f64;
    seconds / (365.0 * 86_400.0)
}

#[test]
fn a_status_comes_alone() {
    let emulator = start();
    emulator.set_fault(Service::Ecr, Fault::Status(503));
    let answer = ask(&emulator).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (503, ""));
    assert_eq!(emulator.calls()[0].status, Some(503));
}

#[test]
fn an_error_comes_in_the_format_of_its_service() {
    let emulator = start();
    let fault =
        Fault::Error { status: 500, code: "ServerException".into(), message: "a <broken> thing".into() };
    for service in [
        Service::Ecr,
        Service::Sts,
        Service::EcrPublic,
        Service::PodIdentity,
        Service::Imds,
        Service::Registry,
    ] {
        emulator.set_fault(service, fault.clone());
    }
    let endpoint = emulator.endpoint();
    let ecr = ask(&emulator).unwrap();
    assert_eq!((ecr.status, ecr.code().as_str()), (500, "ServerException"));
    assert_eq!(ecr.header("x-amzn-errortype"), Some("ServerException"));
    assert_eq!(ecr.json()["message"], "a <broken> thing");
    let sts = Ask::sts("Action=GetCallerIdentity").send(&endpoint).unwrap();
    assert_eq!((sts.status, sts.code().as_str()), (500, "ServerException"));
    assert!(sts.text().contains("<Message>a &lt;broken&gt; thing</Message>"), "{}", sts.text());
    let pod = Ask::new("GET", "/v1/credentials").send(&endpoint).unwrap();
    assert!(pod.text().contains("(ServerException): a <broken> thing"), "{}", pod.text());
    let imds = Ask::new("GET", "/latest/meta-data/placement/region").send(&endpoint).unwrap();
    assert_eq!(imds.status, 500);
    let registry =
        Ask::new("GET", "/v2/").send(&format!("http://{}", emulator.add_registry("eu-west-1"))).unwrap();
    assert_eq!(registry.json()["errors"][0]["code"], "ServerException");
    assert_eq!(emulator.calls().iter().filter(|call| call.status == Some(500)).count(), 5);
}

#[test]
fn throttled_and_denied_are_worded_as_each_service_does() {
    let emulator = start();
    let endpoint = emulator.endpoint();
    let sts = || Ask::sts("Action=GetCallerIdentity").send(&endpoint).unwrap().code();
    emulator.set_fault(Service::Ecr, Fault::Throttled);
    emulator.set_fault(Service::Sts, Fault::Throttled);
    assert_eq!(ask(&emulator).unwrap().code(), "ThrottlingException");
    assert_eq!(sts(), "Throttling");
    emulator.set_fault(Service::Ecr, Fault::AccessDenied);
    emulator.set_fault(Service::Sts, Fault::AccessDenied);
    assert_eq!(ask(&emulator).unwrap().code(), "AccessDeniedException");
    assert_eq!(sts(), "AccessDenied");
}

#[test]
fn hang_reads_the_request_and_never_answers() {
    let emulator = start();
    emulator.set_fault(Service::Ecr, Fault::Hang);
    let mut stream =
        token_request(&emulator).open(emulator.endpoint().trim_start_matches("http://")).unwrap();
    while emulator.count(Service::Ecr) == 0 {
        std::thread::yield_now();
    }
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    assert_eq!(emulator.calls()[0].status, None);
}

#[test]
fn reset_ends_the_connection_with_rst() {
    let emulator = start();
    emulator.set_fault(Service::Ecr, Fault::Reset);
    assert_eq!(ask(&emulator).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(emulator.calls()[0].status, None);
}

#[test]
fn garbage_is_no_http() {
    let emulator = start();
    emulator.set_fault(Service::Ecr, Fault::Garbage);
    assert_eq!(ask(&emulator).unwrap_err().kind(), ErrorKind::InvalidData);
}

#[test]
fn a_slow_body_is_the_true_answer_byte_by_byte() {
    let emulator = start();
    let pause = Duration::from_micros(200);
    emulator.set_fault(Service::Sts, Fault::SlowBody(pause));
    let ask = Signer::new("sts").sign(Ask::sts("Action=GetCallerIdentity"), &emulator.endpoint());
    let began = Instant::now();
    let answer = ask.send(&emulator.endpoint()).unwrap();
    assert!(began.elapsed() >= pause * u32::try_from(answer.body.len()).unwrap());
    assert!(answer.text().contains("user/emulated") && answer.text().ends_with("Response>\n"));
}

#[test]
fn html_is_status_200() {
    let emulator = start();
    emulator.set_fault(Service::Ecr, Fault::Html);
    let answer = ask(&emulator).unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html")));
    assert!(answer.text().contains("<html>"));
}

#[test]
fn huge_is_more_than_ten_megabytes_of_good_json() {
    let emulator = start();
    emulator.set_fault(Service::Ecr, Fault::Huge);
    let answer = ask(&emulator).unwrap();
    assert!(answer.body.len() > 10_000_000);
    assert!(answer.json()["authorizationData"][0]["authorizationToken"].is_string());
}

#[test]
fn an_empty_list_has_no_entry() {
    assert_eq!(bent(Fault::EmptyList), Value::Null);
    let emulator = start();
    emulator.set_fault(Service::EcrPublic, Fault::EmptyList);
    let signer = Signer { region: "us-east-1", ..Signer::new("ecr-public") };
    let answer = signer.send(Ask::token(ECR_PUBLIC), &emulator.endpoint());
    assert_eq!(answer.text(), r#"{"authorizationData":{}}"#);
}

#[test]
fn bent_tokens_are_bent_as_named() {
    assert!(STANDARD.decode(bent(Fault::NotBase64)["authorizationToken"].as_str().unwrap()).is_err());
    assert_eq!(decoded(&bent(Fault::NotAws)), "foo:bar");
    assert_eq!(decoded(&bent(Fault::EmptyPassword)), "AWS:");
    let colons = decoded(&bent(Fault::ColonPassword));
    assert!(colons.starts_with("AWS:") && colons.matches(':').count() > 1, "{colons}");
}

#[test]
fn bent_expiries_are_bent_as_named() {
    assert_eq!(bent(Fault::NoExpiry)["expiresAt"], Value::Null);
    assert!(years_from_now(&bent(Fault::ExpiredOnArrival)) < -4.0);
    assert!(years_from_now(&bent(Fault::FarFuture)) > 99.0);
}

#[test]
fn the_expiry_of_sessions_bends_too() {
    let emulator = start();
    let assume = || {
        let role = "arn:aws:iam::123456789012:role/ecr-pull";
        let ask = Ask::sts(&format!("Action=AssumeRole&RoleArn={role}&RoleSessionName=test"));
        Signer::new("sts").send(ask, &emulator.endpoint()).text()
    };
    emulator.push_fault(Service::Sts, Fault::NoExpiry, 1);
    emulator.push_fault(Service::Sts, Fault::ExpiredOnArrival, 1);
    assert!(!assume().contains("<Expiration>"));
    let expired = assume();
    let time = expired.split("<Expiration>").nth(1).unwrap().split('<').next().unwrap();
    assert!(time.parse::<jiff::Timestamp>().unwrap() < jiff::Timestamp::now(), "{time}");
}

#[test]
fn pushed_faults_end_by_themselves() {
    let emulator = start();
    emulator.push_fault(Service::Ecr, Fault::Throttled, 2);
    let statuses: Vec<_> = (0..3).map(|_| ask(&emulator).unwrap().status).collect();
    assert_eq!(statuses, [400, 400, 200]);
    emulator.set_fault(Service::Ecr, Fault::Status(500));
    assert_eq!(ask(&emulator).unwrap().status, 500);
    emulator.clear_faults();
    assert_eq!(ask(&emulator).unwrap().status, 200);
    assert_eq!(emulator.count(Service::Ecr), 5);
}

#[test]
#[should_panic(expected = "means nothing for Sts")]
fn a_fault_that_means_nothing_is_rejected() {
    start().set_fault(Service::Sts, Fault::EmptyList);
}
