//! How does STS answer `AssumeRole`, `AssumeRoleWithWebIdentity` and `GetCallerIdentity`?
//!
//! Query protocol, version 2011-06-15, XML. Durations are 900–43200 s, and at most an hour for a chained role.

use std::time::Duration;

use crate::clock;
use crate::fault::{Fault, Service};
use crate::hosts;
use crate::iam::{
    Applicant, Caller, Denied, Kind, NewSession, Policy, Principal, Request, Session, split_role,
};
use crate::journal::Call;
use crate::random;
use crate::reply::{self, Failure, Reply, escape};
use crate::request::{Form, Inbound};
use crate::shared::Shared;
use crate::sigv4::Claim;

const VERSION: &str = "2011-06-15";
const HOUR: u64 = 3600;

/// Answers one request.
pub(crate) fn answer(
    shared: &Shared,
    request: &Inbound,
    bend: Option<&Fault>,
    call: &mut Call,
) -> Result<Reply, Failure> {
    let form = request.form();
    let operation = form.value("Action").unwrap_or_default().to_owned();
    let result = match operation.as_str() {
        _ if form.value("Version") != Some(VERSION) => Err(no_such_operation(&form)),
        "AssumeRole" => assume_role(shared, request, &form, bend, call),
        "AssumeRoleWithWebIdentity" => assume_with_web_identity(shared, &form, bend, call),
        "GetCallerIdentity" => caller_identity(shared, request, call),
        _ => Err(no_such_operation(&form)),
    }?;
    Ok(reply::xml(
        200,
        format!(
            "<{operation}Response xmlns=\"https://sts.amazonaws.com/doc/{VERSION}/\">\n  \
             <{operation}Result>\n{result}  </{operation}Result>\n  \
             <ResponseMetadata>\n    <RequestId>{}</RequestId>\n  </ResponseMetadata>\n</{operation}Response>\n",
            random::request_id()
        ),
    ))
}

fn no_such_operation(form: &Form) -> Failure {
    let (action, version) = (form.value("Action"), form.value("Version"));
    let message = format!(
        "Could not find operation {} for version {}",
        action.unwrap_or("NO_ACTION"),
        version.unwrap_or("NO_VERSION_SPECIFIED")
    );
    Failure::new(400, "InvalidAction", message)
}

fn assume_role(
    shared: &Shared,
    request: &Inbound,
    form: &Form,
    bend: Option<&Fault>,
    call: &mut Call,
) -> Result<String, Failure> {
    let principal = authenticate(shared, request, call)?;
    let wanted = Wanted::read(form)?;
    if principal.role.is_some() && wanted.lifetime.as_secs() > HOUR {
        return Err(invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
        ));
    }
    let external_id = form.value("ExternalId");
    let applicant = Applicant::Principal { principal: &principal, external_id };
    let assume = "sts:AssumeRole";
    // The tags of a session go with it, and the right to set them is asked for too.
    for action in [Some(assume), principal.is_tagged.then_some("sts:TagSession")].into_iter().flatten() {
        let request = Request::new(Caller::Principal(&principal), action, wanted.role)
            .with("sts:ExternalId", external_id.filter(|_| action == assume));
        shared
            .iam
            .authorize(&request, call)
            .map_err(|denial| denied(&principal, action, wanted.role, denial))?;
    }
    if !shared.iam.trusts(wanted.role, &applicant) {
        return Err(denied(&principal, assume, wanted.role, Denied::Implicit(Kind::Resource)));
    }
    Ok(session_xml(&wanted.open(shared, principal.is_tagged), bend))
}

/// STS does not say that it is the trust policy which lacks something.
fn denied(principal: &Principal, action: &str, role: &str, denial: Denied) -> Failure {
    let reason = match denial {
        Denied::Implicit(Kind::Resource) => String::new(),
        _ => denial.reason(action),
    };
    Failure::not_allowed(Service::Sts, &principal.arn, action, role, &reason)
}

fn assume_with_web_identity(
    shared: &Shared,
    form: &Form,
    bend: Option<&Fault>,
    call: &mut Call,
) -> Result<String, Failure> {
    let wanted = Wanted::read(form)?;
    let token = required(form, "WebIdentityToken")?;
    let claims = shared.issuers.verify(token, shared.iam.audience(wanted.role), shared.clock.unix())?;
    call.principal = Some(claims.subject.clone());
    let issuer = claims.issuer.trim_start_matches("https://");
    let account = split_role(wanted.role).map_or("", |(account, _)| account);
    let provider = format!("arn:aws:iam::{account}:oidc-provider/{issuer}");
    let action = "sts:AssumeRoleWithWebIdentity";
    let request = Request::new(Caller::Federated(&provider), action, wanted.role)
        .with(&format!("{issuer}:aud"), Some(&claims.audience))
        .with(&format!("{issuer}:sub"), Some(&claims.subject));
    if shared.iam.authorize(&request, call).is_err()
        || !shared.iam.trusts(wanted.role, &Applicant::WebIdentity { subject: &claims.subject })
    {
        return Err(Failure::denied(Service::Sts, format!("Not authorized to perform {action}")));
    }
    let session = wanted.open(shared, false);
    Ok(format!(
        "{}    <SubjectFromWebIdentityToken>{}</SubjectFromWebIdentityToken>\n    <Audience>{}</Audience>\n    \
         <Provider>{}</Provider>\n",
        session_xml(&session, bend),
        escape(&claims.subject),
        escape(&claims.audience),
        escape(&claims.issuer)
    ))
}

