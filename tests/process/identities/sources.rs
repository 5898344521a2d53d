//! Every source gives a token: the emulator records who signed, where, and whether a pull is admitted.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::Command,
    thread,
};

use ecr_emulator::{
    ACCESS_KEY_ID, POD_IDENTITY_TOKEN, Role, SECRET_ACCESS_KEY, Service, Settings, Trust, User,
};

use test_support::{
    Harness, Signal,
    harness::{DEADLINE, HOST, KEYS},
};

use crate::BINARY;

const USER: &str = "arn:aws:iam::123456789012:user/emulated";
const ROLE: &str = "arn:aws:iam::123456789012:role/ecr-pull";

/// One call of ECR in eu-west-1 by `principal`, and a pull by the same.
#[track_caller]
fn pulls_as(harness: &Harness, principal: &str, prepare: impl FnOnce(&mut Command)) {
    let pull = harness.once_pulls(HOST, prepare);
    let call = harness.only_call(Service::Ecr);
    assert_eq!(call.principal.as_deref(), Some(principal));
    assert_eq!(call.region.as_deref(), Some("eu-west-1"));
    assert_eq!((pull.principal.as_str(), pull.region.as_deref()), (principal, Some("eu-west-1")));
    assert!(call.registry_ids.is_empty(), "registryIds is deprecated and changes nothing");
}

/// `config.yaml` with one identity.
fn identity(harness: &Harness, yaml: &str) -> impl FnOnce(&mut Command) {
    let path = harness.write("config.yaml", &format!("identities: {{default: {yaml}}}\n"));
    move |command| {
        command.env("ECR_SIDECAR_CONFIG", path);
    }
}

#[test]
fn keys_in_the_environment_give_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    pulls_as(&harness, USER, |command| {
        command.envs(KEYS);
    });
    assert_eq!(harness.only_call(Service::Ecr).access_key_id.as_deref(), Some(ACCESS_KEY_ID));
}

#[test]
fn keys_with_a_session_token_in_the_environment_give_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    let [id, secret, token] = harness.session();
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/pod-role/eks-emulator-pod", |command| {
        command.env("AWS_ACCESS_KEY_ID", &id).env("AWS_SECRET_ACCESS_KEY", secret);
        command.env("AWS_SESSION_TOKEN", token);
    });
    assert_eq!(harness.only_call(Service::Ecr).access_key_id, Some(id));
}

#[test]
fn key_files_give_a_token_whatever_white_space_ends_them() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write("keys/id", &format!("{ACCESS_KEY_ID}\n"));
    harness.write("keys/secret", &format!(" {SECRET_ACCESS_KEY}\r\n"));
    pulls_as(
        &harness,
        USER,
        identity(&harness, "{source: static, accessKeyIdFile: keys/id, secretAccessKeyFile: keys/secret}"),
    );
}

#[test]
fn key_files_with_a_session_token_give_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    for (name, value) in ["id", "secret", "token"].into_iter().zip(harness.session()) {
        harness.write(name, &value);
    }
    let yaml = "{source: static, accessKeyIdFile: id, secretAccessKeyFile: secret, sessionTokenFile: token}";
    pulls_as(
        &harness,
        "arn:aws:sts::123456789012:assumed-role/pod-role/eks-emulator-pod",
        identity(&harness, yaml),
    );
}

fn credentials_file(profile: &str) -> String {
    format!("[{profile}]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n")
}

#[test]
fn the_profile_default_gives_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(".aws/credentials", &credentials_file("default"));
    pulls_as(&harness, USER, |_| {});
}

#[test]
fn the_profile_of_aws_profile_gives_a_token_and_the_region() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(".aws/credentials", &credentials_file("me"));
    harness.write(".aws/config", "[profile me]\nregion = ap-southeast-2\n");
    let once = harness.once(|command| {
        command.env("AWS_PROFILE", "me").env_remove("ECR_SIDECAR_REGISTRIES");
    });
    assert_eq!(once.code, Some(0), "{}", once.stderr);
    assert_eq!(harness.pull("123456789012.dkr.ecr.ap-southeast-2.amazonaws.com").principal, USER);
}

#[test]
fn a_profile_that_the_configuration_names_gives_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(".aws/credentials", &credentials_file("named"));
    pulls_as(&harness, USER, identity(&harness, "{source: profile, profile: named}"));
}

