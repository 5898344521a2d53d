//! One GET or HEAD by the client for AWS: no retries, no signature.

use std::convert::Infallible;

use aws_config::SdkConfig;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::{
    orchestrator::{HttpRequest, HttpResponse},
    result::SdkError,
};

use crate::secret::Secret;

pub struct Answer {
    pub status: u16,
    /// `WWW-Authenticate`, if it is text.
    pub challenge: Option<String>,
    /// The body, of at most [`ANSWER_LIMIT`](super::ANSWER_LIMIT).
    pub body: Vec<u8>,
}

/// The body may be a secret.
impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Asks `url`, with `authorization` as the header of that name, through the HTTP client of `sdk`.
///
/// It has no time limit of its own. Redirects are not followed, so the header goes nowhere else.
pub async fn get(
    sdk: &SdkConfig,
    url: &str,
    authorization: Option<Secret<String>>,
) -> Result<Answer, SdkError<Infallible, HttpResponse>> {
    let headers = authorization.map(|value| ("authorization", value)).into_iter().collect();
    ask(sdk, "GET", url, headers).await
}

/// [`get`] with any method without a body and any headers.
pub async fn ask(
    sdk: &SdkConfig,
    method: &'static str,
    url: &str,
    headers: Vec<(&'static str, Secret<String>)>,
) -> Result<Answer, SdkError<Infallible, HttpResponse>> {
    // The SDK puts the request's path behind the endpoint's: each is given its part.
    let uri: http::Uri = url.parse().map_err(SdkError::construction_failure)?;
    let endpoint = format!(
        "{}://{}",
        uri.scheme_str().unwrap_or("http"),
        uri.authority().map(http::uri::Authority::as_str).unwrap_or_default()
    );
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let mut operation = Operation::builder()
        .service_name("Get")
        .operation_name("Get")
        .no_auth()
        .no_retry()
        .with_connection_poisoning()
        .endpoint_url(&endpoint)
        .serializer(move |(): ()| {
            let mut request = HttpRequest::get(&path)?;
            request.set_method(method)?;
            for (name, value) in &headers {
                request.headers_mut().try_insert(*name, value.expose().clone())?;
            }
            Ok(request)
        })
        .deserializer::<_, Infallible>(|response| {
            let status = response.status().as_u16();
            let challenge = response.headers().get("www-authenticate").map(str::to_owned);
            let body = response.body().bytes().unwrap_or_default().to_vec();
            Ok(Answer { status, challenge, body })
        });
    if let Some(client) = sdk.http_client() {
        operation = operation.http_client(client);
    }
    operation.build().invoke(()).await
}
