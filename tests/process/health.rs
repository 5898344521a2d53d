//! What the health endpoint answers, to whom, and that no client can keep it from answering.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Output,
    thread,
    time::{Duration, SystemTime},
};

use ecr_emulator::{Fault, Service, Settings};
use jiff::Timestamp;
use test_support::{
    Harness, clean_command,
    files::{auth, wait_auth},
    harness::{DEADLINE, HOST, configured_by},
    http, output, skip, wait_for,
};

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

#[test]
fn a_503_names_the_registry_the_reason_and_the_remedy_and_livez_does_not_depend_on_aws() {
    let harness = Harness::new(BINARY);
    harness.emulator.set_fault(Service::Ecr, Fault::AccessDenied);
    let sidecar = harness.run(|_| {});
    let status = sidecar
        .wait_status("a failure", |status| status["tokens"][0]["failed"].as_u64().is_some_and(|n| n > 0));
    let problem = &status["tokens"][0]["last_error"];
    let remedy = problem["remedy"].as_str().unwrap();
    for path in ["/readyz", "/startupz", "/readyz?verbose"] {
        let (code, body) = sidecar.get(path);
        assert_eq!(code, 503, "{path}");
        for part in [HOST, "[-]registry", "AccessDenied", remedy, "\nnot ok\n"] {
            assert!(body.contains(part), "{path}: no {part:?} in {body}");
        }
    }
    assert_eq!(problem["class"], "denied");
    assert_eq!(sidecar.get("/livez"), (200, "ok\n".into()));
}

#[test]
fn it_is_not_ready_from_the_first_answer_on_until_there_is_a_credential() {
    let harness = Harness::new(BINARY);
    harness.emulator.set_fault(Service::Ecr, Fault::Hang);
    let address = SocketAddr::from(([127, 0, 0, 1], test_support::free_port()));
    let outputs: String = (0..50)
        .map(|n| format!("- {{type: docker-config, path: {}}}\n", harness.at(&n.to_string()).display()))
        .collect();
    let file =
        harness.put("ecr-sidecar.yaml", &format!("registries: [{{host: {HOST}}}]\noutputs:\n{outputs}"));
    let _sidecar = harness.run(|command| {
        configured_by(command, &file);
        command.env("ECR_SIDECAR_HEALTH_LISTEN", address.to_string());
    });
    let mut answers = 0;
    while answers < 200 {
        let path = ["/readyz", "/startupz"][answers % 2];
        match http::try_request(address, "GET", path) {
            Ok(answer) => assert_eq!(answer.code, 503, "{path}, answer {answers}: {}", answer.body),
            Err(_) if answers == 0 => continue, // it doesn't listen yet
            Err(error) => panic!("{error}"),
        }
        answers += 1;
    }
}

#[test]
fn readyz_is_true_exactly_while_the_credential_in_the_file_lives() {
    let harness =
        Harness::with(BINARY, Settings { token_lifetime: Duration::from_secs(12), ..Settings::default() });
    let sidecar = harness.run(|_| {});
    let credential = wait_auth(&harness.file(), HOST);
    sidecar.wait_ready();
    harness.emulator.set_fault(Service::Ecr, Fault::Status(500));
    let end =
        sidecar.status()["outputs"][0]["in_place"][HOST].as_str().unwrap().parse::<Timestamp>().unwrap();
    let (end, rounding) = (SystemTime::from(end), Duration::from_secs(1));
    let body = wait_for("the end of readiness", DEADLINE, || {
        let before = now();
        let (code, body) = sidecar.get("/readyz");
        let after = now();
        assert!(code == 200 || after >= end, "false before its time: {body}");
        assert!(code == 503 || before < end + rounding, "true after its time");
        (code == 503).then_some(body)
    });
    for part in [HOST, "its credential expired at", "HTTP 500"] {
        assert!(body.contains(part), "no {part:?} in {body}");
    }
    // An error takes nothing away, and who has started once has started.
    assert_eq!(auth(&harness.file(), HOST), Some(credential));
    assert_eq!(sidecar.get("/startupz").0, 200);
    assert_eq!(sidecar.get("/livez").0, 200);
    sidecar.wait_log("no longer ready", DEADLINE);

    harness.emulator.clear_faults();
    sidecar.wait_ready();
}