#[test]
fn the_files_of_aws_config_file_and_aws_shared_credentials_file_are_read() {
    let harness = Harness::new(BINARY).without_keys();
    let credentials = harness.write("elsewhere/credentials", &credentials_file("me"));
    let config = harness.write(
        "elsewhere/config",
        &format!("[profile role]\nrole_arn = {ROLE}\nsource_profile = me\nrole_session_name = from-a-file\n"),
    );
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/ecr-pull/from-a-file", |command| {
        command.env("AWS_CONFIG_FILE", config).env("AWS_SHARED_CREDENTIALS_FILE", credentials);
        command.env("AWS_PROFILE", "role");
    });
}

#[test]
fn a_profile_with_a_source_profile_assumes_its_role() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(".aws/credentials", &credentials_file("base"));
    harness.write(
        ".aws/config",
        &format!(
            "[profile pull]\nrole_arn = {ROLE}\nsource_profile = base\nrole_session_name = by-profile\n\
             region = eu-central-1\n"
        ),
    );
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/ecr-pull/by-profile", |command| {
        command.env("AWS_PROFILE", "pull");
    });
    let sts = harness.only_call(Service::Sts);
    assert_eq!((sts.operation.as_str(), sts.principal.as_deref()), ("AssumeRole", Some(USER)));
    assert_eq!(sts.region.as_deref(), Some("eu-central-1"));
}

#[test]
fn a_profile_with_a_credential_process_gives_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    let script = harness.script(
        "give-keys",
        &format!(
            "#!/bin/sh\necho '{{\"Version\": 1, \"AccessKeyId\": \"{ACCESS_KEY_ID}\", \
             \"SecretAccessKey\": \"{SECRET_ACCESS_KEY}\"}}'\n"
        ),
    );
    harness.write(".aws/config", &format!("[profile exec]\ncredential_process = {}\n", script.display()));
    pulls_as(&harness, USER, |command| {
        command.env("AWS_PROFILE", "exec");
    });
}

/// As the AWS CLI has it: the other file is not needed.
#[test]
fn one_profile_file_is_enough_if_it_has_the_profile() {
    let harness = Harness::new(BINARY).without_keys();
    let config = harness.write(
        "config",
        &format!(
            "[profile me]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n"
        ),
    );
    let variables = |profile: &'static str| {
        let config = config.clone();
        move |command: &mut Command| {
            command.env("AWS_CONFIG_FILE", config).env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/file");
            command.env("AWS_PROFILE", profile);
        }
    };
    pulls_as(&harness, USER, variables("me"));
    harness.once(variables("another")).failed_with(&["/nonexistent/file", "AWS_SHARED_CREDENTIALS_FILE"]);
}

/// The emulator has no SSO portal: what is held here is that a profile with `sso_session` is understood, that
/// the portal of its region is asked with the cached token, and what is said without one.
#[test]
fn an_sso_profile_asks_the_portal_of_its_region_and_names_the_login_when_there_is_none() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(
        ".aws/config",
        "[profile sso]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = pull\n\
         [sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.example/start\n",
    );
    let once = harness.once(|command| {
        command.env("AWS_PROFILE", "sso");
    });
    once.failed_with(&["profile `sso`", "aws sso login"]);
    assert_eq!(harness.emulator.connects().len(), 0);

    // The cache's name is the SHA-1 of the session's name.
    harness.write(
        ".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json",
        "{\"accessToken\": \"cached\", \"expiresAt\": \"2099-01-01T00:00:00Z\"}",
    );
    let once = harness.once(|command| {
        command.env("AWS_PROFILE", "sso").env_remove("AWS_ENDPOINT_URL").args(["--timeout", "2s"]);
    });
    once.failed_with(&["profile `sso`"]);
    let hosts: Vec<_> = harness.emulator.connects().into_keys().collect();
    assert_eq!(hosts, ["portal.sso.eu-west-1.amazonaws.com"], "{}", once.stderr);
}

/// The portal of IAM Identity Center and its OIDC API: a login is renewed to the token `renewed`, which has been revoked;
/// any other token gets the emulator's keys.
fn sso_portal() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = String::new();
            let mut reader = BufReader::new(&stream);
            while reader.read_line(&mut request).unwrap() > 2 {}
            let length = request
                .to_lowercase()
                .split_once("content-length: ")
                .map_or(0, |(_, rest)| rest.lines().next().unwrap().trim().parse().unwrap());
            reader.read_exact(&mut vec![0; length]).unwrap();
            let (status, body) = if request.starts_with("POST /token ") {
                ("200 OK", r#"{"accessToken":"renewed","refreshToken":"again","expiresIn":28800}"#.to_owned())
            } else if request.contains("x-amz-sso_bearer_token: renewed") {
                (
                    "401 Unauthorized",
                    r#"{"__type":"UnauthorizedException","message":"Session token not found"}"#.into(),
                )
            } else {
                let keys = format!(
                    r#"{{"roleCredentials":{{"accessKeyId":"{ACCESS_KEY_ID}","secretAccessKey":"{SECRET_ACCESS_KEY}","expiration":4102444800000}}}}"#
                );
                ("200 OK", keys)
            };
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n");
            write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    url
}

