use super::*;
use crate::iam::{Caller, Principal};

const OURS: &str = "arn:aws:ecr:eu-west-1:123456789012:repository/team/app";
const THEIRS: &str = "arn:aws:ecr:eu-west-1:999999999999:repository/team/app";
const ROLE: &str = "arn:aws:iam::123456789012:role/ecr-pull";
const SESSION: &str = "arn:aws:sts::123456789012:assumed-role/ecr-pull/test";

const PULL: &str = r#""Action": "ecr:BatchGetImage", "Resource": "*""#;

fn session() -> Principal {
    Principal {
        arn: SESSION.to_owned(),
        account: "123456789012".to_owned(),
        user_id: String::new(),
        role: Some(ROLE.to_owned()),
        session_policy: None,
        is_tagged: false,
    }
}

fn statement(effect: &str, rest: &str) -> Policy {
    let text = format!(r#"{{"Version": "2012-10-17", "Statement": {{"Effect": "{effect}", {rest}}}}}"#);
    Policy::parse(&text, rest.contains("\"Principal\"")).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn allow(rest: &str) -> Vec<Policy> {
    vec![statement("Allow", rest)]
}

fn to(principal: &str) -> Vec<Policy> {
    allow(&format!(r#""Action": "ecr:BatchGetImage", "Principal": {principal}"#))
}

/// What `session()` may do, when it asks for the manifest of that repository.
fn decide(resource: &str, policies: &Policies<'_>) -> Result<(), Denied> {
    let principal = session();
    let request = Request::new(Caller::Principal(&principal), "ecr:BatchGetImage", resource);
    evaluate(&request, policies)
}

#[test]
fn statements_apply_by_action_resource_and_condition() {
    for (rest, allowed) in [
        (r#""Action": "ecr:BatchGetImage", "Resource": "*""#, true),
        (r#""Action": ["ecr:ListImages", "ECR:batchGet*"], "Resource": "*""#, true),
        (r#""Action": "*", "Resource": "*""#, true),
        (r#""Action": "ecr:ListImages", "Resource": "*""#, false),
        (r#""NotAction": "ecr:ListImages", "Resource": "*""#, true),
        (r#""NotAction": "ecr:Batch*", "Resource": "*""#, false),
        (r#""Action": "ecr:*", "Resource": "arn:aws:ecr:eu-west-1:123456789012:repository/*""#, true),
        (r#""Action": "ecr:*", "Resource": "arn:aws:ecr:*:*:repository/team/*""#, true),
        (r#""Action": "ecr:*", "Resource": "arn:aws:ecr:us-east-1:123456789012:repository/*""#, false),
        (r#""Action": "ecr:*", "Resource": "arn:aws:ecr:eu-west-1:123456789012:repository/team""#, false),
        (
            r#""Action": "ecr:*", "Resource": "*", "Condition": {"StringEquals": {"aws:ResourceAccount": "123456789012"}}"#,
            true,
        ),
        (
            r#""Action": "ecr:*", "Resource": "*", "Condition": {"StringEquals": {"AWS:resourceAccount": ["1", "2"]}}"#,
            false,
        ),
        (
            r#""Action": "ecr:*", "Resource": "*", "Condition": {"StringNotEquals": {"aws:PrincipalAccount": "9"}}"#,
            true,
        ),
        (
            r#""Action": "ecr:*", "Resource": "*", "Condition": {"StringLike": {"aws:PrincipalArn": "*:role/ecr-*"}}"#,
            true,
        ),
        (
            r#""Action": "ecr:*", "Resource": "*", "Condition": {"StringNotLike": {"aws:PrincipalArn": "*:role/ecr-*"}}"#,
            false,
        ),
        (
            r#""Action": "ecr:*", "Resource": "*", "Condition": {"StringEquals": {"aws:SourceVpce": "vpce-1"}}"#,
            false,
        ),
    ] {
        let policies = Policies { identity: &allow(rest), ..Policies::default() };
        let expected = if allowed { Ok(()) } else { Err(Denied::Implicit(Kind::Identity)) };
        assert_eq!(decide(OURS, &policies), expected, "{rest}");
    }
}

#[test]
fn in_one_account_either_policy_allows_and_across_accounts_both_must() {
    use Relation::{OtherAccount, SameAccount, Trust};
    let (none, own) = (Vec::new(), allow(PULL));
    let by_identity = Err(Denied::Implicit(Kind::Identity));
    let by_resource = Err(Denied::Implicit(Kind::Resource));
    let (role, session) = (format!(r#"{{"AWS": "{ROLE}"}}"#), format!(r#"{{"AWS": ["{SESSION}"]}}"#));
    let (root, account) = (r#"{"AWS": "arn:aws:iam::123456789012:root"}"#, r#"{"AWS": "123456789012"}"#);
    let (anyone, other) = (r#""*""#, r#"{"AWS": "arn:aws:iam::123456789012:role/other"}"#);
    for (relation, identity, principal, expected) in [
        (SameAccount, &none, None, by_identity),
        (SameAccount, &own, None, Ok(())),
        (SameAccount, &none, Some(role.as_str()), Ok(())),
        (SameAccount, &none, Some(&session), Ok(())),
        (SameAccount, &none, Some(anyone), Ok(())),
        (SameAccount, &none, Some(root), by_identity),
        (SameAccount, &none, Some(other), by_identity),
        (SameAccount, &own, Some(other), Ok(())),
        (OtherAccount, &none, None, by_resource),
        (OtherAccount, &own, None, by_resource),
        (OtherAccount, &none, Some(&role), by_identity),
        (OtherAccount, &none, Some(&session), by_identity),
        (OtherAccount, &own, Some(&role), Ok(())),
        (OtherAccount, &own, Some(root), Ok(())),
        (OtherAccount, &own, Some(account), Ok(())),
        (OtherAccount, &own, Some(other), by_resource),
        (Trust, &own, None, by_resource),
        (Trust, &none, Some(&role), Ok(())),
        (Trust, &none, Some(root), by_identity),
        (Trust, &own, Some(root), Ok(())),
    ] {
        let of_resource = principal.map_or_else(Vec::new, to);
        let resource = of_resource.iter().collect();
        let policies = Policies { identity, resource, relation, ..Policies::default() };
        let repository = if relation == OtherAccount { THEIRS } else { OURS };
        assert_eq!(decide(repository, &policies), expected, "{relation:?} {identity:?} {principal:?}");
    }
}

#[test]
fn policies_that_limit_must_allow_too() {
    let (pull, list) = (allow(PULL), allow(r#""Action": "ecr:ListImages", "Resource": "*""#));
    let all = allow(r#""Action": "*", "Resource": "*""#);
    for (service_control, vpc_endpoint, session, expected) in [
        (None, None, None, Ok(())),
        (Some(&all), Some(&pull), Some(&pull), Ok(())),
        (Some(&list), Some(&list), Some(&list), Err(Denied::Implicit(Kind::ServiceControl))),
        (Some(&all), Some(&list), Some(&list), Err(Denied::Implicit(Kind::VpcEndpoint))),
        (Some(&all), Some(&all), Some(&list), Err(Denied::Implicit(Kind::Session))),
    ] {
        let policies = Policies {
            service_control: service_control.map(Vec::as_slice),
            vpc_endpoint: vpc_endpoint.map(Vec::as_slice),
            session: session.map(|policies| &policies[0]),
            identity: &pull,
            ..Policies::default()
        };
        assert_eq!(decide(OURS, &policies), expected);
    }
}

#[test]
fn a_session_policy_limits_what_the_role_is_granted_and_not_what_the_session_is() {
    let list = statement("Allow", r#""Action": "ecr:ListImages", "Resource": "*""#);
    for (principal, expected) in [(ROLE, Err(Denied::Implicit(Kind::Session))), (SESSION, Ok(()))] {
        let resource = to(&format!(r#"{{"AWS": "{principal}"}}"#));
        let policies =
            Policies { resource: resource.iter().collect(), session: Some(&list), ..Policies::default() };
        assert_eq!(decide(OURS, &policies), expected, "{principal}");
    }
}

#[test]
fn an_explicit_deny_of_any_policy_wins() {
    let all = allow(r#""Action": "*", "Resource": "*""#);
    let anyone = to(r#""*""#);
    let deny = vec![statement("Deny", PULL)];
    let deny_anyone = statement("Deny", r#""Action": "ecr:*", "Principal": "*""#);
    let deny_other = statement("Deny", r#""Action": "ecr:*", "Principal": {"AWS": "999999999999"}"#);
    let base = || Policies { identity: &all, resource: anyone.iter().collect(), ..Policies::default() };
    for (policies, expected) in [
        (base(), Ok(())),
        (Policies { identity: &deny, ..base() }, Err(Kind::Identity)),
        (Policies { resource: vec![&anyone[0], &deny_anyone], ..base() }, Err(Kind::Resource)),
        (Policies { resource: vec![&deny_other], ..base() }, Ok(())),
        (Policies { session: Some(&deny[0]), ..base() }, Err(Kind::Session)),
        (Policies { vpc_endpoint: Some(&deny), ..base() }, Err(Kind::VpcEndpoint)),
        (Policies { service_control: Some(&deny), ..base() }, Err(Kind::ServiceControl)),
    ] {
        assert_eq!(decide(OURS, &policies), expected.map_err(Denied::Explicit));
    }
}

/// The forms of <https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html>.
#[test]
fn reasons_are_in_the_words_of_aws() {
    for (denial, expected) in [
        (Denied::Explicit(Kind::Identity), "with an explicit deny in an identity-based policy"),
        (Denied::Explicit(Kind::Resource), "with an explicit deny in a resource-based policy"),
        (Denied::Explicit(Kind::ServiceControl), "with an explicit deny in a service control policy"),
        (Denied::Explicit(Kind::VpcEndpoint), "with an explicit deny in a VPC endpoint policy"),
        (Denied::Implicit(Kind::Identity), "because no identity-based policy allows the ecr:A action"),
        (Denied::Implicit(Kind::Resource), "because no resource-based policy allows the ecr:A action"),
        (Denied::Implicit(Kind::VpcEndpoint), "because no VPC endpoint policy allows the ecr:A action"),
        (Denied::Implicit(Kind::ServiceControl), "because no service control policy allows the ecr:A action"),
        (Denied::Implicit(Kind::Session), "because no session policy allows the ecr:A action"),
    ] {
        assert_eq!(denial.reason("ecr:A"), expected);
    }
}
