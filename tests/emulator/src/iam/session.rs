//! Temporary credentials of a role, and what they are limited to.

use std::time::Duration;

use super::{Policy, Principal, split_role};
use crate::random;

/// A session that was opened; also what its holder is given.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) access_key_id: String,
    pub(crate) secret: String,
    pub(crate) token: String,
    /// Seconds since 1970.
    pub(crate) expires: i64,
    pub(crate) principal: Principal,
}

/// What a session is opened with.
pub(crate) struct NewSession<'a> {
    /// The role's ARN, which must be well-formed (see [`split_role`]).
    pub(crate) role: &'a str,
    pub(crate) name: &'a str,
    pub(crate) lifetime: Duration,
    pub(crate) policy: Option<Policy>,
    /// Whether it has tags that go with it into the next role, as those of EKS Pod Identity do.
    pub(crate) is_tagged: bool,
}

impl NewSession<'_> {
    pub(crate) fn open(self, now: i64) -> Session {
        let Self { role, name, .. } = self;
        let (account, role_name) = split_role(role).unwrap_or(("000000000000", "role"));
        Session {
            access_key_id: format!("ASIA{}", random::upper(16)),
            secret: random::mixed(40),
            token: format!("IQoJb3JpZ2luX2Vj{}", random::mixed(400)),
            expires: now.saturating_add(i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX)),
            principal: Principal {
                arn: format!("arn:aws:sts::{account}:assumed-role/{role_name}/{name}"),
                account: account.to_owned(),
                user_id: format!("AROA{}:{name}", random::upper(16)),
                role: Some(role.to_owned()),
                session_policy: self.policy,
                is_tagged: self.is_tagged,
            },
        }
    }
}