/// A login that was renewed in memory and is denied gives way to one that `aws sso login` has put there since.
#[test]
fn a_new_login_takes_the_place_of_one_that_was_revoked() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(
        ".aws/config",
        "[profile sso]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = pull\n\
         [sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.example/start\n",
    );
    let login = ".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json";
    harness.write(
        login,
        r#"{"accessToken":"old","expiresAt":"2020-01-01T00:00:00Z","refreshToken":"r","clientId":"c","clientSecret":"s"}"#,
    );
    let portal = sso_portal();
    let running = harness.run(|command| {
        command.env("AWS_PROFILE", "sso").env("AWS_ENDPOINT_URL_SSO", &portal);
        command.env("AWS_ENDPOINT_URL_SSO_OIDC", &portal);
    });
    running.wait_log("Session token not found", DEADLINE);
    harness.write(login, r#"{"accessToken":"new","expiresAt":"2099-01-01T00:00:00Z"}"#);
    running.signal(Signal::HUP);
    running.wait_ready();
}

#[test]
fn a_web_identity_token_gives_a_token_and_the_session_is_named_after_us() {
    let harness = Harness::new(BINARY).without_keys();
    let token = harness.web_identity_file("system:serviceaccount:flux-system:source-controller");
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/ecr-pull/ecr-sidecar", |command| {
        command.env("AWS_ROLE_ARN", ROLE).env("AWS_WEB_IDENTITY_TOKEN_FILE", token);
    });
    let sts = harness.only_call(Service::Sts);
    assert_eq!(sts.operation, "AssumeRoleWithWebIdentity");
    assert_eq!(sts.principal.as_deref(), Some("system:serviceaccount:flux-system:source-controller"));
    assert_eq!(sts.access_key_id, None, "this call is unsigned");
}

#[test]
fn a_web_identity_that_the_configuration_names_gives_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    harness.web_identity_file("me");
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/ecr-pull/named", |command| {
        command.env("AWS_ROLE_SESSION_NAME", "named");
        identity(
            &harness,
            &format!("{{source: web-identity, roleArn: '{ROLE}', tokenFile: web-identity/token}}"),
        )(command);
    });
}

#[test]
fn eks_pod_identity_gives_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    let token = harness.write("pods/eks-pod-identity-token", POD_IDENTITY_TOKEN);
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/pod-role/eks-emulator-pod", |command| {
        let url = format!("{}/v1/credentials", harness.emulator.endpoint());
        command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
        command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token);
    });
    assert_eq!(harness.counts(), [0, 1, 0, 1, 0]);
}

/// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` means 169.254.170.2, which no test asks.
#[test]
fn ecs_with_its_token_in_the_environment_gives_a_token() {
    let harness = Harness::new(BINARY).without_keys();
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/pod-role/eks-emulator-pod", |command| {
        let url = format!("{}/v1/credentials", harness.emulator.endpoint());
        command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
        command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN", POD_IDENTITY_TOKEN);
    });
}

#[test]
fn imds_gives_a_token_when_it_is_named() {
    let harness = Harness::new(BINARY).without_keys();
    pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/node-role/i-0emulated0000000", |command| {
        command.env_remove("AWS_EC2_METADATA_DISABLED");
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", harness.emulator.endpoint());
        identity(&harness, "{source: imds}")(command);
    });
}

