//! What stands in variables and files that are not as they should be: every command ends with a sentence that names
//! the variable or file, and shows nothing of what may be a credential.

use std::{
    fs,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use ecr_emulator::Service;
use serde_json::Value;
use test_support::{
    Harness, Signal, clean_command,
    files::wait_auth,
    free_port,
    harness::{DEADLINE, HOST, KEYS},
    output, root, skip, wait_for,
};

use crate::BINARY;

/// Commands that read the configuration, and end by themselves when it is bad.
const COMMANDS: [&[&str]; 6] = [
    &["run"],
    &["once", "--timeout", "6s"],
    &["config"],
    &["manifests", "--service-account", "a", "--namespace", "b"],
    &["print", HOST],
    &["doctor"],
];

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

/// A command with the harness's variables.
fn command(harness: &Harness, arguments: &[&str]) -> Command {
    let mut command = harness.command(arguments[0]);
    command.args(&arguments[1..]).envs(KEYS);
    command
}

/// Every command ends with the status of a bad configuration, and says all `parts`, and nothing of `hunter2`.
#[track_caller]
fn is_bad_configuration(harness: &Harness, parts: &[&str], prepare: impl Fn(&mut Command)) {
    for arguments in COMMANDS {
        let mut command = command(harness, arguments);
        prepare(&mut command);
        let output = output(&mut command, DEADLINE);
        let said = said(&output);
        let expected = if arguments[0] == "doctor" { 1 } else { 64 };
        assert_eq!(output.status.code(), Some(expected), "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: no {part:?} in {said}");
        }
        assert!(!said.contains("hunter2"), "{arguments:?}: {said}");
    }
    assert!(harness.nothing_written());
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_proxy_that_is_none_is_a_bad_setting() {
    for (variable, value) in [
        ("HTTPS_PROXY", "\"http://me:hunter2@127.0.0.1:3128\""), // as docker's --env-file keeps the quotes
        ("HTTP_PROXY", "socks5://me:hunter2@127.0.0.1:1080"),
        ("ALL_PROXY", "http://me:hunter2"),
        ("https_proxy", "http://127.0.0.1:31x28"),
        ("NO_PROXY", "http://me:hunter2@x"),
    ] {
        let harness = Harness::new(BINARY).without_keys();
        is_bad_configuration(&harness, &[&format!("{variable}: "), ", expected "], |command| {
            command.env_remove("HTTPS_PROXY").env_remove("HTTP_PROXY").env(variable, value);
            if variable == "NO_PROXY" {
                command.env("HTTPS_PROXY", "http://127.0.0.1:1"); // without a proxy it has no effect
            }
        });
    }
}

#[test]
fn a_proxy_is_followed_in_its_usual_forms() {
    let bare = |proxy: &str| proxy.trim_start_matches("http://").to_owned();
    for (empty, variable, form) in [
        ("https_proxy", "HTTPS_PROXY", "PROXY\n"),
        ("HTTPS_PROXY", "https_proxy", "PROXY/"),
        ("HTTPS_PROXY", "ALL_PROXY", "http://me:hunter2@BARE"),
        ("https_proxy", "HTTPS_PROXY", "BARE"),
    ] {
        let harness = Harness::new(BINARY).without_keys();
        let proxy = harness.emulator.proxy();
        let value = form.replace("PROXY", &proxy).replace("BARE", &bare(&proxy));
        harness.once_pulls(HOST, |command| {
            command
                .envs(KEYS)
                .env_remove("AWS_ENDPOINT_URL")
                .env_remove("HTTP_PROXY")
                .env_remove("HTTPS_PROXY");
            command.env("AWS_CA_BUNDLE", harness.emulator.ca_file());
            command.env(empty, "").env(variable, &value);
        });
        let connects = harness.emulator.connects();
        assert!(connects.contains_key("api.ecr.eu-west-1.amazonaws.com"), "{value:?}: {connects:?}");
    }
}

/// `127.1` is this machine by a name that is not exempt from proxies automatically; nothing listens at the proxy.
#[test]
fn no_proxy_is_followed_in_its_usual_forms() {
    let harness = Harness::new(BINARY).without_keys();
    let endpoint = harness.emulator.endpoint().replace("127.0.0.1", "127.1");
    let port = endpoint.rsplit_once(':').unwrap().1.to_owned();
    let closed = format!("http://127.0.0.1:{}", free_port());
    for no_proxy in ["*", "127.1", "*.1", ".1", "x, 127.1 ,", &format!("127.1:{port}"), "127.1\n"] {
        harness.once_pulls(HOST, |command| {
            command.envs(KEYS).env("AWS_ENDPOINT_URL", &endpoint).env("HTTP_PROXY", &closed);
            command.env("NO_PROXY", no_proxy);
        });
        fs::remove_file(harness.file()).unwrap();
    }
    for no_proxy in ["127.1:1", "27.1", "*.127.1.example", "[::1]", "10.0.0.0/8"] {
        let once = harness.once(|command| {
            command.args(["--timeout", "1s"]).envs(KEYS);
            command.env("AWS_ENDPOINT_URL", &endpoint).env("HTTP_PROXY", &closed).env("NO_PROXY", no_proxy);
        });
        assert_eq!(once.code, Some(69), "{no_proxy}: {}", once.stderr);
    }
}

fn fifo(harness: &Harness) -> PathBuf {
    let path = harness.at("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// A file of some size without content.
fn sparse(harness: &Harness, size: u64) -> PathBuf {
    let path = harness.at("large");
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&path)
        .unwrap()
        .set_len(size)
        .unwrap();
    path
}

#[test]
fn a_configuration_file_that_is_no_file_is_named() {
    let harness = Harness::new(BINARY).without_keys();
    for (path, reason) in [
        (fifo(&harness), "it is a FIFO, not a regular file"),
        ("/dev/zero".into(), "it is a device, not a regular file"),
        (harness.folder().into(), "it is a directory, not a regular file"),
        (sparse(&harness, (1 << 20) + 1), "it is larger than the limit of 1048576 bytes"),
        ("/nowhere".into(), "No such file"),
    ] {
        let place = path.display().to_string();
        is_bad_configuration(&harness, &[&place, reason], |command| {
            command.env("ECR_SIDECAR_CONFIG", &path);
        });
        // A probe passes it over, and asks where it would ask without a file.
        let mut health = command(&harness, &["health"]);
        health.env("ECR_SIDECAR_CONFIG", &path).env_remove("ECR_SIDECAR_HEALTH_LISTEN");
        let output = output(&mut health, DEADLINE);
        assert!(said(&output).contains("127.0.0.1:9808"), "{}", said(&output));
    }
}

#[test]
fn a_configuration_file_below_the_limit_is_read_to_its_end() {
    let harness = Harness::new(BINARY).without_keys();
    let padding = "# 345678901234567890123456789012\n".repeat((1 << 20) / 33 - 10);
    let file = harness.write("config.yaml", &format!("{padding}registries: [{{host: {HOST}}}]\n"));
    harness.once_pulls(HOST, |command| {
        command.envs(KEYS).env("ECR_SIDECAR_CONFIG", file).env_remove("ECR_SIDECAR_REGISTRIES");
    });
}

#[test]
fn a_file_that_is_no_configuration_is_not_shown() {
    for text in [
        "hunter2",
        "eyJhbGciOiJSUzI1NiJ9.hunter2.hunter2",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n",
        "apiVersion: v1\nkind: Config\nusers: [{user: {token: hunter2}}]\n",
        "[default]\naws_secret_access_key = hunter2\n",
    ] {
        let harness = Harness::new(BINARY).without_keys();
        let file = harness.write("token", text);
        is_bad_configuration(&harness, &["found"], |command| {
            command.env("ECR_SIDECAR_CONFIG", &file);
        });
        for arguments in [&["health"][..], &["status"], &["wait", "--timeout", "1s"]] {
            let said = said(&output(command(&harness, arguments).env("ECR_SIDECAR_CONFIG", &file), DEADLINE));
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}

#[test]
fn the_variables_of_services_do_no_harm() {
    let harness = Harness::new(BINARY).without_keys();
    harness.once_pulls(HOST, |command| {
        command.envs(KEYS);
        for service in ["ECR_SIDECAR", "ECR_SIDECAR_METRICS", "ECR_SIDECAR_CONFIG"] {
            command.env(format!("{service}_SERVICE_HOST"), "10.0.0.1");
            command.env(format!("{service}_SERVICE_PORT"), "9808");
            command.env(format!("{service}_SERVICE_PORT_HTTP"), "9808");
            command.env(format!("{service}_PORT"), "tcp://10.0.0.1:9808");
            command.env(format!("{service}_PORT_9808_TCP"), "tcp://10.0.0.1:9808");
            command.env(format!("{service}_PORT_9808_TCP_ADDR"), "10.0.0.1");
        }
    });
}

#[test]
fn a_ca_bundle_that_is_no_file_is_named() {
    let harness = Harness::new(BINARY).without_keys();
    for (path, reason) in [
        (fifo(&harness), "it is a FIFO"),
        ("/dev/zero".into(), "it is a device"),
        (harness.folder().into(), "it is a directory"),
        (sparse(&harness, 1 << 32), "it is larger than the limit"),
    ] {
        for variable in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
            let once = harness.once(|command| {
                command.args(["--timeout", "2s"]).envs(KEYS).env(variable, &path);
                command.env("AWS_ENDPOINT_URL", harness.emulator.https_endpoint());
            });
            once.failed_with(&[
                &format!("cannot read the CA bundle {} that {variable} names", path.display()),
                reason,
            ]);
        }
    }
}

/// Each would send the authorization token to the emulator, or to a name behind the agent's address.
#[test]
fn a_relative_uri_sends_the_authorization_token_nowhere_else() {
    let harness = Harness::new(BINARY).without_keys();
    let address = harness.emulator.endpoint().replace("http://", "");
    for path in [format!("@{address}/v1/credentials"), format!(":80@{address}/x"), ".evil.example/x".into()] {
        let once = harness.once(|command| {
            command.args(["--timeout", "2s"]);
            command.env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", path);
            command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hunter2");
        });
        once.failed_with(&["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is invalid: it must start with /"]);
        assert!(!once.stderr.contains("hunter2"), "{}", once.stderr);
    }
    assert_eq!(harness.counts(), [0; 5]);
}

/// The program in a mount namespace of its own, where no process serves what is mounted at `hung`.
fn on_a_hung_mount(harness: &Harness, arguments: &str) -> Option<Command> {
    if !root() {
        return None;
    }
    if !Path::new("/dev/fuse").exists() {
        skip("a volume that hangs takes /dev/fuse");
        return None;
    }
    let hung = harness.at("hung");
    fs::create_dir_all(&hung).unwrap();
    let mut command = clean_command("unshare", &harness.at(""));
    command.args(["--mount", "--propagation", "private", "sh", "-e", "-c"]).arg(format!(
        "exec 3<>/dev/fuse\nmount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none '{}'\nexec {BINARY} {arguments}",
        hung.display()
    ));
    let usual = harness.command("none");
    command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?)))).envs(KEYS);
    Some(command)
}

