//! The API server: how it is reached, and the few requests that outputs make of it.
//!
//! * `KUBECONFIG` if it is set, else the pod's service account, else `~/.kube/config`. The service account's
//!   token and certificate authority are read anew as kubelet renews them (kube-rs does that).
//! * `HTTPS_PROXY` is meant for AWS: it never captures the API server. The kubeconfig's own `proxy-url` is used.
//! * At most [`REQUESTS_A_SECOND`], whatever the outputs want; a request without an answer is given up after
//!   [`REQUEST_LIMIT`]. Retries are the callers' plan.
//! * Written is by server-side apply as [`FIELD_MANAGER`], from a body that is overwritten when it was sent; the
//!   answer holds metadata only. No answer is ever logged.

mod error;
mod object;
mod watch;

use std::{env, sync::Arc, time::Duration};

use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Bytes;
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
    config::{KubeConfigOptions, Kubeconfig},
    core::Status,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::OnceCell;
use tower::limit::RateLimitLayer;
use zeroize::Zeroizing;

pub use self::{
    error::{ApiError, ConnectError, Wanted, rule},
    object::{FieldSet, Meta, ObjectRef, SecretObject, Sighting},
    watch::{Scope, Seen, follow},
};
use crate::manifests::Right;

/// Our name among those who write to an object.
pub const FIELD_MANAGER: &str = "ecr-sidecar";
/// What the process asks of the API server at most.
pub const REQUESTS_A_SECOND: u64 = 400;
/// An answer that takes longer does not come.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(15);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// No Secret is larger than 1 MiB, and base64 makes a third more of it; a page of metadata is smaller.
const ANSWER_LIMIT: usize = 8 << 20;
/// Objects that are listed at a time.
const PAGE: u32 = 500;

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";

/// The way to the API server, taken when an output first needs it.
#[derive(Clone, Default)]
pub struct Connection(Arc<OnceCell<Cluster>>);

impl Connection {
    /// The API server. An error may pass: a token or kubeconfig can appear later.
    pub async fn cluster(&self) -> Result<&Cluster, ConnectError> {
        self.0.get_or_try_init(Cluster::connect).await
    }
}

