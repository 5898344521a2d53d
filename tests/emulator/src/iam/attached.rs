//! Which policies are attached to what, and which of them bear on a request?

use std::collections::BTreeMap;

use serde::Deserialize;

use super::evaluate::{Denied, Policies, Relation, evaluate};
use super::policy::Policy;
use super::request::{Caller, Request};

/// What policies are attached to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attachment {
    /// A user or a role, by its ARN: what it may do.
    Identity(String),
    /// A role, by its ARN: who may assume it.
    Trust(String),
    /// A repository, by its ARN; it exists from then on.
    Repository(String),
    /// The private registries of an account.
    Registry(String),
    /// The VPC endpoints of ECR, for its API and its registries, which every request to them passes.
    VpcEndpoint,
    /// An account, by its organization: service control policies.
    Account(String),
}

/// Every policy document, by what it is attached to.
#[derive(Debug, Default)]
pub(crate) struct Attached(BTreeMap<Attachment, Vec<Policy>>);

impl Attached {
    pub(crate) fn set(&mut self, to: Attachment, documents: Vec<Policy>) {
        self.0.insert(to, documents);
    }

    pub(crate) fn contains(&self, attachment: &Attachment) -> bool {
        self.0.contains_key(attachment)
    }

    pub(crate) fn authorize(&self, request: &Request<'_>) -> Result<(), Denied> {
        let owner = request.resource_account();
        let of_resource = [
            Some(Attachment::Trust(request.resource.to_owned())),
            Some(Attachment::Repository(request.resource.to_owned())),
            owner.map(|account| Attachment::Registry(account.to_owned())),
        ];
        let passes_endpoint = request.action.starts_with("ecr:");
        let mut policies = Policies {
            vpc_endpoint: self.optional(&Attachment::VpcEndpoint).filter(|_| passes_endpoint),
            resource: of_resource.into_iter().flatten().flat_map(|key| self.of(&key)).collect(),
            relation: if request.resource.contains(":role/") {
                Relation::Trust
            } else {
                Relation::SameAccount
            },
            ..Policies::default()
        };
        if let Caller::Principal(principal) = request.caller {
            policies.identity = self.of(&Attachment::Identity(principal.identity().to_owned()));
            policies.session = principal.session_policy.as_ref();
            policies.service_control = self.optional(&Attachment::Account(principal.account.clone()));
            if owner.is_some_and(|owner| owner != principal.account) {
                policies.relation = Relation::OtherAccount;
            }
        }
        evaluate(request, &policies)
    }

    fn of(&self, attachment: &Attachment) -> &[Policy] {
        self.optional(attachment).unwrap_or_default()
    }

    fn optional(&self, attachment: &Attachment) -> Option<&[Policy]> {
        self.0.get(attachment).map(Vec::as_slice)
    }
}

impl Attachment {
    /// Whether a policy there names those whom it is for, since it isn't attached to them.
    pub(crate) fn names_principals(&self) -> bool {
        !matches!(self, Self::Identity(_) | Self::Account(_))
    }
}