#[test]
fn every_command_ends_while_the_configuration_s_volume_hangs() {
    let harness = Harness::new(BINARY).without_keys();
    let file = harness.at("hung/config.yaml");
    for (arguments, status, sentence) in [
        ("run", 64, "does not respond"),
        ("once --timeout 6s", 64, "does not respond"),
        ("config", 64, "does not respond"),
        ("manifests --service-account a --namespace b", 64, "does not respond"),
        (&format!("print {HOST}"), 64, "does not respond"),
        ("doctor", 1, "does not respond"),
        ("health", 1, "no sidecar answers"),
        ("wait --timeout 1s", 69, "no sidecar answers"),
    ] {
        let Some(mut command) = on_a_hung_mount(&harness, arguments) else { return };
        command.env("ECR_SIDECAR_CONFIG", &file).env_remove("ECR_SIDECAR_HEALTH_LISTEN");
        let output = output(&mut command, DEADLINE);
        let said = said(&output);
        assert!(output.status.code() == Some(status) && said.contains(sentence), "{arguments}: {said}");
    }
}

/// There are so many that it ends in time only if none waits for another.
#[test]
fn the_doctor_names_each_base_that_hangs_and_loses_nothing_else() {
    const MANY: usize = 40;
    let harness = Harness::new(BINARY).without_keys();
    let outputs = (0..MANY).map(|n| {
        let base = harness.at(&format!("hung/{n}.json"));
        format!("- {{type: docker-config-secret, name: s{n}, base: {}}}\n", base.display())
    });
    let outputs: String = outputs.collect();
    let file = harness.put("config.yaml", &format!("registries: [{{host: {HOST}}}]\noutputs:\n{outputs}"));
    let Some(mut command) = on_a_hung_mount(&harness, "doctor --output json") else { return };
    command.env("ECR_SIDECAR_CONFIG", &file).env("KUBECONFIG", harness.at("missing"));
    command.env_remove("ECR_SIDECAR_DOCKER_CONFIG").env_remove("ECR_SIDECAR_REGISTRIES");
    let output = output(&mut command, DEADLINE);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter().filter(|it| it["step"] == "kubernetes");
    let findings: Vec<_> = findings.collect();
    assert_eq!(findings.len(), MANY + 1, "{report:#}");
    assert_eq!(findings[MANY]["diagnosis"], "kubeconfig", "{report:#}");
    for (n, finding) in findings[..MANY].iter().enumerate() {
        let saw = finding["saw"].as_str().unwrap();
        assert!(saw.contains(&format!("hung/{n}.json` is not usable: its volume does not respond")), "{saw}");
        assert_eq!(finding["diagnosis"], "base-unusable");
    }
}

