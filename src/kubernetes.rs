//! The client of the API server: how it is reached, and the few requests that outputs make.
//!
//! * By a kubeconfig or the pod's service account (`access`), whose files are compared from time to time: when one
//!   has changed, and when the credentials are not known (401), it connects again (`session`).
//! * At most [`REQUESTS_A_SECOND`], whatever the outputs want; a request without an answer is given up after
//!   [`REQUEST_LIMIT`]: `a_request_without_an_answer_is_given_up`. Retries are the callers' plan.
//! * Written is by server-side apply as [`FIELD_MANAGER`], from a body that is overwritten when it was sent; the
//!   answer holds metadata only. No answer is ever logged.

mod access;
mod error;
mod exec_plugin;
#[cfg(test)]
pub(crate) mod fake;
mod object;
pub(crate) mod rbac;
mod session;
mod watch;

use std::{pin::Pin, sync::Arc, time::Duration};

use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Bytes;
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use self::{
    access::Source,
    error::Refusal,
    session::{Link, Session},
};
pub(crate) use self::{
    error::{ApiError, ConnectError, Wanted, rule},
    object::{FieldSet, Meta, ObjectRef, ObjectState, SecretObject},
    watch::{Scope, WatchEvent, watch},
};
use rbac::Right;

pub(crate) const FIELD_MANAGER: &str = "ecr-sidecar";
pub(crate) const REQUESTS_A_SECOND: u64 = 400;
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(15);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// No Secret is larger than 1 MiB, and base64 makes a third more of it; of metadata as many objects are listed at a time
/// as fit.
const ANSWER_LIMIT: usize = 8 << 20;
/// A `Status`: of a longer one only the code counts.
const REFUSAL_LIMIT: usize = 256 << 10;
/// Objects that are listed at a time if they fit, and in all: no cluster has that many namespaces.
const PAGE: u32 = 500;
const LONGEST_LIST: usize = 100_000;
/// Each page may ask for another, also an empty one.
const MOST_PAGES: u32 = 1000;

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";

/// A client of the API server, made when an output first needs it.
#[derive(Clone, Default)]
pub(crate) struct Connection(Arc<OnceCell<Cluster>>);

impl Connection {
    /// The API server. An error may pass: a token or kubeconfig can appear later.
    pub(crate) async fn cluster(&self) -> Result<&Cluster, ConnectError> {
        self.0.get_or_try_init(Cluster::connect).await
    }

    #[cfg(test)]
    pub(crate) fn of(cluster: Cluster) -> Self {
        Self(Arc::new(OnceCell::new_with(Some(cluster))))
    }

    /// One that another output is making, for ever.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        let connection = Self::default();
        let cell = Arc::clone(&connection.0);
        tokio::spawn(async move {
            cell.get_or_init(std::future::pending).await;
        });
        connection
    }
}

#[derive(Clone)]
pub(crate) struct Cluster {
    link: Arc<Link>,
    namespace: String,
}

impl Cluster {
    async fn connect() -> Result<Self, ConnectError> {
        let source = Source::of_process();
        let session = Session::open(&source).await?;
        let connect = move |known: Arc<Session>, reason| {
            let source = source.clone();
            Box::pin(async move { Session::renew(&source, Some(&known), reason).await }) as Pin<Box<_>>
        };
        Ok(Self::of(Link::new(session, Box::new(connect))))
    }

    fn of(link: Link) -> Self {
        Self { namespace: link.namespace(), link: Arc::new(link) }
    }

