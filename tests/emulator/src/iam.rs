//! Whose key is that, which roles may they assume, and what may they do?
//!
//! Long-lived keys come from [`Settings::users`]; sessions are opened by STS, Pod Identity and IMDS and expire by the
//! emulator's clock, or at once by [`expire_sessions`](Iam::expire_sessions).
//!
//! Without policies everything is allowed that [`Settings::deny`] does not name and [`Settings::roles`] trust. As soon
//! as one is attached, the attached ones alone decide, for every principal, and trust policies about roles.

mod attached;
mod evaluate;
mod policy;
mod request;
mod session;
mod wildcard;

use std::collections::HashMap;
use std::sync::Mutex;

use crate::journal::Call;
use crate::locked;
use crate::settings::{Role, Settings, Trust, User};
use attached::Attached;
pub use attached::Attachment;
pub(crate) use evaluate::{Denied, Kind};
pub(crate) use policy::Policy;
pub(crate) use request::{Caller, Request};
pub(crate) use session::{NewSession, Session};

/// The principals, roles and sessions of the emulated accounts.
pub(crate) struct Iam {
    users: Vec<User>,
    roles: Vec<Role>,
    deny: Vec<(String, String)>,
    /// None: no policy was ever attached.
    attached: Mutex<Option<Attached>>,
    sessions: Mutex<HashMap<String, Session>>,
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    pub(crate) arn: String,
    pub(crate) account: String,
    pub(crate) user_id: String,
    /// The role behind a session.
    pub(crate) role: Option<String>,
    /// What the session was limited to when it was opened.
    pub(crate) session_policy: Option<Policy>,
    /// Whether the session has tags that go with it into the next role.
    pub(crate) is_tagged: bool,
}

/// A key as the signature check needs it.
pub(crate) struct Key {
    pub(crate) secret: String,
    pub(crate) session_token: Option<String>,
    pub(crate) expired: bool,
    pub(crate) principal: Principal,
}

/// Who asks to assume a role.
pub(crate) enum Applicant<'a> {
    Principal { principal: &'a Principal, external_id: Option<&'a str> },
    WebIdentity { subject: &'a str },
}

impl Iam {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            users: settings.users.clone(),
            roles: settings.roles.clone(),
            deny: settings
                .deny
                .iter()
                .map(|denial| (denial.arn_prefix.clone(), denial.action.clone()))
                .collect(),
            attached: Mutex::default(),
            sessions: Mutex::default(),
        }
    }

    pub(crate) fn key(&self, access_key_id: &str, now: i64) -> Option<Key> {
        if let Some(user) = self.users.iter().find(|user| user.access_key_id == access_key_id) {
            return Some(Key::of_user(user));
        }
        let sessions = locked(&self.sessions);
        let session = sessions.get(access_key_id)?;
        Some(Key {
            secret: session.secret.clone(),
            session_token: Some(session.token.clone()),
            expired: session.expires <= now,
            principal: session.principal.clone(),
        })
    }

    pub(crate) fn open_session(&self, session: NewSession<'_>, now: i64) -> Session {
        let session = session.open(now);
        locked(&self.sessions).insert(session.access_key_id.clone(), session.clone());
        session
    }

    /// Every session opened so far is expired from now on.
    pub(crate) fn expire_sessions(&self) {
        for session in locked(&self.sessions).values_mut() {
            session.expires = 0;
        }
    }

    /// Replaces what is attached there, and has policies decide from now on.
    pub(crate) fn set_policies(&self, to: Attachment, documents: &[&str]) -> Result<(), String> {
        let parse = |text: &&str| Policy::parse(text, to.names_principals());
        let documents = documents.iter().map(parse).collect::<Result<_, _>>()?;
        locked(&self.attached).get_or_insert_default().set(to, documents);
        Ok(())
    }

    pub(crate) fn clear_policies(&self) {
        *locked(&self.attached) = None;
    }

    pub(crate) fn is_attached(&self, attachment: &Attachment) -> bool {
        locked(&self.attached).as_ref().is_some_and(|attached| attached.contains(attachment))
    }

    /// Whether the request is allowed, as the journal's `call` shows from then on.
    pub(crate) fn authorize(&self, request: &Request<'_>, call: &mut Call) -> Result<(), Denied> {
        call.actions.push(request.action.to_owned());
        let result = if self.is_forbidden(request) {
            Err(Denied::Implicit(Kind::Identity))
        } else {
            locked(&self.attached).as_ref().map_or(Ok(()), |attached| attached.authorize(request))
        };
        call.denied = result.err().map(|_| request.action.to_owned());
        result
    }

    fn is_forbidden(&self, request: &Request<'_>) -> bool {
        let Caller::Principal(principal) = request.caller else { return false };
        let denied = |(prefix, action): &(String, String)| {
            action == request.action && principal.arn.starts_with(prefix)
        };
        self.deny.iter().any(denied)
    }

    /// The audience that the role wants of a web-identity token.
    pub(crate) fn audience(&self, role: &str) -> &str {
        self.role(role).map_or(crate::web_identity::AUDIENCE, |role| &role.audience)
    }

    /// Whether the role lets that applicant in. Without any listed role it always does, and where policies decide.
    pub(crate) fn trusts(&self, role: &str, applicant: &Applicant<'_>) -> bool {
        if self.roles.is_empty() || locked(&self.attached).is_some() {
            return true;
        }
        let Some(role) = self.role(role) else { return false };
        let known = role.trusts.iter().any(|trust| match (trust, applicant) {
            (Trust::Any, _) => true,
            (Trust::Principal(arn), Applicant::Principal { principal, .. }) => principal.is(arn),
            (Trust::Subject(subject), Applicant::WebIdentity { subject: claimed }) => subject == claimed,
            _ => false,
        });
        let identified = match applicant {
            Applicant::Principal { external_id, .. } => {
                role.external_id.is_none() || role.external_id.as_deref() == *external_id
            }
            Applicant::WebIdentity { .. } => true,
        };
        known && identified
    }

    fn role(&self, arn: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.arn == arn)
    }
}

