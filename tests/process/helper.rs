//! `docker-credential-ecr-sidecar`: the protocol of docker's credential helpers, and the cache behind it.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ecr_emulator::{Fault, Service};
use serde_json::{Value, json};
use test_support::{
    Harness,
    files::overwrite,
    harness::{HOST, KEYS},
};

use crate::BINARY;

const NOT_FOUND: &str = "credentials not found in native keychain\n";

/// The helper by its own name, with the default user's keys.
fn helper(harness: &Harness, action: &str, prepare: impl FnOnce(&mut Command)) -> Command {
    let link = harness.at("bin/docker-credential-ecr-sidecar");
    if !link.exists() {
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(BINARY, &link).unwrap();
    }
    let usual = harness.command(action);
    let mut command = Command::new(link);
    command.env_clear().envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.arg(action).envs(KEYS);
    prepare(&mut command);
    command
}

pub(crate) fn start(command: &mut Command, question: &str) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(question.as_bytes()).unwrap();
    child
}

pub(crate) fn ask(command: &mut Command, question: &str) -> Output {
    start(command, question).wait_with_output().unwrap()
}

fn get(harness: &Harness, prepare: impl FnOnce(&mut Command)) -> Output {
    ask(&mut helper(harness, "get", prepare), HOST)
}

/// The secret of an answer, which the registry lets in.
#[track_caller]
fn secret(harness: &Harness, output: &Output) -> String {
    let (said, reported) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{reported}");
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((answer["ServerURL"].as_str(), answer["Username"].as_str()), (Some(HOST), Some("AWS")));
    let secret = answer["Secret"].as_str().unwrap().to_owned();
    harness.admits(HOST, &STANDARD.encode(format!("AWS:{secret}")));
    secret
}

#[track_caller]
fn failed(output: &Output, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "one line: {said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

/// The one token in the cache of the home folder.
pub(crate) fn cached(harness: &Harness) -> PathBuf {
    let entries = fs::read_dir(harness.at(".cache/ecr-sidecar")).unwrap().map(|entry| entry.unwrap().path());
    let mut tokens: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|it| it == "token")).collect();
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    tokens.remove(0)
}

/// Lets the cached token grow older.
pub(crate) fn age(harness: &Harness, hours: u64) {
    let path = cached(harness);
    let mut token: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for time in ["obtained_at", "expires_at"] {
        token[time] = json!(token[time].as_u64().unwrap() - hours * 3600);
    }
    overwrite(&path, &token.to_string());
}

