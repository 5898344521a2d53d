//! What people really put into variables, profiles and keys: it works, or is named with what is expected. Nothing that is
//! secret is shown, whatever it is, and nothing makes the program panic.

use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt, fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ecr_emulator::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use test_support::{
    Harness, Process,
    harness::{DEADLINE, HOST, KEYS},
    install, output, root, wait_for,
};

use crate::BINARY;

const ROLE: &str = "arn:aws:iam::123456789012:role/irsa";
/// Stands in for a secret where the content of a value doesn't matter otherwise.
const CANARY: &str = "CANARY";

/// Ends a closure that prepares a command.
fn done(_: &mut Command) {}

/// What a command says, and its exit status.
#[track_caller]
fn said(mut command: Command) -> (Option<i32>, String) {
    let output = output(&mut command, DEADLINE);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code(), said)
}

/// `once`, `doctor`, `print`, `config` and the credential helper, each with its exit status when the configuration
/// cannot be used.
fn commands(harness: &Harness, prepare: impl Fn(&mut Command)) -> Vec<(Command, i32)> {
    let helper = harness.at("docker-credential-ecr-sidecar");
    if !helper.exists() {
        install(PathBuf::from(BINARY), &helper);
    }
    let mut commands: Vec<_> =
        [("once", 64), ("doctor", 1), ("print", 64), ("config", 64), ("manifests", 64)]
            .into_iter()
            .map(|(name, code)| {
                let mut command = harness.command(name);
                match name {
                    "print" => done(command.arg(HOST)),
                    "manifests" => done(command.args(["--service-account", "a", "--namespace", "n"])),
                    _ => {}
                }
                (command, code)
            })
            .collect();
    let mut command = Command::new("sh");
    command.args(["-c", "echo \"$1\" | exec \"$0\" get"]).arg(helper).arg(HOST).env_clear();
    command.env("HOME", harness.at(".")).env("PATH", "/usr/bin:/bin");
    command.env("ECR_SIDECAR_REGISTRIES", HOST).env("AWS_ENDPOINT_URL", harness.emulator.endpoint());
    commands.push((command, 1));
    commands.iter_mut().for_each(|(command, _)| prepare(command));
    commands
}

fn irsa(harness: &Harness, command: &mut Command) {
    command.env("AWS_ROLE_ARN", ROLE).env("AWS_WEB_IDENTITY_TOKEN_FILE", harness.at("web-identity/token"));
}

#[test]
fn an_endpoint_that_is_no_url_is_named_and_no_token_is_shown() {
    let harness = Harness::new(BINARY).without_keys();
    harness.web_identity_file("system:serviceaccount:flux-system:me");
    let token = fs::read_to_string(harness.at("web-identity/token")).unwrap();
    for (variable, value) in [
        ("AWS_ENDPOINT_URL", "localhost:4566"), // as for a test cloud, without the scheme
        ("AWS_ENDPOINT_URL_STS", "vpce-0abc-sts.eu-west-1.vpce.amazonaws.com"), // copied from the console
        ("AWS_ENDPOINT_URL_ECR", "\"https://api.ecr.eu-west-1.amazonaws.com\""), // quoted twice
        ("AWS_ENDPOINT_URL_STS", "http://me:hunter2@sts.example"), // a proxy's form
        ("AWS_ENDPOINT_URL_ECR_PUBLIC", "https://a b"),
    ] {
        for (command, code) in commands(&harness, |command| {
            irsa(&harness, command);
            command.env(variable, value);
        }) {
            let (exit, said) = said(command);
            assert_eq!(exit, Some(code), "{variable}={value}: {said}");
            assert!(said.contains(variable) && said.contains("a URL such as"), "{said}");
            assert!(!said.contains(&token[..40]) && !said.contains("hunter2"), "{said}");
        }
    }
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn an_endpoint_of_a_profile_is_held_to_the_same() {
    let harness = Harness::new(BINARY).without_keys();
    for (config, place) in [
        ("[default]\nendpoint_url = localhost:4566\n", "`endpoint_url` of the AWS profile `default`"),
        ("[default]\nregion = Ireland\n", "`region` of the AWS profile `default`"),
        ("[default]\nuse_fips_endpoint = yes\n", "`use_fips_endpoint`"),
        ("[default]\nservices = s\n[services s]\nsts =\n  endpoint_url = x\n", "`sts: endpoint_url`"),
    ] {
        harness.write(".aws/config", config);
        let mut command = harness.command("once");
        command.env_remove("AWS_ENDPOINT_URL").envs(KEYS);
        let (exit, said) = said(command);
        assert_eq!(exit, Some(64), "{said}");
        assert!(said.contains(place), "{said}");
    }
}

#[test]
fn empty_variables_and_properties_are_unset() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(
        ".aws/config",
        "[default]\nendpoint_url =\nservices = s\n[services s]\necr =\n  endpoint_url =\n",
    );
    harness.once_pulls(HOST, |command| {
        for name in [
            "AWS_ENDPOINT_URL_ECR",
            "AWS_ENDPOINT_URL_STS",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
            "AWS_PROFILE",
            "AWS_USE_FIPS_ENDPOINT",
            "AWS_USE_DUALSTACK_ENDPOINT",
            "AWS_SESSION_TOKEN",
            "AWS_ROLE_ARN",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONFIG_FILE",
            "AWS_MAX_ATTEMPTS",
            "AWS_RETRY_MODE",
            "AWS_SDK_UA_APP_ID",
            "AWS_EXECUTION_ENV",
            "ECR_SIDECAR_CONFIG",
        ] {
            command.env(name, "");
        }
        command.envs(KEYS);
    });
}

