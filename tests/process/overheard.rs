//! Whatever AWS is overheard to tell the sidecar shows nowhere but in the docker config: not at TRACE, not in a
//! piece or in another encoding, whatever goes wrong.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use ecr_emulator::{ACCESS_KEY_ID, Fault, SECRET_ACCESS_KEY, Service};
use serde_json::json;
use test_support::{
    Harness, Signal, clean_command,
    files::{replace, wait_auth},
    harness::{DEADLINE, configured_by},
    output,
    tap::Tap,
    wait_for,
};

use crate::BINARY;

/// So long a piece of a secret is a leak.
const PIECE: usize = 24;

fn host(number: usize) -> String {
    format!("{number:012}.dkr.ecr.eu-west-1.amazonaws.com")
}

/// Every way for a call of the service to go wrong.
fn faults(service: Service) -> Vec<Fault> {
    let error = |code: &str| Fault::Error { status: 400, code: code.into(), message: "no".into() };
    let faults = [
        Fault::Status(500),
        error("ServerException"),
        error("ExpiredTokenException"),
        error("InvalidSignatureException"),
        Fault::Throttled,
        Fault::AccessDenied,
        Fault::Hang,
        Fault::Reset,
        Fault::SlowBody(Duration::from_micros(100)),
        Fault::Garbage,
        Fault::Html,
        Fault::Huge,
        Fault::EmptyList,
        Fault::NoExpiry,
        Fault::NotBase64,
        Fault::NotAws,
        Fault::EmptyPassword,
        Fault::ColonPassword,
        Fault::ExpiredOnArrival,
        Fault::FarFuture,
    ];
    faults.into_iter().filter(|fault| fault.applies_to(service)).collect()
}

/// Secrets, cut to pieces in the forms in which they could show.
#[derive(Default)]
struct Canaries(HashMap<[u8; PIECE], &'static str>);

impl Canaries {
    fn add(&mut self, what: &'static str, secret: &str) {
        let mut forms = vec![secret.to_owned(), percent(secret, false), percent(secret, true)];
        for shift in 0..3 {
            // Without the ends, in which neighbours have a part.
            let bytes = [&b"xx"[..shift], secret.as_bytes()].concat();
            for encoded in [BASE64_STANDARD.encode(&bytes), BASE64_URL_SAFE_NO_PAD.encode(&bytes)] {
                forms.push(encoded[4..encoded.len() - 4].to_owned());
            }
        }
        for form in forms {
            let pieces: Vec<_> = form.as_bytes().windows(PIECE).step_by(PIECE / 2).collect();
            assert!(!pieces.is_empty(), "{what} is too short to be told from chance");
            self.0.extend(pieces.into_iter().map(|piece| (piece.try_into().unwrap(), what)));
        }
    }

    /// What of them is in the text.
    fn in_text(&self, text: &str) -> BTreeSet<&'static str> {
        text.as_bytes().windows(PIECE).filter_map(|window| self.0.get(window).copied()).collect()
    }
}

fn percent(text: &str, lower: bool) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        let _ = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.write_char(char::from(byte))
            }
            _ if lower => write!(encoded, "%{byte:02x}"),
            _ => write!(encoded, "%{byte:02X}"),
        };
    }
    encoded
}

