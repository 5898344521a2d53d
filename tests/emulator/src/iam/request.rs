//! What is IAM asked: may this caller do that, there?

use std::collections::BTreeMap;

use super::Principal;

pub(crate) struct Request<'a> {
    pub(crate) caller: Caller<'a>,
    pub(crate) action: &'a str,
    /// An ARN, or `*` for actions that have none.
    pub(crate) resource: &'a str,
    /// The condition keys that the request brings.
    context: BTreeMap<String, String>,
}

#[derive(Clone, Copy)]
pub(crate) enum Caller<'a> {
    Principal(&'a Principal),
    /// Whoever has a token of this OIDC provider.
    Federated(&'a str),
    /// A service of AWS.
    Service(&'a str),
}

impl<'a> Request<'a> {
    pub(crate) fn new(caller: Caller<'a>, action: &'a str, resource: &'a str) -> Self {
        let request = Self { caller, action, resource, context: BTreeMap::new() };
        let account = request.resource_account().map(str::to_owned);
        let request = request.with("aws:ResourceAccount", account);
        let Caller::Principal(principal) = caller else { return request };
        request
            .with("aws:PrincipalAccount", Some(principal.account.clone()))
            .with("aws:PrincipalArn", Some(principal.identity().to_owned()))
    }

    pub(crate) fn with(mut self, key: &str, value: Option<impl Into<String>>) -> Self {
        self.context.extend(value.map(|value| (key.to_ascii_lowercase(), value.into())));
        self
    }

    pub(crate) fn context_value(&self, key: &str) -> Option<&str> {
        self.context.get(&key.to_ascii_lowercase()).map(String::as_str)
    }

    /// The account that owns the resource; none of `*`.
    pub(crate) fn resource_account(&self) -> Option<&'a str> {
        self.resource.split(':').nth(4)
    }
}
