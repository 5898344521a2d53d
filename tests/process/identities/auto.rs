//! `source: auto`: environment → profile → web identity → container, never IMDS, and never past a source that
//! is configured but broken.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
};

use ecr_emulator::{ACCESS_KEY_ID, Fault, POD_IDENTITY_TOKEN, SECRET_ACCESS_KEY, Service, Settings, User};
use test_support::{
    Harness,
    harness::{HOST, KEYS},
    install,
};

use crate::BINARY;

const ROLE: &str = "arn:aws:iam::123456789012:role/irsa";

/// A user without rights.
const NOBODY: u32 = 65534;

fn profile(harness: &Harness, command: &mut Command) {
    let user = profile_user();
    harness.write(
        ".aws/credentials",
        &format!(
            "[mine]\naws_access_key_id={}\naws_secret_access_key={}\n",
            user.access_key_id, user.secret_access_key
        ),
    );
    command.env("AWS_PROFILE", "mine");
}

fn profile_user() -> User {
    User {
        access_key_id: "AKIAI44QH8DHBEXAMPLE".into(),
        secret_access_key: "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY".into(),
        arn: "arn:aws:iam::123456789012:user/of-the-profile".into(),
        ..User::default()
    }
}

fn web_identity(harness: &Harness, command: &mut Command) {
    let token = harness.web_identity_file("system:serviceaccount:argocd:argocd-repo-server");
    command.env("AWS_ROLE_ARN", ROLE).env("AWS_WEB_IDENTITY_TOKEN_FILE", token);
}

fn pod_identity(harness: &Harness, command: &mut Command) {
    let token = harness.write("pod-identity", POD_IDENTITY_TOKEN);
    let url = format!("{}/v1/credentials", harness.emulator.endpoint());
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
    command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token);
}

/// The metadata service is there and would answer.
fn imds(harness: &Harness, command: &mut Command) {
    command.env_remove("AWS_EC2_METADATA_DISABLED");
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", harness.emulator.endpoint());
}

#[test]
fn the_order_is_environment_profile_web_identity_container() {
    type Source = fn(&Harness, &mut Command);
    let keys: Source = |_, command| {
        command.envs(KEYS);
    };
    let in_order: [(Source, &str); 4] = [
        (keys, "arn:aws:iam::123456789012:user/emulated"),
        (profile, "arn:aws:iam::123456789012:user/of-the-profile"),
        (web_identity, "arn:aws:sts::123456789012:assumed-role/irsa/ecr-sidecar"),
        (pod_identity, "arn:aws:sts::123456789012:assumed-role/pod-role/eks-emulator-pod"),
    ];
    for first in 0..in_order.len() {
        let users = vec![User::default(), profile_user()];
        let harness = Harness::with(BINARY, Settings { users, ..Settings::default() }).without_keys();
        let pull = harness.once_pulls(HOST, |command| {
            imds(&harness, command);
            in_order[first..].iter().for_each(|(source, _)| source(&harness, command));
        });
        assert_eq!(pull.principal, in_order[first].1);
        assert_eq!(harness.emulator.count(Service::Imds), 0);
    }
}

/// The source that `breaks` and every one behind it are configured: `once` fails at once, saying all of
/// `parts`, and sends no request for a token.
#[track_caller]
fn is_never_passed_over(breaks: impl FnOnce(&Harness, &mut Command), parts: &[&str]) -> Harness {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| {
        pod_identity(&harness, command);
        web_identity(&harness, command);
        imds(&harness, command);
        breaks(&harness, command);
    });
    once.failed_with(parts);
    assert!(harness.nothing_written());
    assert_eq!(harness.counts()[1..3], [0, 0], "no token was asked for");
    assert_eq!(harness.emulator.count(Service::Imds), 0);
    harness
}