#[test]
fn the_protocol_is_docker_s() {
    let harness = Harness::new(BINARY).without_keys();
    let say = |action: &str, question: &str| {
        let output = ask(&mut helper(&harness, action, |_| {}), question);
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    for asked in [HOST.to_owned(), format!("https://{HOST}"), format!("https://{HOST}/v2/\n")] {
        let (code, said) = say("get", &asked);
        let answer: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((code, answer["ServerURL"].as_str().unwrap()), (0, asked.trim()));
        assert_eq!((answer["Username"].as_str(), answer.as_object().unwrap().len()), (Some("AWS"), 3));
    }
    for other in ["ghcr.io", "https://index.docker.io/v1/", "localhost:5000", "not a host", "https://"] {
        assert_eq!(say("get", other), (1, NOT_FOUND.to_owned()), "{other}");
    }
    assert_eq!(say("get", " \n"), (1, "no credentials server URL\n".to_owned()));
    assert_eq!(say("list", ""), (0, format!("{{\"https://{HOST}\":\"AWS\"}}\n")));
    let version = env!("CARGO_PKG_VERSION");
    let version =
        format!("docker-credential-ecr-sidecar (https://github.com/ecr-sidecar/ecr-sidecar) {version}\n");
    assert_eq!(say("version", ""), (0, version));
    let credentials = format!(r#"{{"ServerURL":"{HOST}","Username":"me","Secret":"x"}}"#);
    for (action, question, part) in [
        ("store", credentials.as_str(), "nothing is stored here"),
        ("erase", HOST, "nothing is stored here"),
        ("frobnicate", "", "usage: docker-credential-ecr-sidecar <get|list|store|erase|version>"),
    ] {
        let (code, said) = say(action, question);
        assert!(code == 1 && said.contains(part) && said.lines().count() == 1, "{action}: {said}");
    }
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
}

#[test]
fn with_nothing_configured_it_answers_for_ecr_and_for_nothing_else() {
    let harness = Harness::new(BINARY).without_keys();
    let ask = |action: &str, question: &str| {
        ask(
            &mut helper(&harness, action, |command| {
                command.env_remove("ECR_SIDECAR_REGISTRIES");
            }),
            question,
        )
    };
    secret(&harness, &ask("get", HOST));
    assert_eq!(ask("get", "ghcr.io").stdout, NOT_FOUND.as_bytes());
    assert_eq!(ask("list", "").stdout, b"{}\n");
}

#[test]
fn what_fails_is_one_line_with_its_remedy() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.set_fault(Service::Ecr, Fault::AccessDenied);
    failed(&get(&harness, |_| {}), &[HOST, "AccessDenied", "to fix it:"]);
    let bad = get(&harness, |command| {
        command.env("ECR_SIDECAR_FILE_MODE", "0666").env("ECR_SIDECAR_HEALTH_LISTEN", "x");
    });
    failed(&bad, &["ECR_SIDECAR_FILE_MODE", "ECR_SIDECAR_HEALTH_LISTEN"]);
}

#[test]
fn a_running_sidecar_s_token_costs_no_call() {
    let harness = Harness::new(BINARY).without_keys();
    let _running = harness.run_ready(|_| {});
    let counts = harness.counts();
    let secret = secret(&harness, &get(&harness, |_| {}));
    assert_eq!(Some(&STANDARD.encode(format!("AWS:{secret}"))), harness.auths().get(HOST));
    assert_eq!(harness.counts(), counts);
    assert!(!harness.at(".cache").exists(), "what a sidecar keeps is not kept twice");
}

#[test]
fn fifty_at_a_time_cost_one_call() {
    let harness = Harness::new(BINARY).without_keys();
    let children: Vec<_> = (0..50).map(|_| start(&mut helper(&harness, "get", |_| {}), HOST)).collect();
    let secrets: Vec<_> =
        children.into_iter().map(|child| secret(&harness, &child.wait_with_output().unwrap())).collect();
    assert!(secrets.iter().all(|secret| *secret == secrets[0]));
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
}

#[test]
fn a_cached_token_is_used_while_it_lives() {
    let harness = Harness::new(BINARY).without_keys();
    let get = || get(&harness, |_| {});
    let first = secret(&harness, &get());
    age(&harness, 5);
    assert_eq!(secret(&harness, &get()), first);
    assert_eq!(harness.emulator.count(Service::Ecr), 1);

    age(&harness, 2); // more than half of it is over
    let second = secret(&harness, &get());
    assert_ne!(second, first);
    assert_eq!(harness.emulator.count(Service::Ecr), 2);

    age(&harness, 7);
    for fault in [Fault::AccessDenied, Fault::Hang] {
        harness.emulator.set_fault(Service::Ecr, fault);
        assert_eq!(secret(&harness, &get()), second);
    }
    harness.emulator.set_fault(Service::Ecr, Fault::AccessDenied);
    age(&harness, 6); // it has ended
    failed(&get(), &["AccessDenied"]);
}

#[test]
fn another_profile_does_not_get_this_ones_token() {
    let harness = Harness::new(BINARY).without_keys();
    let [id, key, session] = harness.session();
    harness.write(
        ".aws/credentials",
        &format!(
            "[one]\naws_access_key_id = {}\naws_secret_access_key = {}\n\
             [two]\naws_access_key_id = {id}\naws_secret_access_key = {key}\naws_session_token = {session}\n",
            KEYS[0].1, KEYS[1].1
        ),
    );
    let by = |profile: &str| {
        secret(
            &harness,
            &get(&harness, |command| {
                command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
                command.env("AWS_PROFILE", profile);
            }),
        )
    };
    let (one, two) = (by("one"), by("two"));
    assert_ne!(one, two);
    assert_eq!((by("one"), by("two")), (one, two));
    assert_eq!(harness.emulator.count(Service::Ecr), 2);
}

#[test]
fn a_folder_that_cannot_be_used_costs_a_call_and_nothing_else() {
    let harness = Harness::new(BINARY).without_keys();
    let open = harness.at("open");
    fs::create_dir_all(open.join("ecr-sidecar")).unwrap();
    fs::set_permissions(open.join("ecr-sidecar"), fs::Permissions::from_mode(0o755)).unwrap();
    let file = harness.write("file", "");
    let folders = [open, file, "/proc/none".into(), "relative".into()];
    for (count, folder) in (1..).zip(&folders) {
        let output = get(&harness, |command| {
            command.env_remove("HOME").env("XDG_RUNTIME_DIR", folder).env("XDG_CACHE_HOME", folder);
        });
        secret(&harness, &output);
        assert_eq!(harness.emulator.count(Service::Ecr), count, "{}", folder.display());
    }
    assert_eq!(fs::read_dir(harness.at("open/ecr-sidecar")).unwrap().count(), 0);
}

#[test]
fn a_folder_that_fills_up_costs_a_call_and_nothing_else() {
    let harness = Harness::new(BINARY).without_keys();
    secret(&harness, &get(&harness, |_| {}));
    let path = cached(&harness);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap(); // nothing can be put in its place
    secret(&harness, &get(&harness, |_| {}));
    assert_eq!(harness.emulator.count(Service::Ecr), 2);
}

/// Whoever holds the other end of standard input may never close it.
#[test]
fn a_question_that_never_ends_is_given_up() {
    let harness = Harness::new(BINARY).without_keys();
    for action in ["get", "store", "erase"] {
        let mut command = helper(&harness, action, |_| {});
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut held = child.stdin.take().unwrap();
        held.write_all(HOST.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let sentence = if action == "get" { "standard input did not end" } else { "nothing is stored here" };
        failed(&output, &[sentence]);
        drop(held);
    }
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_question_without_bound_is_none() {
    let harness = Harness::new(BINARY).without_keys();
    for endless in ["/dev/zero", "/dev/urandom"] {
        let mut command = helper(&harness, "get", |_| {});
        command.stdin(std::fs::File::open(endless).unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        failed(&output, &["no credentials server URL"]);
    }
}
