//! What goes wrong with identities, keys and permissions.

use std::{
    fs, os::unix::fs::PermissionsExt, os::unix::process::CommandExt, process::Command, time::Duration,
};

use ecr_emulator::{Denial, Emulator, Fault, POD_IDENTITY_TOKEN, Role, Service, Settings, Trust};
use ecr_sidecar::failure::diagnosis::Diagnosis as D;
use test_support::{
    Harness, free_port,
    harness::{KEYS, PUBLIC},
    install, root,
};

use crate::{
    BINARY,
    rows::{Row, are_reported_by_the_doctor, are_reported_everywhere, doctor, first, report_of, row},
};

const ROLE: &str = "arn:aws:iam::123456789012:role/irsa";

pub(crate) fn refuses(harness: &Harness, service: Service, status: u16, code: &str, message: &str) {
    let (code, message) = (code.to_owned(), message.to_owned());
    harness.emulator.set_fault(service, Fault::Error { status, code, message });
}

/// IRSA, with a token for that audience.
fn irsa(harness: &Harness, command: &mut Command, audience: &str) {
    let token = harness.emulator.web_identity_token(
        "system:serviceaccount:flux-system:me",
        audience,
        Duration::from_secs(3600),
    );
    irsa_with(harness, command, &token);
}

fn irsa_with(harness: &Harness, command: &mut Command, token: &str) {
    command.env("AWS_ROLE_ARN", ROLE);
    command.env("AWS_WEB_IDENTITY_TOKEN_FILE", harness.write("web-identity/token", token));
}

fn pod_identity(harness: &Harness, command: &mut Command) {
    let url = format!("{}/v1/credentials", harness.emulator.endpoint());
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
    command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN", POD_IDENTITY_TOKEN);
}

/// One identity, by a file.
fn identity(harness: &Harness, command: &mut Command, yaml: &str) {
    let file = harness.write("config.yaml", &format!("identities: {{default: {yaml}}}\n"));
    command.env("ECR_SIDECAR_CONFIG", file);
}

fn with(diagnosis: D, settings: Settings, cause: fn(&Harness, &mut Command)) -> Row {
    Row { settings, ..row(diagnosis, cause) }
}

fn denying(action: &str) -> Settings {
    let denial = Denial { arn_prefix: "arn:aws:iam::123456789012:user/".into(), action: action.into() };
    Settings { deny: vec![denial], ..Settings::default() }
}

fn trusting(role: &str, trust: Trust) -> Settings {
    Settings { roles: vec![Role::new(role, [trust])], ..Settings::default() }
}

#[test]
fn who_asks() {
    are_reported_everywhere(vec![
        row(D::IrsaInactive, |_, command| {
            command.env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        }),
        row(D::NoCredentials, |_, _| {}),
        row(D::SourceIncomplete, |_, command| {
            command.env("AWS_ACCESS_KEY_ID", KEYS[0].1);
        }),
        row(D::InputMissing, |_, command| {
            command.env("AWS_ROLE_ARN", ROLE).env("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token");
        }),
        row(D::InputMalformed, |harness, command| irsa_with(harness, command, "two words")),
        row(D::ProfileMissing, |_, command| {
            command.env("AWS_PROFILE", "no-such");
        }),
        row(D::ProfileBroken, |harness, command| {
            harness.write(".aws/config", "[profile broken]\ncredential_process = /nowhere/give-keys\n");
            command.env("AWS_PROFILE", "broken");
        }),
        row(D::ProfileFile, |harness, command| {
            harness.write(".aws/credentials", "{\"AccessKeyId\": \"of another tool\"}");
            command.env("AWS_PROFILE", "me");
        }),
        row(D::LoginSession, |harness, command| {
            harness.write(".aws/config", "[profile me]\nlogin_session = arn:aws:iam::123456789012:user/me\n");
            command.env("AWS_PROFILE", "me");
        }),
        row(D::AgentUrl, |_, command| {
            command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://evil.example/v1/credentials");
        }),
        row(D::AgentUnreachable, |_, command| {
            let url = format!("http://127.0.0.1:{}/v1/credentials", free_port());
            command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
        }),
        row(D::AgentBusy, |harness, command| {
            harness.emulator.set_fault(Service::PodIdentity, Fault::Status(503));
            pod_identity(harness, command);
        }),
        row(D::NoAssociation, |harness, command| {
            refuses(harness, Service::PodIdentity, 404, "ResourceNotFoundException", "No association found");
            pod_identity(harness, command);
        }),
        // A pod one hop too far from the metadata service that the configuration names.
        row(D::NoImds, |harness, command| {
            command.env_remove("AWS_EC2_METADATA_DISABLED");
            command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://127.0.0.1:{}", free_port()));
            identity(harness, command, "{source: imds}");
        }),
        // The node's role instead of IRSA's.
        row(D::WrongAccount, |harness, command| {
            command.env_remove("AWS_EC2_METADATA_DISABLED");
            command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", harness.emulator.endpoint());
            identity(harness, command, "{source: imds, expectAccount: '999999999999'}");
        }),
    ]);
}

/// The token goes to a name of the emulated AWS's proxy, over plain http.
#[test]
fn what_the_doctor_warns_of() {
    are_reported_by_the_doctor(vec![row(D::StsInClear, |harness, command| {
        irsa(harness, command, "sts.amazonaws.com");
        command.env("AWS_ENDPOINT_URL_STS", "http://sts.eu-west-1.amazonaws.com");
    })]);
}

