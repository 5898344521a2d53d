//! Programs that are made for the real thing work against the emulator, and fail where they should.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ecr_emulator::{Attachment, CHART, Emulator, Fault, IMAGE, Reason, SECRET_ACCESS_KEY, Service, Settings};
use serde_json::{Value, json};

use crate::common::{Ask, aws_command, command, ecr_token, program, shipped, stderr, stdout};

pub(crate) const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

struct Cli {
    emulator: Emulator,
    home: tempfile::TempDir,
    path: std::path::PathBuf,
}

impl Cli {
    fn new() -> Option<Self> {
        let (emulator, home) = (Emulator::start(Settings::default()).unwrap(), tempfile::tempdir().unwrap());
        program("aws").map(|path| Self { emulator, home, path })
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = aws_command(&self.path, self.home.path(), &self.emulator);
        command.args(arguments.split(' '));
        command
    }

    fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }
}

fn registry_status(emulator: &Emulator, host: &str, password: &str) -> u16 {
    let credentials = STANDARD.encode(format!("AWS:{}", password.trim()));
    let ask =
        Ask::new("GET", "/v2/").header("host", host).header("authorization", &format!("Basic {credentials}"));
    ask.send(&emulator.endpoint()).unwrap().status
}

#[test]
fn the_aws_cli_logs_in_to_ecr_and_to_ecr_public() {
    let Some(cli) = Cli::new() else { return };
    let password = stdout(&cli.run("ecr get-login-password"));
    assert_eq!(registry_status(&cli.emulator, HOST, &password), 200);
    let password = stdout(&cli.run("ecr-public get-login-password --region us-east-1"));
    assert_eq!(registry_status(&cli.emulator, "public.ecr.aws", &password), 200);
    let regions: Vec<_> =
        cli.emulator.calls().into_iter().filter_map(|call| call.access_key_id.and(call.region)).collect();
    assert_eq!(regions, ["eu-west-1", "us-east-1"]);
    assert!(stderr(&cli.run("ecr-public get-login-password")).contains("scoped to a valid region"));
}

#[test]
fn the_aws_cli_asks_sts_who_it_is_and_assumes_a_role() {
    let Some(cli) = Cli::new() else { return };
    let identity: Value = serde_json::from_str(&stdout(&cli.run("sts get-caller-identity"))).unwrap();
    assert_eq!(identity["Arn"], "arn:aws:iam::123456789012:user/emulated");
    let role = "arn:aws:iam::999999999999:role/ecr-pull";
    let assumed = stdout(&cli.run(&format!("sts assume-role --role-arn {role} --role-session-name test")));
    let assumed: Value = serde_json::from_str(&assumed).unwrap();
    let credential = |name: &str| assumed["Credentials"][name].as_str().unwrap().to_owned();
    let mut command = cli.command("sts get-caller-identity --query Arn --output text");
    command
        .env("AWS_ACCESS_KEY_ID", credential("AccessKeyId"))
        .env("AWS_SECRET_ACCESS_KEY", credential("SecretAccessKey"))
        .env("AWS_SESSION_TOKEN", credential("SessionToken"));
    let arn = stdout(&command.output().unwrap());
    assert_eq!(arn.trim(), "arn:aws:sts::999999999999:assumed-role/ecr-pull/test");
}

#[test]
fn the_aws_cli_uses_a_web_identity_and_pod_identity() {
    let Some(cli) = Cli::new() else { return };
    let file = cli.home.path().join("token");
    let keyless = |arguments: &str| {
        let mut command = cli.command(arguments);
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command
    };
    let text = cli.emulator.web_identity_token(
        "system:serviceaccount:a:b",
        "sts.amazonaws.com",
        Duration::from_secs(600),
    );
    save(&file, &text);
    let mut command = keyless("ecr get-login-password");
    command
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/irsa")
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", &file);
    let password = stdout(&command.output().unwrap());
    assert_eq!(registry_status(&cli.emulator, HOST, &password), 200);
    save(&file, ecr_emulator::POD_IDENTITY_TOKEN);
    let mut command = keyless("sts get-caller-identity");
    command
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials", cli.emulator.endpoint()))
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &file);
    assert!(stdout(&command.output().unwrap()).contains("assumed-role/pod-role"));
}