#[test]
fn white_space_around_a_value_does_no_harm() {
    let keys =
        format!("aws_access_key_id = {ACCESS_KEY_ID} \naws_secret_access_key = {SECRET_ACCESS_KEY}\t\n");
    let process = format!(
        "printf '{{\"Version\":1,\"AccessKeyId\":\" {ACCESS_KEY_ID}\\\\n\",\"SecretAccessKey\":\"{SECRET_ACCESS_KEY}\\\\n\",\"SessionToken\":\"\"}}'"
    );
    let harness = Harness::new(BINARY).without_keys();
    harness.write(
        ".aws/credentials",
        &format!("\u{feff}[keys]\r\n{keys}aws_session_token =\n[process]\ncredential_process = {process}\n"),
    );
    for prepare in [
        |command: &mut Command| {
            command.envs(KEYS.map(|(name, value)| (name, format!(" {value}\r\n"))));
            command.env("AWS_REGION", "eu-west-1\n").env("AWS_USE_FIPS_ENDPOINT", " false\n");
        },
        |command: &mut Command| done(command.env("AWS_PROFILE", "keys\n")),
        |command: &mut Command| done(command.env("AWS_PROFILE", "process")),
    ] {
        harness.once_pulls(HOST, |command| {
            let endpoint = format!(" {}\n", harness.emulator.endpoint());
            prepare(command.env("AWS_ENDPOINT_URL", endpoint));
        });
    }
}

type Prepare<'a> = &'a dyn Fn(&mut Command);