/// Two roles in two accounts: the first trusts the user, the second only the first and only with its
/// external id.
#[test]
fn a_chain_of_roles_is_assumed_in_order_with_external_id_and_session_name() {
    let hub = Role::new("arn:aws:iam::123456789012:role/hub", [Trust::Principal(USER.into())]);
    let mut spoke = Role::new(
        "arn:aws:iam::999999999999:role/spoke",
        [Trust::Principal("arn:aws:iam::123456789012:role/hub".into())],
    );
    spoke.external_id = Some("gitops".into());
    let harness =
        Harness::with(BINARY, Settings { roles: vec![hub, spoke], ..Settings::default() }).without_keys();
    let chain = |external_id: &str| {
        format!(
            "{{source: environment, stsRegion: eu-central-1, assumeRoles: [\
             {{roleArn: 'arn:aws:iam::123456789012:role/hub', sessionName: first}}, \
             {{roleArn: 'arn:aws:iam::999999999999:role/spoke', sessionName: flux@prod{external_id}}}]}}"
        )
    };
    let refused = harness.once(|command| {
        identity(&harness, &chain(""))(command.envs(KEYS));
    });
    refused.failed_with(&["arn:aws:iam::999999999999:role/spoke", "AccessDenied", "externalId"]);
    assert!(harness.nothing_written());
    assert_eq!(harness.emulator.count(Service::Ecr), 0);

    pulls_as(&harness, "arn:aws:sts::999999999999:assumed-role/spoke/flux@prod", |command| {
        identity(&harness, &chain(", externalId: gitops"))(command.envs(KEYS));
    });
    let sts: Vec<_> = harness.calls(Service::Sts).split_off(2);
    let who: Vec<_> = sts.iter().map(|call| call.principal.as_deref().unwrap()).collect();
    assert_eq!(who, [USER, "arn:aws:sts::123456789012:assumed-role/hub/first"]);
    assert!(sts.iter().all(|call| call.region.as_deref() == Some("eu-central-1")), "{sts:?}");
}

#[test]
fn sts_is_called_where_the_configuration_or_aws_region_says_and_never_in_the_registrys_region() {
    let role = format!("assumeRoles: [{{roleArn: '{ROLE}'}}]");
    let cases = [
        (format!("{{{role}, stsRegion: ap-southeast-2}}"), Some("us-west-2"), "ap-southeast-2"),
        (format!("{{{role}}}"), Some("us-west-2"), "us-west-2"),
        (format!("{{{role}}}"), None, "us-east-1"), // the partition's first region
    ];
    for (yaml, aws_region, expected) in cases {
        let harness = Harness::new(BINARY).without_keys();
        pulls_as(&harness, "arn:aws:sts::123456789012:assumed-role/ecr-pull/ecr-sidecar", |command| {
            command.envs(KEYS).envs(aws_region.map(|region| ("AWS_REGION", region)));
            identity(&harness, &yaml)(command);
        });
        assert_eq!(harness.only_call(Service::Sts).region.as_deref(), Some(expected), "{yaml}");
    }
}

#[test]
fn the_expected_account_is_let_through() {
    let harness = Harness::new(BINARY).without_keys();
    pulls_as(&harness, USER, |command| {
        identity(&harness, "{expectAccount: '123456789012'}")(command.envs(KEYS));
    });
    assert_eq!(harness.only_call(Service::Sts).operation, "GetCallerIdentity");
}

#[test]
fn another_account_than_expected_is_an_error_that_names_both_and_nothing_is_written() {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| {
        identity(&harness, "{expectAccount: '999999999999'}")(command.envs(KEYS));
    });
    once.failed_with(&["999999999999", "account 123456789012", USER, "expectAccount"]);
    assert!(harness.nothing_written());
    assert_eq!(harness.emulator.count(Service::Ecr), 0, "a token of the wrong account isn't even asked for");
}

#[test]
fn two_identities_each_have_a_token_of_their_own() {
    let other = User {
        access_key_id: "AKIAI44QH8DHBEXAMPLE".into(),
        secret_access_key: "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY".into(),
        account: "999999999999".into(),
        arn: "arn:aws:iam::999999999999:user/billing".into(),
    };
    let users = vec![User::default(), other.clone()];
    let harness = Harness::with(BINARY, Settings { users, ..Settings::default() }).without_keys();
    harness.write("id", &other.access_key_id);
    harness.write("secret", &other.secret_access_key);
    let theirs = "999999999999.dkr.ecr.eu-west-1.amazonaws.com";
    let config = harness.write(
        "config.yaml",
        &format!(
            "identities:\n  billing: {{source: static, accessKeyIdFile: id, secretAccessKeyFile: secret}}\n\
             registries:\n- host: {HOST}\n- {{host: {theirs}, identity: billing}}\n"
        ),
    );
    harness.once_pulls(HOST, |command| {
        command.envs(KEYS).env("ECR_SIDECAR_CONFIG", config).env_remove("ECR_SIDECAR_REGISTRIES");
    });
    assert_eq!(harness.pull(HOST).principal, USER);
    assert_eq!(harness.pull(theirs).principal, other.arn);
    assert_eq!(harness.emulator.count(Service::Ecr), 2);
}
