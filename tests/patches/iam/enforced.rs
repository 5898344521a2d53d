//! Under the policies as they are shipped, the sidecar gets its token and every consumer its image; each action that is
//! taken out of them is missed, by the call that needs it, and by no other.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::LazyLock,
    time::Duration,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ecr_emulator::{ACCESS_KEY_ID, Emulator, POD_IDENTITY_TOKEN, SECRET_ACCESS_KEY, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{clean_command, output};

use super::{
    cases::{BY_ROLE, CASES, CONSUMERS, Call, Case, Identity, OURS, ROLE, THEIR_ROLE},
    policy,
};
use crate::{
    build::{ROOT, read},
    containers::BINARY,
};

#[test]
fn with_each_shipped_policy_tags_are_listed_and_images_pulled_and_no_action_is_too_many() {
    let mut exercised = BTreeSet::new();
    for case in CASES {
        let files: Vec<_> = case.attached.iter().flat_map(|(_, _, files)| *files).collect();
        let outcome = case.run(None);
        let nothing = Outcome { token: Ok(()), denied: BTreeSet::new(), failed: Vec::new() };
        assert_eq!(outcome, nothing, "{files:?} at {}", case.host);
        for file in case.exercised {
            exercised.insert((*file).to_owned());
            for action in super::actions(&policy(file)) {
                case.misses(file, action);
            }
        }
    }
    let shipped = shipped(&Path::new(ROOT).join("patches/iam"), "");
    assert_eq!(exercised, shipped, "each file is tried");
}

/// What came of it all.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// The sidecar's message when it gets no token.
    token: Result<(), String>,
    /// The actions that the journal has as denied.
    denied: BTreeSet<String>,
    /// The consumers that did not get all they asked for.
    failed: Vec<&'static str>,
}

impl Case {
    /// The promise: without the action, exactly the calls that need it are denied, and the answer names it.
    fn misses(&self, file: &str, action: &str) {
        let outcome = self.run(Some((file, action)));
        let context = format!("{file} without {action} at {}: {outcome:?}", self.host);
        assert_eq!(outcome.denied, BTreeSet::from([action.to_owned()]), "{context}");
        if let Err(message) = &outcome.token {
            // EKS does not say which action the trust policy lacks.
            let named = message.contains(action) || message.contains("does not have permissions to assume");
            assert!(named, "{context}");
        } else if self.repository == "app" {
            let needed = |calls: &&[Call]| calls.iter().any(|(_, _, needed)| *needed == action);
            let expected = CONSUMERS.iter().filter(|(_, calls)| needed(calls)).map(|(name, _)| *name);
            assert_eq!(outcome.failed, expected.collect::<Vec<_>>(), "{context}");
        } else {
            assert_eq!(outcome.failed, CONSUMERS.map(|(name, _)| name), "nothing is in the cache: {context}");
        }
    }

    fn run(&self, without: Option<(&str, &str)>) -> Outcome {
        let settings = Settings { pod_identity_role: ROLE.to_owned(), ..Settings::default() };
        let aws = Emulator::start(settings).unwrap();
        aws.add_pull_through_cache("docker-hub");
        for (attachment, arn, files) in self.attached {
            let documents: Vec<_> = files.iter().map(|file| document(file, arn, without)).collect();
            let documents: Vec<_> = documents.iter().map(String::as_str).collect();
            aws.set_policies(attachment((*arn).to_owned()), &documents);
        }
        let token = self.token(&aws);
        let auth = token.as_deref().map(|token| STANDARD.encode(token)).map_err(ToOwned::to_owned);
        let failed = auth.as_deref().map_or_else(|_| Vec::new(), |auth| self.consume(&aws, auth));
        let denied = aws.calls().into_iter().filter_map(|call| call.denied).collect();
        Outcome { token: token.map(drop), denied, failed }
    }

