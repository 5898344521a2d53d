//! Other accounts: chains of roles, the account that is expected, and two identities next to each other.

use ecr_emulator::{Role, Service, Settings, Trust, User};
use test_support::{
    Harness,
    harness::{HOST, KEYS},
};

use super::{ROLE, USER, identity, pulls_as};
use crate::BINARY;

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