impl Key {
    fn of_user(user: &User) -> Self {
        Self {
            secret: user.secret_access_key.clone(),
            session_token: None,
            expired: false,
            principal: Principal {
                arn: user.arn.clone(),
                account: user.account.clone(),
                user_id: format!("AIDA{}", user.access_key_id.get(4..).unwrap_or_default()),
                role: None,
                session_policy: None,
                is_tagged: false,
            },
        }
    }
}

impl Principal {
    /// The ARN that identity policies are attached to.
    pub(crate) fn identity(&self) -> &str {
        self.role.as_deref().unwrap_or(&self.arn)
    }

    /// Whether a trust policy that names `arn` means this principal.
    fn is(&self, arn: &str) -> bool {
        self.arn == arn
            || self.role.as_deref() == Some(arn)
            || arn == format!("arn:aws:iam::{}:root", self.account)
    }
}

/// Account and name (the last part of the path) of `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`.
pub(crate) fn split_role(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.splitn(6, ':');
    let (start, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    let name = resource.strip_prefix("role/")?.rsplit('/').next()?;
    let well_formed = start == "arn"
        && partition.starts_with("aws")
        && service == "iam"
        && region.is_empty()
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && !name.is_empty();
    well_formed.then_some((account, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "arn:aws:iam::123456789012:role/path/ecr-pull";

    #[test]
    fn role_arns_are_taken_apart() {
        assert_eq!(split_role(ROLE), Some(("123456789012", "ecr-pull")));
        for wrong in [
            "",
            "arn:aws:iam::1:role/a",
            "arn:aws:iam::123456789012:user/a",
            "arn:aws:iam::123456789012:role/",
        ] {
            assert_eq!(split_role(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_listed_role_lets_in_only_whom_it_trusts() {
        let mut role = Role::new(ROLE, [Trust::Principal("arn:aws:iam::123456789012:root".to_owned())]);
        role.trusts.push(Trust::Subject("system:serviceaccount:a:b".to_owned()));
        role.external_id = Some("gitops".to_owned());
        let iam = Iam::new(&Settings { roles: vec![role], ..Settings::default() });
        let insider = iam.key(crate::ACCESS_KEY_ID, 0).unwrap().principal;
        let outsider = Principal { account: "999999999999".to_owned(), ..insider.clone() };
        let asks =
            |principal, external_id| iam.trusts(ROLE, &Applicant::Principal { principal, external_id });
        assert!(asks(&insider, Some("gitops")));
        assert!(!asks(&insider, None));
        assert!(!asks(&outsider, Some("gitops")));
        assert!(iam.trusts(ROLE, &Applicant::WebIdentity { subject: "system:serviceaccount:a:b" }));
        assert!(!iam.trusts(ROLE, &Applicant::WebIdentity { subject: "system:serviceaccount:a:c" }));
        assert!(
            !iam.trusts("arn:aws:iam::123456789012:role/other", &Applicant::WebIdentity { subject: "x" })
        );
    }
}
