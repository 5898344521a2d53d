//! The one HTTP client for AWS.
//!
//! What the SDK's own client does not do, and why this exists:
//! * TLS is set up at the first `https` request, and trust comes from one bundle: the SDK's default opens every file of
//!   the certificate directory, some 150, at each start. The bundle is read like every file from outside, so one that hangs
//!   fails the requests and nothing else; and again when a certificate is not trusted, since it may have been renewed
//!   (`a_bundle_that_changes_is_read_again_when_a_certificate_is_not_trusted`).
//! * A certificate that does not parse is left out, with a warning; it would panic the SDK's client.
//! * `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are followed as [`proxy`] parses them, except for loopback
//!   and link-local addresses: the EKS Pod Identity agent and the instance metadata service are never behind a proxy.
//! * An answer of more than [`ANSWER_LIMIT`] is an error, not memory.

mod get;
mod proxy;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
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
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

pub use self::{
    get::{Answer, ask, get},
    proxy::Proxies,
};
use crate::{
    aws::variables::InvalidSetting,
    env::Environment,
    failure::{chain, classify_transport, diagnosis::Diagnosis, shown_value::clean_path},
    fs::read::{ReadError, read},
    tasks,
};

/// The most that is read of one answer. A token takes some 3 kB.
pub const ANSWER_LIMIT: usize = 1 << 20;

/// The largest bundle. That of Mozilla has some 220 kB.
const BUNDLE_LIMIT: usize = 4 << 20;

/// Where distributions keep the bundle of certificate authorities: Debian and Alpine, Fedora and RHEL,
/// openSUSE, Alpine's and BSD's alias.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The HTTP client for everything that speaks to AWS. With proxies that are invalid, which the configuration reports,
/// every request fails: none is sent past them.
pub fn client(env: &Environment) -> SharedHttpClient {
    let bundle = ["AWS_CA_BUNDLE", "SSL_CERT_FILE"]
        .into_iter()
        .find_map(|variable| Some((variable, PathBuf::from(env.get(variable)?))));
    let proxies = Proxies::of(env);
    let configs = proxies.as_ref().map_or_else(|_| Proxies::default().routes(), Proxies::routes);
    SharedHttpClient::new(Client(Arc::new(Transports {
        plain: configs.clone().map(|proxy| client_of(proxy, None)),
        configs,
        proxies,
        bundle,
        tls: Mutex::default(),
        is_doubtful: AtomicBool::new(false),
    })))
}

#[derive(Clone, Copy)]
enum Route {
    Direct,
    HttpProxy,
    HttpsProxy,
}

/// Plain and TLS clients, each by [`Route`].
struct Transports {
    plain: Clients,
    configs: [ProxyConfig; 3],
    proxies: Result<Proxies, Vec<InvalidSetting>>,
    bundle: Option<(&'static str, PathBuf)>,
    tls: Mutex<Option<Tls>>,
    /// A certificate was not trusted since the bundle was read.
    is_doubtful: AtomicBool,
}

type Clients = [SharedHttpClient; 3];

struct Tls {
    clients: Clients,
    bundle: [u8; 32],
}

/// A proxy's URL may hold a password.
impl std::fmt::Debug for Transports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transports(..)")
    }
}

impl Transports {
    async fn pick(&self, request: &HttpRequest) -> Result<SharedHttpClient, TransportError> {
        let uri: http::Uri = request.uri().parse().unwrap_or_default();
        let is_https = uri.scheme_str() == Some("https");
        let proxies = self.proxies.as_ref().map_err(|invalid| TransportError::of(invalid))?;
        let proxy = if uri.host().is_some_and(is_local) { None } else { proxies.serving(&uri) };
        let route = match proxy {
            None => Route::Direct,
            Some(_) if is_https => Route::HttpsProxy,
            Some(_) => Route::HttpProxy,
        };
        if !is_https && !proxy.is_some_and(|proxy| proxy.speaks_tls) {
            return Ok(self.plain[route as usize].clone());
        }
        let mut tls = self.tls.lock().await;
        if tls.is_none() || self.is_doubtful.swap(false, Ordering::Relaxed) {
            match self.renewed(tls.as_ref()).await {
                Ok(Some(renewed)) => *tls = Some(renewed),
                Ok(None) => {}
                Err(_) if tls.is_some() => {} // what was trusted stays so
                Err(error) => return Err(error),
            }
        }
        let tls = tls.as_ref().ok_or(TransportError::NoBundle)?;
        Ok(tls.clients[route as usize].clone())
    }