#[test]
fn the_aws_cli_shows_what_is_wrong() {
    let Some(cli) = Cli::new() else { return };
    let mut wrong = cli.command("ecr get-login-password");
    wrong.env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_lowercase());
    assert!(stderr(&wrong.output().unwrap()).contains("InvalidSignatureException"));
    let mut unknown = cli.command("sts get-caller-identity");
    unknown.env("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN000000000");
    assert!(stderr(&unknown.output().unwrap()).contains("InvalidClientTokenId"));
    cli.emulator.set_fault(Service::Ecr, Fault::Throttled);
    assert!(stderr(&cli.run("ecr get-login-password")).contains("ThrottlingException"));
    cli.emulator.set_fault(Service::Ecr, Fault::AccessDenied);
    assert!(stderr(&cli.run("ecr get-login-password")).contains("AccessDeniedException"));
}

#[test]
fn the_aws_cli_reaches_the_true_names_by_the_proxy() {
    let Some(cli) = Cli::new() else { return };
    let mut command = cli.command("ecr get-login-password");
    command
        .env_remove("AWS_ENDPOINT_URL")
        .env("HTTPS_PROXY", cli.emulator.proxy())
        .env("AWS_CA_BUNDLE", cli.emulator.ca_file());
    let password = stdout(&command.output().unwrap());
    assert_eq!(registry_status(&cli.emulator, HOST, &password), 200);
    assert_eq!(cli.emulator.connects()["api.ecr.eu-west-1.amazonaws.com"], 1);
}

#[test]
fn the_aws_cli_shows_what_policies_deny() {
    let Some(cli) = Cli::new() else { return };
    let user = Attachment::Identity("arn:aws:iam::123456789012:user/emulated".to_owned());
    let role = "arn:aws:iam::123456789012:role/ecr-pull";
    let login = || cli.run("ecr get-login-password");
    cli.emulator.set_policies(user.clone(), &[&shipped("public-policy.json")]);
    let sentence = "User: arn:aws:iam::123456789012:user/emulated is not authorized to perform: \
        ecr:GetAuthorizationToken on resource: * because no identity-based policy allows the \
        ecr:GetAuthorizationToken action";
    assert!(stderr(&login()).contains(sentence), "{}", stderr(&login()));
    let assume = || cli.run(&format!("sts assume-role --role-arn {role} --role-session-name test"));
    let sentence = format!("is not authorized to perform: sts:AssumeRole on resource: {role}");
    assert!(stderr(&assume()).contains(&sentence), "{}", stderr(&assume()));

    cli.emulator.set_policies(user, &[&shipped("pull-policy.json")]);
    let password = stdout(&login());
    assert_eq!(registry_status(&cli.emulator, HOST, &password), 200);
    let trust = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"AWS": "arn:aws:iam::123456789012:user/emulated"}}}"#;
    cli.emulator.set_policies(Attachment::Trust(role.to_owned()), &[trust]);
    assert!(stdout(&assume()).contains("assumed-role/ecr-pull/test"));
}

#[test]
fn the_ecr_credential_helper_gets_a_working_credential() {
    let Some(helper) = program("docker-credential-ecr-login") else { return };
    let (emulator, home) = (Emulator::start(Settings::default()).unwrap(), tempfile::tempdir().unwrap());
    let get = || {
        let mut command = aws_command(&helper, home.path(), &emulator);
        command.arg("get").env("AWS_ECR_DISABLE_CACHE", "true");
        with_input(command, HOST)
    };
    let answer: Value = serde_json::from_str(&stdout(&get())).unwrap();
    assert_eq!(answer["Username"], "AWS");
    assert_eq!(registry_status(&emulator, HOST, answer["Secret"].as_str().unwrap()), 200);
    emulator.revoke_tokens();
    assert_eq!(registry_status(&emulator, HOST, answer["Secret"].as_str().unwrap()), 401);
    assert_eq!(emulator.refusals().pop().unwrap().reason, Reason::RevokedToken);
    emulator.set_fault(Service::Ecr, Fault::AccessDenied);
    assert!(!get().status.success());
}

#[test]
fn crane_pulls_the_image_by_its_true_name() {
    let Some(crane) = program("crane") else { return };
    let (emulator, home) = (Emulator::start(Settings::default()).unwrap(), tempfile::tempdir().unwrap());
    let archive = home.path().join("app.tar");
    let mut pull = by_proxy(&crane, home.path(), &emulator);
    pull.args(["pull", &format!("{HOST}/{IMAGE}")]).arg(&archive);
    let denied = pull.output().unwrap();
    assert!(!denied.status.success(), "without a credential");
    log_in(home.path(), &ecr_token(&emulator, "eu-west-1"));
    allow_pulls(&emulator);
    stdout(&pull.output().unwrap());
    assert!(archive.is_file());
    assert_eq!(asked(&emulator), ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]);
    log_in(home.path(), &ecr_token(&emulator, "us-east-1"));
    assert!(!pull.output().unwrap().status.success(), "with a token of another region");
    assert!(matches!(emulator.refusals().pop().unwrap().reason, Reason::WrongRegion(_)));
}

