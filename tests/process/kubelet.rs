//! `kubelet-credential-provider`: the kubelet's protocol, whom it asks AWS for, and what it never gives to whom.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Output, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ecr_emulator::{Fault, Role, Service, Settings, Trust};
use serde_json::{Value, json};
use test_support::{
    Harness,
    harness::{DEADLINE, HOST, KEYS, SIBLING, configured_by},
    output, program, root,
};

use crate::{
    BINARY,
    helper::{age, ask, cached, start},
};

const ROLE_A: &str = "arn:aws:iam::123456789012:role/team-a";
const ROLE_B: &str = "arn:aws:iam::123456789012:role/team-b";
const A: &str = "system:serviceaccount:team-a:puller";
const B: &str = "system:serviceaccount:team-b:puller";
const ANNOTATION: &str = "eks.amazonaws.com/role-arn";
/// Half of a token's life.
const HALF: u64 = 6 * 3600;

/// A node with the default user's keys, and roles that trust one ServiceAccount each.
fn node() -> Harness {
    let roles = [(ROLE_A, A), (ROLE_B, B)];
    let roles = roles.map(|(role, subject)| Role::new(role, [Trust::Subject(subject.to_owned())])).to_vec();
    Harness::with(BINARY, Settings { roles, ..Settings::default() })
}

fn provider(harness: &Harness) -> Command {
    let mut command = harness.command("kubelet-credential-provider");
    command.env_remove("ECR_SIDECAR_REGISTRIES").env_remove("ECR_SIDECAR_DOCKER_CONFIG");
    command
}

fn request(image: &str) -> Value {
    json!({
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "kind": "CredentialProviderRequest",
        "image": image,
    })
}

/// A request for a pod of the ServiceAccount `subject`, with these annotations of it.
fn of_pod(harness: &Harness, subject: &str, annotations: &[(&str, &str)]) -> Value {
    let mut request = request(&format!("{HOST}/app:1.0"));
    request["serviceAccountToken"] = json!(harness.web_identity_token(subject));
    for (key, value) in annotations {
        request["serviceAccountAnnotations"][*key] = json!(value);
    }
    request
}

fn answer(harness: &Harness, request: &Value) -> Output {
    ask(&mut provider(harness), &request.to_string())
}

#[track_caller]
fn response(output: &Output) -> Value {
    let (said, reported) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{reported}");
    serde_json::from_str(&said).unwrap()
}

/// The password for `registry`, which the registry lets in, whose principal it was given to, and for how many seconds the
/// kubelet may keep it.
#[track_caller]
fn credential(harness: &Harness, registry: &str, output: &Output) -> (String, String, u64) {
    let response = response(output);
    let auth = response["auth"].as_object().unwrap();
    assert_eq!((auth.len(), auth[registry]["username"].as_str()), (1, Some("AWS")), "only {registry}");
    let password = auth[registry]["password"].as_str().unwrap().to_owned();
    let pull = harness.admits(registry, &STANDARD.encode(format!("AWS:{password}")));
    let kept = response["cacheDuration"].as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap();
    (password, pull.principal, kept)
}