#[test]
fn sts() {
    are_reported_everywhere(vec![
        row(D::WrongAudience, |harness, command| irsa(harness, command, "vault")),
        row(D::OidcProviderMissing, |harness, command| {
            let elsewhere = Emulator::start(Settings::default()).unwrap();
            let hour = Duration::from_secs(3600);
            irsa_with(harness, command, &elsewhere.web_identity_token("me", "sts.amazonaws.com", hour));
        }),
        row(D::WebIdentityExpired, |harness, command| {
            let token = harness.emulator.web_identity_token("me", "sts.amazonaws.com", Duration::ZERO);
            irsa_with(harness, command, &token);
        }),
        with(D::TrustWebIdentity, trusting(ROLE, Trust::Subject("another".into())), |harness, command| {
            irsa(harness, command, "sts.amazonaws.com");
        }),
        with(
            D::TrustAssumeRole,
            trusting("arn:aws:iam::999999999999:role/pull", Trust::Principal("arn:aws:iam::1:root".into())),
            |harness, command| {
                command.envs(KEYS);
                let role = "{roleArn: 'arn:aws:iam::999999999999:role/pull'}";
                identity(harness, command, &format!("{{source: environment, assumeRoles: [{role}]}}"));
            },
        ),
        row(D::RegionDisabled, |harness, command| {
            refuses(
                harness,
                Service::Sts,
                403,
                "RegionDisabledException",
                "STS is not activated in this region",
            );
            irsa(harness, command, "sts.amazonaws.com");
        }),
    ]);
}

#[test]
fn keys_and_permissions() {
    are_reported_everywhere(vec![
        // A deleted key, and one of another partition: AWS says the same of both.
        row(D::UnknownKey, |_, command| {
            command.env("AWS_ACCESS_KEY_ID", "AKIADELETEDDELETED00").env("AWS_SECRET_ACCESS_KEY", "x");
        }),
        row(D::UnknownKey, |_, command| {
            command.env("AWS_ACCESS_KEY_ID", "AKIAOFAWSCN000000000").env("AWS_SECRET_ACCESS_KEY", "x");
            command.env("ECR_SIDECAR_REGISTRIES", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn");
        }),
        row(D::WrongSecretKey, |_, command| {
            command.envs(KEYS).env("AWS_SECRET_ACCESS_KEY", "not-the-secret");
        }),
        row(D::Unsigned, |harness, command| {
            refuses(
                harness,
                Service::Ecr,
                400,
                "MissingAuthenticationTokenException",
                "Missing Authentication Token",
            );
            command.envs(KEYS);
        }),
        row(D::SessionExpired, |harness, command| {
            let [id, secret, token] = harness.session();
            harness.emulator.expire_credentials();
            command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
            command.env("AWS_SESSION_TOKEN", token);
        }),
        with(D::EcrDenied, denying("ecr:GetAuthorizationToken"), |_, command| {
            command.envs(KEYS);
        }),
        with(D::EcrPublicDenied, denying("sts:GetServiceBearerToken"), |_, command| {
            command.envs(KEYS).env("ECR_SIDECAR_REGISTRIES", PUBLIC);
        }),
        row(D::Denied, |harness, command| {
            harness.emulator.set_fault(Service::Ecr, Fault::Status(403));
            command.envs(KEYS);
        }),
    ]);
}

/// ECR of a region that the account has not enabled knows none of its keys; STS elsewhere does.
#[test]
fn a_key_that_sts_knows_and_ecr_does_not_is_one_of_a_region_that_is_not_enabled() {
    let harness = Harness::new(BINARY).without_keys();
    refuses(&harness, Service::Ecr, 400, "UnrecognizedClientException", "The security token is invalid");
    let report = doctor(&harness, |command| {
        command.envs(KEYS);
    });
    assert_eq!(first(&report)["diagnosis"], D::RegionDisabled.id(), "{report:#}");
}

/// The token file of another user, without `fsGroup`.
#[test]
fn a_token_that_this_user_may_not_read() {
    const NOBODY: u32 = 65534;
    if !root() {
        return;
    }
    let harness = Harness::new(BINARY).without_keys();
    let binary = harness.at("ecr-sidecar");
    install(BINARY, &binary);
    let token = harness.web_identity_file("me");
    fs::create_dir(harness.at("out")).unwrap();
    for (path, mode) in [(harness.at("."), 0o777), (harness.at("out"), 0o777), (token.clone(), 0o600)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let as_nobody = |name: &str| {
        let template = harness.command(name);
        let mut command = Command::new(&binary);
        command.args(template.get_args()).env_clear().current_dir(harness.at("."));
        command.envs(template.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("AWS_ROLE_ARN", ROLE).env("AWS_WEB_IDENTITY_TOKEN_FILE", &token);
        command.uid(NOBODY).gid(NOBODY);
        command
    };
    let report = report_of(as_nobody("doctor").args(["--output", "json"]));
    let found = first(&report);
    assert_eq!(
        (&found["step"], &found["diagnosis"]),
        (&"files".into(), &D::InputUnreadable.id().into()),
        "{report:#}"
    );
    let saw = found["saw"].as_str().unwrap();
    assert!(saw.contains("owner 0:0, mode 0600") && saw.contains("uid 65534"), "{saw}");
    harness.run_once(&mut as_nobody("once")).failed_with(&["Permission denied", D::InputUnreadable.remedy()]);
}