#[test]
fn a_malformed_key_is_named_by_its_place_and_never_shown() {
    for bad in [
        "CANARY CANARY",                                               // a comment behind it
        "\"CANARYCANARY\"",                                            // quotes of YAML
        "{\"AccessKeyId\":\"CANARY\",\"SecretAccessKey\":\"CANARY\"}", // the whole Secret
        "CANÄRY-CANARY",
    ] {
        let harness = Harness::new(BINARY).without_keys();
        harness.write("id", ACCESS_KEY_ID);
        harness.write("bad", bad);
        let json = serde_json::json!({"Version": 1, "AccessKeyId": ACCESS_KEY_ID, "SecretAccessKey": bad});
        harness.write("printed.json", &json.to_string());
        harness.write(
            ".aws/config",
            &format!(
                "[profile keys]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = x\naws_session_token = {bad}\n\
                 [profile process]\ncredential_process = cat '{}'\n",
                harness.at("printed.json").display()
            ),
        );
        let files = harness.write(
            "static.yaml",
            "identities: {default: {source: static, accessKeyIdFile: id, secretAccessKeyFile: bad}}\n",
        );
        let places: [(Prepare<'_>, i32, &str); 5] = [
            (
                &|command| done(command.envs(KEYS).env("AWS_SECRET_ACCESS_KEY", bad)),
                64,
                "AWS_SECRET_ACCESS_KEY",
            ),
            (&|command| done(command.envs(KEYS).env("AWS_SESSION_TOKEN", bad)), 64, "AWS_SESSION_TOKEN"),
            (&|command| done(command.env("AWS_PROFILE", "keys")), 69, "session token in profile `keys`"),
            (
                &|command| done(command.env("AWS_PROFILE", "process")),
                69,
                "credential_process of profile `process`",
            ),
            (&|command| done(command.env("ECR_SIDECAR_CONFIG", &files)), 69, "the secret access key in bad"),
        ];
        for (prepare, code, place) in places {
            let mut command = harness.command("once");
            command.env("ECR_SIDECAR_LOG", "trace");
            prepare(&mut command);
            let (exit, said) = said(command);
            assert_eq!(exit, Some(code), "{place}: {said}");
            assert!(said.contains(place), "{place} is not in {said}");
            assert!(!said.contains(CANARY) && !said.contains("CANÄ"), "{said}");
        }
        assert_eq!(harness.counts(), [0; 5], "nothing is signed with it");
    }
}

/// Puts something at the place of the credentials file.
type Put = fn(&Path);

#[test]
fn a_profile_file_that_cannot_be_used_is_named_with_the_reason() {
    let put: [(Put, &str); 6] = [
        (|path| fs::create_dir(path).unwrap(), "it is a directory"),
        (|path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()), "it is a FIFO"),
        (|path| put_bytes(path, b"\xff\xfe[\0d\0"), "UTF-16"),
        (|path| put_bytes(path, b"[default]\naws_secret_access_key = \xffCANARY\n"), "not UTF-8"),
        (
            |path| put_bytes(path, b"aws_secret_access_key = CANARY\n"),
            "line 1 stands before the first section",
        ),
        (|path| put_bytes(path, &vec![b'#'; (1 << 20) + 1]), "larger than the limit"),
    ];
    for (put, reason) in put {
        let harness = Harness::new(BINARY).without_keys();
        let path = harness.write(".aws/credentials", "");
        fs::remove_file(&path).unwrap();
        put(&path);
        for command in ["once", "doctor"] {
            let mut command = harness.command(command);
            command.env("KUBERNETES_SERVICE_HOST", "10.0.0.1"); // where no credentials means: annotate
            let (exit, said) = said(command);
            assert!(matches!(exit, Some(69 | 1)), "{said}");
            assert!(said.contains(".aws/credentials") && said.contains(reason), "{reason} is not in: {said}");
            assert!(!said.contains(CANARY) && !said.contains("annotate"), "{said}");
        }
        let mut doctor = harness.command("doctor");
        let output = output(doctor.args(["--output", "json"]), DEADLINE);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let found = findings.iter().any(|it| it["step"] == "files" && it["diagnosis"] == "profile-file");
        assert!(found, "{reason}: {report:#}");
    }
}

#[expect(clippy::disallowed_methods, reason = "not read while it is written")]
fn put_bytes(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_profile_file_that_a_variable_names_has_to_be_there() {
    let harness = Harness::new(BINARY).without_keys();
    for variable in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
        let once = harness.once(|command| done(command.env(variable, harness.at("nowhere/file"))));
        once.failed_with(&["nowhere/file", variable, "No such file", "profile-file"]);
    }
    // An identity that rests on none of them goes on.
    harness.once_pulls(HOST, |command| {
        command.envs(KEYS).env("AWS_CONFIG_FILE", harness.at("nowhere/file"));
    });
}

