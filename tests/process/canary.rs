//! No secret appears anywhere but where it belongs: the registry password in the config.json, the AWS keys
//! nowhere. Everything is run at TRACE, since that is when libraries talk.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::symlink,
    process::Command,
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ecr_emulator::{Fault, SECRET_ACCESS_KEY, Service};
use test_support::{
    Harness, Running, Signal,
    harness::{DEADLINE, HOST, KEYS, PUBLIC},
    output, wait_for,
};

use crate::BINARY;

/// How the `auth` of any ECR token begins: base64 of `AWS:`.
const ANY_AUTH: &str = "QVdTO";
/// How the password of any token of the emulator begins, as of AWS's: base64 of `{"`.
const ANY_PASSWORD: &str = "eyJ";

/// A text in which no secret may be, and the forms in which it might.
#[track_caller]
fn no_secret(place: &str, text: &str, secrets: &[String]) {
    for secret in secrets {
        let encoded: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let percent = secret.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
        for form in [secret.clone(), STANDARD.encode(secret), percent, encoded] {
            assert!(!text.contains(&form), "a secret is in {place}: {}", line_with(text, &form));
        }
    }
    for prefix in [ANY_AUTH, ANY_PASSWORD] {
        assert!(!text.contains(prefix), "something like a token is in {place}: {}", line_with(text, prefix));
    }
}

fn line_with<'a>(text: &'a str, part: &str) -> &'a str {
    text.lines().find(|line| line.contains(part)).unwrap_or_default()
}

#[test]
fn a_running_sidecar_shows_no_secret() {
    let world = Harness::new(BINARY).without_keys();
    let [id, key, token] = world.session();
    let web_identity = world.web_identity_token("system:serviceaccount:a:b");
    let secrets = [key.clone(), token.clone(), SECRET_ACCESS_KEY.to_owned(), web_identity.clone()];
    for (name, value) in [("id", &id), ("key", &key), ("token", &token), ("web", &web_identity)] {
        world.write(&format!("keys/{name}"), value);
    }
    let at = |name: &str| world.at(&format!("keys/{name}")).display().to_string();
    let config = world.write(
        "config.yaml",
        &format!(
            "identities:\n  default: {{source: static, accessKeyIdFile: {}, secretAccessKeyFile: {}, sessionTokenFile: {}}}\n  \
             web: {{source: web-identity, roleArn: 'arn:aws:iam::123456789012:role/r', tokenFile: {}}}\n\
             registries: [{{host: {HOST}}}, {{host: {PUBLIC}, identity: web}}]\n\
             outputs: [{{type: docker-config, path: {}}}]\nhealth: {{listen: '127.0.0.1:0'}}\n",
            at("id"), at("key"), at("token"), at("web"), world.file().display(),
        ),
    );
    let running = world.run(|command| {
        command.env("ECR_SIDECAR_CONFIG", &config).env("ECR_SIDECAR_LOG", "trace");
        command.env_remove("ECR_SIDECAR_REGISTRIES").env_remove("ECR_SIDECAR_DOCKER_CONFIG");
    });
    running.wait_ready();
    let mut auths: Vec<String> = world.auths().into_values().collect();
    running.signal(Signal::HUP);
    wait_for("the second token", DEADLINE, || {
        let newer = world.auths().into_values().collect::<Vec<_>>();
        newer.iter().all(|auth| !auths.contains(auth)).then_some(())
    });
    auths.extend(world.auths().into_values());
    world.write("config.yaml", "registrys: []");
    running.wait_log("is refused", DEADLINE);
    for path in ["/status", "/metrics", "/readyz?verbose", "/livez?verbose", "/startupz?verbose", "/nothing"]
    {
        no_secret(path, &running.get(path).1, &secrets);
    }
    no_secret("argv", &running.cmdline().join(" "), &secrets);
    no_secret("the environment", &running.environ().join(" "), &secrets);
    running.stop(DEADLINE);
    no_secret("stdout", &running.stdout(), &secrets);
    no_secret("stderr", &running.stderr(), &secrets);
    assert!(running.stderr().contains("\"level\":\"INFO\""), "it did log");
    for (file, text) in files_beside(&world) {
        no_secret(&file, &text, &secrets);
    }
    assert_eq!(auths.len(), 4);
}

