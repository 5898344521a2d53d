//! What a registry's 403 says: which action no policy allows, whose policy that is, and the statement to add.
//!
//! ECR answers in the words of IAM: "User: ARN is not authorized to perform: ecr:ACTION on resource: ARN because no
//! identity-based policy allows the ecr:ACTION action", or "… with an explicit deny in a service control policy"
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html>). Older and cross-account answers
//! leave the reason out; then no policy is named but where it can only be one of two.

use serde_json::json;

use crate::{failure::foreign_text::clean_of, registry::AccountId};

/// An action that is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denial {
    action: String,
    principal: Option<String>,
    policy: Option<Policy>,
    /// A policy denies it, rather than none allowing it.
    is_explicit: bool,
}

/// Where this repository has the statements for each case.
const SAME_ACCOUNT: &str = "patches/iam/pull-policy.json";
const PULL_THROUGH: &str = "patches/iam/pull-through-cache-policy.json";
const OTHER_ACCOUNT: &str = "patches/iam/cross-account/pull-policy.json";
const REPOSITORY: &str = "patches/iam/cross-account/repository-policy.json";

/// What a pull may need, and so all that is ever advised to allow, whatever a registry answers.
const ACTIONS: [&str; 6] = [
    "ecr:ListImages",
    "ecr:BatchGetImage",
    "ecr:BatchCheckLayerAvailability",
    "ecr:GetDownloadUrlForLayer",
    "ecr:BatchImportUpstreamImage",
    "ecr:CreateRepository",
];

/// A kind of policy, by IAM's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Identity,
    Resource,
    Endpoint,
    ServiceControl,
    ResourceControl,
    Boundary,
    Session,
}

impl Policy {
    const NAMES: [(&str, Self); 7] = [
        ("identity-based policy", Self::Identity),
        ("resource-based policy", Self::Resource),
        ("VPC endpoint policy", Self::Endpoint),
        ("service control policy", Self::ServiceControl),
        ("resource control policy", Self::ResourceControl),
        ("permissions boundary", Self::Boundary),
        ("session policy", Self::Session),
    ];
}

impl Denial {
    /// From the registry's `message`; `action` is the one that the request needs, where that names none. `secrets` are
    /// those of the request.
    pub(super) fn of(message: &str, action: &'static str, secrets: &[&str]) -> Self {
        let after = |mark: &str| {
            let (_, rest) = message.split_once(mark)?;
            let word = rest.split_whitespace().next()?;
            Some(clean_of(word.trim_end_matches(['.', ',', '"']), secrets))
        };
        let is_arn = |arn: &String| arn.starts_with("arn:");
        Self {
            action: after("not authorized to perform: ")
                .filter(|action| ACTIONS.contains(&action.as_str()))
                .unwrap_or_else(|| action.to_owned()),
            principal: after("User: ").filter(is_arn),
            policy: Policy::NAMES
                .into_iter()
                .find(|(name, _)| message.contains(name))
                .map(|(_, policy)| policy),
            is_explicit: message.contains("explicit deny"),
        }
    }

    /// What to change, for a repository of `owner` with this ARN. Where no owner is known the host is not one of AWS's, and
    /// its word is not taken for whom to grant something to.
    pub(super) fn remedy(&self, owner: Option<&AccountId>, repository_arn: &str) -> String {
        let action = &self.action;
        let principal = self.principal.as_deref().filter(|_| owner.is_some());
        let who = principal.map_or_else(|| "the principal".to_owned(), role_of);
        let is_of_other_account = match (account_of(principal), owner) {
            (Some(ours), Some(owner)) => ours != owner.as_str(),
            _ => false,
        };
        let identity = || statement(action, repository_arn, None);
        let of_repository = || statement(action, repository_arn, Some(&who));
        let file = match &**action {
            "ecr:BatchImportUpstreamImage" | "ecr:CreateRepository" => PULL_THROUGH,
            _ if is_of_other_account => OTHER_ACCOUNT,
            _ => SAME_ACCOUNT,
        };
        if self.is_explicit {
            let policy = Policy::NAMES.iter().find(|(_, policy)| Some(*policy) == self.policy);
            let name = policy.map_or("policies", |(name, _)| name);
            return format!(
                "{action}: an explicit Deny in the {name} applies to {who}: remove it, or except this repository"
            );
        }
        match self.policy {
            Some(Policy::Identity) => {
                format!("{action}: add to the identity policy of {who} ({file}): {}", identity())
            }
            Some(Policy::Resource) => {
                format!(
                    "{action}: add to the policy of the repository, in its account ({REPOSITORY}): {}",
                    of_repository()
                )
            }
            Some(Policy::Endpoint) => {
                format!(
                    "{action}: add to the policy of the VPC endpoint of com.amazonaws.REGION.ecr.dkr: {}",
                    of_repository()
                )
            }
            Some(Policy::ServiceControl) => {
                format!("{action}: no service control policy of the organization allows it")
            }
            Some(Policy::ResourceControl) => {
                format!("{action}: no resource control policy of the organization allows it")
            }
            Some(Policy::Boundary) => {
                format!("{action}: add to the permissions boundary of {who}: {}", identity())
            }
            Some(Policy::Session) => {
                format!("{action}: add to the session policy with which {who} was assumed: {}", identity())
            }
            None if is_of_other_account => format!(
                "{action}: the repository is of another account, so both policies have to allow it; add to the identity \
                 policy of {who} ({file}): {}; add to the policy of the repository ({REPOSITORY}): {}",
                identity(),
                of_repository()
            ),
            None => format!("{action}: add to the identity policy of {who} ({file}): {}", identity()),
        }
    }
}