#[test]
fn half_of_the_environments_keys_is_an_error_that_names_the_other_half() {
    for (given, missing) in
        [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")]
    {
        let harness = is_never_passed_over(
            |_, command| {
                command.env(given, "x");
            },
            &[
                "`environment` is incomplete",
                &format!("{missing} is unset"),
                &format!("of this source ({missing})"),
            ],
        );
        assert_eq!(harness.counts(), [0; 5]);
    }
}

#[test]
fn a_profile_that_is_not_there_is_an_error_that_names_it() {
    let harness = is_never_passed_over(
        |_, command| {
            command.env("AWS_PROFILE", "mistyped");
        },
        &["profile `mistyped`", "AWS_PROFILE"],
    );
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_profile_that_is_half_there_is_an_error_that_names_it() {
    let harness = is_never_passed_over(
        |harness, command| {
            harness.write(".aws/credentials", "[half]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\n");
            command.env("AWS_PROFILE", "half");
        },
        &["profile `half`"],
    );
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_profile_default_that_is_half_there_is_an_error_too() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(".aws/credentials", "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\n");
    harness.once(|command| imds(&harness, command)).failed_with(&["profile `default`"]);
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_web_identity_token_that_is_not_there_is_an_error_that_names_the_file() {
    let harness = is_never_passed_over(
        |_, command| {
            command.env("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token");
        },
        &["web-identity token in /nowhere/token", "No such file", "volume mount"],
    );
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn an_empty_web_identity_token_is_an_error_that_names_the_file() {
    let harness = is_never_passed_over(
        |harness, command| {
            command.env("AWS_WEB_IDENTITY_TOKEN_FILE", harness.write("empty", "\n"));
        },
        &["web-identity token in ", "empty is empty"],
    );
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_web_identity_without_a_role_is_an_error_that_names_the_variable() {
    let harness = is_never_passed_over(
        |_, command| {
            command.env_remove("AWS_ROLE_ARN");
        },
        &["`web identity` is incomplete", "AWS_ROLE_ARN is unset"],
    );
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_web_identity_token_that_may_not_be_read_is_an_error_that_names_the_remedy() {
    let harness = Harness::new(BINARY).without_keys();
    let token = harness.web_identity_file("me");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read anything: the program runs as another user, from where that user may reach it.
    let is_root = rustix::process::geteuid().is_root();
    let binary = harness.at("ecr-sidecar");
    install(BINARY, &binary);
    for open in [harness.at("."), harness.at("out"), harness.at("web-identity")] {
        fs::create_dir_all(&open).unwrap();
        fs::set_permissions(open, fs::Permissions::from_mode(if is_root { 0o777 } else { 0o700 })).unwrap();
    }
    let mut command = harness.command("once");
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let variables: Vec<_> =
        command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    command = Command::new(binary);
    command.args(arguments).env_clear().envs(variables).current_dir(harness.at("."));
    pod_identity(&harness, &mut command);
    command.env("AWS_ROLE_ARN", ROLE).env("AWS_WEB_IDENTITY_TOKEN_FILE", token);
    if is_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    harness.run_once(&mut command).failed_with(&["web-identity token", "Permission denied", "fsGroup"]);
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_rejected_web_identity_is_an_error_with_the_remedy_of_its_cause() {
    for (code, parts) in [
        ("AccessDenied", ["AccessDenied", "trust policy", "system:serviceaccount:NAMESPACE:NAME"]),
        ("InvalidIdentityToken", ["InvalidIdentityToken", "OIDC provider", "issuer"]),
        ("IDPRejectedClaim", ["IDPRejectedClaim", "audience", "sts.amazonaws.com"]),
    ] {
        is_never_passed_over(
            |harness, _| {
                let message = "no".to_owned();
                harness
                    .emulator
                    .set_fault(Service::Sts, Fault::Error { status: 403, code: code.into(), message });
            },
            &parts,
        );
    }
}

/// Only the container is configured, and it `breaks`.
#[track_caller]
fn container_fails(breaks: impl FnOnce(&Harness, &mut Command), parts: &[&str]) -> Harness {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| {
        imds(&harness, command);
        pod_identity(&harness, command);
        breaks(&harness, command);
    });
    once.failed_with(parts);
    assert!(harness.nothing_written());
    assert_eq!(harness.counts()[..3], [0; 3]);
    assert_eq!(harness.emulator.count(Service::Imds), 0);
    harness
}

#[test]
fn a_pod_identity_agent_that_refuses_is_an_error_with_its_own_words_and_the_remedy() {
    // 404: no association.
    let harness = container_fails(
        |harness, command| {
            command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", harness.write("another", "another-pod"));
        },
        &["credentials agent", "HTTP 404", "No association found", "create the pod identity association"],
    );
    assert_eq!(harness.emulator.count(Service::PodIdentity), 1);

    // 400
    let fault = |harness: &Harness, status, code: &str| {
        let message = "as the agent says it".into();
        harness.emulator.set_fault(Service::PodIdentity, Fault::Error { status, code: code.into(), message });
    };
    let harness = container_fails(
        |harness, _| fault(harness, 400, "InvalidTokenException"),
        &["credentials agent", "HTTP 400", "InvalidTokenException", "as the agent says it"],
    );
    assert_eq!(harness.emulator.count(Service::PodIdentity), 1);
}

#[test]
fn a_missing_pod_identity_token_is_an_error_that_names_the_file() {
    let harness = container_fails(
        |_, command| {
            command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nowhere/eks-pod-identity-token");
        },
        &["container authorization token in /nowhere/eks-pod-identity-token", "No such file"],
    );
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn the_pod_identity_token_is_not_sent_to_another_host() {
    let harness = container_fails(
        |_, command| {
            command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://other.example/v1/credentials");
        },
        &["AWS_CONTAINER_CREDENTIALS_FULL_URI is `http://other.example/v1/credentials`", "loopback"],
    );
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn when_nothing_is_found_every_source_is_listed_with_what_was_seen_and_imds_is_not_asked() {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| imds(&harness, command));
    once.failed_with(&[
        "no AWS credentials found",
        "environment: looked for AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, neither is set",
        "profile: looked for profile default in ",
        "/.aws/config and ",
        "/.aws/credentials, neither file exists",
        "web identity: looked for AWS_WEB_IDENTITY_TOKEN_FILE, unset",
        "container: looked for AWS_CONTAINER_CREDENTIALS_FULL_URI, unset",
        "imds: looked for nothing, only used when named by `source: imds`",
        "set AWS_PROFILE to one of your profiles",
    ]);
    assert!(!once.stderr.contains("IRSA"), "{}", once.stderr);
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn when_nothing_is_found_inside_a_cluster_the_remedy_is_irsa_or_pod_identity() {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| {
        imds(&harness, command);
        command.env("KUBERNETES_SERVICE_HOST", "10.96.0.1").env("AWS_ROLE_ARN", ROLE);
    });
    once.failed_with(&[
        "AWS_WEB_IDENTITY_TOKEN_FILE, unset, though AWS_ROLE_ARN is set",
        "IRSA is not active: `AWS_WEB_IDENTITY_TOKEN_FILE` is unset; annotate the service account with \
         `eks.amazonaws.com/role-arn` and restart the pod",
        "EKS Pod Identity: create the association",
    ]);
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn imds_is_not_asked_for_a_region_either() {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| {
        imds(&harness, command);
        command.envs(KEYS).env_remove("ECR_SIDECAR_REGISTRIES");
    });
    assert_eq!(once.code, Some(64));
    once.has(&["AWS_REGION", "ECR_SIDECAR_REGISTRIES"]);
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_wrong_key_is_an_error_with_the_remedy() {
    let cases = [
        ("AKIAI44QH8DHBEXAMPLE", SECRET_ACCESS_KEY, ["UnrecognizedClientException", "an active access key"]),
        (ACCESS_KEY_ID, "another-secret", ["InvalidSignatureException", "are from the same pair"]),
    ];
    for (id, secret, parts) in cases {
        let harness = Harness::new(BINARY).without_keys();
        let once = harness.once(|command| {
            command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
        });
        once.failed_with(&parts);
        assert_eq!(harness.counts(), [0, 1, 0, 0, 0], "once is enough for what only a person can fix");
        assert!(!once.stderr.contains(secret), "{}", once.stderr);
    }
}