    /// By the bundle as it is now; `None` where that is the `known` one.
    async fn renewed(&self, known: Option<&Tls>) -> Result<Option<Tls>, TransportError> {
        let (path, pem) = read_bundle(self.bundle.as_ref()).await?;
        let bundle = Sha256::digest(&pem).into();
        if known.is_some_and(|known| known.bundle == bundle) {
            return Ok(None);
        }
        // A large bundle takes its time.
        let usable = tasks::blocking(move || usable_certificates(&pem)).await;
        if usable.is_empty() {
            return Err(TransportError::EmptyBundle(path));
        }
        let trust = TrustStore::empty().with_pem_certificate(usable);
        let context = TlsContext::builder()
            .with_trust_store(trust)
            .build()
            .map_err(|_| TransportError::EmptyBundle(path))?;
        let context = Arc::new(context);
        let clients = self.configs.clone().map(|proxy| client_of(proxy, Some(Arc::clone(&context))));
        Ok(Some(Tls { clients, bundle }))
    }
}

/// The TLS context holds the whole bundle: it is shared, and copied for a connection's builder only.
fn client_of(proxy: ProxyConfig, tls: Option<Arc<TlsContext>>) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder().proxy_config(proxy.clone());
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        let Some(tls) = &tls else { return builder.build_http() };
        builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(TlsContext::clone(tls)).build()
    })
}

fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    match address {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.segments()[..2] == [0xfd00, 0x0ec2],
        Err(_) => host == "localhost",
    }
}

#[derive(Debug, thiserror::Error)]
enum TransportError {
    #[error("no bundle of certificate authorities found (tried {})", BUNDLES.join(", "))]
    NoBundle,
    #[error("cannot read the CA bundle {} that {variable} names: {source}", clean_path(path))]
    Unreadable { variable: &'static str, path: PathBuf, source: ReadError },
    #[error("the CA bundle {} holds no usable certificate", clean_path(.0))]
    EmptyBundle(PathBuf),
    #[error("the proxy cannot be used: {0}")]
    Proxy(InvalidSetting),
}

impl TransportError {
    fn of(invalid: &[InvalidSetting]) -> Self {
        invalid.first().map_or(Self::NoBundle, |invalid| Self::Proxy(invalid.clone()))
    }
}

async fn read_bundle(named: Option<&(&'static str, PathBuf)>) -> Result<(PathBuf, Vec<u8>), TransportError> {
    if let Some((variable, path)) = named {
        return match read(path, BUNDLE_LIMIT).await {
            Ok(mut pem) => Ok((path.clone(), std::mem::take(&mut *pem))),
            Err(source) => Err(TransportError::Unreadable { variable, path: path.clone(), source }),
        };
    }
    for path in BUNDLES.map(Path::new) {
        if let Ok(mut pem) = read(path, BUNDLE_LIMIT).await {
            return Ok((path.to_owned(), std::mem::take(&mut *pem)));
        }
    }
    Err(TransportError::NoBundle)
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
        let (diagnosis, remedy) =
            (Diagnosis::CaBundleIncomplete.id(), Diagnosis::CaBundleIncomplete.remedy());
        tracing::warn!(
            left_out,
            diagnosis,
            remedy,
            "certificates of the CA bundle do not parse and are left out"
        );
    }
    usable
}

#[derive(Debug, Clone)]
struct Client(Arc<Transports>);

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
#[derive(Debug, Clone)]
struct ByScheme {
    transports: Arc<Transports>,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for ByScheme {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { transports, settings, components } = self.clone();
        HttpConnectorFuture::new(async move {
            let client =
                transports.pick(&request).await.map_err(|error| ConnectorError::user(error.into()))?;
            let answer = client.http_connector(&settings, &components).call(request).await;
            if answer.as_ref().is_err_and(|error| classify_transport(&chain(error)) == Diagnosis::UnknownCa) {
                transports.is_doubtful.store(true, Ordering::Relaxed);
            }
            answer.map(limited)
        })
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
