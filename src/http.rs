//! The one HTTP client for AWS.
//!
//! What the SDK's own client does not do, and why this exists:
//! * TLS is set up at the first `https` request, and trust comes from one bundle, read once: the SDK's
//!   default opens every file of the certificate directory, some 150, at each start.
//! * A certificate that does not parse is left out, with a warning; it would panic the SDK's client.
//! * `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are followed, except for loopback and link-local addresses:
//!   the EKS Pod Identity agent and the instance metadata service are never behind a proxy.
//! * An answer of more than [`ANSWER_LIMIT`] is an error, not memory.

mod get;

use std::{
    io,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use aws_smithy_http_client::{
    Builder, Connector,
    proxy::ProxyConfig,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject};

pub use self::get::{Answer, get};
use crate::config::env::Environment;

/// The most that is read of one answer. A token takes some 3 kB.
pub const ANSWER_LIMIT: usize = 1 << 20;

/// Where distributions keep the bundle of certificate authorities: Debian and Alpine, Fedora and RHEL,
/// openSUSE, Alpine's and BSD's alias.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The HTTP client for everything that speaks to AWS.
pub fn client(env: &Environment) -> SharedHttpClient {
    let named = ["AWS_CA_BUNDLE", "SSL_CERT_FILE"]
        .into_iter()
        .find_map(|variable| Some((variable, PathBuf::from(env.get(variable)?))));
    SharedHttpClient::new(Client(Arc::new(Transports {
        plain: [false, true].map(plain_client),
        bundle: named,
        tls: Mutex::default(),
    })))
}

/// Plain and TLS clients, each without and with the proxy of the environment.
struct Transports {
    plain: [SharedHttpClient; 2],
    bundle: Option<(&'static str, PathBuf)>,
    tls: Mutex<Option<[SharedHttpClient; 2]>>,
}

impl Transports {
    fn pick(&self, request: &HttpRequest) -> Result<SharedHttpClient, TrustError> {
        let uri: http::Uri = request.uri().parse().unwrap_or_default();
        let proxied = usize::from(!uri.host().is_some_and(is_local));
        if uri.scheme_str() != Some("https") {
            return Ok(self.plain[proxied].clone());
        }
        let mut tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        let clients = match tls.take() {
            Some(clients) => clients,
            None => self.tls_clients()?,
        };
        let client = clients[proxied].clone();
        *tls = Some(clients);
        Ok(client)
    }

    fn tls_clients(&self) -> Result<[SharedHttpClient; 2], TrustError> {
        let trust = TrustStore::empty().with_pem_certificate(read_bundle(self.bundle.as_ref())?);
        let context = TlsContext::builder()
            .with_trust_store(trust)
            .build()
            .map_err(|_| TrustError::Empty("bundle".into()))?;
        Ok([false, true].map(|proxied| tls_client(proxied, context.clone())))
    }
}

fn plain_client(proxied: bool) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder().proxy_config(proxy(proxied));
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        builder.build_http()
    })
}

fn tls_client(proxied: bool, context: TlsContext) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder()
            .proxy_config(proxy(proxied))
            .tls_provider(Provider::Rustls(CryptoMode::Ring));
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        builder.tls_context(context.clone()).build()
    })
}

fn proxy(proxied: bool) -> ProxyConfig {
    if proxied { ProxyConfig::from_env() } else { ProxyConfig::disabled() }
}

/// Loopback and link-local: never behind a proxy.
fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    match address {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.segments()[..2] == [0xfd00, 0x0ec2],
        Err(_) => host == "localhost",
    }
}

/// Why no certificate authority is trusted.
#[derive(Debug, thiserror::Error)]
enum TrustError {
    #[error("no bundle of certificate authorities found (looked at {})", BUNDLES.join(", "))]
    NotFound,
    #[error("cannot read the CA bundle {path} that {variable} names")]
    Unreadable { variable: &'static str, path: PathBuf, source: io::Error },
    #[error("the CA bundle {0} holds no usable certificate")]
    Empty(String),
}

/// The usable certificates of the bundle, as PEM.
fn read_bundle(named: Option<&(&'static str, PathBuf)>) -> Result<Vec<u8>, TrustError> {
    let (path, pem) = match named {
        Some((variable, path)) => match std::fs::read(path) {
            Ok(pem) => (path.display().to_string(), pem),
            Err(source) => return Err(TrustError::Unreadable { variable, path: path.clone(), source }),
        },
        None => BUNDLES
            .into_iter()
            .find_map(|path| Some((path.to_owned(), std::fs::read(path).ok()?)))
            .ok_or(TrustError::NotFound)?,
    };
    let usable = usable_certificates(&pem);
    if usable.is_empty() { Err(TrustError::Empty(path)) } else { Ok(usable) }
}

fn usable_certificates(pem: &[u8]) -> Vec<u8> {
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let mut usable = Vec::with_capacity(pem.len());
    let mut rest = pem;
    let mut left_out = 0;
    while let Some(end) = rest.windows(END.len()).position(|window| window == END) {
        let (block, next) = rest.split_at(end + END.len());
        let parsed = CertificateDer::from_pem_slice(block);
        if parsed.is_ok_and(|certificate| RootCertStore::empty().add(certificate).is_ok()) {
            usable.extend_from_slice(block);
            usable.push(b'\n');
        } else {
            left_out += 1;
        }
        rest = next;
    }
    if left_out > 0 {
        tracing::warn!(left_out, "certificates of the CA bundle do not parse and are left out");
    }
    usable
}

#[derive(Clone)]
struct Client(Arc<Transports>);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("http::Client")
    }
}

impl HttpClient for Client {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(ByScheme {
            transports: Arc::clone(&self.0),
            settings: settings.clone(),
            components: components.clone(),
        })
    }
}

/// Picks the transport when the request is known.
struct ByScheme {
    transports: Arc<Transports>,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl std::fmt::Debug for ByScheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("http::ByScheme")
    }
}

impl HttpConnector for ByScheme {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = match self.transports.pick(&request) {
            Ok(client) => client.http_connector(&self.settings, &self.components),
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        HttpConnectorFuture::new(async move { connector.call(request).await.map(limited) })
    }
}

fn limited(response: HttpResponse) -> HttpResponse {
    response.map(|body| SdkBody::from_body_1_x(Limited::new(body, ANSWER_LIMIT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_local_is_not_proxied() {
        for host in ["127.0.0.1", "localhost", "169.254.170.23", "169.254.169.254", "[fd00:ec2::23]", "[::1]"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in ["10.0.0.1", "api.ecr.eu-west-1.amazonaws.com", "[2600::1]", "localhost.example"] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn a_broken_certificate_is_left_out() {
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\ngarbage";
        assert!(usable_certificates(broken).is_empty());
    }
}
