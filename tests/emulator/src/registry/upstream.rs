//! How is an admitted request handed on to a real registry?
//!
//! Bodies stream both ways. The credential stays here; `Location` comes back as a path, so that the client's next
//! request passes by the token check again. Only registries on this machine are accepted.

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, LOCATION, TRANSFER_ENCODING};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::fault::Service;
use crate::hosts::without_port;
use crate::reply::{Body, Failure, Reply};

/// A registry on this machine.
#[derive(Clone)]
pub(crate) struct Upstream {
    authority: Authority,
    client: Client<HttpConnector, Incoming>,
}

impl Upstream {
    /// Takes `http://HOST:PORT`, where HOST is a loopback address or `localhost`.
    pub(crate) fn new(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let authority = uri.authority().ok_or_else(|| format!("{url} names no host"))?.clone();
        let name = without_port(authority.as_str());
        let loopback = name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if uri.scheme() != Some(&Scheme::HTTP) || !(loopback || name == "localhost") {
            return Err(format!("{url} isn't an http:// address on this machine"));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Ok(Self { authority, client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    pub(crate) async fn forward(&self, request: Request<Incoming>) -> Reply {
        match self.client.request(self.addressed(request)).await {
            Ok(response) => {
                let (mut parts, body) = response.into_parts();
                if let Some(path) = parts.headers.get(LOCATION).and_then(relative) {
                    parts.headers.insert(LOCATION, path);
                }
                parts.headers.remove(CONNECTION);
                parts.headers.remove(TRANSFER_ENCODING); // hyper frames the body again
                Reply::from_parts(parts, Body::Upstream(body))
            }
            Err(error) => {
                Failure::new(502, "UNKNOWN", format!("{}: {error}", self.authority)).reply(Service::Registry)
            }
        }
    }

    fn addressed(&self, request: Request<Incoming>) -> Request<Incoming> {
        let (mut parts, body) = request.into_parts();
        let mut uri = parts.uri.into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.authority.clone());
        // All three parts are there, since a request always has a path; the default can't be reached.
        parts.uri = Uri::from_parts(uri).unwrap_or_default();
        for header in [AUTHORIZATION, CONNECTION, HOST] {
            parts.headers.remove(header);
        }
        Request::from_parts(parts, body)
    }
}

/// `http://host/path?query` as `/path?query`.
fn relative(location: &HeaderValue) -> Option<HeaderValue> {
    let uri: Uri = location.to_str().ok()?.parse().ok()?;
    HeaderValue::from_str(uri.path_and_query()?.as_str()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_registries_on_this_machine_are_accepted() {
        for good in ["http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000"] {
            assert!(Upstream::new(good).is_ok(), "{good}");
        }
        for bad in
            ["https://127.0.0.1:5000", "http://registry.example", "127.0.0.1:5000", "http://10.0.0.1", ""]
        {
            assert!(Upstream::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn locations_become_paths() {
        let location = HeaderValue::from_static("http://127.0.0.1:5000/v2/a/blobs/uploads/1?_state=x");
        assert_eq!(relative(&location).unwrap(), "/v2/a/blobs/uploads/1?_state=x");
    }
}