#[test]
fn skopeo_inspects_the_image_by_its_true_name() {
    let Some(skopeo) = program("skopeo") else { return };
    let (emulator, home) = (Emulator::start(Settings::default()).unwrap(), tempfile::tempdir().unwrap());
    log_in(home.path(), &ecr_token(&emulator, "eu-west-1"));
    allow_pulls(&emulator);
    let mut inspect = by_proxy(&skopeo, home.path(), &emulator);
    inspect.args(["inspect", "--authfile"]).arg(home.path().join("config.json"));
    inspect.arg(format!("docker://{HOST}/{IMAGE}"));
    let inspected: Value = serde_json::from_str(&stdout(&inspect.output().unwrap())).unwrap();
    assert_eq!(inspected["Architecture"], "amd64");
    assert_eq!(inspected["RepoTags"][0], "1.0");
    let actions = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:ListImages"];
    assert_eq!(asked(&emulator), actions);
}

#[test]
fn helm_pulls_templates_and_depends_on_the_chart() {
    let Some(helm) = program("helm3") else { return };
    let (emulator, home) = (Emulator::start(Settings::default()).unwrap(), tempfile::tempdir().unwrap());
    log_in(home.path(), &ecr_token(&emulator, "eu-west-1"));
    allow_pulls(&emulator);
    let (name, version) = CHART.split_once(':').unwrap();
    let helm = |arguments: &[&str]| {
        let mut command = by_proxy(&helm, home.path(), &emulator);
        command.args(arguments).arg("--registry-config").arg(home.path().join("config.json"));
        stdout(&command.current_dir(home.path()).output().unwrap())
    };
    let chart = format!("oci://{HOST}/{name}");
    helm(&["pull", &chart, "--version", version]);
    assert_eq!(asked(&emulator), ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]);
    helm(&["pull", &chart, "--version", "^1", "--destination", "."]);
    let with_a_range = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:ListImages"];
    assert_eq!(asked(&emulator), with_a_range);
    let manifest = helm(&["template", "release", &format!("hello-{version}.tgz")]);
    assert!(manifest.contains("name: release-hello"), "{manifest}");
    let parent = home.path().join("parent");
    std::fs::create_dir(&parent).unwrap();
    let dependency =
        json!({"name": "hello", "version": version, "repository": format!("oci://{HOST}/charts")});
    let metadata =
        json!({"apiVersion": "v2", "name": "parent", "version": "0.1.0", "dependencies": [dependency]});
    save(&parent.join("Chart.yaml"), &metadata.to_string());
    helm(&["dependency", "build", "parent"]);
    assert!(parent.join("charts/hello-1.0.0.tgz").is_file());
}

/// The user's policy from now on is the one that is shipped.
fn allow_pulls(emulator: &Emulator) {
    let user = Attachment::Identity("arn:aws:iam::123456789012:user/emulated".to_owned());
    emulator.set_policies(user, &[&shipped("pull-policy.json")]);
}

/// The actions that registry clients have asked for, each once; none was denied.
fn asked(emulator: &Emulator) -> Vec<String> {
    let calls: Vec<_> =
        emulator.calls().into_iter().filter(|call| call.service == Service::Registry).collect();
    assert!(calls.iter().all(|call| call.denied.is_none()), "{calls:?}");
    let actions: BTreeSet<_> = calls.into_iter().flat_map(|call| call.actions).collect();
    actions.into_iter().collect()
}

/// A registry client that trusts the emulator and reaches everything by its proxy.
pub(crate) fn by_proxy(program: &Path, home: &Path, emulator: &Emulator) -> Command {
    let mut command = command(program, home);
    command
        .env("HTTPS_PROXY", emulator.proxy())
        .env("SSL_CERT_FILE", emulator.ca_file())
        .env("DOCKER_CONFIG", home);
    command
}

pub(crate) fn log_in(home: &Path, auth: &str) {
    save(&home.join("config.json"), &json!({"auths": {HOST: {"auth": auth}}}).to_string());
}

fn save(path: &Path, text: &str) {
    std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn with_input(mut command: Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}