/// No response, and a line with all `parts`.
#[track_caller]
fn failed(output: &Output, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
    assert_eq!(said.lines().count(), 1, "one line: {said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn a_pull_gets_a_credential_to_keep_for_half_of_its_life() {
    let harness = node();
    let output = answer(&harness, &request(&format!("{HOST}/team/app@sha256:{}", "0".repeat(64))));
    let response = response(&output);
    let fields = ["apiVersion", "kind", "cacheKeyType"].map(|key| response[key].as_str().unwrap());
    let expected = ["credentialprovider.kubelet.k8s.io/v1", "CredentialProviderResponse", "Registry"];
    assert_eq!(fields, expected);
    let (_, principal, kept) = credential(&harness, HOST, &output);
    assert!(principal.ends_with(":user/emulated"), "{principal}");
    assert!((HALF - 600..=HALF).contains(&kept), "{kept}");
}

#[test]
fn an_image_of_another_registry_is_answered_with_nothing() {
    let harness = node();
    let nothing = json!({
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "kind": "CredentialProviderResponse",
        "cacheKeyType": "Registry",
        "cacheDuration": "0s",
        "auth": {},
    });
    let evil = format!("{HOST}.evil.example/app");
    for image in
        ["docker.io/library/busybox:1", "ghcr.io/a/b", "busybox", "", "/", "a b/c", "*.com/app", &evil]
    {
        assert_eq!(response(&answer(&harness, &request(image))), nothing, "{image}");
    }
    // Whatever the pod's account asks for.
    let mut other = of_pod(&harness, A, &[(ANNOTATION, "no role")]);
    other["image"] = json!("ghcr.io/a/b:1");
    assert_eq!(response(&answer(&harness, &other)), nothing);
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_registry_of_another_name_is_served_when_it_is_configured() {
    let harness = node();
    let host = harness.emulator.add_registry("eu-west-1");
    let file = harness.put(
        "node.yaml",
        &format!("registries: [{{host: '{host}', region: eu-west-1}}, {{host: {HOST}}}]\noutputs: []\n"),
    );
    let image = request(&format!("{host}/app:1.0"));
    let configured = |image: &Value| {
        let mut command = provider(&harness);
        configured_by(&mut command, &file);
        ask(&mut command, &image.to_string())
    };
    credential(&harness, &host, &configured(&image));
    // A name of ECR's needs no entry: the others are of the default identity.
    credential(&harness, SIBLING, &configured(&request(&format!("{SIBLING}/app"))));
    assert_eq!(response(&answer(&harness, &image))["auth"], json!({}), "unconfigured");
}

#[test]
fn fifty_pulls_at_once_from_fifty_registries_cost_one_call() {
    let harness = node();
    let hosts: Vec<_> = (0..50).map(|n| format!("{n:012}.dkr.ecr.eu-west-1.amazonaws.com")).collect();
    let start =
        |host: &String| start(&mut provider(&harness), &request(&format!("{host}/app:1.0")).to_string());
    let children: Vec<_> = hosts.iter().map(start).collect();
    for (child, host) in children.into_iter().zip(&hosts) {
        credential(&harness, host, &child.wait_with_output().unwrap());
    }
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
}

#[test]
fn while_aws_is_away_pulls_go_on_until_the_token_expires() {
    let harness = node();
    let pull = || answer(&harness, &request(&format!("{HOST}/app:1.0")));
    let (first, ..) = credential(&harness, HOST, &pull());
    age(&harness, 7);
    for fault in [Fault::Status(503), Fault::Hang, Fault::Reset] {
        harness.emulator.set_fault(Service::Ecr, fault);
        let (password, _, kept) = credential(&harness, HOST, &pull());
        // For minutes: then a newer one may be available.
        assert_eq!((password, kept), (first.clone(), 300));
    }
    age(&harness, 5);
    failed(&pull(), &[HOST, "ecr:GetAuthorizationToken", "to fix it:"]);
    harness.emulator.clear_faults();
    assert_ne!(credential(&harness, HOST, &pull()).0, first);
}

#[test]
fn each_service_account_gets_its_own_role_and_its_pods_share_one_call() {
    let harness = node();
    let pull = |subject: &str, role: &str| {
        let output = answer(&harness, &of_pod(&harness, subject, &[(ANNOTATION, role)]));
        let (password, principal, kept) = credential(&harness, HOST, &output);
        assert!((HALF - 600..=HALF).contains(&kept), "{kept}");
        (password, principal)
    };
    let (a, of_a) = pull(A, ROLE_A);
    let (b, of_b) = pull(B, ROLE_B);
    assert!(of_a.contains("assumed-role/team-a/") && of_b.contains("assumed-role/team-b/"), "{of_a} {of_b}");
    // The next pods have tokens of their own.
    assert_eq!((pull(A, ROLE_A).0, pull(B, ROLE_B).0), (a, b));
    assert_eq!([Service::Sts, Service::Ecr].map(|service| harness.emulator.count(service)), [2, 2]);
    let without = answer(&harness, &of_pod(&harness, B, &[]));
    assert!(credential(&harness, HOST, &without).1.ends_with(":user/emulated"), "the node's");
}

#[test]
fn no_service_account_gets_another_one_s_token() {
    let harness = node();
    credential(&harness, HOST, &answer(&harness, &of_pod(&harness, A, &[(ANNOTATION, ROLE_A)])));
    cached(&harness);
    let refused = answer(&harness, &of_pod(&harness, B, &[(ANNOTATION, ROLE_A)]));
    failed(&refused, &[ROLE_A, "sts:AssumeRoleWithWebIdentity", "AccessDenied"]);
    harness.emulator.set_fault(Service::Sts, Fault::Hang);
    failed(&answer(&harness, &of_pod(&harness, B, &[(ANNOTATION, ROLE_A)])), &["no answer"]);
}

/// However many tokens of the node's identity are at hand.
#[test]
fn a_role_that_is_refused_is_not_replaced_by_the_node_s_identity() {
    let harness = node();
    let _running = harness.run_ready(|_| {});
    let mut node = harness.command("kubelet-credential-provider");
    let counted = harness.counts();
    credential(&harness, HOST, &ask(&mut node, &request(&format!("{HOST}/app")).to_string()));
    assert_eq!(harness.counts(), counted, "the sidecar's token is at hand");
    credential(&harness, HOST, &answer(&harness, &request(&format!("{HOST}/app"))));
    cached(&harness);
    for prepare in [provider, |harness: &Harness| harness.command("kubelet-credential-provider")] {
        let denied = of_pod(&harness, B, &[(ANNOTATION, ROLE_A)]).to_string();
        failed(&ask(&mut prepare(&harness), &denied), &["AccessDenied"]);
        let mut by_default = prepare(&harness);
        by_default.args(["--role-arn", ROLE_A]);
        failed(&ask(&mut by_default, &of_pod(&harness, B, &[]).to_string()), &["AccessDenied"]);
    }
    harness.emulator.set_fault(Service::Ecr, Fault::Status(503));
    failed(&answer(&harness, &of_pod(&harness, A, &[(ANNOTATION, ROLE_A)])), &["503"]);
}

/// Roles of the configured identity are not assumed on top: the account chose.
#[test]
fn an_account_s_role_replaces_the_configured_identity_and_its_chain() {
    let harness = node();
    let file = harness.put(
        "node.yaml",
        &format!(
            "identities:\n  default: {{source: environment, assumeRoles: [{{roleArn: '{ROLE_B}'}}], \
             expectAccount: '999999999999'}}\nregistries: [{{host: {HOST}}}]\n"
        ),
    );
    let mut command = provider(&harness);
    configured_by(&mut command, &file);
    let output = ask(&mut command, &of_pod(&harness, A, &[(ANNOTATION, ROLE_A)]).to_string());
    let (_, principal, _) = credential(&harness, HOST, &output);
    assert!(principal.contains("assumed-role/team-a/"), "{principal}");
}

#[test]
fn what_an_account_asks_for_is_its_role_or_an_error() {
    let harness = node();
    let rejected = |annotations: &[(&str, &str)], parts: &[&str]| {
        failed(&answer(&harness, &of_pod(&harness, A, annotations)), parts);
    };
    rejected(&[(ANNOTATION, "")], &[ANNOTATION, "expected a role's ARN"]);
    rejected(&[(ANNOTATION, "team-a")], &[ANNOTATION, "`team-a`"]);
    rejected(&[(ANNOTATION, "arn:aws:iam::123456789012:role/a\nb\u{1b}[2J")], &["expected a role's ARN"]);
    rejected(&[(ANNOTATION, KEYS[1].1)], &["not shown"]);
    rejected(&[("example.com/role", ROLE_A)], &["example.com/role", "--role-annotation", "tokenAttributes"]);
    rejected(&[(ANNOTATION, ROLE_A), ("example.com/role", ROLE_B)], &["example.com/role"]);
    let mut tokenless = of_pod(&harness, A, &[(ANNOTATION, ROLE_A)]);
    for token in [json!(""), Value::Null] {
        tokenless["serviceAccountToken"] = token;
        assert_eq!(answer(&harness, &tokenless).status.code(), Some(1));
    }
    tokenless["serviceAccountToken"] = json!("hunter2.hunter2.hunter2");
    let output = answer(&harness, &tokenless);
    failed(&output, &["no JSON web token"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn annotations_and_a_default_role_are_by_flag_and_the_more_special_annotation_comes_first() {
    let harness = node();
    let principal = |flags: &[&str], subject: &str, annotations: &[(&str, &str)]| {
        let mut command = provider(&harness);
        let output = ask(command.args(flags), &of_pod(&harness, subject, annotations).to_string());
        credential(&harness, HOST, &output).1
    };
    let both = [("eks.amazonaws.com/ecr-role-arn", ROLE_A), (ANNOTATION, ROLE_B)];
    assert!(principal(&[], A, &both).contains("/team-a/"));
    let own = ["--role-annotation", "example.com/role"];
    assert!(principal(&own, B, &[("example.com/role", ROLE_B)]).contains("/team-b/"));
    let mut command = provider(&harness);
    let usual = of_pod(&harness, A, &[(ANNOTATION, ROLE_A)]).to_string();
    failed(&ask(command.args(own), &usual), &[ANNOTATION, "names no role here"]);
    assert!(principal(&["--role-arn", ROLE_A], A, &[]).contains("/team-a/"));
    assert!(principal(&["--role-arn", ROLE_A], B, &[(ANNOTATION, ROLE_B)]).contains("/team-b/"));
    // Static pods have no account.
    let mut command = provider(&harness);
    let of_static_pod = request(&format!("{HOST}/app")).to_string();
    let output = ask(command.args(["--role-arn", ROLE_A]), &of_static_pod);
    assert!(credential(&harness, HOST, &output).1.ends_with(":user/emulated"));
    let mut command = provider(&harness);
    failed(
        &ask(command.args(["--role-arn", "team-a"]), &of_pod(&harness, A, &[]).to_string()),
        &["--role-arn"],
    );
}

#[test]
fn what_is_no_request_is_an_error_that_says_so() {
    let harness = node();
    let old = request(HOST).to_string().replace("k8s.io/v1", "k8s.io/v1beta1");
    let large = json!({"image": "x".repeat(70_000)}).to_string();
    for (text, part) in [
        ("", "no CredentialProviderRequest"),
        ("{\"image\": hunter2}", "no CredentialProviderRequest"),
        (&old, "set `apiVersion: credentialprovider.kubelet.k8s.io/v1`"),
        (&large, "larger than the limit"),
    ] {
        let output = ask(&mut provider(&harness), text);
        failed(&output, &[part]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
    }
    let mut command = provider(&harness);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut held = child.stdin.take().unwrap();
    held.write_all(b"{").unwrap();
    failed(&child.wait_with_output().unwrap(), &["did not end"]);
    let bad = ask(
        provider(&harness).env("ECR_SIDECAR_FILE_MODE", "0666"),
        &request(&format!("{HOST}/app")).to_string(),
    );
    failed(&bad, &["ECR_SIDECAR_FILE_MODE"]);
}

/// The request has another field in a later kubelet.
#[test]
fn what_a_later_kubelet_adds_is_passed_over() {
    let harness = node();
    let mut later = request(&format!("{HOST}/app"));
    later["podName"] = json!("p");
    credential(&harness, HOST, &answer(&harness, &later));
}

#[test]
fn an_account_s_token_is_nowhere_in_the_log_or_the_cache() {
    let harness = node();
    for fault in [None, Some(Fault::Echo), Some(Fault::AccessDenied)] {
        harness.emulator.clear_faults();
        if let Some(fault) = fault {
            harness.emulator.set_fault(Service::Sts, fault);
        }
        let request = of_pod(&harness, A, &[(ANNOTATION, ROLE_A)]);
        let output = ask(provider(&harness).env("ECR_SIDECAR_LOG", "trace"), &request.to_string());
        let logged = String::from_utf8_lossy(&output.stderr);
        let token = request["serviceAccountToken"].as_str().unwrap();
        for part in token.split('.') {
            assert!(!logged.contains(part), "{logged}");
        }
        for entry in fs::read_dir(harness.at(".cache/ecr-sidecar")).unwrap().map(Result::unwrap) {
            let text = fs::read_to_string(entry.path()).unwrap() + entry.path().to_str().unwrap();
            assert!(!token.split('.').any(|part| text.contains(part)), "{text}");
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// A kubelet is a service of root's, without `HOME`.
#[test]
fn a_service_without_a_home_keeps_its_tokens_in_memory() {
    if !root() || program("unshare").is_none() {
        return;
    }
    let harness = node();
    let file = harness.put("request.json", &request(&format!("{HOST}/app")).to_string());
    let script = "mount -t tmpfs none /run; \"$0\" kubelet-credential-provider <\"$1\"; \
                  \"$0\" kubelet-credential-provider <\"$1\"; stat -c '%a %n' /run/ecr-sidecar /run/ecr-sidecar/*";
    let mut command = Command::new("unshare");
    command.env_clear().envs(provider(&harness).get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env_remove("HOME").env("PATH", std::env::var("PATH").unwrap());
    command.args(["--mount", "--propagation=private", "sh", "-euc", script, BINARY]).arg(file);
    let done = output(&mut command, DEADLINE);
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(harness.emulator.count(Service::Ecr), 1, "{said}");
    let modes: Vec<_> = said.lines().filter(|line| line.contains("/run/")).collect();
    assert!(
        modes[0] == "700 /run/ecr-sidecar" && modes[1..].iter().all(|it| it.starts_with("600 ")),
        "{modes:?}"
    );
}

#[test]
fn a_node_s_program_is_replaced_while_it_runs_and_only_by_another_one() {
    let harness = node();
    let path = harness.at("bin/ecr-sidecar");
    let install = |folder: &Path| {
        let mut command = harness.command("kubelet-credential-provider");
        output(command.arg("--install").arg(folder), DEADLINE)
    };
    failed(&install(&harness.at("bin")), &["bin"]); // no such folder
    fs::create_dir(harness.at("bin")).unwrap();
    test_support::process::install(program("sleep").unwrap(), &path);
    let mut old = Command::new(&path).arg("1000").spawn().unwrap();
    let done = install(&harness.at("bin"));
    assert!(String::from_utf8_lossy(&done.stdout).ends_with("bin/ecr-sidecar is installed\n"), "{done:?}");
    assert_eq!(old.try_wait().unwrap(), None, "the old one runs on");
    old.kill().unwrap();
    old.wait().unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o755);
    let version = output(Command::new(&path).arg("--version"), DEADLINE);
    assert!(version.status.success() && fs::read(&path).unwrap() == fs::read(BINARY).unwrap());

    let again = install(&harness.at("bin"));
    assert!(String::from_utf8_lossy(&again.stdout).contains("is up to date"), "{again:?}");
    assert_eq!(fs::metadata(&path).unwrap().ino(), metadata.ino());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    install(&harness.at("bin"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_dir(harness.at("bin")).unwrap().count(), 1, "nothing is left over");
}