    /// What the sidecar prints for the registry.
    fn token(&self, aws: &Emulator) -> Result<String, String> {
        let home = tempfile::tempdir().unwrap();
        let mut command = clean_command(BINARY, home.path());
        command.args(["print", self.host]).env("AWS_ENDPOINT_URL", aws.endpoint());
        self.identify(&mut command, &home, aws);
        if self.host == BY_ROLE {
            let text = read("patches/flux/several-accounts/config.yaml");
            let text = text.replace("/var/run/ecr-sidecar", home.path().to_str().unwrap());
            let lines = text.lines().filter(|line| !line.contains("docker-config-secret"));
            command
                .env("ECR_SIDECAR_CONFIG", save(&home, "config.yaml", &lines.collect::<Vec<_>>().join("\n")));
        }
        let printed = output(&mut command, Duration::from_secs(30));
        if printed.status.success() {
            Ok(String::from_utf8(printed.stdout).unwrap().trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&printed.stderr).into_owned())
        }
    }

    fn identify(&self, command: &mut Command, home: &TempDir, aws: &Emulator) {
        match self.identity {
            Identity::Keys => {
                command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID);
                command.env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
            }
            Identity::Irsa => {
                command.env("AWS_ROLE_ARN", ROLE);
                command.env("AWS_WEB_IDENTITY_TOKEN_FILE", save(home, "token", &pod_token()));
            }
            Identity::Pod => {
                let file = save(home, "token", POD_IDENTITY_TOKEN);
                command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file);
                let url = format!("{}/v1/credentials", aws.endpoint());
                command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
            }
        }
    }

    /// Runs every consumer, and returns those that failed.
    fn consume(&self, aws: &Emulator, auth: &str) -> Vec<&'static str> {
        let passes = |(method, path, action): &Call| {
            let path = format!("/v2/{}/{}", self.repository, path.replace("LAYER", &LAYER_DIGEST));
            let (status, answer) = ask(aws, self.host, auth, method, &path);
            if status == 403 && *method == "GET" && self.repository == "app" {
                let sentence = format!("is not authorized to perform: {action} on resource: arn:aws:ecr:");
                assert!(answer.contains("\"DENIED\"") && answer.contains(&sentence), "{answer}");
                assert!(answer.contains(":repository/app because no "), "{answer}");
            }
            status == 200
        };
        let failed = CONSUMERS.iter().filter(|(_, calls)| !calls.iter().all(passes));
        failed.map(|(name, _)| *name).collect()
    }
}

/// A file as it is attached there, without an action where that is asked for.
fn document(file: &str, arn: &str, without: Option<(&str, &str)>) -> String {
    let mut document = policy(file);
    if let Some((_, action)) = without.filter(|(wanted, _)| *wanted == file) {
        take_out(&mut document, action);
    }
    // The other account has the pull policy with its own values.
    if file == "pull-policy.json" && arn == THEIR_ROLE {
        let text = document.to_string();
        return text.replace("123456789012", "999999999999").replace("eu-west-1", "us-east-1");
    }
    document.to_string()
}

fn take_out(document: &mut Value, action: &str) {
    let statements = document["Statement"].as_array_mut().unwrap();
    for statement in &mut *statements {
        let listed = &statement["Action"];
        let rest: Vec<_> = match listed.as_array() {
            Some(actions) => actions.iter().filter(|listed| *listed != action).cloned().collect(),
            None => [listed].into_iter().filter(|listed| *listed != action).cloned().collect(),
        };
        statement["Action"] = rest.into();
    }
}

/// The files of policies in a folder and those below it.
fn shipped(folder: &Path, prefix: &str) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for entry in folder.read_dir().unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            files.extend(shipped(&entry.path(), &format!("{name}/")));
        } else if name.ends_with(".json") {
            files.insert(name);
        }
    }
    files
}

/// A token of the cluster and the service account that the trust policy names; the emulator knows no key of that issuer.
fn pod_token() -> String {
    let trust = policy("trust-irsa.json");
    let provider = trust["Statement"][0]["Principal"]["Federated"].as_str().unwrap();
    let (_, issuer) = provider.split_once("oidc-provider/").unwrap();
    let claims = json!({
        "iss": format!("https://{issuer}"),
        "sub": "system:serviceaccount:flux-system:image-reflector-controller",
        "aud": ["sts.amazonaws.com"],
        "exp": 4_102_444_800_u64,
    });
    let header = json!({"alg": "RS256", "kid": "cluster", "typ": "JWT"});
    [header.to_string(), claims.to_string(), "signature".to_owned()]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".")
}

/// The layer of the emulator's image, as an emulator without policies gives its manifest.
static LAYER_DIGEST: LazyLock<String> = LazyLock::new(|| {
    let aws = Emulator::start(Settings::default()).unwrap();
    let auth = STANDARD.encode(CASES[0].token(&aws).unwrap());
    let (_, answer) = ask(&aws, OURS, &auth, "GET", "/v2/app/manifests/1.0");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let manifest: Value = serde_json::from_str(body).unwrap();
    manifest["layers"][0]["digest"].as_str().unwrap().to_owned()
});

fn ask(aws: &Emulator, host: &str, auth: &str, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(aws.endpoint().strip_prefix("http://").unwrap()).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {auth}\r\n");
    write!(stream, "{head}Connection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

fn save(home: &TempDir, name: &str, text: &str) -> std::path::PathBuf {
    let path = home.path().join(name);
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path
}
