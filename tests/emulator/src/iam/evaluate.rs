//! May it? As AWS evaluates policies: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>
//!
//! An explicit deny of any policy wins. Otherwise every policy that only limits (service control, VPC endpoint, session)
//! must allow; and so must the identity's or the resource's in one account, and both across accounts.

use super::policy::{Grant, Policy};
use super::request::Request;

/// The policies that bear on one request.
#[derive(Default)]
pub(crate) struct Policies<'a> {
    /// Of the caller's account; none: nothing limits it.
    pub(crate) service_control: Option<&'a [Policy]>,
    /// Of the endpoint that the request passes; none: nothing limits it.
    pub(crate) vpc_endpoint: Option<&'a [Policy]>,
    pub(crate) resource: Vec<&'a Policy>,
    pub(crate) identity: &'a [Policy],
    /// That the session was opened with; none: nothing limits it.
    pub(crate) session: Option<&'a Policy>,
    pub(crate) relation: Relation,
}

/// What the resource's policy decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Relation {
    /// Resource and caller are of one account: either policy allows.
    #[default]
    SameAccount,
    /// A role of the caller's account: its trust policy must allow, and the identity's where it leaves it to the account.
    Trust,
    /// Resource and caller are of two accounts: both policies must allow.
    OtherAccount,
}

/// A kind of policy, as AWS's messages call them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ServiceControl,
    VpcEndpoint,
    Resource,
    Identity,
    Session,
}

/// Which kind of policy is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Explicit(Kind),
    /// None of that kind allows it.
    Implicit(Kind),
}

pub(crate) fn evaluate(request: &Request<'_>, policies: &Policies<'_>) -> Result<(), Denied> {
    use Kind::{Identity, Resource, ServiceControl, Session, VpcEndpoint};
    let Policies { service_control, vpc_endpoint, resource, identity, session, relation } = policies;
    let (control, endpoint) = (service_control.unwrap_or_default(), vpc_endpoint.unwrap_or_default());
    for (kind, denied) in [
        (ServiceControl, control.iter().any(|policy| policy.denies(request))),
        (VpcEndpoint, endpoint.iter().any(|policy| policy.denies(request))),
        (Resource, resource.iter().any(|policy| policy.denies(request))),
        (Identity, identity.iter().any(|policy| policy.denies(request))),
        (Session, session.is_some_and(|policy| policy.denies(request))),
    ] {
        require(!denied, Denied::Explicit(kind))?;
    }

    let any_allows = |policies: &[Policy]| policies.iter().any(|policy| policy.allows(request).is_some());
    require(service_control.is_none_or(any_allows), Denied::Implicit(ServiceControl))?;
    require(vpc_endpoint.is_none_or(any_allows), Denied::Implicit(VpcEndpoint))?;
    let grant = resource.iter().filter_map(|policy| policy.allows(request)).max();
    require(grant.is_some() || *relation == Relation::SameAccount, Denied::Implicit(Resource))?;
    // What is granted across accounts is granted to the other account, whoever is named.
    let grant = grant.filter(|_| *relation != Relation::OtherAccount);
    require(grant >= Some(Grant::Identity) || any_allows(identity), Denied::Implicit(Identity))?;
    let session = session.filter(|_| grant != Some(Grant::Session));
    require(session.is_none_or(|policy| policy.allows(request).is_some()), Denied::Implicit(Session))
}

fn require(holds: bool, denial: Denied) -> Result<(), Denied> {
    if holds { Ok(()) } else { Err(denial) }
}

impl Denied {
    /// The end of AWS's sentence.
    pub(crate) fn reason(self, action: &str) -> String {
        match self {
            Self::Explicit(Kind::Identity) => "with an explicit deny in an identity-based policy".to_owned(),
            Self::Explicit(kind) => format!("with an explicit deny in a {}", kind.name()),
            Self::Implicit(kind) => format!("because no {} allows the {action} action", kind.name()),
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::ServiceControl => "service control policy",
            Self::VpcEndpoint => "VPC endpoint policy",
            Self::Resource => "resource-based policy",
            Self::Identity => "identity-based policy",
            Self::Session => "session policy",
        }
    }
}

#[cfg(test)]
mod tests;