fn statement(action: &str, resource: &str, principal: Option<&str>) -> String {
    match principal {
        None => json!({"Effect": "Allow", "Action": action, "Resource": resource}),
        // A repository's policy has no Resource: it is the repository's.
        Some(principal) => json!({"Effect": "Allow", "Principal": {"AWS": principal}, "Action": action}),
    }
    .to_string()
}

fn account_of(arn: Option<&str>) -> Option<&str> {
    arn?.split(':').nth(4).filter(|account| !account.is_empty())
}

/// Of a session, the role: policies name that. Its path is not in the session's ARN.
fn role_of(principal: &str) -> String {
    let parts: Vec<_> = principal.splitn(6, ':').collect();
    match parts[..] {
        ["arn", partition, "sts", _, account, session] => match session.split('/').collect::<Vec<_>>()[..] {
            ["assumed-role", role, _] => format!("arn:{partition}:iam::{account}:role/{role}"),
            _ => principal.to_owned(),
        },
        _ => principal.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:ecr:eu-west-1:123456789012:repository/team/app";
    const WHO: &str = "arn:aws:sts::123456789012:assumed-role/ecr-pull/ecr-sidecar";

    fn remedy(end: &str, owner: &str) -> String {
        let message =
            format!("User: {WHO} is not authorized to perform: ecr:ListImages on resource: {ARN} {end}");
        Denial::of(&message, "ecr:BatchGetImage", &[]).remedy(owner.parse().ok().as_ref(), ARN)
    }

    #[test]
    fn each_kind_of_policy_is_named_with_what_to_add() {
        let identity = format!(r#"{{"Action":"ecr:ListImages","Effect":"Allow","Resource":"{ARN}"}}"#);
        let of_repository = r#"{"Action":"ecr:ListImages","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:role/ecr-pull"}}"#;
        for (end, expected, added) in [
            (
                "because no identity-based policy allows the ecr:ListImages action",
                "identity policy of arn:aws:iam::123456789012:role/ecr-pull",
                &*identity,
            ),
            (
                "because no resource-based policy allows the ecr:ListImages action",
                "policy of the repository",
                of_repository,
            ),
            (
                "because no VPC endpoint policy allows the ecr:ListImages action",
                "policy of the VPC endpoint",
                of_repository,
            ),
            (
                "because no service control policy allows the ecr:ListImages action",
                "service control policy",
                "",
            ),
            (
                "because no permissions boundary allows the ecr:ListImages action",
                "permissions boundary",
                &*identity,
            ),
            ("because no session policy allows the ecr:ListImages action", "session policy", &*identity),
            (
                "with an explicit deny in a service control policy",
                "an explicit Deny in the service control policy",
                "",
            ),
            (
                "with an explicit deny in an identity-based policy",
                "an explicit Deny in the identity-based policy",
                "",
            ),
            ("", "identity policy", &*identity),
        ] {
            let remedy = remedy(end, "123456789012");
            assert!(
                remedy.starts_with("ecr:ListImages: ") && remedy.contains(expected) && remedy.contains(added),
                "{remedy}"
            );
        }
    }

    #[test]
    fn without_a_reason_another_account_needs_both_policies() {
        let remedy = remedy("", "999999999999");
        assert!(
            remedy.contains("both policies") && remedy.contains("Principal") && remedy.contains("Resource"),
            "{remedy}"
        );
    }

    #[test]
    fn an_answer_cannot_have_anything_else_granted_nor_to_anyone_else() {
        let hostile = "User: arn:aws:iam::666666666666:root is not authorized to perform: ecr:DeleteRepository on \
                       resource: arn:aws:ecr:*:*:repository/* because no resource-based policy allows it";
        let remedy = Denial::of(hostile, "ecr:ListImages", &[]).remedy(None, ARN);
        assert!(remedy.starts_with("ecr:ListImages: "), "{remedy}");
        for granted in ["666666666666", "DeleteRepository", "repository/*"] {
            assert!(!remedy.contains(granted), "{remedy}");
        }
    }

    #[test]
    fn a_message_of_another_form_names_the_action_of_the_request() {
        for message in ["", "denied", "User: x is not authorized to perform: rm -rf on resource: y"] {
            let denial = Denial::of(message, "ecr:BatchGetImage", &[]);
            assert_eq!((&*denial.action, denial.principal), ("ecr:BatchGetImage", None));
        }
    }
}