#[test]
fn a_profile_file_of_another_user_is_named_with_the_reason() {
    if !root() {
        return test_support::skip("it takes root to be another user");
    }
    let harness = Harness::new(BINARY).without_keys();
    let path = harness.write(".aws/credentials", "[default]\naws_access_key_id = CANARY\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(harness.at("."), fs::Permissions::from_mode(0o755)).unwrap();
    let as_another = |command: &str| {
        let mut command = harness.command(command);
        command.uid(65532).gid(65532).env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        command.env("ECR_SIDECAR_DOCKER_CONFIG", "/tmp/ecr-sidecar-unused/config.json");
        said(command).1
    };
    for command in ["once", "doctor"] {
        let said = as_another(command);
        assert!(said.contains("/.aws/credentials: Permission denied"), "{said}");
        assert!(!said.contains("annotate the service account"), "{said}");
    }
    // A home that is closed altogether, as root's is, may hold no file at all.
    fs::set_permissions(harness.at(".aws"), fs::Permissions::from_mode(0o700)).unwrap();
    let said = as_another("once");
    assert!(said.contains("/.aws/c") && said.contains("Permission denied"), "{said}");
    assert!(said.contains("annotate the service account"), "{said}");
}

/// The process ids that a script has written, one a line, that still run.
fn running(pids: &Path) -> Vec<String> {
    let text = fs::read_to_string(pids).unwrap_or_default();
    let runs =
        |pid: &&str| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    text.lines().filter(runs).map(str::to_owned).collect()
}

fn hung_process(harness: &Harness) -> PathBuf {
    let pids = harness.at("pids");
    let script = format!("#!/bin/sh\nsleep 1000 &\necho $! >> '{}'\nwait\n", pids.display());
    let script = harness.script("hangs", &script);
    harness.write(".aws/config", &format!("[profile p]\ncredential_process = {}\n", script.display()));
    pids
}

#[test]
fn a_hung_credential_process_is_ended_and_runs_once() {
    let harness = Harness::new(BINARY).without_keys();
    let pids = hung_process(&harness);
    let sidecar = harness.run(|command| done(command.env("AWS_PROFILE", "p")));
    wait_for("the process", DEADLINE, || (running(&pids).len() == 1).then_some(()));
    for _ in 0..3 {
        sidecar.refresh();
    }
    assert_eq!(running(&pids).len(), 1, "one at a time");
    assert_eq!(sidecar.get("/livez").0, 200);
    sidecar.stop(DEADLINE);
    wait_for("its end", DEADLINE, || running(&pids).is_empty().then_some(()));
}

#[test]
fn no_credential_process_outlives_the_command() {
    for command in ["once", "print", "doctor"] {
        let harness = Harness::new(BINARY).without_keys();
        let pids = hung_process(&harness);
        let mut process = harness.command(command);
        process.env("AWS_PROFILE", "p");
        match command {
            "once" => done(process.args(["--timeout", "1s"])),
            "print" => done(process.arg(HOST)),
            _ => {}
        }
        Process::spawn(&mut process).wait_exit(DEADLINE);
        assert!(pids.exists(), "{command} has started it");
        wait_for("its end", DEADLINE, || running(&pids).is_empty().then_some(()));
    }
}

#[test]
fn a_web_identity_token_in_clear_is_worth_a_warning() {
    let harness = Harness::new(BINARY).without_keys();
    harness.web_identity_file("system:serviceaccount:flux-system:me");
    let endpoint = "http://sts.internal.example";
    let warned = |prepare: fn(&Harness, &mut Command)| {
        let mut command = harness.command("once");
        command.args(["--timeout", "1s"]).env("AWS_ENDPOINT_URL_STS", endpoint);
        prepare(&harness, &mut command);
        said(command).1.contains("sts-in-clear")
    };
    assert!(warned(irsa));
    assert!(!warned(|_, command| done(command.envs(KEYS))), "keys are never sent");
    assert!(!warned(|harness, command| {
        irsa(harness, command);
        command.env("AWS_ENDPOINT_URL_STS", harness.emulator.endpoint()); // loopback
    }));
}

#[test]
fn a_variable_that_is_not_utf_8_is_named() {
    let harness = Harness::new(BINARY).without_keys();
    for variable in ["AWS_REGION", "ECR_SIDECAR_DOCKER_CONFIG", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"] {
        let mut command = harness.command("once");
        command.envs(KEYS).env(variable, OsString::from_vec(b"CANARY\xff".to_vec()));
        let (exit, said) = said(command);
        assert_eq!(exit, Some(64), "{said}");
        assert!(said.contains(variable) && said.contains("UTF-8") && !said.contains(CANARY), "{said}");
    }
}

/// The table of nasty samples: each in each variable that the SDK or this program reads.
#[test]
fn no_value_of_any_variable_panics_or_is_shown() {
    const VARIABLES: [&str; 25] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_PROFILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_ECR",
        "AWS_ENDPOINT_URL_STS",
        "AWS_USE_FIPS_ENDPOINT",
        "AWS_USE_DUALSTACK_ENDPOINT",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        "AWS_MAX_ATTEMPTS",
        "AWS_RETRY_MODE",
        "AWS_SDK_UA_APP_ID",
        "AWS_EXECUTION_ENV",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_EC2_METADATA_DISABLED",
        "SMITHY_CLIENT_SDK_CUSTOM_PARTITION",
        "HOME",
    ];
    const SECRET: [&str; 4] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    ];
    let harness = Harness::new(BINARY).without_keys();
    for value in [
        "",
        " \n",
        "\n",
        "CANARY\nCANARY",
        "\"CANARY\"",
        "{CANARY",
        "CANÄRY\u{202e}CANARY",
        "\u{1}CANARY\u{7f}",
        "-",
    ] {
        for variable in VARIABLES {
            let mut command = harness.command("print");
            command.arg(HOST).envs(KEYS).env(variable, value).env("ECR_SIDECAR_LOG", "trace");
            let (exit, said) = said(command);
            assert!(matches!(exit, Some(0 | 64 | 69)), "{variable}={value:?}: {exit:?} {said}");
            assert!(!SECRET.contains(&variable) || !said.contains(CANARY), "{variable}={value:?}: {said}");
        }
    }
}