#[expect(clippy::disallowed_methods, reason = "an expiry is a time of day")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[test]
fn after_its_grace_startupz_is_true_whatever_aws_does() {
    let harness = Harness::new(BINARY);
    harness.emulator.set_fault(Service::Ecr, Fault::Status(500));
    let file = |grace: &str| {
        let out = harness.file();
        format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config, path: {}}}]\n\
             health: {{startupGrace: {grace}}}\n",
            out.display()
        )
    };
    let sidecar = harness.run_with_file(&file("1s"));
    sidecar.wait_get("/startupz", 200);
    assert_eq!(sidecar.get("/readyz").0, 503);
    let (_, body) = sidecar.get("/startupz?verbose");
    assert!(body.contains(&format!("[-]registry {HOST}")), "{body}");
    drop(sidecar);

    let sidecar = harness.run_with_file(&file("1h"));
    sidecar.wait_status("three failures", |status| status["tokens"][0]["failed"].as_u64() >= Some(3));
    assert_eq!(sidecar.get("/startupz").0, 503);
}

#[test]
fn it_listens_on_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        return skip("this machine has no IPv6");
    }
    for (listen, asked) in [("[::1]:0", "[::1]"), ("[::]:0", "[::]")] {
        let harness = Harness::new(BINARY);
        let sidecar = harness.run(|command| {
            command.env("ECR_SIDECAR_HEALTH_LISTEN", listen);
        });
        let port = sidecar.health().port();
        wait_for("readiness over IPv6", DEADLINE, || {
            (http::get(SocketAddr::new("::1".parse().unwrap(), port), "/readyz").0 == 200).then_some(())
        });
        let probe = ask(&["health", "ready", "--health-listen", &format!("{asked}:{port}")]);
        assert_eq!(probe.status.code(), Some(0), "{probe:?}");
    }
}

/// `ecr-sidecar` with these arguments and no environment.
fn ask(arguments: &[&str]) -> Output {
    let mut command = clean_command(BINARY, std::path::Path::new("/nonexistent"));
    output(command.args(arguments).env("ECR_SIDECAR_REGISTRIES", HOST), DEADLINE)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_exec_probes_tell_by_exit_status_and_say_why() {
    let harness = Harness::new(BINARY);
    harness.emulator.set_fault(Service::Ecr, Fault::Status(500));
    let sidecar = harness.run(|_| {});
    sidecar.wait_status("a failure", |status| status["tokens"][0]["failed"].as_u64() >= Some(1));
    let listen = sidecar.health().to_string();
    let probe = |question: &str| {
        let output = ask(&["health", question, "--health-listen", &listen]);
        (output.status.code().unwrap(), stdout(&output))
    };
    let (code, said) = probe("live");
    assert!(code == 0 && said.contains("[+]refresher"), "{code} {said}");
    for question in ["ready", "startup"] {
        let (code, said) = probe(question);
        assert!(code == 1 && said.contains(HOST) && said.contains("HTTP 500"), "{question}: {code} {said}");
    }
    let without_a_question = ask(&["health", "--health-listen", &listen]);
    assert_eq!(without_a_question.status.code(), Some(0));

    harness.emulator.clear_faults();
    sidecar.wait_ready();
    for question in ["live", "ready", "startup"] {
        let (code, said) = probe(question);
        assert!(code == 0 && said.ends_with("ok\n") && said.contains("[+]"), "{question}: {code} {said}");
    }
}

#[test]
fn a_probe_of_nothing_fails_and_says_where_nothing_answers() {
    let free = format!("127.0.0.1:{}", test_support::free_port());
    for (arguments, code) in [
        (&["health", "live"][..], 1),
        (&["health", "ready"], 1),
        (&["health", "startup"], 1),
        (&["wait", "--timeout", "1s"], 69),
    ] {
        let output = ask(&[arguments, &["--health-listen", &free]].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("no sidecar answers on") && said.contains(&free), "{said}");
    }
    let output = ask(&["health", "alive"]);
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn a_probe_finds_the_address_by_flag_environment_and_file() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    let address = sidecar.health();
    let file = harness.put("probe.yaml", &format!("health: {{listen: '{address}'}}\n"));
    let file = file.to_str().unwrap();
    let elsewhere = format!("127.0.0.1:{}", test_support::free_port());
    let asked = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = clean_command(BINARY, std::path::Path::new("/nonexistent"));
        command.args(arguments).env("AWS_REGION", "eu-west-1").envs(environment.iter().copied());
        output(&mut command, DEADLINE).status.code()
    };
    let address = address.to_string();
    let ready = ["health", "ready"];
    assert_eq!(asked(&["health", "ready", "--health-listen", &address], &[]), Some(0));
    assert_eq!(asked(&ready, &[("ECR_SIDECAR_HEALTH_LISTEN", &address)]), Some(0));
    assert_eq!(asked(&ready, &[("ECR_SIDECAR_CONFIG", file)]), Some(0));
    assert_eq!(asked(&["health", "ready", "--config", file], &[]), Some(0));
    assert_eq!(asked(&["wait", "--config", file], &[]), Some(0));
    // The order is that of every value: flag, environment, file.
    let in_env = ("ECR_SIDECAR_HEALTH_LISTEN", elsewhere.as_str());
    assert_eq!(asked(&ready, &[in_env, ("ECR_SIDECAR_CONFIG", file)]), Some(1));
    assert_eq!(asked(&["health", "ready", "--health-listen", &address], &[in_env]), Some(0));
}

