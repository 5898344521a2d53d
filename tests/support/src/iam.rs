//! The policies that we ship, attached to the emulator's principal.

use ecr_emulator::{Attachment, Emulator};
use serde_json::Value;

const PULL: &str = include_str!("../../../patches/iam/pull-policy.json");
const TRUST: &str = include_str!("../../../patches/iam/trust-irsa.json");
const TRUST_POD_IDENTITY: &str = include_str!("../../../patches/iam/trust-pod-identity.json");
/// The issuer that [`TRUST`] names.
const ISSUER: &str = "oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE";
const PUBLIC: &str = include_str!("../../../patches/iam/public-policy.json");
const ASSUME_PARTNER: &str = include_str!("../../../patches/iam/cross-account/assume-policy.json");
const TRUST_OF_PARTNER: &str = include_str!("../../../patches/iam/cross-account/trust.json");
/// The role in another account that the files of `cross-account` are about.
const PARTNER: &str = "arn:aws:iam::999999999999:role/ecr-pull";
/// Whom its trust policy names.
const TRUSTED: &str = "arn:aws:iam::123456789012:role/ecr-pull";

/// From now on the principal of the emulator's keys, and whoever holds a token of its, may do what the policies in
/// `patches/iam` allow, and nothing else. The one for a registry is attached once a region.
pub fn allow_what_we_ship(aws: &Emulator) {
    attach(aws, PULL);
}

/// The same without `action`.
///
/// # Panics
/// When the policy doesn't have it.
#[track_caller]
pub fn allow_all_but(aws: &Emulator, action: &str) {
    let quoted = format!("\"{action}\"");
    assert!(PULL.contains(&quoted), "the policy doesn't allow {action}");
    attach(aws, &PULL.replace(&quoted, "\"ecr:DescribeRegistry\""));
}

/// The same for `role`, which trusts the service accounts (`NAMESPACE:NAME`) by tokens of `issuer`, and EKS Pod Identity.
///
/// # Panics
/// When the trust policy that we ship has another form.
pub fn allow_role(aws: &Emulator, role: &str, issuer: &str, accounts: &[&str]) {
    let issuer = issuer.trim_start_matches("https://");
    let mut trust: Value = serde_json::from_str(&TRUST.replace(ISSUER, issuer)).unwrap();
    let subjects: Vec<_> =
        accounts.iter().map(|account| format!("system:serviceaccount:{account}")).collect();
    trust["Statement"][0]["Condition"]["StringEquals"][format!("{issuer}:sub")] = subjects.into();
    let trust = trust.to_string();
    aws.set_policies(Attachment::Trust(role.to_owned()), &[&trust, TRUST_POD_IDENTITY]);
    aws.set_policies(Attachment::Identity(role.to_owned()), &[PULL]);
}

/// Lets `principal` (a role's or user's ARN) pull, and assume the partner's role, by the files of `cross-account`.
pub fn allow_partner(aws: &Emulator, principal: &str) {
    let pull = PULL.replace("eu-west-1:123456789012", "us-east-1:999999999999");
    let trust = TRUST_OF_PARTNER.replace(TRUSTED, principal);
    aws.set_policies(Attachment::Identity(principal.to_owned()), &[PULL, ASSUME_PARTNER]);
    aws.set_policies(Attachment::Identity(PARTNER.to_owned()), &[&pull]);
    aws.set_policies(Attachment::Trust(PARTNER.to_owned()), &[&trust]);
}

fn attach(aws: &Emulator, pull: &str) {
    let user = Attachment::Identity("arn:aws:iam::123456789012:user/emulated".to_owned());
    aws.set_policies(user, &[pull, &pull.replace("eu-west-1", "us-east-1"), PUBLIC]);
}
