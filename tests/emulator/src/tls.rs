//! Under which certificate does the emulator answer to a name?
//!
//! A certificate authority of its own, made at start, issues one certificate for each name that a client asks for
//! (SNI), and one for `localhost` and the loopback addresses where no name is given.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::locked;

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The authority: accepts TLS, and holds the PEM file that clients are to trust.
pub(crate) struct Authority {
    acceptor: TlsAcceptor,
    pem: PathBuf,
    /// Removed with the authority.
    _folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> io::Result<Self> {
        let issuer = new_issuer().map_err(io::Error::other)?;
        let folder = tempfile::Builder::new().prefix("ecr-emulator-").tempdir()?;
        let pem = folder.path().join("ca.pem");
        write(&pem, issuer.pem().as_bytes())?;
        let certificates = Certificates::new(issuer)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certificates));
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), pem, _folder: folder })
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    pub(crate) fn pem(&self) -> &Path {
        &self.pem
    }
}

/// Writes a file that no reader opens before it is complete.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    std::fs::File::create(path)?.write_all(bytes)
}

fn new_issuer() -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "ecr-emulator test CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

/// The certificates issued so far; all share one key.
struct Certificates {
    issuer: CertifiedIssuer<'static, KeyPair>,
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    issued: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl Certificates {
    fn new(issuer: CertifiedIssuer<'static, KeyPair>) -> io::Result<Self> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = rustls::crypto::ring::sign::any_supported_type(&der).map_err(io::Error::other)?;
        Ok(Self { issuer, key, signing, issued: Mutex::default() })
    }

    fn issue(&self, name: Option<&str>) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        let names: Vec<String> = match name {
            Some(name) => vec![name.to_owned()],
            None => LOOPBACK.map(str::to_owned).to_vec(),
        };
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "ecr-emulator");
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&self.key, &self.issuer)?;
        let chain = vec![certificate.der().clone()];
        Ok(Arc::new(CertifiedKey::new(chain, self.signing.clone())))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        let mut issued = locked(&self.issued);
        if let Some(certificate) = issued.get(name.unwrap_or_default()) {
            return Some(certificate.clone());
        }
        let certificate = self.issue(name).ok()?;
        issued.insert(name.unwrap_or_default().to_owned(), certificate.clone());
        Some(certificate)
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Certificates(..)")
    }
}