/// An API server and who we are there.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    async fn connect() -> Result<Self, ConnectError> {
        let runtime = tokio::runtime::Handle::current();
        // Reads files and may run a plugin of the kubeconfig, which may take its time.
        let connected = tokio::task::spawn_blocking(move || {
            let _context = runtime.enter();
            runtime.block_on(Self::configured())
        });
        connected.await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ConnectError::Stopping),
        })
    }

    async fn configured() -> Result<Self, ConnectError> {
        let is_set = |variable| env::var_os(variable).is_some_and(|value| !value.is_empty());
        let mut config = if !is_set("KUBECONFIG") && is_set("KUBERNETES_SERVICE_HOST") {
            Config::incluster_env().map_err(ConnectError::in_cluster)?
        } else {
            let kubeconfig = Kubeconfig::read().map_err(ConnectError::kubeconfig)?;
            let proxied = names_proxy(&kubeconfig);
            let options = KubeConfigOptions::default();
            let loaded = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            let mut config = loaded.map_err(ConnectError::kubeconfig)?;
            if !proxied {
                config.proxy_url = None;
            }
            config
        };
        if config.cluster_url.scheme_str() != Some("https") {
            return Err(ConnectError::NotHttps(config.cluster_url.to_string()));
        }
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_LIMIT);
        let agent = concat!("ecr-sidecar/", env!("CARGO_PKG_VERSION"));
        config.headers.push((header::USER_AGENT, header::HeaderValue::from_static(agent)));
        let namespace = config.default_namespace.trim().to_owned();
        let limit = RateLimitLayer::new(REQUESTS_A_SECOND, Duration::from_secs(1));
        let builder = ClientBuilder::try_from(config).map_err(ConnectError::client)?;
        Ok(Self { client: builder.with_layer(&limit).build(), namespace })
    }

    /// The pod's own namespace, or the kubeconfig's.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Secret, if there is one.
    pub async fn secret(&self, at: &ObjectRef) -> Result<Option<SecretObject>, ApiError> {
        let request = request(Method::GET, at.path(), JSON, Body::empty());
        match self.ask(request).await {
            Ok(answer) => Ok(Some(decode(&answer)?)),
            Err(ApiError::Refused(status)) if status.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Applies the fields of `body` to a Secret, which is made if there is none. The fields are ours from then on,
    /// and what we applied before and `body` leaves out goes. Fields that are somebody else's are a conflict, unless
    /// `force`.
    pub async fn apply(
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
    pub async fn delete(&self, at: &ObjectRef, version: &str) -> Result<(), ApiError> {
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": version},
        });
        let mut request =
            request(Method::DELETE, at.path(), JSON, Body::from(options.to_string().into_bytes()));
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(JSON));
        self.ask(request).await.map(drop)
    }

    /// Whether we have a right, by a SelfSubjectAccessReview: it changes nothing, and every account may ask.
    pub async fn may(&self, right: &Right) -> Result<bool, ApiError> {
        #[derive(serde::Deserialize)]
        struct Review {
            status: Verdict,
        }
        #[derive(serde::Deserialize)]
        struct Verdict {
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
    async fn list(&self, scope: &Scope) -> Result<(Vec<Sighting>, String), ApiError> {
        let mut found = Vec::new();
        let mut token = String::new();
        loop {
            let path = scope.path(&[("limit", &PAGE.to_string()), ("continue", &token)]);
            let page: object::Page<Sighting> =
                decode(&self.ask(request(Method::GET, path, METADATA_LIST, Body::empty())).await?)?;
            found.extend(page.items.into_iter().map(|item| item.metadata));
            token = page.metadata.next;
            if token.is_empty() {
                return Ok((found, page.metadata.resource_version));
            }
        }
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
        let response = self.send(request(Method::GET, path, METADATA, Body::empty())).await?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await?) }
    }

    async fn ask(&self, request: Request<Body>) -> Result<Bytes, ApiError> {
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await?);
        }
        read(response).await
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, ApiError> {
        let sent = tokio::time::timeout(REQUEST_LIMIT, self.client.send(request));
        sent.await.map_err(|_| ApiError::NoAnswer)?.map_err(|error| ApiError::transport(&error))
    }
}

/// Whether the cluster of the current context says a proxy of its own.
fn names_proxy(kubeconfig: &Kubeconfig) -> bool {
    let current = kubeconfig.contexts.iter().find(|it| Some(&it.name) == kubeconfig.current_context.as_ref());
    let cluster = current.and_then(|it| it.context.as_ref()).map(|context| &context.cluster);
    let cluster = kubeconfig.clusters.iter().find(|it| Some(&it.name) == cluster);
    let proxy = cluster.and_then(|it| it.cluster.as_ref()).and_then(|cluster| cluster.proxy_url.as_ref());
    proxy.is_some_and(|proxy| !proxy.is_empty())
}

fn request(method: Method, path: String, accept: &'static str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    // Names are parsed before they come here, and values are escaped: it is a URI.
    *request.uri_mut() = path.parse().unwrap_or_default();
    request.headers_mut().insert(header::ACCEPT, header::HeaderValue::from_static(accept));
    request
}

async fn read(response: Response<Body>) -> Result<Bytes, ApiError> {
    let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect();
    let collected = tokio::time::timeout(REQUEST_LIMIT, body).await.map_err(|_| ApiError::NoAnswer)?;
    Ok(collected.map_err(|error| ApiError::Cut(error.to_string()))?.to_bytes())
}

async fn refusal(response: Response<Body>) -> Result<ApiError, ApiError> {
    let code = response.status().as_u16();
    let body = read(response).await?;
    // A proxy may answer in its place, with anything.
    let mut status: Status = serde_json::from_slice(&body).unwrap_or_default();
    if status.code == 0 {
        status.code = code;
    }
    Ok(ApiError::Refused(Box::new(status)))
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // Without the error's text, which may quote the body.
    serde_json::from_slice(body)
        .map_err(|error| ApiError::Garbled { line: error.line(), column: error.column() })
}