fn caller_identity(shared: &Shared, request: &Inbound, call: &mut Call) -> Result<String, Failure> {
    let principal = authenticate(shared, request, call)?;
    Ok(format!(
        "    <Arn>{}</Arn>\n    <UserId>{}</UserId>\n    <Account>{}</Account>\n",
        escape(&principal.arn),
        escape(&principal.user_id),
        escape(&principal.account)
    ))
}

fn authenticate(shared: &Shared, request: &Inbound, call: &mut Call) -> Result<Principal, Failure> {
    let refuse = |rejection| Failure::unsigned(Service::Sts, rejection);
    let claim = Claim::read(&request.headers).map_err(refuse)?;
    call.access_key_id = Some(claim.access_key_id.clone());
    call.region = Some(claim.region.clone());
    let region = hosts::api_region(request.host());
    let now = shared.clock.unix();
    let principal = claim.verify(request, "sts", region.as_deref(), &shared.iam, now).map_err(refuse)?;
    call.principal = Some(principal.arn.clone());
    Ok(principal)
}

/// What both ways to assume a role ask for.
struct Wanted<'a> {
    role: &'a str,
    session: &'a str,
    lifetime: Duration,
    policy: Option<Policy>,
}

impl<'a> Wanted<'a> {
    fn read(form: &'a Form) -> Result<Self, Failure> {
        let role = required(form, "RoleArn")?;
        split_role(role).ok_or_else(|| invalid(&format!("{role} is invalid")))?;
        let session = required(form, "RoleSessionName")?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
        if !(2..=64).contains(&session.len()) || !session.bytes().all(allowed) {
            return Err(invalid(
                "Value at 'roleSessionName' failed to satisfy constraint: [\\w+=,.@-]{2,64}",
            ));
        }
        let seconds = form.value("DurationSeconds").map_or(Ok(HOUR), str::parse);
        let seconds = seconds.ok().filter(|seconds| (900..=43_200).contains(seconds));
        let seconds =
            seconds.ok_or_else(|| invalid("Value at 'durationSeconds' must be between 900 and 43200"))?;
        let policy = form.value("Policy").map(|text| Policy::parse(text, false)).transpose();
        let policy = policy.map_err(|error| Failure::new(400, "MalformedPolicyDocument", error))?;
        Ok(Self { role, session, lifetime: Duration::from_secs(seconds), policy })
    }

    fn open(self, shared: &Shared, is_tagged: bool) -> Session {
        let Self { role, session: name, lifetime, policy } = self;
        let session = NewSession { role, name, lifetime, policy, is_tagged };
        shared.iam.open_session(session, shared.clock.unix())
    }
}

fn required<'a>(form: &'a Form, name: &str) -> Result<&'a str, Failure> {
    form.value(name).filter(|value| !value.is_empty()).ok_or_else(|| {
        invalid(&format!("Value null at '{name}' failed to satisfy constraint: Member must not be null"))
    })
}

fn invalid(message: &str) -> Failure {
    Failure::new(400, "ValidationError", message)
}

fn session_xml(session: &Session, bend: Option<&Fault>) -> String {
    let expiration = shown_expiry(session, bend)
        .map(|time| format!("      <Expiration>{}</Expiration>\n", clock::iso(time)))
        .unwrap_or_default();
    format!(
        "    <AssumedRoleUser>\n      <Arn>{}</Arn>\n      <AssumedRoleId>{}</AssumedRoleId>\n    </AssumedRoleUser>\n    \
         <Credentials>\n      <AccessKeyId>{}</AccessKeyId>\n      <SecretAccessKey>{}</SecretAccessKey>\n      \
         <SessionToken>{}</SessionToken>\n{expiration}    </Credentials>\n",
        escape(&session.principal.arn),
        escape(&session.principal.user_id),
        session.access_key_id,
        session.secret,
        session.token
    )
}

/// The expiry that the client is given: a fault may bend it, or leave it out.
pub(crate) fn shown_expiry(session: &Session, bend: Option<&Fault>) -> Option<i64> {
    const CENTURY: i64 = 100 * 365 * 86_400;
    match bend {
        Some(Fault::NoExpiry) => None,
        Some(Fault::ExpiredOnArrival) => Some(session.expires - CENTURY / 20),
        Some(Fault::FarFuture) => Some(session.expires + CENTURY),
        _ => Some(session.expires),
    }
}
