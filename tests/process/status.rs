//! `ecr-sidecar status`: what it says of a running sidecar, and when there is none.

use std::{net::TcpListener, process::Output, time::Duration};

use ecr_emulator::{Fault, Service};
use serde_json::Value;
use test_support::{
    Harness, Process, Running, Signal, clean_command,
    harness::{DEADLINE, HOST, KEYS, PUBLIC},
    output, wait_for,
};

use crate::BINARY;

fn status(harness: &Harness, running: &Running, arguments: &[&str]) -> Output {
    let listen = running.health().to_string();
    let mut command = harness.command("status");
    output(command.args(arguments).env("ECR_SIDECAR_HEALTH_LISTEN", listen), DEADLINE)
}

fn text(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The line that begins with `start`, by its columns.
#[track_caller]
fn columns<'a>(table: &'a str, start: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.starts_with(start));
    let line = line.unwrap_or_else(|| panic!("no line of {start} in {table}"));
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[test]
fn a_healthy_sidecar_is_reported_as_such() {
    let harness = Harness::new(BINARY).without_keys();
    let running = harness.run_ready(|_| {});
    let table = text(&status(&harness, &running, &[]));
    let [host, identity, state, left, next] = columns(&table, HOST)[..] else { panic!("{table}") };
    assert_eq!((host, identity, state), (HOST, "default (environment)", "ok"));
    assert!(left.starts_with("11h") && next.starts_with("in "), "{table}");
    let file = format!("docker-config {}", harness.file().display());
    assert_eq!(columns(&table, &file)[1], "in sync");
    assert!(table.is_ascii() && !table.contains("remedy:") && !table.contains("\n\n"), "{table}");
}

#[test]
fn the_principal_is_reported_by_its_arn_once_that_is_known() {
    let harness = Harness::new(BINARY).without_keys();
    let file = harness.web_identity_file("system:serviceaccount:a:b");
    let running = harness.run(|command| {
        command
            .env("AWS_WEB_IDENTITY_TOKEN_FILE", &file)
            .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/irsa");
    });
    running.wait_ready();
    let table = text(&status(&harness, &running, &[]));
    assert!(columns(&table, HOST)[1].starts_with("arn:aws:sts::123456789012:assumed-role/irsa/"), "{table}");
}

#[test]
fn a_denied_token_is_reported_with_its_remedy_and_what_lacks_it() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.set_fault(Service::EcrPublic, Fault::AccessDenied);
    let running = harness.run(|command| {
        command.envs(KEYS).env("ECR_SIDECAR_REGISTRIES", format!("{HOST},{PUBLIC}"));
    });
    wait_for("one token, and the denial of the other", DEADLINE, || {
        let status = running.status();
        let denied = status["tokens"].as_array()?.iter().any(|token| !token["last_error"].is_null());
        let placed = status["outputs"][0]["in_place"].as_object()?.len() == 1;
        (denied && placed).then_some(())
    });
    let table = text(&status(&harness, &running, &[]));
    assert_eq!(columns(&table, HOST)[2], "ok");
    let public = columns(&table, PUBLIC);
    assert!(public[2].starts_with("denied") && public[3] == "-", "{table}");
    assert_eq!(columns(&table, "docker-config ")[1], format!("missing: {PUBLIC}"));
    let error = running.status()["tokens"].as_array().unwrap().iter().find_map(|token| {
        Some((
            token["last_error"]["message"].as_str()?.to_owned(),
            token["last_error"]["remedy"].as_str()?.to_owned(),
        ))
    });
    let (message, remedy) = error.unwrap();
    assert!(table.contains(&format!("\n  {message}\n  remedy: {remedy}\n")), "{table}");
}

#[test]
fn json_is_the_answer_of_the_endpoint() {
    let harness = Harness::new(BINARY).without_keys();
    let running = harness.run_ready(|_| {});
    let json = text(&status(&harness, &running, &["-o", "json"]));
    let [reported, asked]: [Value; 2] = [serde_json::from_str(&json).unwrap(), running.status()];
    for key in ["version", "started_at", "tokens"] {
        assert_eq!(reported[key], asked[key]);
    }
}

/// The probes of a sidecar that runs on its last good configuration must find it, and so must this.
#[test]
fn a_rejected_configuration_is_reported_by_the_sidecar_that_rejected_it() {
    let harness = Harness::new(BINARY).without_keys();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = format!(
        "registries: [{{host: {HOST}}}]\nhealth: {{listen: '{address}'}}\noutputs: [{{type: docker-config, path: {}}}]\n",
        harness.file().display()
    );
    let config = harness.write("config.yaml", &file);
    let running = harness.run(|command| {
        command.envs(KEYS).env("ECR_SIDECAR_CONFIG", &config);
        for name in ["REGISTRIES", "DOCKER_CONFIG", "HEALTH_LISTEN"] {
            command.env_remove(format!("ECR_SIDECAR_{name}"));
        }
    });
    running.wait_ready();
    harness.write("config.yaml", &format!("registrys: []\nhealth: {{listen: '{address}'}}\n"));
    running.wait_log("reload rejected", DEADLINE);
    let table = wait_for("the refusal in the status", DEADLINE, || {
        let mut command = clean_command(BINARY, &harness.at("."));
        let table = text(&output(command.arg("status").env("ECR_SIDECAR_CONFIG", &config), DEADLINE));
        table.contains("reload rejected").then_some(table)
    });
    assert!(table.contains("configuration reload rejected:\n") && table.contains("registrys"), "{table}");
}

#[test]
fn without_a_sidecar_it_names_where_it_asked_and_the_remedy() {
    let harness = Harness::new(BINARY).without_keys();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let none = output(harness.command("status").env("ECR_SIDECAR_HEALTH_LISTEN", &address), DEADLINE);
    let said = String::from_utf8(none.stderr).unwrap();
    assert_eq!((none.status.code(), none.stdout.as_slice()), (Some(1), &b""[..]));
    for part in [address.as_str(), "ecr-sidecar run", "ECR_SIDECAR_HEALTH_LISTEN", "refused"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn another_program_on_the_port_is_not_taken_for_a_sidecar() {
    let harness = Harness::new(BINARY).without_keys();
    let emulator = harness.emulator.endpoint();
    let address = emulator.trim_start_matches("http://");
    for format in ["table", "json"] {
        let mut command = harness.command("status");
        let other = output(command.args(["-o", format]).env("ECR_SIDECAR_HEALTH_LISTEN", address), DEADLINE);
        let said = String::from_utf8(other.stderr).unwrap();
        assert_eq!((other.status.code(), other.stdout.as_slice()), (Some(1), &b""[..]), "{said}");
        assert!(said.contains("is no ecr-sidecar's status"), "{said}");
    }
}

#[test]
fn watching_in_a_pipe_prints_blocks_until_it_is_stopped() {
    let harness = Harness::new(BINARY).without_keys();
    let running = harness.run_ready(|_| {});
    let mut command = harness.command("status");
    let watch =
        Process::spawn(command.arg("--watch").env("ECR_SIDECAR_HEALTH_LISTEN", running.health().to_string()));
    wait_for("three blocks", DEADLINE, || {
        (watch.stdout().matches("\n\necr-sidecar ").count() >= 2).then_some(())
    });
    watch.signal(Signal::INT);
    assert_eq!(watch.wait_exit(Duration::from_secs(10)).code(), Some(0));
    for block in watch.stdout().split("\n\n") {
        assert!(block.starts_with("ecr-sidecar ") && block.contains("in sync"), "{block}");
    }
}
