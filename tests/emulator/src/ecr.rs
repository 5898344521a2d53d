//! How do ECR and ECR Public answer `GetAuthorizationToken`?
//!
//! JSON 1.1. The region is that of the signature's scope; ECR Public exists in us-east-1 only and answers an object
//! where ECR answers a list. Its other operations aren't played.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::fault::{Fault, Service};
use crate::hosts::{self, Place};
use crate::iam::{Caller, Principal, Request};
use crate::journal::Call;
use crate::reply::{self, Failure, Reply};
use crate::request::Inbound;
use crate::shared::Shared;
use crate::sigv4::{Claim, Rejection};
use crate::tokens::Shape;

pub(crate) const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.";
pub(crate) const PUBLIC_TARGET: &str = "SpencerFrontendService.";
const PUBLIC_REGION: &str = "us-east-1";
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Answers one request of either service.
pub(crate) fn answer(
    shared: &Shared,
    service: Service,
    request: &Inbound,
    bend: Option<&Fault>,
    call: &mut Call,
) -> Result<Reply, Failure> {
    let principal = authenticate(shared, service, request, call)?;
    if request.method != hyper::Method::POST || call.operation != "GetAuthorizationToken" {
        return Err(Failure::new(400, "UnknownOperationException", ""));
    }
    let body: Value = serde_json::from_slice(&request.body)
        .map_err(|error| Failure::new(400, "SerializationException", error.to_string()))?;
    let Value::Object(body) = body else {
        return Err(Failure::new(
            400,
            "SerializationException",
            "Start of structure or map found where not expected.",
        ));
    };
    call.registry_ids = registry_ids(body.get("registryIds"));
    for action in actions(service) {
        let request = Request::new(Caller::Principal(&principal), action, "*");
        shared.iam.authorize(&request, call).map_err(|denial| {
            Failure::not_allowed(service, &principal.arn, action, "*", &denial.reason(action))
        })?;
    }
    let region = call.region.clone().unwrap_or_default();
    let answer = if service == Service::Ecr {
        private(shared, &principal, &region, &call.registry_ids, bend)
    } else {
        public(shared, &principal, bend)
    };
    Ok(reply::json(200, &answer))
}

fn authenticate(
    shared: &Shared,
    service: Service,
    request: &Inbound,
    call: &mut Call,
) -> Result<Principal, Failure> {
    let refuse = |rejection: Rejection| Failure::unsigned(service, rejection);
    let claim = Claim::read(&request.headers).map_err(refuse)?;
    call.access_key_id = Some(claim.access_key_id.clone());
    call.region = Some(claim.region.clone());
    let of_host = hosts::api_region(request.host());
    let (name, region) = match service {
        Service::EcrPublic => ("ecr-public", Some(PUBLIC_REGION)),
        _ => ("ecr", of_host.as_deref()),
    };
    let now = shared.clock.unix();
    let principal = claim.verify(request, name, region, &shared.iam, now).map_err(refuse)?;
    call.principal = Some(principal.arn.clone());
    Ok(principal)
}

fn actions(service: Service) -> &'static [&'static str] {
    match service {
        Service::EcrPublic => &["ecr-public:GetAuthorizationToken", "sts:GetServiceBearerToken"],
        _ => &["ecr:GetAuthorizationToken"],
    }
}

fn registry_ids(value: Option<&Value>) -> Vec<String> {
    let ids = value.and_then(Value::as_array).into_iter().flatten();
    ids.map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned)).collect()
}

/// One entry for each registry id that was asked for, or one for the caller's own account.
fn private(shared: &Shared, who: &Principal, region: &str, ids: &[String], bend: Option<&Fault>) -> Value {
    if bend == Some(&Fault::EmptyList) {
        return json!({"authorizationData": []});
    }
    let own = std::slice::from_ref(&who.account);
    let accounts = if ids.is_empty() { own } else { ids };
    let entries = accounts.iter().map(|account| {
        let mut entry = token(shared, Place::Region(region.to_owned()), who, bend);
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        entry["proxyEndpoint"] = format!("https://{account}.dkr.ecr.{region}.{domain}").into();
        entry
    });
    json!({"authorizationData": entries.collect::<Vec<_>>()})
}

fn public(shared: &Shared, who: &Principal, bend: Option<&Fault>) -> Value {
    if bend == Some(&Fault::EmptyList) {
        return json!({"authorizationData": {}});
    }
    json!({"authorizationData": token(shared, Place::Public, who, bend)})
}

/// Issues a token. A bent expiry is a lie to the client: the registry goes by the true one.
fn token(shared: &Shared, place: Place, who: &Principal, bend: Option<&Fault>) -> Value {
    let now = shared.clock.now();
    let expires = now + shared.token_lifetime();
    let shape = if bend == Some(&Fault::ColonPassword) { Shape::WithColons } else { Shape::Usual };
    let password = shared.tokens.issue(place, who, expires, shape);
    let encoded = match bend {
        Some(Fault::NotBase64) => "%%% this is no base64 %%%".to_owned(),
        Some(Fault::NotAws) => STANDARD.encode("foo:bar"),
        Some(Fault::EmptyPassword) => STANDARD.encode("AWS:"),
        _ => STANDARD.encode(format!("AWS:{password}")),
    };
    let shown = match bend {
        Some(Fault::NoExpiry) => return json!({"authorizationToken": encoded}),
        Some(Fault::ExpiredOnArrival) => now - CENTURY / 20,
        Some(Fault::FarFuture) => now + CENTURY,
        _ => expires,
    };
    let seconds = shown.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    json!({"authorizationToken": encoded, "expiresAt": (seconds * 1000.0).round() / 1000.0})
}
