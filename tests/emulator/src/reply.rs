//! How is an answer, an error or a fault put on the wire, in each service's own format?

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use tokio::time::Sleep;

use crate::fault::{Fault, Service};
use crate::random;
use crate::request::Inbound;
use crate::sigv4::{Rejection, Signed};

/// What a client is given.
pub(crate) enum Outcome {
    Reply(Reply),
    Hang,
    Broken(Sabotage),
}

/// What is done to the connection instead of an answer. An error, so that hyper lets go of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    Reset,
    Garbage,
}

impl std::fmt::Display for Sabotage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "scripted fault: {self:?}")
    }
}

impl std::error::Error for Sabotage {}

pub(crate) type Reply = Response<Body>;

/// An error, before it is put into a service's format.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into() }
    }

    /// "You may not", in the words of that service.
    pub(crate) fn denied(service: Service, message: impl Into<String>) -> Self {
        match service {
            Service::Sts => Self::new(403, "AccessDenied", message),
            Service::Registry => Self::new(403, "DENIED", message),
            Service::Ecr | Service::EcrPublic | Service::PodIdentity => {
                Self::new(400, "AccessDeniedException", message)
            }
            Service::Imds => Self::new(403, "Forbidden", message),
        }
    }

    /// AWS's sentence about an action that a policy denies or none allows; the reason may be missing.
    pub(crate) fn not_allowed(
        service: Service,
        principal: &str,
        action: &str,
        resource: &str,
        reason: &str,
    ) -> Self {
        let text = format!(
            "User: {principal} is not authorized to perform: {action} on resource: {resource} {reason}"
        );
        Self::denied(service, text.trim_end())
    }

    pub(crate) fn throttled(service: Service) -> Self {
        match service {
            Service::Sts => Self::new(400, "Throttling", "Rate exceeded"),
            Service::Ecr | Service::EcrPublic => Self::new(400, "ThrottlingException", "Rate exceeded"),
            Service::PodIdentity => Self::new(429, "ThrottlingException", "Rate exceeded"),
            Service::Imds => Self::new(503, "Throttled", "Rate exceeded"),
            Service::Registry => Self::new(429, "TOOMANYREQUESTS", "Rate exceeded"),
        }
    }

    /// How STS and ECR call each way in which a signature can be wrong.
    pub(crate) fn unsigned(service: Service, rejection: Rejection) -> Self {
        const INVALID: &str = "The security token included in the request is invalid.";
        const EXPIRED: &str = "The security token included in the request is expired";
        const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. Check \
            your AWS Secret Access Key and signing method. Consult the service documentation for details.";
        let (sts, json, message) = match rejection {
            Rejection::Missing => (
                "MissingAuthenticationToken",
                "MissingAuthenticationTokenException",
                "Missing Authentication Token".to_owned(),
            ),
            Rejection::Incomplete(message) => {
                ("IncompleteSignature", "IncompleteSignatureException", message)
            }
            Rejection::UnknownKey => {
                ("InvalidClientTokenId", "UnrecognizedClientException", INVALID.to_owned())
            }
            Rejection::Mismatch(Signed { canonical, to_sign }) => (
                "SignatureDoesNotMatch",
                "InvalidSignatureException",
                format!(
                    "{MISMATCH}\n\nThe Canonical String for this request should have been\n'{canonical}'\n\n\
                     The String-to-Sign should have been\n'{to_sign}'\n"
                ),
            ),
            Rejection::Time(message) | Rejection::Scope(message) => {
                ("SignatureDoesNotMatch", "InvalidSignatureException", message)
            }
            Rejection::ExpiredSession => ("ExpiredToken", "ExpiredTokenException", EXPIRED.to_owned()),
        };
        if service == Service::Sts { Self::new(403, sts, message) } else { Self::new(400, json, message) }
    }

    /// An error that repeats every credential of the request.
    pub(crate) fn echo(service: Service, request: &Inbound) -> Self {
        let mut message = "This is not valid:".to_owned();
        for name in ["authorization", "x-amz-security-token"] {
            message.extend(request.header(name).map(|value| format!(" {value}")));
        }
        let form = request.form();
        for name in ["WebIdentityToken", "ExternalId"] {
            message.extend(form.value(name).map(|value| format!(" {name}={value}")));
        }
        Self::denied(service, message)
    }

    pub(crate) fn reply(&self, service: Service) -> Reply {
        let Self { status, code, message } = self;
        match service {
            Service::Sts => xml(*status, sts_error(self)),
            Service::Ecr | Service::EcrPublic => {
                let body = serde_json::json!({"__type": code, "message": message});
                let mut reply = json(*status, &body);
                // A code out of a script may hold what no header may; then only the body has it.
                if let Ok(code) = HeaderValue::from_str(code) {
                    reply.headers_mut().insert("x-amzn-errortype", code);
                }
                reply
            }
            Service::PodIdentity => {
                let id = random::request_id();
                text(*status, format!("[{id}]: ({code}): {message}, fault: client\n"))
            }
            Service::Imds => text(*status, format!("{status} - {code}\n{message}\n")),
            Service::Registry => {
                let error = serde_json::json!({"code": code, "message": message});
                json(*status, &serde_json::json!({"errors": [error]}))
            }
        }
    }
}