/// What stands beside the config.json.
fn files_beside(world: &Harness) -> Vec<(String, String)> {
    let entries = fs::read_dir(world.file().parent().unwrap()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| *path != world.file());
    paths.map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn no_failure_shows_a_secret() {
    let faults = [
        Fault::Status(500),
        Fault::Throttled,
        Fault::AccessDenied,
        Fault::SignatureMismatch,
        Fault::IncompleteSignature,
        Fault::Echo,
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
        Fault::Reset,
        Fault::Hang,
        Fault::SlowBody(Duration::from_millis(50)),
    ];
    let world = Harness::new(BINARY).without_keys();
    let [id, key, token] = world.session();
    let secrets = [key.clone(), token.clone()];
    for fault in faults {
        let name = format!("{fault:?}");
        world.emulator.set_fault(Service::Ecr, fault);
        let once = world.once(|command| {
            command.args(["--timeout", "1s"]).env("ECR_SIDECAR_LOG", "trace");
            command
                .env("AWS_ACCESS_KEY_ID", &id)
                .env("AWS_SECRET_ACCESS_KEY", &key)
                .env("AWS_SESSION_TOKEN", &token);
        });
        assert!(!once.stderr.is_empty());
        no_secret(&format!("what is said of {name}"), &once.stderr, &secrets);
    }
}

/// What hands out a credential on its standard output says nothing of it on its standard error.
#[test]
fn who_asks_for_one_credential_finds_it_in_one_place() {
    let world = Harness::new(BINARY).without_keys();
    let [id, key, token] = world.session();
    let secrets = [key.clone(), token.clone()];
    let link = world.at("docker-credential-ecr-sidecar");
    symlink(BINARY, &link).unwrap();
    let question = world.write("question", HOST);
    // Through a shell, for its standard input.
    let by_either_name = |script: &str, prepare: &dyn Fn(&mut Command)| {
        let mut command = Command::new("sh");
        let usual = world.command("print");
        command.env_clear().envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["-c", script, HOST]).env("ECR_SIDECAR_LOG", "trace").env("AWS_ACCESS_KEY_ID", &id);
        command.env("AWS_SECRET_ACCESS_KEY", &key).env("AWS_SESSION_TOKEN", &token);
        prepare(&mut command);
        let output = output(&mut command, DEADLINE);
        let said = String::from_utf8(output.stderr).unwrap();
        no_secret("what is said beside it", &said, &secrets);
        if !output.status.success() && script.contains(" get ") {
            no_secret("what is said in its place", &String::from_utf8(output.stdout).unwrap(), &secrets);
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
    world.emulator.push_fault(Service::Ecr, Fault::ColonPassword, 2);
    assert!(ask());
    for fault in [Fault::AccessDenied, Fault::NotAws, Fault::NoExpiry, Fault::EmptyPassword] {
        let name = format!("{fault:?}");
        world.emulator.push_fault(Service::Ecr, fault, 2);
        assert!(!ask(), "{name}");
    }
    world.once(|command| {
        command.env("AWS_ACCESS_KEY_ID", &id);
        command.env("AWS_SECRET_ACCESS_KEY", &key).env("AWS_SESSION_TOKEN", &token);
    });
    fs::remove_file(world.at("out/.config.json.ecr-sidecar")).unwrap();
    world.emulator.set_fault(Service::Ecr, Fault::AccessDenied);
    assert!(ask()); // of the file, with a warning
}

#[test]
fn the_identity_side_shows_no_secret_when_it_fails() {
    let world = Harness::new(BINARY).without_keys();
    let web_identity = world.web_identity_token("system:serviceaccount:a:b");
    let file = world.write("token", &web_identity);
    let secrets = [web_identity];
    for fault in
        [Fault::Status(500), Fault::AccessDenied, Fault::Echo, Fault::Garbage, Fault::Html, Fault::Reset]
    {
        let name = format!("{fault:?}");
        world.emulator.set_fault(Service::Sts, fault);
        let once = world.once(|command| {
            command.args(["--timeout", "1s"]).env("ECR_SIDECAR_LOG", "trace");
            command
                .env("AWS_WEB_IDENTITY_TOKEN_FILE", &file)
                .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r");
        });
        assert_eq!(once.code, Some(69), "{name}: {}", once.stderr);
        no_secret(&format!("what is said of {name}"), &once.stderr, &secrets);
    }
}

/// A secret in the wrong place is refused without being repeated.
#[test]
fn a_configuration_problem_repeats_no_key() {
    let world = Harness::new(BINARY).without_keys();
    let config = world.write("config.yaml", "identities: {default: {secretAccessKey: hunter2hunter2}}\n");
    let mut command = world.command("config");
    command.env("ECR_SIDECAR_CONFIG", &config);
    let once = world.run_once(&mut command);
    assert_eq!(once.code, Some(64), "{BINARY}: {}", once.stderr);
    assert!(
        once.stderr.contains("identities.default.secretAccessKey: found an unknown key"),
        "{}",
        once.stderr
    );
    assert!(!once.stderr.contains("hunter2"), "{}", once.stderr);
}

/// Answers of AWS that repeat a request, would steer a terminal, or forge a line of ours.
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
    let world = Harness::new(BINARY).without_keys();
    let [id, key, token] = world.session();
    let secrets = [key.clone(), token.clone()];
    let link = world.at("docker-credential-ecr-sidecar");
    symlink(BINARY, &link).unwrap();
    let question = world.write("question", HOST);
    let keys = |command: &mut Command| {
        command.env("ECR_SIDECAR_LOG", "trace").env("AWS_ACCESS_KEY_ID", &id);
        command.env("AWS_SECRET_ACCESS_KEY", &key).env("AWS_SESSION_TOKEN", &token);
    };
    for (what, fault) in hostile_answers() {
        world.emulator.clear_faults();
        world.emulator.set_fault(Service::Ecr, fault);
        let running = world.run(keys);
        running.wait_token("a failed attempt", |token| token["failed"].as_u64() > Some(0));
        let mut said = surfaces_of(&world, &running);
        for arguments in [&["once", "--timeout", "1s"][..], &["print", HOST], &["doctor"]] {
            let mut command = world.command(arguments[0]);
            command.args(&arguments[1..]);
            keys(&mut command);
            said.push((arguments[0].to_owned(), everything_said(&mut command)));
        }
        let mut helper = Command::new("sh");
        let usual = world.command("print");
        helper.env_clear().envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
        helper.args(["-c", &format!("exec {} get < {}", link.display(), question.display())]);
        keys(&mut helper);
        said.push(("the helper".to_owned(), everything_said(&mut helper)));
        running.stop(DEADLINE);
        said.push(("the log".to_owned(), running.stderr()));
        for (place, text) in said {
            assert!(!text.is_empty(), "{place}");
            no_secret(&format!("{place}, with {what}"), &text, &secrets);
            plain(&format!("{place}, with {what}"), &text);
        }
    }
}

fn surfaces_of(world: &Harness, running: &Running) -> Vec<(String, String)> {
    let mut said = Vec::new();
    for path in ["/status", "/readyz", "/readyz?verbose", "/startupz", "/metrics"] {
        said.push((path.to_owned(), running.get(path).1));
    }
    for arguments in [&["health", "ready"][..], &["status"]] {
        let mut command = world.command(arguments[0]);
        command.args(&arguments[1..]).env("ECR_SIDECAR_HEALTH_LISTEN", running.health().to_string());
        said.push((arguments.join(" "), everything_said(&mut command)));
    }
    said
}

fn everything_said(command: &mut Command) -> String {
    let output = output(command, DEADLINE);
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// The answer comes of a real signature that is wrong, not of a scripted fault.
#[test]
fn a_wrong_secret_key_shows_no_session_token() {
    let world = Harness::new(BINARY).without_keys();
    let [id, key, token] = world.session();
    let wrong: String = key.chars().rev().collect();
    let once = world.once(|command| {
        command.args(["--timeout", "1s"]).env("ECR_SIDECAR_LOG", "trace").env("AWS_ACCESS_KEY_ID", &id);
        command.env("AWS_SECRET_ACCESS_KEY", &wrong).env("AWS_SESSION_TOKEN", &token);
    });
    once.failed_with(&["InvalidSignatureException: The request signature we calculated does not match"]);
    no_secret("what is said", &once.stderr, &[wrong, token]);
    assert!(!once.stderr.contains("x-amz-"), "{}", once.stderr);
}

#[test]
fn sts_shows_neither_the_keys_nor_the_external_id_when_it_repeats_them() {
    let world = Harness::new(BINARY).without_keys();
    let [id, key, token] = world.session();
    let external_id = "a-shared-secret-of-two-companies";
    for (name, value) in [("id", &id), ("key", &key), ("token", &token)] {
        world.write(&format!("keys/{name}"), value);
    }
    let at = |name: &str| world.at(&format!("keys/{name}")).display().to_string();
    let config = world.write(
        "config.yaml",
        &format!(
            "identities:\n  default: {{source: static, accessKeyIdFile: {}, secretAccessKeyFile: {}, sessionTokenFile: {}, \
             assumeRoles: [{{roleArn: 'arn:aws:iam::123456789012:role/r', externalId: {external_id}}}]}}\n",
            at("id"), at("key"), at("token"),
        ),
    );
    let secrets = [key, token, external_id.to_owned()];
    for (what, fault) in hostile_answers() {
        world.emulator.set_fault(Service::Sts, fault);
        let once = world.once(|command| {
            command.args(["--timeout", "1s"]).env("ECR_SIDECAR_LOG", "trace");
            command.env("ECR_SIDECAR_CONFIG", &config);
        });
        assert_eq!(once.code, Some(69), "{what}: {}", once.stderr);
        no_secret(what, &once.stderr, &secrets);
        plain(what, &once.stderr);
    }
}

/// Who may edit the configuration may name any endpoint: what comes there is signed by the secret key, and has neither it
/// nor anything else that could sign another request.
#[test]
fn an_endpoint_is_sent_signed_requests_and_no_secret_key() {
    let world = Harness::new(BINARY).without_keys();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let stranger = thread::spawn(move || {
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
    let mut command = world.command("print");
    command.arg(HOST).envs(KEYS).env("AWS_ENDPOINT_URL", endpoint).env_remove("HOME");
    let printed = output(&mut command, DEADLINE);
    assert_ne!(printed.status.code(), Some(0));
    let request = stranger.join().unwrap();
    assert!(request.contains("AWS4-HMAC-SHA256 Credential=AKIA"), "{request}");
    no_secret("the request", &request, &[SECRET_ACCESS_KEY.to_owned()]);
}