#[test]
fn a_canary_is_found_in_every_form() {
    let secret = "sEcReT+with/odd=signs&such0123456789abcdef";
    let mut canaries = Canaries::default();
    canaries.add("a secret", secret);
    for text in [
        format!("error: {secret} is wrong"),
        format!("piece {}", &secret[3..40]),
        BASE64_STANDARD.encode(format!("AWS:{secret}")),
        BASE64_URL_SAFE_NO_PAD.encode(format!("x{secret}y")),
        format!("Token={}", percent(secret, false)),
        format!("Token={}", percent(secret, true)),
    ] {
        assert_eq!(canaries.in_text(&text), BTreeSet::from(["a secret"]), "{text}");
    }
    assert!(canaries.in_text("sEcReT+with/odd=sign and nothing more of it").is_empty());
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
    let rig = Harness::new(BINARY);
    let tap = Tap::on(&rig.emulator.endpoint());
    let web_token = || {
        rig.emulator.web_identity_token(
            "system:serviceaccount:argocd:repo-server",
            "sts.amazonaws.com",
            Duration::from_secs(3600),
        )
    };
    let first_web_token = web_token();
    let web = rig.put("in/web-token", &first_web_token);
    let id = rig.put("in/access-key-id", ACCESS_KEY_ID);
    let secret = rig.put("in/secret-access-key", SECRET_ACCESS_KEY);
    let foreign = "somebody-elses-password-0123456789abcdef";
    let foreign_auth = BASE64_STANDARD.encode(format!("user:{foreign}"));
    // Two that readers trip over, which is told.
    let others = json!({"auths": {
        "ghcr.io": {"auth": foreign_auth},
        "bad.example.com": {"auth": format!("{foreign}!")},
        format!("https://user:{foreign}@{}/v1", host(0)): {"auth": foreign_auth},
    }});
    replace(&rig.file(), &others.to_string());

    // One identity a fault of STS and a fault of ECR, and some for which all goes well.
    let (of_sts, of_ecr) = (faults(Service::Sts), faults(Service::Ecr));
    let count = of_sts.len() + of_ecr.len() + 4;
    for (service, faults) in [(Service::Sts, &of_sts), (Service::Ecr, &of_ecr)] {
        faults.iter().for_each(|fault| rig.emulator.push_fault(service, fault.clone(), 1));
    }
    let yaml = |registries: usize| {
        let mut yaml = "identities:\n".to_owned();
        for number in 0..count {
            let role = format!("arn:aws:iam::123456789012:role/r{number}");
            let source = if number % 2 == 0 {
                format!("source: web-identity, tokenFile: {}, roleArn: '{role}'", web.display())
            } else {
                format!(
                    "source: static, accessKeyIdFile: {}, secretAccessKeyFile: {}, assumeRoles: [{{roleArn: '{role}'}}]",
                    id.display(),
                    secret.display()
                )
            };
            let _ = writeln!(yaml, "  i{number}: {{{source}}}");
        }
        yaml.push_str("registries:\n");
        for number in 0..registries {
            let identity = number % count;
            let _ = writeln!(yaml, "- {{host: {}, identity: i{identity}}}", host(number));
        }
        yaml + &format!("outputs: [{{type: docker-config, path: {}}}]\n", rig.file().display())
    };
    let config = rig.put("in/ecr-sidecar.yaml", &yaml(count));
    let home = rig.at("home");
    fs::create_dir(&home).unwrap();
    let sidecar = rig.run(|command| {
        configured_by(command, &config);
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command.env("HOME", &home).env("AWS_ENDPOINT_URL", tap.endpoint()).env("ECR_SIDECAR_LOG", "trace");
    });
    let mut said: Vec<(String, String)> = Vec::new();
    let ask = |said: &mut Vec<(String, String)>| {
        for path in
            ["/status", "/metrics", "/livez?verbose", "/readyz", "/readyz?verbose", "/startupz?verbose"]
        {
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
            command.args(arguments).env("ECR_SIDECAR_CONFIG", &config).env("ECR_SIDECAR_LOG", "trace");
            command.env("ECR_SIDECAR_HEALTH_LISTEN", &listen).env("AWS_REGION", "eu-west-1");
            command.env("AWS_ENDPOINT_URL", tap.endpoint());
            let output = output(&mut command, DEADLINE);
            for bytes in [output.stdout, output.stderr] {
                said.push((arguments.join(" "), String::from_utf8(bytes).unwrap()));
            }
        }
    };

    // Every fault has been met, and every first attempt has ended.
    sidecar.wait_status("an end of every first attempt", |status| {
        let tokens = status["tokens"].as_array().unwrap();
        let all_there = tokens.len() == count; // not before the configuration is applied
        all_there
            && tokens
                .iter()
                .all(|token| token["refreshed"].as_u64().unwrap() + token["failed"].as_u64().unwrap() > 0)
    });
    assert!(rig.emulator.count(Service::Sts) >= of_sts.len() as u64);
    wait_for("all faults of ECR", DEADLINE, || {
        (rig.emulator.count(Service::Ecr) >= of_ecr.len() as u64).then_some(())
    });
    ask(&mut said);

    // Everything again: a reload, another web-identity token, a configuration that is refused, SIGHUP.
    let second_web_token = web_token();
    replace(&web, &second_web_token);
    sidecar.wait_log("credential file changed", DEADLINE);
    replace(&config, "registrys: 1");
    sidecar.wait_log("is refused", DEADLINE);
    replace(&config, &yaml(count + 1));
    wait_auth(&rig.file(), &host(0));
    sidecar.signal(Signal::HUP);
    sidecar.wait_ready();
    ask(&mut said);

    let environment = sidecar.environ().join("\n");
    let arguments = sidecar.cmdline().join(" ");
    assert!(environment.contains("ECR_SIDECAR_LOG=trace") && arguments.ends_with(" run"));
    sidecar.signal(Signal::TERM);
    assert!(sidecar.wait_exit(DEADLINE).success());
    // No write is under way any more, whose temporary file would be one too many.
    let files = files_below(&rig.at("home")).into_iter().chain(files_below(&rig.at("out")));
    let files: Vec<_> =
        files.map(|file| (file.display().to_string(), fs::read_to_string(file).unwrap())).collect();
    let log = sidecar.stderr();
    said.extend([
        ("the log".to_owned(), log),
        ("standard output".to_owned(), sidecar.stdout()),
        ("the environment".to_owned(), environment),
        ("the arguments".to_owned(), arguments),
    ]);

    let tokens: BTreeSet<_> = tap.heard("\"authorizationToken\":\"", "\"").into_iter().collect();
    let passwords: Vec<String> = tokens
        .iter()
        .filter_map(|token| String::from_utf8(BASE64_STANDARD.decode(token).ok()?).ok())
        .filter_map(|text| text.strip_prefix("AWS:").map(str::to_owned))
        .filter(|password| !password.is_empty())
        .collect();
    let mut canaries = Canaries::default();
    canaries.add("the secret access key", SECRET_ACCESS_KEY);
    canaries.add("the web-identity token", &first_web_token);
    canaries.add("the next web-identity token", &second_web_token);
    canaries.add("somebody else's password", foreign);
    let overheard = [
        ("an ECR password", passwords),
        ("a session token", tap.heard("<SessionToken>", "</SessionToken>")),
        ("a temporary secret key", tap.heard("<SecretAccessKey>", "</SecretAccessKey>")),
    ];
    for (what, secrets) in overheard {
        assert!(secrets.len() >= count, "{} times {what}", secrets.len());
        secrets.iter().for_each(|secret| canaries.add(what, secret));
    }
    for (place, text) in &said {
        assert_eq!(canaries.in_text(text), BTreeSet::new(), "in what {place} says");
    }
    for (file, text) in &files {
        let is_config = file.ends_with("/out/config.json");
        let theirs = ["an ECR password", "somebody else's password"].into_iter().filter(|_| is_config);
        assert_eq!(canaries.in_text(text), theirs.collect(), "in {file}");
    }
    assert!(files.iter().any(|(file, _)| file.ends_with("/out/config.json")));
}
