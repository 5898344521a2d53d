//! Which service is a request for, which fault meets it, and what goes into the journal?

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{DATE, HOST, HeaderMap, HeaderName, USER_AGENT};

use crate::clock;
use crate::control;
use crate::ecr;
use crate::fault::{Fault, Service};
use crate::journal::Call;
use crate::metadata;
use crate::random;
use crate::registry;
use crate::reply::{self, Failure, Outcome, Reply, set_header, spoil};
use crate::request::Inbound;
use crate::shared::Shared;
use crate::sigv4::Rejection;
use crate::sts;

/// Answers any request; `host` is the host that it names.
pub(crate) async fn answer(shared: &Shared, mut request: Request<Incoming>) -> Outcome {
    let host = adopt_host(&mut request);
    let outcome = if registry::owns(request.uri().path()) {
        answer_registry(shared, &host, request).await
    } else {
        let (parts, body) = request.into_parts();
        let Some(inbound) = Inbound::collect(parts, body).await else {
            return Outcome::Reply(reply::text(413, "the body broke off or is too long\n"));
        };
        answer_api(shared, &inbound).await
    };
    match outcome {
        Outcome::Reply(reply) => Outcome::Reply(stamp(shared, reply)),
        other => other,
    }
}

/// A proxied request names its host in the request line: that counts, and the rest of the crate reads `Host`.
fn adopt_host(request: &mut Request<Incoming>) -> String {
    let named = request.uri().authority().and_then(|authority| authority.as_str().parse().ok());
    if let Some(host) = named {
        request.headers_mut().insert(HOST, host);
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    host.unwrap_or_default().to_owned()
}

async fn answer_registry(shared: &Shared, host: &str, request: Request<Incoming>) -> Outcome {
    let operation = format!("{} {}", request.method(), request.uri().path());
    let mut call = new_call(shared, Service::Registry, operation, request.headers());
    let fault = shared.script.next(Service::Registry);
    let reply = match &fault {
        Some(Fault::Echo) => {
            let headers = request.headers().clone();
            let inbound = Inbound {
                method: request.method().clone(),
                path: request.uri().path().to_owned(),
                query: None,
                headers,
                body: hyper::body::Bytes::new(),
            };
            Failure::echo(Service::Registry, &inbound).reply(Service::Registry)
        }
        _ => registry::answer(shared, host, request, &mut call).await,
    };
    finish(shared, call, fault, reply).await
}

async fn answer_api(shared: &Shared, request: &Inbound) -> Outcome {
    if request.path.starts_with(control::PREFIX) {
        return Outcome::Reply(control::answer(shared, request));
    }
    let Some((service, operation)) = classify(request) else {
        return Outcome::Reply(reply::text(404, "nothing that the emulator plays answers here\n"));
    };
    let mut call = new_call(shared, service, operation, &request.headers);
    let fault = shared.script.next(service);
    let bend = fault.as_ref();
    let result = match (service, bend) {
        (_, Some(Fault::SignatureMismatch)) => Err(Failure::unsigned(service, Rejection::mismatch(request))),
        (_, Some(Fault::IncompleteSignature)) => {
            Err(Failure::unsigned(service, Rejection::incomplete(&request.headers)))
        }
        (_, Some(Fault::Echo)) => Err(Failure::echo(service, request)),
        (Service::Ecr | Service::EcrPublic, _) => ecr::answer(shared, service, request, bend, &mut call),
        (Service::Sts, _) => sts::answer(shared, request, bend, &mut call),
        (Service::PodIdentity, _) => metadata::pod_identity(shared, request, bend, &mut call),
        (Service::Imds | Service::Registry, _) => metadata::imds(shared, request, bend, &mut call),
    };
    let reply = result.unwrap_or_else(|failure| {
        call.error = Some(failure.code.clone());
        failure.reply(service)
    });
    finish(shared, call, fault, reply).await
}

/// The service and the operation that a request asks for.
fn classify(request: &Inbound) -> Option<(Service, String)> {
    if let Some(target) = request.header("x-amz-target") {
        let private = target.strip_prefix(ecr::TARGET).map(|operation| (Service::Ecr, operation));
        let public = target.strip_prefix(ecr::PUBLIC_TARGET).map(|operation| (Service::EcrPublic, operation));
        return private.or(public).map(|(service, operation)| (service, operation.to_owned()));
    }
    if let Some(service) = metadata::service_of(&request.path) {
        return Some((service, metadata::operation(request)));
    }
    let action = request.form().value("Action").map(str::to_owned);
    action.filter(|_| request.path == "/").map(|action| (Service::Sts, action))
}

fn new_call(shared: &Shared, service: Service, operation: String, headers: &HeaderMap) -> Call {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Call {
        service,
        operation,
        host: text(HOST).unwrap_or_default(),
        region: None,
        access_key_id: None,
        principal: None,
        actions: Vec::new(),
        denied: None,
        registry_ids: Vec::new(),
        user_agent: text(USER_AGENT),
        time: shared.clock.now(),
        status: None,
        error: None,
    }
}

/// Lets the fault have its way, and writes the call down before the answer leaves.
async fn finish(shared: &Shared, mut call: Call, fault: Option<Fault>, reply: Reply) -> Outcome {
    let outcome = match &fault {
        None => Outcome::Reply(reply),
        Some(fault) => spoil(call.service, fault, reply).await,
    };
    call.status = match &outcome {
        Outcome::Reply(reply) => Some(reply.status().as_u16()),
        _ => None,
    };
    if let Some(Fault::Error { code, .. }) = fault {
        call.error = Some(code);
    }
    shared.journal.call(call);
    outcome
}

fn stamp(shared: &Shared, mut reply: Reply) -> Reply {
    set_header(&mut reply, DATE, &clock::http_date(shared.clock.unix()));
    set_header(&mut reply, HeaderName::from_static("x-amzn-requestid"), &random::request_id());
    reply
}
