//! A command that fails, or that hands out a credential, shows it in one place at most.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::symlink,
    process::Command,
    thread,
};

use ecr_emulator::{Fault, SECRET_ACCESS_KEY, Service};
use test_support::{
    Harness,
    harness::{DEADLINE, HOST, KEYS},
    output,
};

use super::{Canaries, faults, session_keys};
use crate::BINARY;

/// `once` shows nothing of `secrets` whatever goes wrong with the service; what is certain to fail does.
fn shows_no_secret(harness: &Harness, service: Service, secrets: &[&str], keys: impl Fn(&mut Command)) {
    let canaries = Canaries::of(secrets);
    for fault in faults(service) {
        let name = format!("{fault:?}");
        let fails = matches!(
            fault,
            Fault::Status(_)
                | Fault::AccessDenied
                | Fault::Echo
                | Fault::Garbage
                | Fault::Html
                | Fault::Reset
        );
        harness.emulator.set_fault(service, fault);
        let once = harness.once(|command| {
            command.args(["--timeout", "1s"]).env("ECR_SIDECAR_LOG", "trace");
            keys(command);
        });
        assert!(!fails || once.code == Some(69), "{name}: {}", once.stderr);
        assert!(!once.stderr.is_empty(), "{name}");
        canaries.none_in(&name, &once.stderr);
    }
}

#[test]
fn no_failure_of_ecr_shows_a_secret() {
    let harness = Harness::new(BINARY).without_keys();
    let session = harness.session();
    shows_no_secret(&harness, Service::Ecr, &[&session[1], &session[2]], session_keys(&session));
}

#[test]
fn no_failure_of_sts_shows_a_secret() {
    let harness = Harness::new(BINARY).without_keys();
    let web_identity = harness.web_identity_token("system:serviceaccount:a:b");
    let file = harness.write("token", &web_identity);
    shows_no_secret(&harness, Service::Sts, &[&web_identity], |command| {
        command
            .env("AWS_WEB_IDENTITY_TOKEN_FILE", &file)
            .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r");
    });
}

/// What hands out a credential on its standard output says nothing of it on its standard error.
#[test]
fn who_asks_for_one_credential_finds_it_in_one_place() {
    let harness = Harness::new(BINARY).without_keys();
    let session = harness.session();
    let canaries = Canaries::of(&[&session[1], &session[2]]);
    let link = harness.at("docker-credential-ecr-sidecar");
    symlink(BINARY, &link).unwrap();
    let question = harness.write("question", HOST);
    // Through a shell, for its standard input.
    let by_either_name = |script: &str, prepare: &dyn Fn(&mut Command)| {
        let mut command = Command::new("sh");
        let usual = harness.command("print");
        command.env_clear().envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
        session_keys(&session)(command.args(["-c", script, HOST]));
        prepare(&mut command);
        let output = output(&mut command, DEADLINE);
        let said = String::from_utf8(output.stderr).unwrap();
        canaries.none_in("standard error", &said);
        if !output.status.success() && script.contains(" get ") {
            canaries.none_in("standard output", &String::from_utf8(output.stdout).unwrap());
        } else {
            assert!(!said.is_empty(), "it did log");
        }
        output.status.code()
    };
    let [print, get] =
        [format!("exec {BINARY} print $0"), format!("exec {} get < {}", link.display(), question.display())];
    let ask = || {
        let without_a_cache = |command: &mut Command| {
            command.env_remove("HOME");
        };
        let codes = [&print, &get].map(|script| by_either_name(script, &without_a_cache) == Some(0));
        assert_eq!(codes[0], codes[1]);
        codes[0]
    };
    for _ in 0..2 {
        assert_eq!(by_either_name(&get, &|_| {}), Some(0)); // of AWS, then of the cache
    }
    assert!(ask()); // of AWS
    harness.emulator.push_fault(Service::Ecr, Fault::ColonPassword, 2);
    assert!(ask());
    for fault in [Fault::AccessDenied, Fault::NotAws, Fault::NoExpiry, Fault::EmptyPassword] {
        let name = format!("{fault:?}");
        harness.emulator.push_fault(Service::Ecr, fault, 2);
        assert!(!ask(), "{name}");
    }
    harness.once(session_keys(&session));
    fs::remove_file(harness.at("out/.config.json.ecr-sidecar")).unwrap();
    harness.emulator.set_fault(Service::Ecr, Fault::AccessDenied);
    assert!(ask()); // of the file, with a warning
}

/// A secret in the wrong place is refused without being repeated.
#[test]
fn a_configuration_problem_repeats_no_key() {
    let harness = Harness::new(BINARY).without_keys();
    let config = harness.write("config.yaml", "identities: {default: {secretAccessKey: hunter2hunter2}}\n");
    let mut command = harness.command("config");
    command.env("ECR_SIDECAR_CONFIG", &config);
    let once = harness.run_once(&mut command);
    assert_eq!(once.code, Some(64), "{BINARY}: {}", once.stderr);
    assert!(
        once.stderr.contains("identities.default.secretAccessKey: found an unknown key"),
        "{}",
        once.stderr
    );
    assert!(!once.stderr.contains("hunter2"), "{}", once.stderr);
}

/// The answer comes of a real signature that is wrong, not of a scripted fault.
#[test]
fn a_wrong_secret_key_shows_no_session_token() {
    let harness = Harness::new(BINARY).without_keys();
    let [id, key, token] = harness.session();
    let wrong: String = key.chars().rev().collect();
    let session = [id, wrong, token];
    let once = harness.once(|command| session_keys(&session)(command.args(["--timeout", "1s"])));
    once.failed_with(&["InvalidSignatureException: The request signature we calculated does not match"]);
    Canaries::of(&[&session[1], &session[2]]).none_in("standard error", &once.stderr);
    assert!(!once.stderr.contains("x-amz-"), "{}", once.stderr);
}

/// Who may edit the configuration may name any endpoint: what comes there is signed by the secret key, and has neither it
/// nor anything else that could sign another request.
#[test]
fn an_endpoint_is_sent_signed_requests_and_no_secret_key() {
    let harness = Harness::new(BINARY).without_keys();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let endpoint_of_another = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut chunk = [0; 4096];
        while !request.ends_with(b"{}") {
            let read = stream.read(&mut chunk).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&chunk[..read]);
        }
        stream
            .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
        String::from_utf8(request).unwrap()
    });
    let mut command = harness.command("print");
    command.arg(HOST).envs(KEYS).env("AWS_ENDPOINT_URL", endpoint).env_remove("HOME");
    let printed = output(&mut command, DEADLINE);
    assert_ne!(printed.status.code(), Some(0));
    let request = endpoint_of_another.join().unwrap();
    assert!(request.contains("AWS4-HMAC-SHA256 Credential=AKIA"), "{request}");
    Canaries::of(&[SECRET_ACCESS_KEY]).none_in("the request", &request);
}