    /// The pod's own namespace, or the kubeconfig's.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) async fn secret(&self, at: &ObjectRef) -> Result<Option<SecretObject>, ApiError> {
        let request = request(Method::GET, at.path(), JSON, Body::empty());
        match self.ask(request).await {
            Ok(answer) => Ok(Some(decode(&answer)?)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Applies the fields of `body` to a Secret, which is made if there is none. The fields are ours from then on,
    /// and what we applied before and `body` leaves out goes. Fields of another field manager are a conflict, unless
    /// `force`.
    pub(crate) async fn apply(
        &self,
        at: &ObjectRef,
        body: Zeroizing<Vec<u8>>,
        force: bool,
    ) -> Result<Meta, ApiError> {
        let path = format!("{}?fieldManager={FIELD_MANAGER}&force={force}", at.path());
        let body = Body::from(Bytes::from_owner(body));
        let mut request = request(Method::PATCH, path, METADATA, body);
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(APPLY));
        let object: object::Partial<Meta> = decode(&self.ask(request).await?)?;
        Ok(object.metadata)
    }

    /// Deletes a Secret if it still is of this version.
    pub(crate) async fn delete(&self, at: &ObjectRef, version: &str) -> Result<(), ApiError> {
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": version},
        });
        let mut request =
            request(Method::DELETE, at.path(), JSON, Body::from(options.to_string().into_bytes()));
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(JSON));
        self.ask(request).await.map(drop)
    }

    /// Whether we have a right, by a SelfSubjectAccessReview: it changes nothing, and every account may ask.
    pub(crate) async fn may(&self, right: &Right) -> Result<bool, ApiError> {
        #[derive(serde::Deserialize)]
        struct Review {
            status: ReviewStatus,
        }
        #[derive(serde::Deserialize)]
        struct ReviewStatus {
            #[serde(default)]
            allowed: bool,
        }
        let Right { namespace, resource, name, verb } = right;
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes":
                {"namespace": namespace, "verb": verb, "resource": resource, "name": name, "version": "v1"}},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned();
        let mut request = request(Method::POST, path, JSON, Body::from(review.to_string().into_bytes()));
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(JSON));
        let review: Review = decode(&self.ask(request).await?)?;
        Ok(review.status.allowed)
    }

    /// Everything in a scope, and the version from which to watch it.
    pub(crate) async fn list(&self, scope: &Scope) -> Result<(Vec<ObjectState>, String), ApiError> {
        let mut found = Vec::new();
        let mut token = String::new();
        let mut size = PAGE;
        for _ in 0..MOST_PAGES {
            let path = scope.path(&[("limit", &size.to_string()), ("continue", &token)]);
            let answer = self.ask(request(Method::GET, path, METADATA_LIST, Body::empty())).await;
            // Whoever may write to an object decides how long its metadata is; alone each fits.
            if matches!(answer, Err(ApiError::TooLong(_))) && size > 1 {
                size = (size / 8).max(1);
                continue;
            }
            let page: object::Page<ObjectState> = decode(&answer?)?;
            found.extend(page.items.into_iter().map(|item| item.metadata));
            if found.len() > LONGEST_LIST {
                break;
            }
            token = page.metadata.next;
            if token.is_empty() {
                return Ok((found, page.metadata.resource_version));
            }
            size = (size * 2).min(PAGE);
        }
        Err(ApiError::cut(format_args!("a list of more than {LONGEST_LIST} objects or {MOST_PAGES} pages")))
    }

    /// Opens a watch; its body is a line of JSON an event.
    async fn open_watch(
        &self,
        scope: &Scope,
        version: &str,
        lasts: Duration,
    ) -> Result<Response<Body>, ApiError> {
        let seconds = lasts.as_secs().to_string();
        let path = scope.path(&[
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", &seconds),
        ]);
        let response = self.link.send(request(Method::GET, path, METADATA, Body::empty())).await?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    async fn ask(&self, request: Request<Body>) -> Result<Bytes, ApiError> {
        let response = self.link.send(request).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        read(response, ANSWER_LIMIT).await
    }

    async fn refusal(&self, response: Response<Body>) -> ApiError {
        let code = response.status().as_u16();
        // Of one that is too long, or never ends, the code is known.
        let body = read(response, REFUSAL_LIMIT).await.unwrap_or_default();
        ApiError::Refused(Refusal::parse(code, self.link.redact(&body).as_bytes()))
    }
}

fn request(method: Method, path: String, accept: &'static str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    // Names are parsed before they come here, and values are escaped: it is a URI.
    *request.uri_mut() = path.parse().unwrap_or_default();
    request.headers_mut().insert(header::ACCEPT, header::HeaderValue::from_static(accept));
    request
}

async fn read(response: Response<Body>, limit: usize) -> Result<Bytes, ApiError> {
    let body = Limited::new(response.into_body(), limit).collect();
    let collected = tokio::time::timeout(REQUEST_LIMIT, body).await.map_err(|_| ApiError::NoAnswer)?;
    let collected = collected.map_err(|error| match error.is::<LengthLimitError>() {
        true => ApiError::TooLong(limit),
        false => ApiError::cut(error),
    });
    Ok(collected?.to_bytes())
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // Without the error's text, which may quote the body.
    serde_json::from_slice(body)
        .map_err(|error| ApiError::Garbled { line: error.line(), column: error.column() })
}

#[cfg(test)]
mod tests;
