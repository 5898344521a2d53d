//! The paths, their methods, and what `/status` shows.

use jiff::Timestamp;
use test_support::{Harness, harness::HOST, http};

use crate::BINARY;

#[test]
fn every_path_answers_by_its_method_and_form() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    let address = sidecar.health();
    let output = format!("docker-config {}", harness.file().display());
    let ready = format!("[+]registry {HOST} in {output} ok\nok\n");
    let live = format!("[+]refresher ecr eu-west-1 as default ok\n[+]output {output} ok\nok\n");
    for (path, code, body) in [
        ("/livez", 200, "ok\n"),
        ("/healthz", 200, "ok\n"),
        ("/readyz", 200, "ok\n"),
        ("/startupz", 200, "ok\n"),
        ("/livez?verbose", 200, &live),
        ("/healthz?verbose", 200, &live),
        ("/readyz?verbose", 200, &ready),
        ("/readyz?a=b&verbose=true", 200, &ready),
        ("/readyz?silent", 200, "ok\n"),
        ("/", 404, "/livez /readyz /startupz /status /metrics\n"),
        ("/readyz/", 404, "/livez /readyz /startupz /status /metrics\n"),
        ("/../etc/passwd", 404, "/livez /readyz /startupz /status /metrics\n"),
    ] {
        let got = http::request(address, "GET", path);
        assert_eq!((got.code, got.body.as_str()), (code, body), "GET {path}");
        let head = http::request(address, "HEAD", path);
        assert_eq!((head.code, head.body.as_str()), (code, ""), "HEAD {path}");
        let length = format!("content-length: {}", body.len());
        assert!(head.head.contains(&length), "HEAD {path}: {}", head.head);
        assert!(got.head.contains("cache-control: no-store"), "{}", got.head);
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let answer = http::request(address, method, "/readyz");
        assert_eq!(answer.code, 405, "{method}");
        assert!(answer.head.contains("allow: get, head"), "{}", answer.head);
    }
}

#[test]
fn status_shows_who_asked_until_when_and_what_is_in_place() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    let answer = http::request(sidecar.health(), "GET", "/status");
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    let status = sidecar.status();
    let token = &status["tokens"][0];
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&token["identity"], &token["region"]), (&"default".into(), &"eu-west-1".into()));
    assert_eq!(token["registries"][0]["host"], HOST);
    assert_eq!(token["principal"]["source"], "environment");
    assert_eq!((token["refreshed"].as_u64(), token["failed"].as_u64()), (Some(1), Some(0)));
    let output = &status["outputs"][0];
    assert_eq!(output["target"], harness.file().display().to_string());
    assert_eq!(output["in_place"][HOST], token["expires_at"]);
    let at = |value: &serde_json::Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    let (next, end) = (at(&token["next_attempt"]), at(&token["expires_at"]));
    assert!(next < end, "{next} {end}");
    assert!(at(&status["started_at"]) <= at(&token["obtained_at"]), "{status}");
}
