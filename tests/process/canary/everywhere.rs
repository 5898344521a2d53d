//! Everything that a running sidecar and the commands next to it show, against everything that AWS answered.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ecr_emulator::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Service};
use serde_json::json;
use test_support::{
    Harness, Running, Signal, clean_command,
    files::{auth, replace},
    harness::{DEADLINE, PUBLIC, configured_by},
    output,
    tap::Tap,
    wait_for,
};

use super::{Canaries, faults};
use crate::BINARY;

/// The number of the registry whose identity is a session.
const SESSION: usize = 999;

const ECR_PASSWORD: &str = "an ECR password";
const FOREIGN_PASSWORD: &str = "the password of another registry";

fn host(number: usize) -> String {
    format!("{number:012}.dkr.ecr.eu-west-1.amazonaws.com")
}

/// Every file below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn no_secret_shows_anywhere_but_in_the_docker_config() {
    let harness = Harness::new(BINARY);
    let tap = Tap::on(&harness.emulator.endpoint());
    let web_token = || harness.web_identity_token("system:serviceaccount:argocd:repo-server");
    let first_web_token = web_token();
    let session = harness.session();
    let inputs = Inputs {
        web_token: harness.put("in/web-token", &first_web_token),
        keys: [("id", ACCESS_KEY_ID), ("secret", SECRET_ACCESS_KEY)]
            .map(|(name, text)| harness.put(&format!("in/{name}"), text)),
        session: [0, 1, 2].map(|part| harness.put(&format!("in/session-{part}"), &session[part])),
    };
    let foreign = "password-of-another-0123456789abcdef";
    let foreign_auth = BASE64_STANDARD.encode(format!("user:{foreign}"));
    // Two that readers trip over, which is reported.
    let others = json!({"auths": {
        "ghcr.io": {"auth": foreign_auth},
        "bad.example.com": {"auth": format!("{foreign}!")},
        format!("https://user:{foreign}@{}/v1", host(0)): {"auth": foreign_auth},
    }});
    replace(&harness.file(), &others.to_string());

    // One identity a fault of STS and a fault of ECR, and some for which all goes well.
    let (of_sts, of_ecr) = (faults(Service::Sts), faults(Service::Ecr));
    let count = of_sts.len() + of_ecr.len() + 4;
    for (service, faults) in [(Service::Sts, &of_sts), (Service::Ecr, &of_ecr)] {
        faults.iter().for_each(|fault| harness.emulator.push_fault(service, fault.clone(), 1));
    }
    let yaml = |registries| inputs.configuration(count, registries, &harness.file());
    let config = harness.put("in/ecr-sidecar.yaml", &yaml(count));
    let home = harness.at("home");
    fs::create_dir(&home).unwrap();
    let sidecar = harness.run(|command| {
        configured_by(command, &config);
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command.env("HOME", &home).env("AWS_ENDPOINT_URL", tap.endpoint()).env("ECR_SIDECAR_LOG", "trace");
    });
    let answers = || answers(&sidecar, &config, &tap);

    // Every fault has been met, and every first attempt has ended.
    sidecar.wait_status("an end of every first attempt", |status| {
        let tokens = status["tokens"].as_array().unwrap();
        let all_there = tokens.len() == count + 2; // not before the configuration is applied
        all_there
            && tokens
                .iter()
                .all(|token| token["refreshed"].as_u64().unwrap() + token["failed"].as_u64().unwrap() > 0)
    });
    assert!(harness.emulator.count(Service::Sts) >= of_sts.len() as u64);
    wait_for("all faults of ECR", DEADLINE, || {
        (harness.emulator.count(Service::Ecr) >= of_ecr.len() as u64).then_some(())
    });
    let mut said = answers();

    // Everything again: a reload, another web-identity token, a configuration that is rejected, SIGHUP.
    let second_web_token = web_token();
    replace(&inputs.web_token, &second_web_token);
    sidecar.wait_log("credential file changed", DEADLINE);
    replace(&config, "registrys: 1");
    sidecar.wait_log("reload rejected", DEADLINE);
    replace(&config, &yaml(count + 1));
    sidecar.wait_ready();
    let auths = || [PUBLIC, &host(0), &host(SESSION)].map(|host| auth(&harness.file(), host));
    let before = auths();
    assert!(before.iter().all(Option::is_some));
    sidecar.refresh();
    wait_for("another token everywhere", DEADLINE, || {
        auths().iter().zip(&before).all(|(after, before)| after.is_some() && after != before).then_some(())
    });
    sidecar.wait_ready();
    said.extend(answers());

    let environment = sidecar.environ().join("\n");
    let arguments = sidecar.cmdline().join(" ");
    assert!(environment.contains("ECR_SIDECAR_LOG=trace") && arguments.ends_with(" run"));
    sidecar.signal(Signal::TERM);
    assert!(sidecar.wait_exit(DEADLINE).success());
    // No write is under way any more, whose temporary file would be one too many.
    let files = files_below(&harness.at("home")).into_iter().chain(files_below(&harness.at("out")));
    let files: Vec<_> =
        files.map(|file| (file.display().to_string(), fs::read_to_string(file).unwrap())).collect();
    let log = sidecar.stderr();
    assert!(log.contains("\"level\":\"INFO\""), "it did log");
    said.extend([
        ("the log".to_owned(), log),
        ("standard output".to_owned(), sidecar.stdout()),
        ("the environment".to_owned(), environment),
        ("the arguments".to_owned(), arguments),
    ]);

    let mut canaries = Canaries::default();
    canaries.add("the secret access key", SECRET_ACCESS_KEY);
    canaries.add("the secret key of the session", &session[1]);
    canaries.add("the token of the session", &session[2]);
    canaries.add("the web-identity token", &first_web_token);
    canaries.add("the next web-identity token", &second_web_token);
    canaries.add(FOREIGN_PASSWORD, foreign);
    let overheard = [
        (ECR_PASSWORD, passwords(&tap)),
        ("a session token", tap.heard("<SessionToken>", "</SessionToken>")),
        ("a temporary secret key", tap.heard("<SecretAccessKey>", "</SecretAccessKey>")),
    ];
    for (what, secrets) in overheard {
        assert!(secrets.len() >= count, "{} times {what}", secrets.len());
        secrets.iter().for_each(|secret| canaries.add(what, secret));
    }
    for (place, text) in &said {
        canaries.none_in(place, text);
    }
    only_in_the_docker_config(&canaries, &files);
}

