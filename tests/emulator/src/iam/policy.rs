//! What does one policy document say of one request?
//!
//! JSON as IAM and ECR take it, with the elements that our own files and AWS's examples for ECR use. An element or a
//! condition operator that is unknown here is an error: a policy that is half understood would allow too much.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::request::{Caller, Request};
use super::{Principal, wildcard};

/// How strongly a policy of a resource means a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grant {
    /// As one of an account, whose own policies decide.
    Account,
    /// By the ARN of the user or role, or as anyone.
    Identity,
    /// By the ARN of the session, which neither the role's policies nor the session's then limit.
    Session,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub(crate) struct Policy {
    #[serde(rename = "Version")]
    _version: Version,
    #[serde(rename = "Id")]
    _id: Option<String>,
    statement: OneOrMany<Statement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
enum Version {
    #[serde(rename = "2012-10-17")]
    Latest,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Statement {
    #[serde(rename = "Sid")]
    _sid: Option<String>,
    effect: Effect,
    principal: Option<Principals>,
    action: Option<OneOrMany<String>>,
    not_action: Option<OneOrMany<String>>,
    resource: Option<OneOrMany<String>>,
    #[serde(default)]
    condition: BTreeMap<Operator, BTreeMap<String, OneOrMany<String>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Effect {
    Allow,
    Deny,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Principals {
    Any(Star),
    Named(Named),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
enum Star {
    #[serde(rename = "*")]
    Star,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase", default)]
#[derive(Default)]
struct Named {
    #[serde(rename = "AWS")]
    aws: OneOrMany<String>,
    federated: OneOrMany<String>,
    service: OneOrMany<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Operator {
    #[serde(rename = "StringEquals")]
    Equals,
    #[serde(rename = "StringNotEquals")]
    NotEquals,
    #[serde(rename = "StringLike")]
    Like,
    #[serde(rename = "StringNotLike")]
    NotLike,
}

/// A list, which a document may write as its only entry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value", bound = "T: DeserializeOwned")]
struct OneOrMany<T>(Vec<T>);

impl Policy {
    /// Fails when it isn't a policy, or names principals where the kind of policy has none, or the other way about.
    pub(crate) fn parse(text: &str, names_principals: bool) -> Result<Self, String> {
        let policy: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        for statement in &policy.statement.0 {
            if statement.action.is_some() == statement.not_action.is_some() {
                return Err("a statement has either Action or NotAction".to_owned());
            }
            if statement.principal.is_some() != names_principals {
                let wrong = if names_principals { "lacks its Principal" } else { "has a Principal" };
                return Err(format!("a statement of this kind of policy {wrong}"));
            }
            if !names_principals && statement.resource.is_none() {
                return Err("a statement lacks its Resource".to_owned());
            }
        }
        Ok(policy)
    }

    /// The strongest way in which the policy allows the request.
    pub(crate) fn allows(&self, request: &Request<'_>) -> Option<Grant> {
        self.statements(Effect::Allow, request).max()
    }

    pub(crate) fn denies(&self, request: &Request<'_>) -> bool {
        self.statements(Effect::Deny, request).next().is_some()
    }

    fn statements(&self, effect: Effect, request: &Request<'_>) -> impl Iterator<Item = Grant> {
        let statements = self.statement.0.iter();
        statements.filter(move |statement| statement.effect == effect).filter_map(|s| s.applies_to(request))
    }
}

impl Statement {
    fn applies_to(&self, request: &Request<'_>) -> Option<Grant> {
        let is_asked = |action: &String| {
            wildcard::matches(&action.to_ascii_lowercase(), &request.action.to_ascii_lowercase())
        };
        let is_there = |resource: &String| wildcard::matches(resource, request.resource);
        let action = self.action.as_ref().is_none_or(|actions| actions.any(is_asked))
            && !self.not_action.as_ref().is_some_and(|actions| actions.any(is_asked));
        let resource = self.resource.as_ref().is_none_or(|resources| resources.any(is_there));
        let condition = self.condition.iter().all(|(operator, keys)| {
            keys.iter().all(|(key, values)| operator.holds(request.context_value(key), values))
        });
        let grant = self.principal.as_ref().map_or(Some(Grant::Identity), |who| who.grant(request.caller));
        grant.filter(|_| action && resource && condition)
    }
}

impl Principals {
    fn grant(&self, caller: Caller<'_>) -> Option<Grant> {
        let Self::Named(named) = self else { return Some(Grant::Identity) };
        let by_name = |names: &OneOrMany<String>, name: &str| {
            names.any(|listed| listed == name).then_some(Grant::Identity)
        };
        match caller {
            Caller::Principal(principal) => {
                named.aws.0.iter().filter_map(|listed| grant(listed, principal)).max()
            }
            Caller::Federated(provider) => by_name(&named.federated, provider),
            Caller::Service(service) => by_name(&named.service, service),
        }
    }
}

fn grant(listed: &str, principal: &Principal) -> Option<Grant> {
    let Principal { arn, account, role, .. } = principal;
    if listed == arn {
        Some(if role.is_some() { Grant::Session } else { Grant::Identity })
    } else if listed == "*" || role.as_deref() == Some(listed) {
        Some(Grant::Identity)
    } else {
        let root = format!(":iam::{account}:root");
        (listed == account || listed.ends_with(&root)).then_some(Grant::Account)
    }
}

impl Operator {
    /// A key that the request doesn't bring equals nothing.
    fn holds(self, value: Option<&str>, expected: &OneOrMany<String>) -> bool {
        let equals = expected.any(|expected| value == Some(expected));
        let like = expected.any(|expected| value.is_some_and(|value| wildcard::matches(expected, value)));
        match self {
            Self::Equals => equals,
            Self::NotEquals => !equals,
            Self::Like => like,
            Self::NotLike => !like,
        }
    }
}

// Unlike an untagged enum, this reports what is wrong with an entry.
impl<T: DeserializeOwned> TryFrom<Value> for OneOrMany<T> {
    type Error = serde_json::Error;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::Array(_) => serde_json::from_value(value).map(Self),
            one => serde_json::from_value(one).map(|one| Self(vec![one])),
        }
    }
}

impl<T> OneOrMany<T> {
    fn any(&self, test: impl FnMut(&T) -> bool) -> bool {
        self.0.iter().any(test)
    }
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_policy_of_its_kind_is_rejected() {
        let statement = |rest: &str| {
            format!(r#"{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", {rest}}}]}}"#)
        };
        for (names_principals, rest, expected) in [
            (false, r#""Action": "ecr:*", "Resource": "*""#, Ok(())),
            (true, r#""Action": "ecr:*", "Principal": "*""#, Ok(())),
            (true, r#""NotAction": ["ecr:*"], "Principal": {"Service": "a"}"#, Ok(())),
            (false, r#""Action": "ecr:*", "NotAction": "ecr:*", "Resource": "*""#, Err("either Action or")),
            (false, r#""Resource": "*""#, Err("either Action or")),
            (false, r#""Action": "ecr:*""#, Err("lacks its Resource")),
            (false, r#""Action": "ecr:*", "Resource": "*", "Principal": "*""#, Err("has a Principal")),
            (true, r#""Action": "ecr:*""#, Err("lacks its Principal")),
            (true, r#""Action": "ecr:*", "Principal": "me""#, Err("did not match any variant")),
            (true, r#""Action": "ecr:*", "Principal": {"Aws": "me"}"#, Err("did not match any variant")),
            (false, r#""Action": "ecr:*", "NotResource": "*""#, Err("unknown field `NotResource`")),
            (false, r#""Action": "a", "Resource": "*", "Condition": {"Bool": {}}"#, Err("unknown variant")),
        ] {
            let parsed = Policy::parse(&statement(rest), names_principals).map(drop);
            match expected {
                Ok(()) => assert_eq!(parsed, Ok(()), "{rest}"),
                Err(why) => assert!(parsed.as_ref().is_err_and(|e| e.contains(why)), "{rest}: {parsed:?}"),
            }
        }
        assert!(Policy::parse(r#"{"Version": "2008-10-17", "Statement": []}"#, false).is_err());
    }
}
