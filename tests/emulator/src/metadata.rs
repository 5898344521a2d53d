//! What do the EKS Pod Identity agent and the instance metadata service (IMDSv2) give out?
//!
//! The agent answers errors as plain text, with a status, as `eks-pod-identity-agent` does. IMDSv1 is off: a request
//! without a session token is answered 401.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use crate::clock;
use crate::fault::{Fault, Service};
use crate::iam::{Caller, NewSession, Request, Session};
use crate::journal::Call;
use crate::locked;
use crate::random;
use crate::reply::{self, Failure, Reply};
use crate::request::Inbound;
use crate::shared::Shared;
use crate::sts::shown_expiry;

const SESSION: Duration = Duration::from_secs(6 * 3600);
/// The audience of the tokens that the agent takes.
const PODS: &str = "pods.eks.amazonaws.com";
const MAX_TOKEN_SECONDS: i64 = 21_600;
/// What EKS answers when the role's trust policy lacks an action; it does not name which.
const UNTRUSTED: &str =
    "Unauthorized Exception! EKS does not have permissions to assume the associated role.";
const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials";

/// `GET /v1/credentials` of the Pod Identity agent.
pub(crate) fn pod_identity(
    shared: &Shared,
    request: &Inbound,
    bend: Option<&Fault>,
    call: &mut Call,
) -> Result<Reply, Failure> {
    if request.method != Method::GET {
        return Ok(reply::text(405, "Method Not Allowed\n"));
    }
    let token = request.header("authorization").unwrap_or_default();
    if token.is_empty() {
        call.error = Some("RequestValidationError".to_owned());
        return Ok(reply::text(400, "Service account token cannot be empty\n"));
    }
    let associated = match &shared.metadata.pod_identity_subject {
        Some(subject) => shared.issuers.verify(token, PODS, shared.clock.unix())?.subject == *subject,
        None => token == shared.metadata.pod_identity_token,
    };
    if !associated {
        let message = "No association found for the service account of this token";
        return Err(Failure::new(404, "ResourceNotFoundException", message));
    }
    let role = &shared.metadata.pod_identity_role;
    let pods = Caller::Service("pods.eks.amazonaws.com");
    for action in ["sts:AssumeRole", "sts:TagSession"] {
        if shared.iam.authorize(&Request::new(pods, action, role), call).is_err() {
            return Err(Failure::denied(Service::PodIdentity, UNTRUSTED));
        }
    }
    let session =
        NewSession { role, name: "eks-emulator-pod", lifetime: SESSION, policy: None, is_tagged: true };
    let session = shared.iam.open_session(session, shared.clock.unix());
    call.principal = Some(session.principal.arn.clone());
    let mut body = credentials(&session, bend);
    body["AccountId"] = session.principal.account.as_str().into();
    Ok(reply::with_type(200, "application/json", body.to_string()))
}

/// The metadata service.
pub(crate) fn imds(
    shared: &Shared,
    request: &Inbound,
    bend: Option<&Fault>,
    call: &mut Call,
) -> Result<Reply, Failure> {
    if request.path == "/latest/api/token" {
        return new_token(shared, request);
    }
    if request.method != Method::GET {
        return Err(Failure::new(405, "Method Not Allowed", ""));
    }
    check_token(shared, request)?;
    let metadata = &shared.metadata;
    let role_name = metadata.instance_role.rsplit('/').next().unwrap_or_default();
    let path = request.path.trim_end_matches('/');
    if let Some(named) = path.strip_prefix(CREDENTIALS) {
        return match named.strip_prefix('/') {
            None => Ok(reply::text(200, role_name)),
            Some(name) if name == role_name => Ok(instance_credentials(shared, bend, call)),
            Some(_) => Err(Failure::new(404, "Not Found", "")),
        };
    }
    let region = &metadata.instance_region;
    match path {
        "/latest/meta-data/placement/region" => Ok(reply::text(200, region.as_str())),
        "/latest/meta-data/placement/availability-zone" => Ok(reply::text(200, format!("{region}a"))),
        "/latest/dynamic/instance-identity/document" => {
            let account = crate::iam::split_role(&metadata.instance_role)
                .map_or("000000000000", |(account, _)| account);
            let document =
                json!({"accountId": account, "region": region, "instanceId": "i-0emulated0000000"});
            Ok(reply::text(200, document.to_string()))
        }
        _ => Err(Failure::new(404, "Not Found", "")),
    }
}

fn new_token(shared: &Shared, request: &Inbound) -> Result<Reply, Failure> {
    if request.method != Method::PUT {
        return Err(Failure::new(405, "Method Not Allowed", ""));
    }
    let seconds = request.header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|text| text.parse().ok());
    let seconds: i64 = seconds
        .filter(|seconds| (1..=MAX_TOKEN_SECONDS).contains(seconds))
        .ok_or_else(|| Failure::new(400, "Bad Request", ""))?;
    let token = random::mixed(56);
    locked(&shared.metadata.tokens).insert(token.clone(), shared.clock.unix() + seconds);
    let mut reply = reply::text(200, token);
    reply.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", seconds.into());
    Ok(reply)
}

fn check_token(shared: &Shared, request: &Inbound) -> Result<(), Failure> {
    let token = request.header("x-aws-ec2-metadata-token").unwrap_or_default();
    let expires = locked(&shared.metadata.tokens).get(token).copied();
    if expires.is_some_and(|expires| expires > shared.clock.unix()) {
        Ok(())
    } else {
        Err(Failure::new(401, "Unauthorized", ""))
    }
}

fn instance_credentials(shared: &Shared, bend: Option<&Fault>, call: &mut Call) -> Reply {
    let now = shared.clock.unix();
    let (role, name) = (&shared.metadata.instance_role, "i-0emulated0000000");
    let session = NewSession { role, name, lifetime: SESSION, policy: None, is_tagged: false };
    let session = shared.iam.open_session(session, now);
    call.principal = Some(session.principal.arn.clone());
    let mut body = credentials(&session, bend);
    body["Code"] = "Success".into();
    body["Type"] = "AWS-HMAC".into();
    body["LastUpdated"] = clock::iso(now).into();
    reply::text(200, body.to_string())
}

fn credentials(session: &Session, bend: Option<&Fault>) -> Value {
    let mut body = json!({
        "AccessKeyId": session.access_key_id,
        "SecretAccessKey": session.secret,
        "Token": session.token,
    });
    if let Some(time) = shown_expiry(session, bend) {
        body["Expiration"] = clock::iso(time).into();
    }
    body
}

/// How a request to either is called in the journal.
pub(crate) fn operation(request: &Inbound) -> String {
    format!("{} {}", request.method, request.path)
}

/// Which of the two a path belongs to.
pub(crate) fn service_of(path: &str) -> Option<Service> {
    match path {
        "/v1/credentials" => Some(Service::PodIdentity),
        _ if path.starts_with("/latest/") => Some(Service::Imds),
        _ => None,
    }
}