/// The base of a file: its volume is named, and the file, which is on another, is written.
#[test]
fn a_base_that_hangs_keeps_no_credential_out_of_the_file() {
    let harness = Harness::new(BINARY).without_keys();
    let (path, base) = (harness.file(), harness.at("hung/base.json"));
    let output_of = |name: &str| format!("{{type: docker-config, path: {}, base: {}}}", name, base.display());
    let text =
        format!("registries: [{{host: {HOST}}}]\noutputs: [{}]\n", output_of(&path.display().to_string()));
    let file = harness.put("config.yaml", &text);
    let prepare = |arguments: &str| {
        let mut command = on_a_hung_mount(&harness, arguments)?;
        command.env("ECR_SIDECAR_CONFIG", &file);
        command.env_remove("ECR_SIDECAR_DOCKER_CONFIG").env_remove("ECR_SIDECAR_REGISTRIES");
        Some(command)
    };
    let Some(mut doctor) = prepare("doctor --output json") else { return };
    let report: Value = serde_json::from_slice(&output(&mut doctor, DEADLINE).stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter().filter(|it| it["step"] == "output");
    let diagnoses: Vec<_> = findings.filter_map(|it| it["diagnosis"].as_str()).collect();
    assert_eq!(diagnoses, ["base-unusable"], "{report:#}");

    let sidecar = test_support::Process::spawn(&mut prepare("run").unwrap());
    sidecar.wait_log("its volume does not respond within 5 s", DEADLINE);
    wait_auth(&path, HOST);
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.wait_exit(DEADLINE).code(), Some(0));
    let log = sidecar.log_lines().join("\n");
    assert!(log.contains("base-unusable") && !log.contains("volume-hangs"), "{log}");

    let once = output(&mut prepare("once").unwrap(), DEADLINE);
    assert!(once.status.success(), "{once:?}");
}

#[test]
fn a_ca_bundle_that_hangs_costs_neither_liveness_nor_the_end() {
    let harness = Harness::new(BINARY).without_keys();
    let port = free_port();
    let Some(mut command) = on_a_hung_mount(&harness, "run") else { return };
    command.env("AWS_CA_BUNDLE", harness.at("hung/ca.pem"));
    command.env("AWS_ENDPOINT_URL", harness.emulator.https_endpoint());
    command.env("ECR_SIDECAR_HEALTH_LISTEN", format!("127.0.0.1:{port}"));
    let sidecar = test_support::Process::spawn(&mut command);
    sidecar.wait_log("its volume does not respond within 5 s", DEADLINE);
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    let live = || test_support::http_get(address, "/livez").ok().filter(|(status, _)| *status == 200);
    wait_for("liveness", DEADLINE, live);
    assert_eq!(harness.emulator.count(Service::Ecr), 0);
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.wait_exit(DEADLINE).code(), Some(0));
}