#[test]
fn wait_ends_when_the_sidecar_is_ready_and_gives_up_when_it_is_not() {
    let harness = Harness::new(BINARY);
    harness.emulator.set_fault(Service::Ecr, Fault::Status(500));
    let sidecar = harness.run(|_| {});
    let listen = sidecar.health().to_string();
    let given_up = ask(&["wait", "--timeout", "1s", "--health-listen", &listen]);
    assert_eq!(given_up.status.code(), Some(69));
    assert!(stdout(&given_up).contains(HOST), "{given_up:?}");

    thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&["wait", "--health-listen", &listen]));
        sidecar.wait_status("another failure", |status| status["tokens"][0]["failed"].as_u64() >= Some(2));
        assert!(!waiting.is_finished());
        harness.emulator.clear_faults();
        let waited = waiting.join().unwrap();
        assert_eq!((waited.status.code(), stdout(&waited).as_str()), (Some(0), "ok\n"));
    });
}

#[test]
fn headers_that_never_end_hold_up_no_probe() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    sidecar.answers_during(|address| {
        let mut clients: Vec<_> = (0..600).map(|_| TcpStream::connect(address).unwrap()).collect();
        for client in &mut clients {
            let _ = client.write_all(b"GET /livez HTTP/1.1\r\n"); // some are driven out already
        }
        // Each is cut off by the server, at its time or size limit.
        wait_for("the end of every client", DEADLINE, || {
            clients.retain_mut(|client| client.write_all(b"x-a: b\r\n").is_ok());
            clients.is_empty().then_some(())
        });
    });
}

#[test]
fn a_header_of_10_mb_is_rejected_and_not_kept() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    sidecar.answers_during(|address| {
        for _ in 0..20 {
            let mut client = TcpStream::connect(address).unwrap();
            client.set_read_timeout(Some(DEADLINE)).unwrap();
            let head = format!("GET /livez HTTP/1.1\r\nx-long: {}\r\n\r\n", "a".repeat(10_000_000));
            let sent = client.write_all(head.as_bytes());
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer); // a reset is an answer too
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(sent.is_err() || !answer.contains(" 200 "), "{answer}");
            assert!(answer.is_empty() || answer.contains(" 431 "), "{answer}");
        }
    });
}

/// A page of another origin whose name resolves to loopback, or to the pod, reads nothing (DNS rebinding).
#[test]
fn a_host_that_is_not_ours_gets_nothing_until_the_configuration_names_it() {
    let harness = Harness::new(BINARY);
    let file = |hosts: &str| {
        let text = format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config, path: '{}'}}]\nhealth: {{listen: '127.0.0.1:0', hosts: [{hosts}]}}\n",
            harness.file().display()
        );
        harness.put("ecr-sidecar.yaml", &text)
    };
    let path = file("");
    let sidecar = harness.run(|command| configured_by(command, &path));
    sidecar.wait_ready();
    let ask = |path: &str, host: &str| {
        let mut stream = http::connect(sidecar.health()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
        http::answer(stream).unwrap()
    };
    for path in ["/status", "/metrics", "/readyz?verbose", "/livez", "/"] {
        for host in
            ["evil.example", "evil.example:9808", "127.0.0.1.evil.example", "ecr-sidecar.flux-system.svc"]
        {
            let answer = ask(path, host);
            assert_eq!(answer.code, 421, "{path} {host}");
            assert!(answer.body.contains("health.hosts") && !answer.body.contains(HOST), "{}", answer.body);
        }
        let by_address = ask(path, &format!("10.0.0.7:{}", sidecar.health().port()));
        assert_ne!(by_address.code, 421, "{path}");
        assert_eq!(by_address.code, ask(path, "localhost").code);
    }
    // HTTP/1.0 knows no Host.
    let mut stream = http::connect(sidecar.health()).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(http::answer(stream).unwrap().code, 200);

    file("ecr-sidecar.flux-system.svc");
    wait_for("the name to be served", DEADLINE, || {
        (ask("/status", "ecr-sidecar.flux-system.svc:9808").code == 200).then_some(())
    });
    assert_eq!(ask("/status", "evil.example").code, 421);
}
