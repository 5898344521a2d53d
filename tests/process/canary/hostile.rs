//! Answers of AWS that repeat a request, would steer a terminal, or forge a line of ours.

use std::{os::unix::fs::symlink, process::Command};

use ecr_emulator::{Fault, Service};
use test_support::{
    Harness, Running,
    harness::{DEADLINE, HOST},
    output,
};

use super::{Canaries, session_keys};
use crate::BINARY;

fn hostile_answers() -> Vec<(&'static str, Fault)> {
    let says = |message: String| Fault::Error { status: 400, code: "AccessDeniedException".into(), message };
    vec![
        ("the canonical string", Fault::SignatureMismatch),
        ("the Authorization header", Fault::IncompleteSignature),
        ("each credential", Fault::Echo),
        ("terminal escapes", says("no\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{8}\rready".into())),
        ("bidirectional characters", says("no \u{202e}txet\u{2066} \u{200b}\u{feff}\u{e0041}".into())),
        ("forged lines", says(format!("no\n{FORGED}\r\n{FORGED}\u{2028}{FORGED}\u{85}{FORGED}"))),
        ("900 kB", says("0123456789 ".repeat(82_000))),
        ("900 kB in one word", says("a!".repeat(450_000))),
        (
            "a hostile code",
            Fault::Error {
                status: 400,
                code: format!("Access\n{FORGED}\u{1b}[2J{}", "c".repeat(90_000)),
                message: "no".into(),
            },
        ),
    ]
}

/// As a line of `doctor` begins, and as one of `/readyz?verbose` does.
const FORGED: &str = "[+] forged: ok";

/// A text that a terminal shows as it is, of a bounded length, in which no line is forged.
#[track_caller]
fn plain(place: &str, text: &str) {
    let steers = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{e0041}')
    };
    // JSON writes them as escapes, which a reader takes back.
    let unescaped = text.replace("\\u001b", "\u{1b}").replace("\\n", "\n").replace("\\r", "\r");
    for text in [text, &unescaped] {
        if let Some(character) = text.chars().find(|c| steers(*c)) {
            let line = text.lines().find(|line| line.contains(character)).unwrap_or_default();
            panic!("{character:?} is in {place}: {line}");
        }
        assert!(!text.lines().any(|line| line.trim_start().starts_with(FORGED)), "{place}: {text}");
    }
    let longest = text.lines().map(str::len).max().unwrap_or_default();
    assert!(longest < 8_000, "a line of {longest} bytes is in {place}");
}

#[test]
fn no_answer_of_aws_leaks_or_steers_on_any_surface() {
    let harness = Harness::new(BINARY).without_keys();
    let session = harness.session();
    let canaries = Canaries::of(&[&session[1], &session[2]]);
    let link = harness.at("docker-credential-ecr-sidecar");
    symlink(BINARY, &link).unwrap();
    let question = harness.write("question", HOST);
    let keys = session_keys(&session);
    for (what, fault) in hostile_answers() {
        harness.emulator.clear_faults();
        harness.emulator.set_fault(Service::Ecr, fault);
        let running = harness.run(&keys);
        running.wait_token("a failed attempt", |token| token["failed"].as_u64() > Some(0));
        let mut said = surfaces_of(&harness, &running);
        for arguments in [&["once", "--timeout", "1s"][..], &["print", HOST], &["doctor"]] {
            let mut command = harness.command(arguments[0]);
            command.args(&arguments[1..]);
            keys(&mut command);
            said.push((arguments[0].to_owned(), everything_said(&mut command)));
        }
        let mut helper = Command::new("sh");
        let usual = harness.command("print");
        helper.env_clear().envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
        helper.args(["-c", &format!("exec {} get < {}", link.display(), question.display())]);
        keys(&mut helper);
        said.push(("the helper".to_owned(), everything_said(&mut helper)));
        running.stop(DEADLINE);
        said.push(("the log".to_owned(), running.stderr()));
        for (place, text) in said {
            assert!(!text.is_empty(), "{place}");
            let place = format!("{place}, with {what}");
            canaries.none_in(&place, &text);
            plain(&place, &text);
        }
    }
}

fn surfaces_of(harness: &Harness, running: &Running) -> Vec<(String, String)> {
    let mut said = Vec::new();
    for path in ["/status", "/readyz", "/readyz?verbose", "/startupz", "/metrics"] {
        said.push((path.to_owned(), running.get(path).1));
    }
    for arguments in [&["health", "ready"][..], &["status"]] {
        let mut command = harness.command(arguments[0]);
        command.args(&arguments[1..]).env("ECR_SIDECAR_HEALTH_LISTEN", running.health().to_string());
        said.push((arguments.join(" "), everything_said(&mut command)));
    }
    said
}

fn everything_said(command: &mut Command) -> String {
    let output = output(command, DEADLINE);
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn sts_shows_neither_the_keys_nor_the_external_id_when_it_repeats_them() {
    let harness = Harness::new(BINARY).without_keys();
    let [id, key, token] = harness.session();
    let external_id = "a-shared-secret-of-two-companies";
    for (name, value) in [("id", &id), ("key", &key), ("token", &token)] {
        harness.write(&format!("keys/{name}"), value);
    }
    let at = |name: &str| harness.at(&format!("keys/{name}")).display().to_string();
    let config = harness.write(
        "config.yaml",
        &format!(
            "identities:\n  default: {{source: static, accessKeyIdFile: {}, secretAccessKeyFile: {}, sessionTokenFile: {}, \
             assumeRoles: [{{roleArn: 'arn:aws:iam::123456789012:role/r', externalId: {external_id}}}]}}\n",
            at("id"), at("key"), at("token"),
        ),
    );
    let canaries = Canaries::of(&[&key, &token, external_id]);
    for (what, fault) in hostile_answers() {
        harness.emulator.set_fault(Service::Sts, fault);
        let once = harness.once(|command| {
            command.args(["--timeout", "1s"]).env("ECR_SIDECAR_LOG", "trace");
            command.env("ECR_SIDECAR_CONFIG", &config);
        });
        assert_eq!(once.code, Some(69), "{what}: {}", once.stderr);
        canaries.none_in(what, &once.stderr);
        plain(what, &once.stderr);
    }
}
