//! Who may pull from a registry, and what is there?
//!
//! Only `AWS:<password>` of a token that this emulator issued opens a registry: for that region (or for
//! public.ecr.aws), not expired by the emulator's clock, not revoked. What is admitted is answered from memory
//! ([`content`]) or handed on to a real registry ([`upstream`]).
//!
//! public.ecr.aws challenges with Basic too (the real one gives anonymous bearer tokens as well, which this one
//! never does).
//!
//! A token opens what its principal's policies allow, action by action, as ECR has it.

pub(crate) mod content;
pub(crate) mod upstream;

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Request};

use crate::fault::Service;
use crate::hosts::{self, Place};
use crate::journal::{Call, Pull, Reason, Refusal};
use crate::locked;
use crate::reply::{self, Failure, Reply};
use crate::shared::Shared;
use crate::tokens::Token;
use upstream::Upstream;

/// Which hosts are registries, and where the content comes from.
#[derive(Default)]
pub(crate) struct Registry {
    names: Mutex<HashMap<String, Place>>,
    upstream: Mutex<Option<Upstream>>,
}

impl Registry {
    /// Makes `host` a registry.
    pub(crate) fn name(&self, host: &str, place: Place) {
        locked(&self.names).insert(host.to_ascii_lowercase(), place);
    }

    pub(crate) fn set_upstream(&self, url: Option<&str>) -> Result<(), String> {
        let upstream = url.map(Upstream::new).transpose()?;
        *locked(&self.upstream) = upstream;
        Ok(())
    }

    /// The registry that `host` names: by configuration (with its port or without), or as AWS names them.
    pub(crate) fn place(&self, host: &str) -> Option<Place> {
        let names = locked(&self.names);
        let host = host.to_ascii_lowercase();
        let named = names.get(&host).or_else(|| names.get(hosts::without_port(&host)));
        named.cloned().or_else(|| hosts::registry(&host))
    }
}

/// Whether a path is one of the registry API.
pub(crate) fn owns(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// Answers one request of the registry API.
pub(crate) async fn answer(
    shared: &Shared,
    host: &str,
    request: Request<Incoming>,
    call: &mut Call,
) -> Reply {
    let Some(place) = shared.registry.place(host) else {
        call.error = Some("NAME_UNKNOWN".to_owned());
        let failure =
            Failure::new(404, "NAME_UNKNOWN", format!("the emulator has no registry called {host}"));
        return failure.reply(Service::Registry);
    };
    if let Place::Region(region) = &place {
        call.region = Some(region.clone());
    }
    let admitted = password(request.headers())
        .and_then(|password| shared.tokens.admit(&password, &place, shared.clock.now()));
    match admitted {
        Ok(token) => {
            call.principal = Some(token.principal.clone());
            let action = action(request.method(), request.uri().path());
            if let Some(action) = action.filter(|action| shared.iam.denies(&token.principal, action)) {
                return refuse(shared, host, &request, call, Reason::NotAllowed(action.to_owned()));
            }
            record_pull(shared, host, &request, call, token);
            serve(shared, request).await
        }
        Err(reason) => refuse(shared, host, &request, call, reason),
    }
}

/// What a policy has to allow for it: facts of AWS's documentation and of its registry's refusals.
fn action(method: &Method, path: &str) -> Option<&'static str> {
    if path.ends_with("/tags/list") {
        Some("ecr:ListImages")
    } else if path.contains("/manifests/") {
        Some("ecr:BatchGetImage")
    } else if path.contains("/blobs/") {
        Some(if method == Method::HEAD {
            "ecr:BatchCheckLayerAvailability"
        } else {
            "ecr:GetDownloadUrlForLayer"
        })
    } else {
        None
    }
}

/// The repository that a path names, as a policy does.
fn resource(host: &str, region: Option<&str>, path: &str) -> String {
    let account = host.split('.').next().unwrap_or_default();
    let rest = path.trim_start_matches("/v2/");
    let name = ["/tags/", "/manifests/", "/blobs/"].iter().find_map(|part| Some(rest.split_once(part)?.0));
    format!("arn:aws:ecr:{}:{account}:repository/{}", region.unwrap_or_default(), name.unwrap_or(rest))
}

fn password(headers: &HeaderMap) -> Result<String, Reason> {
    let header = headers.get(AUTHORIZATION).ok_or(Reason::NoCredentials)?;
    let text = header.to_str().map_err(|_| Reason::NotUnderstood)?;
    let (scheme, value) = text.split_once(' ').ok_or(Reason::NotUnderstood)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Reason::NotUnderstood);
    }
    let decoded = STANDARD.decode(value.trim()).map_err(|_| Reason::NotUnderstood)?;
    let decoded = String::from_utf8(decoded).map_err(|_| Reason::NotUnderstood)?;
    let (user, password) = decoded.split_once(':').ok_or(Reason::NotUnderstood)?;
    if user == "AWS" { Ok(password.to_owned()) } else { Err(Reason::NotAws) }
}

fn record_pull(shared: &Shared, host: &str, request: &Request<Incoming>, call: &Call, token: Token) {
    shared.journal.pull(Pull {
        host: host.to_owned(),
        region: call.region.clone(),
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        principal: token.principal,
        token: token.serial,
        time: call.time,
    });
}

async fn serve(shared: &Shared, request: Request<Incoming>) -> Reply {
    let upstream = locked(&shared.registry.upstream).clone();
    match upstream {
        Some(upstream) => upstream.forward(request).await,
        None => content::answer(request.method(), request.uri().path()),
    }
}

/// Says no, in ECR's words.
fn refuse(
    shared: &Shared,
    host: &str,
    request: &Request<Incoming>,
    call: &mut Call,
    reason: Reason,
) -> Reply {
    const AGAIN: &str = "Reauthenticate and try again.";
    let failure = match &reason {
        Reason::NoCredentials => Failure::new(401, "UNAUTHORIZED", "Not Authorized"),
        Reason::NotUnderstood | Reason::NotAws | Reason::UnknownToken => {
            Failure::new(401, "DENIED", format!("Your Authorization Token is invalid. {AGAIN}"))
        }
        Reason::RevokedToken | Reason::ExpiredToken => {
            Failure::new(401, "DENIED", format!("Your authorization token has expired. {AGAIN}"))
        }
        Reason::WrongRegion(_) | Reason::WrongKind => {
            Failure::new(400, "DENIED", "The authorization token was issued for another registry")
        }
        Reason::NotAllowed(action) => {
            let principal = call.principal.as_deref().unwrap_or_default();
            let resource = resource(host, call.region.as_deref(), request.uri().path());
            Failure::not_allowed(Service::Registry, principal, action, &resource)
        }
    };
    call.error = Some(failure.code.clone());
    let mut reply = if reason == Reason::NoCredentials {
        reply::text(401, "Not Authorized\n")
    } else {
        failure.reply(Service::Registry)
    };
    if failure.status == 401 {
        let challenge = format!("Basic realm=\"https://{host}/\",service=\"ecr.amazonaws.com\"");
        reply::set_header(&mut reply, WWW_AUTHENTICATE, &challenge);
    }
    let version = HeaderValue::from_static("registry/2.0");
    reply.headers_mut().insert("docker-distribution-api-version", version);
    shared.journal.refusal(Refusal {
        host: host.to_owned(),
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        reason,
        status: failure.status,
        time: call.time,
    });
    reply
}