fn sts_error(failure: &Failure) -> String {
    let kind = if failure.status < 500 { "Sender" } else { "Receiver" };
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <Error>\n    <Type>{kind}</Type>\n    \
         <Code>{}</Code>\n    <Message>{}</Message>\n  </Error>\n  <RequestId>{}</RequestId>\n</ErrorResponse>\n",
        escape(&failure.code),
        escape(&failure.message),
        random::request_id()
    )
}

/// Text for the inside of an XML element.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub(crate) fn json(status: u16, value: &serde_json::Value) -> Reply {
    with_type(status, "application/x-amz-json-1.1", value.to_string())
}

pub(crate) fn xml(status: u16, body: String) -> Reply {
    with_type(status, "text/xml", body)
}

pub(crate) fn text(status: u16, body: impl Into<String>) -> Reply {
    with_type(status, "text/plain; charset=utf-8", body.into())
}

pub(crate) fn with_type(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Body::Whole(Full::new(body.into())));
    *reply.status_mut() =
        hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

pub(crate) fn set_header(reply: &mut Reply, name: HeaderName, value: &str) {
    // Values come from a client's own Host header or are ours: what no header may hold is left out.
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}

/// What a fault makes of a good answer. The faults that bend a good one have done so by now.
pub(crate) async fn spoil(service: Service, fault: &Fault, reply: Reply) -> Outcome {
    let failure = match fault {
        Fault::Hang => return Outcome::Hang,
        Fault::Reset => return Outcome::Broken(Sabotage::Reset),
        Fault::Garbage => return Outcome::Broken(Sabotage::Garbage),
        Fault::SlowBody(pause) => return Outcome::Reply(slow(reply, *pause).await),
        Fault::Html => return Outcome::Reply(with_type(200, "text/html", HTML)),
        Fault::Huge => return Outcome::Reply(with_type(200, "application/x-amz-json-1.1", huge())),
        Fault::Status(status) => return Outcome::Reply(with_type(*status, "text/plain", "")),
        Fault::Redirect(url) => {
            let mut reply = with_type(302, "text/plain", "");
            set_header(&mut reply, LOCATION, url);
            return Outcome::Reply(reply);
        }
        Fault::Error { status, code, message } => Failure::new(*status, code, message.as_str()),
        Fault::Throttled => Failure::throttled(service),
        Fault::AccessDenied => Failure::denied(service, "Access denied by a scripted fault"),
        _ => return Outcome::Reply(reply),
    };
    Outcome::Reply(failure.reply(service))
}

const HTML: &str = "<!DOCTYPE html>\n<html><head><title>Sign in to the network</title></head>\
    <body><h1>Please sign in</h1></body></html>\n";

/// More than 10 MB of JSON that begins as an answer of ECR does.
fn huge() -> String {
    const SIZE: usize = 11 * 1024 * 1024;
    let mut text = String::with_capacity(SIZE + 128);
    text.push_str(r#"{"authorizationData":[{"authorizationToken":""#);
    text.extend(std::iter::repeat_n("QUFB", SIZE / 4));
    text.push_str(r#"","expiresAt":4102444800.0,"proxyEndpoint":"https://huge.example"}]}"#);
    text
}

/// The same answer, its body sent byte by byte.
async fn slow(reply: Reply, pause: Duration) -> Reply {
    let (parts, body) = reply.into_parts();
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Response::from_parts(parts, Body::Slow { rest: bytes, pause, sleep: Box::pin(tokio::time::sleep(pause)) })
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    Whole(Full<Bytes>),
    Slow { rest: Bytes, pause: Duration, sleep: Pin<Box<Sleep>> },
    Upstream(Incoming),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Upstream(body) => Pin::new(body).poll_frame(context),
            Self::Slow { rest, .. } if rest.is_empty() => Poll::Ready(None),
            Self::Slow { rest, pause, sleep } => {
                ready!(sleep.as_mut().poll(context));
                let next = sleep.deadline() + *pause;
                sleep.as_mut().reset(next);
                Poll::Ready(Some(Ok(Frame::data(rest.split_to(1)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Upstream(body) => body.is_end_stream(),
            Self::Slow { rest, .. } => rest.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Upstream(body) => body.size_hint(),
            Self::Slow { rest, .. } => SizeHint::with_exact(rest.len() as u64),
        }
    }
}