#[test]
fn hung_files_of_profiles_hold_up_no_other_identity() {
    let harness = Harness::new(BINARY).without_keys();
    // Opened in the usual way it would wait for a writer for ever.
    let path = harness.write(".aws/credentials", "");
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let config = harness.write(
        "config.yaml",
        &format!(
            "identities: {{default: {{source: environment}}, other: {{source: profile, profile: p}}}}\n\
             registries: [{{host: {HOST}}}, {{host: 999999999999.dkr.ecr.us-east-1.amazonaws.com, identity: other}}]\n\
             outputs: [{{type: docker-config, path: {}}}]\n",
            harness.file().display()
        ),
    );
    let running = harness.run(|command| {
        command.envs(KEYS).env("ECR_SIDECAR_CONFIG", config);
        command.env_remove("ECR_SIDECAR_REGISTRIES").env_remove("ECR_SIDECAR_DOCKER_CONFIG");
    });
    wait_for("the credential of the other identity", DEADLINE, || {
        (harness.file().exists() && harness.auths().contains_key(HOST)).then_some(())
    });
    running.wait_log("it is a FIFO", DEADLINE);
    assert_eq!(running.get("/livez").0, 200);
    running.stop(Duration::from_secs(30));
}

/// What belongs into a file or another variable, in the place of each variable and of each key that names a file.
#[test]
fn no_key_in_the_wrong_place_is_shown() {
    const KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJlLW9mLXRoaXMtdG9rZW4";
    const VARIABLES: [&str; 12] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_REGION",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_ENDPOINT_URL",
        "AWS_CA_BUNDLE",
        "KUBECONFIG",
        "ECR_SIDECAR_DOCKER_CONFIG",
    ];
    let identities = |secret: &str| {
        [
            format!("{{source: static, accessKeyIdFile: {secret}, secretAccessKeyFile: {secret}}}"),
            format!(
                "{{source: web-identity, roleArn: 'arn:aws:iam::123456789012:role/x', tokenFile: {secret}}}"
            ),
            format!("{{source: web-identity, roleArn: {secret}}}"),
            format!("{{source: profile, profile: {secret}}}"),
        ]
    };
    let harness = Harness::new(BINARY).without_keys();
    let commands = || {
        ["once", "doctor", "config", "print"].map(|name| {
            let mut command = harness.command(name);
            if name == "print" {
                command.arg(HOST);
            }
            if name == "once" {
                command.args(["--timeout", "2s"]);
            }
            command
        })
    };
    let shows_nothing = |mut command: Command, secret: &str, place: &str| {
        command.env("ECR_SIDECAR_LOG", "trace");
        let (_, said) = said(command);
        assert!(!said.contains(secret), "{place}: {said}");
    };
    for secret in [KEY, TOKEN] {
        for variable in VARIABLES {
            for mut command in commands() {
                command.env("ECR_SIDECAR_DOCKER_CONFIG_SECRET", "x").env(variable, secret);
                shows_nothing(command, secret, variable);
            }
        }
        for identity in identities(secret) {
            let file = harness.write("config.yaml", &format!("identities: {{default: {identity}}}\n"));
            for mut command in commands() {
                command.env("ECR_SIDECAR_CONFIG", &file);
                shows_nothing(command, secret, &identity);
            }
        }
    }
}
