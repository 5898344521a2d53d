//! Who may pull from a registry, and what is there?
//!
//! Only `AWS:<password>` of a token that this emulator issued opens a registry: for that region (or for
//! public.ecr.aws), not expired by the emulator's clock, not revoked. A private one then asks IAM, action by action
//! ([`permission`]). What is admitted is answered from memory ([`content`]), as through a cache ([`pull_through`]), or
//! handed on to a real registry ([`upstream`]).
//!
//! public.ecr.aws challenges with Basic too (the real one gives anonymous bearer tokens as well, which this one
//! never does).

pub(crate) mod content;
mod permission;
pub(crate) mod pull_through;
pub(crate) mod upstream;

use std::collections::HashMap;
use std::iter;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Request};

use crate::fault::Service;
use crate::hosts::{self, Place};
use crate::iam::{self, Attachment, Caller};
use crate::journal::{Call, Pull, Reason, Refusal};
use crate::locked;
use crate::reply::{self, Failure, Reply};
use crate::shared::Shared;
use crate::tokens::Token;
use permission::Target;
use pull_through::{Cached, PullThrough};
use upstream::Upstream;

/// Which hosts are registries, and where the content comes from.
#[derive(Default)]
pub(crate) struct Registry {
    names: Mutex<HashMap<String, Place>>,
    upstream: Mutex<Option<Upstream>>,
    pub(crate) pull_through: PullThrough,
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
    let token = match admitted {
        Ok(token) => token,
        Err(reason) => {
            let failure = failure_of(&reason);
            return refuse(shared, host, &request, call, reason, &failure);
        }
    };
    call.principal = Some(token.principal.arn.clone());
    let path = request.uri().path().to_owned();
    let (Some(target), Place::Region(region)) = (Target::of(request.method(), &path), &place) else {
        record_pull(shared, host, &request, call, &token);
        return serve(shared, request).await;
    };
    let arn = permission::arn(host, region, target.repository);
    let is_created = shared.iam.is_attached(&Attachment::Repository(arn.clone()));
    let cached = shared.registry.pull_through.find(target.repository, &arn, is_created);
    let filling = cached.as_ref().map_or(&[][..], |cached| cached.actions(&target));
    for action in iter::once(target.action).chain(filling.iter().copied()) {
        let asked = iam::Request::new(Caller::Principal(&token.principal), action, &arn);
        if let Err(denial) = shared.iam.authorize(&asked, call) {
            let (who, why) = (&token.principal.arn, denial.reason(action));
            let failure = Failure::not_allowed(Service::Registry, who, action, &arn, &why);
            return refuse(shared, host, &request, call, Reason::NotAllowed(action.to_owned()), &failure);
        }
    }
    record_pull(shared, host, &request, call, &token);
    match cached {
        Some(cached) => serve_cached(shared, request, &target, arn, cached).await,
        None => serve(shared, request).await,
    }
}

/// What a cache holds, or gets from its upstream.
async fn serve_cached(
    shared: &Shared,
    mut request: Request<Incoming>,
    target: &Target<'_>,
    arn: String,
    cached: Cached,
) -> Reply {
    let imports = !cached.actions(target).is_empty();
    if let Some(refusal) = shared.registry.pull_through.refusal().filter(|_| imports) {
        return refusal.reply(Service::Registry);
    }
    let Cached { upstream, references } = cached;
    if target.manifest.is_none() {
        let Some(held) = references else { return content::unknown_repository().reply(Service::Registry) };
        if target.action == "ecr:ListImages" {
            return content::list(target.repository, held);
        }
    }
    let uri = request.uri().to_string();
    let uri = uri.replacen(&format!("/v2/{}/", target.repository), &format!("/v2/{upstream}/"), 1).parse();
    *request.uri_mut() = uri.unwrap_or_default(); // a part of a URI without the prefix is one
    let reply = serve(shared, request).await;
    if let Some(reference) = target.manifest.filter(|_| reply.status() == 200) {
        let digest = reply.headers().get("docker-content-digest").and_then(|digest| digest.to_str().ok());
        let references = iter::once(reference).chain(digest).map(str::to_owned);
        shared.registry.pull_through.import(arn, references);
    }
    reply
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

fn record_pull(shared: &Shared, host: &str, request: &Request<Incoming>, call: &Call, token: &Token) {
    shared.journal.pull(Pull {
        host: host.to_owned(),
        region: call.region.clone(),
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        principal: token.principal.arn.clone(),
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

/// Why a token doesn't open it, in ECR's words.
fn failure_of(reason: &Reason) -> Failure {
    const AGAIN: &str = "Reauthenticate and try again.";
    let (status, code, message) = match reason {
        Reason::NoCredentials => (401, "UNAUTHORIZED", "Not Authorized".to_owned()),
        Reason::NotUnderstood | Reason::NotAws | Reason::UnknownToken => {
            (401, "DENIED", format!("Your Authorization Token is invalid. {AGAIN}"))
        }
        Reason::RevokedToken | Reason::ExpiredToken => {
            (401, "DENIED", format!("Your authorization token has expired. {AGAIN}"))
        }
        Reason::WrongRegion(_) | Reason::WrongKind | Reason::NotAllowed(_) => {
            (400, "DENIED", "The authorization token was issued for another registry".to_owned())
        }
    };
    Failure::new(status, code, message)
}

fn refuse(
    shared: &Shared,
    host: &str,
    request: &Request<Incoming>,
    call: &mut Call,
    reason: Reason,
    failure: &Failure,
) -> Reply {
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
