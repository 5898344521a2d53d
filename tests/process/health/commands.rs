//! `health` and `wait`, the commands that ask a running sidecar.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Output,
    thread,
    time::Duration,
};

use ecr_emulator::{Fault, Service};
use test_support::{
    Harness, clean_command,
    harness::{DEADLINE, HOST},
    output, pause,
};

use super::ask;
use crate::BINARY;

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

/// Another program may have the port. It cannot hold up a command by an answer without end, nor steer the terminal.
#[test]
fn a_program_that_has_the_port_neither_holds_up_a_command_nor_steers_the_terminal() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let endless = |mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 1024]);
        while stream.write_all(b"x").is_ok() {
            pause(Duration::from_millis(200));
        }
    };
    let steering = |mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream
            .write_all("HTTP/1.1 503 No\r\n\r\n\u{1b}]0;x\u{7}no\u{202e}t\u{9b}2J ok\nline\n".as_bytes());
    };
    let serve = |answer: fn(TcpStream)| {
        let listener = listener.try_clone().unwrap();
        thread::spawn(move || listener.incoming().take(1).for_each(|stream| answer(stream.unwrap())));
    };
    serve(endless);
    assert_eq!(ask(&["wait", "--timeout", "1s", "--health-listen", &address]).status.code(), Some(69));
    serve(steering);
    let shown = stdout(&ask(&["health", "ready", "--health-listen", &address]));
    assert_eq!(shown, "]0;xnot2J ok\nline\n");
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