/// The files that the identities rest on.
struct Inputs {
    web_token: PathBuf,
    keys: [PathBuf; 2],
    session: [PathBuf; 3],
}

impl Inputs {
    /// So many identities, half of them with a web-identity token and half with keys, and one of the session; so many
    /// registries, and two more.
    fn configuration(&self, identities: usize, registries: usize, output: &Path) -> String {
        let [id, secret] = self.keys.each_ref().map(|path| path.display());
        let mut yaml = "identities:\n".to_owned();
        for number in 0..identities {
            let role = format!("arn:aws:iam::123456789012:role/r{number}");
            let source = if number % 2 == 0 {
                let token = self.web_token.display();
                format!("source: web-identity, tokenFile: {token}, roleArn: '{role}'")
            } else {
                format!(
                    "source: static, accessKeyIdFile: {id}, secretAccessKeyFile: {secret}, assumeRoles: [{{roleArn: '{role}'}}]"
                )
            };
            let _ = writeln!(yaml, "  i{number}: {{{source}}}");
        }
        let [id, secret, token] = self.session.each_ref().map(|path| path.display());
        let _ = writeln!(
            yaml,
            "  session: {{source: static, accessKeyIdFile: {id}, secretAccessKeyFile: {secret}, \
             sessionTokenFile: {token}}}\nregistries:\n\
             - {{host: {PUBLIC}, identity: i0}}\n- {{host: {}, identity: session}}",
            host(SESSION)
        );
        for number in 0..registries {
            let identity = number % identities;
            let _ = writeln!(yaml, "- {{host: {}, identity: i{identity}}}", host(number));
        }
        yaml + &format!("outputs: [{{type: docker-config, path: {}}}]\n", output.display())
    }
}

/// What the endpoints and the commands say, each with its name.
fn answers(sidecar: &Running, config: &Path, tap: &Tap) -> Vec<(String, String)> {
    let mut said = Vec::new();
    for path in [
        "/status",
        "/metrics",
        "/livez?verbose",
        "/readyz",
        "/readyz?verbose",
        "/startupz?verbose",
        "/nothing",
    ] {
        said.push((path.to_owned(), sidecar.get(path).1));
    }
    let listen = sidecar.health().to_string();
    for arguments in [
        &["config"][..],
        &["health", "live"],
        &["health", "ready"],
        &["health", "startup"],
        &["wait", "--timeout", "1s"],
        &["once", "--timeout", "1s"],
    ] {
        let mut command = clean_command(BINARY, Path::new("/nonexistent"));
        command.args(arguments).env("ECR_SIDECAR_CONFIG", config).env("ECR_SIDECAR_LOG", "trace");
        command.env("ECR_SIDECAR_HEALTH_LISTEN", &listen).env("AWS_REGION", "eu-west-1");
        command.env("AWS_ENDPOINT_URL", tap.endpoint());
        let output = output(&mut command, DEADLINE);
        for bytes in [output.stdout, output.stderr] {
            said.push((arguments.join(" "), String::from_utf8(bytes).unwrap()));
        }
    }
    said
}

/// Those of all tokens that ECR gave.
fn passwords(tap: &Tap) -> Vec<String> {
    let tokens: BTreeSet<_> = tap.heard("\"authorizationToken\":\"", "\"").into_iter().collect();
    tokens
        .iter()
        .filter_map(|token| String::from_utf8(BASE64_STANDARD.decode(token).ok()?).ok())
        .filter_map(|text| text.strip_prefix("AWS:").map(str::to_owned))
        .filter(|password| !password.is_empty())
        .collect()
}

fn only_in_the_docker_config(canaries: &Canaries, files: &[(String, String)]) {
    for (file, text) in files {
        let theirs = BTreeSet::from([ECR_PASSWORD, FOREIGN_PASSWORD]);
        let found = canaries.in_text(text);
        if file.ends_with("/out/config.json") {
            assert_eq!(found, theirs, "in {file}");
        } else if file.ends_with(".tmp") {
            // A command that was cut off at its time limit left what it was writing.
            assert!(found.is_subset(&theirs), "in {file}: {found:?}");
        } else {
            assert_eq!(found, BTreeSet::new(), "in {file}");
        }
    }
    assert!(files.iter().any(|(file, _)| file.ends_with("/out/config.json")));
}
