//! Where the API server is and as whom it is asked: everything read, nothing left to a library to read later.
//!
//! * `KUBECONFIG` if it is set (several files are merged as kubectl merges them), else the pod's service account, else
//!   `~/.kube/config`. What kubectl takes of it is taken, or named as unsupported: `what_kubectl_takes_is_taken_or_named`.
//! * Files pass the one reader: a FIFO, a huge or a hung file is an error, and blocks nothing
//!   (`a_file_that_is_none_is_named`).
//! * `HTTPS_PROXY` is meant for AWS: it never captures the API server. The kubeconfig's own `proxy-url` is used.

use std::{
    env,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Uri;
use kube::config::{AuthInfo, Cluster, Config, ExecAuthCluster, ExecConfig, Kubeconfig};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{ConnectError, exec_plugin::Issued};
use crate::{
    failure::{foreign_text::clean, shown_value::clean_path},
    fs::read::{ReadError, as_text, read},
};

/// Where a pod has its service account: fixed in every client.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const FILE_LIMIT: usize = 1 << 20;
/// The provider of `auth-provider` that kubectl still has; the rest became plugins.
const OIDC: &str = "oidc";

/// Of several kubeconfigs the first wins.
#[derive(Debug, Clone)]
pub(super) enum Source {
    ServiceAccount { folder: PathBuf, host: String, port: String },
    Kubeconfig(Vec<PathBuf>),
}

pub(super) struct Access {
    config: Config,
    /// A program that issues the credentials, and what is passed to it of the cluster.
    pub(super) plugin: Option<(ExecConfig, Option<ExecAuthCluster>)>,
    /// Of all that was read: another one means that something changed.
    pub(super) digest: [u8; 32],
}

impl Source {
    pub(super) fn of_process() -> Self {
        let value = |name| env::var_os(name).filter(|value| !value.is_empty());
        let text = |name| value(name).map(|value| value.to_string_lossy().into_owned());
        if let Some(listed) = value("KUBECONFIG") {
            return Self::Kubeconfig(
                env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect(),
            );
        }
        if let Some(host) = text("KUBERNETES_SERVICE_HOST") {
            let port = text("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".into());
            return Self::ServiceAccount { folder: SERVICE_ACCOUNT.into(), host, port };
        }
        let home = value("HOME").map(PathBuf::from).unwrap_or_default();
        Self::Kubeconfig(vec![home.join(".kube/config")])
    }

    pub(super) async fn read(&self) -> Result<Access, ConnectError> {
        match self {
            Self::ServiceAccount { folder, host, port } => of_service_account(folder, host, port).await,
            Self::Kubeconfig(paths) => of_kubeconfig(paths).await,
        }
    }
}

impl Access {
    /// The settings of a client; with the credentials that the plugin has issued, if there is one.
    pub(super) fn config(self, issued: Option<Issued>) -> Config {
        let mut config = self.config;
        if let Some(issued) = issued {
            let Issued { token, certificate, .. } = issued;
            config.auth_info.token = token.map(|token| token.to_string().into());
            if let Some((certificate, key)) = certificate {
                config.auth_info.client_certificate_data = Some(STANDARD.encode(&*certificate));
                config.auth_info.client_key_data = Some(STANDARD.encode(&*key).into());
            }
        }
        config
    }
}

#[derive(Default)]
struct Reader(Sha256);

impl Reader {
    async fn read(&mut self, path: &Path) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        let content = read(path, FILE_LIMIT).await?;
        self.0.update(content.len().to_le_bytes());
        self.0.update(&*content);
        Ok(content)
    }

    async fn token(&mut self, path: &Path) -> Result<Zeroizing<String>, ReadError> {
        let text = as_text(&self.read(path).await?)?;
        Ok(Zeroizing::new(text.trim().to_owned()))
    }

    fn digest(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

async fn of_service_account(folder: &Path, host: &str, port: &str) -> Result<Access, ConnectError> {
    let mut reader = Reader::default();
    let file = |name: &str| folder.join(name);
    let failed = |name: &str| {
        let path = file(name);
        move |error: ReadError| ConnectError::InCluster(format!("cannot read {}: {error}", path.display()))
    };
    let token = reader.token(&file("token")).await.map_err(failed("token"))?;
    let authority = reader.read(&file("ca.crt")).await.map_err(failed("ca.crt"))?;
    let namespace = reader.token(&file("namespace")).await.map_err(failed("namespace"))?;
    for (name, text) in [("token", &token), ("namespace", &namespace)] {
        if text.is_empty() {
            return Err(ConnectError::InCluster(format!("{} is empty", file(name).display())));
        }
    }
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let url = format!("https://{bracketed}:{port}");
    let url: Uri = url.parse().map_err(|_| {
        ConnectError::InCluster("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT make no URL".into())
    })?;
    let mut config = Config::new(url);
    config.default_namespace = namespace.to_string();
    config.root_cert = Some(certificates(&authority).ok_or_else(|| {
        ConnectError::InCluster(format!("{} holds no certificate", file("ca.crt").display()))
    })?);
    config.auth_info.token = Some(token.to_string().into());
    Ok(Access { config, plugin: None, digest: reader.digest() })
}

async fn of_kubeconfig(paths: &[PathBuf]) -> Result<Access, ConnectError> {
    let mut reader = Reader::default();
    let merged = merged(&mut reader, paths).await?;
    let selected = Selected::of(merged)?;
    selected.check()?;
    let Selected { cluster, mut user, namespace } = selected;
    let authority = authority(&mut reader, &cluster).await?;
    let url = url_of(&cluster)?;
    let mut config = Config::new(url);
    config.default_namespace = namespace;
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify == Some(true);
    config.tls_server_name = cluster.tls_server_name.clone().filter(|name| !name.is_empty());
    config.proxy_url = proxy_of(&cluster)?;
    let no_certificate = || ConnectError::key("certificate-authority", "holds no certificate");
    let roots = authority.as_ref().map(|pem| certificates(pem).ok_or_else(no_certificate));
    config.root_cert = roots.transpose()?;
    let plugin = user.exec.take().map(|plugin| {
        let cluster = plugin.provide_cluster_info.then(|| {
            let authority = authority.as_ref().map(|pem| STANDARD.encode(&**pem));
            let inline =
                Cluster { certificate_authority: None, certificate_authority_data: authority, ..cluster };
            ExecAuthCluster::try_from(&inline).unwrap_or_default()
        });
        (plugin, cluster)
    });
    inline(&mut reader, &mut user).await?;
    config.auth_info = user;
    Ok(Access { config, plugin, digest: reader.digest() })
}

async fn merged(reader: &mut Reader, paths: &[PathBuf]) -> Result<Kubeconfig, ConnectError> {
    let mut merged: Option<Kubeconfig> = None;
    let mut missing = Vec::new();
    for path in paths {
        let unusable = |reason: &dyn std::fmt::Display| {
            ConnectError::Kubeconfig(format!("{}: {}", clean_path(path), clean(&reason.to_string())))
        };
        let content = match reader.read(path).await {
            Ok(content) => content,
            Err(error) if error.is_not_found() => {
                missing.push(clean_path(path));
                continue;
            }
            Err(error) => return Err(unusable(&error)),
        };
        let text = as_text(&content).map_err(|error| unusable(&error))?;
        // Without the parser's text, which may quote a token.
        let parsed = Kubeconfig::from_yaml(&text);
        let mut one = parsed.map_err(|_| unusable(&"it is not the YAML of a kubeconfig"))?;
        resolve_paths(&mut one, path.parent().unwrap_or(Path::new("")));
        merged = Some(match merged {
            Some(before) => before.merge(one).map_err(|error| unusable(&error))?,
            None => one,
        });
    }
    merged.ok_or_else(|| ConnectError::Kubeconfig(format!("there is no file {}", missing.join(", "))))
}

/// Paths are relative to the file that names them; a command only if it has a separator.
fn resolve_paths(kubeconfig: &mut Kubeconfig, folder: &Path) {
    let resolve = |path: &mut Option<String>| {
        if let Some(path) = path.as_mut().filter(|path| !path.is_empty()) {
            *path = folder.join(&*path).to_string_lossy().into_owned();
        }
    };
    for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        resolve(&mut cluster.certificate_authority);
    }
    for user in kubeconfig.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        resolve(&mut user.client_certificate);
        resolve(&mut user.client_key);
        resolve(&mut user.token_file);
        if let Some(plugin) = user.exec.as_mut().filter(|it| it.command.iter().any(|it| it.contains('/'))) {
            resolve(&mut plugin.command);
        }
    }
}

struct Selected {
    cluster: Cluster,
    user: AuthInfo,
    namespace: String,
}

impl Selected {
    fn of(kubeconfig: Kubeconfig) -> Result<Self, ConnectError> {
        let unusable = |reason: String| ConnectError::Kubeconfig(clean(&reason));
        let name = kubeconfig.current_context.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| unusable("current-context is not set".into()))?;
        let context = kubeconfig.contexts.into_iter().find(|it| it.name == name).and_then(|it| it.context);
        let context = context.ok_or_else(|| unusable(format!("there is no context {name}")))?;
        let cluster = kubeconfig.clusters.into_iter().find(|it| it.name == context.cluster);
        let cluster = cluster.and_then(|it| it.cluster);
        let cluster = cluster.ok_or_else(|| unusable(format!("there is no cluster {}", context.cluster)))?;
        // As kubectl has it, one without a user is anonymous.
        let user = kubeconfig.auth_infos.into_iter().find(|it| Some(&it.name) == context.user.as_ref());
        let namespace = context.namespace.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        Ok(Self {
            cluster,
            user: user.and_then(|it| it.auth_info).unwrap_or_default(),
            namespace: namespace.unwrap_or_else(|| "default".into()),
        })
    }

    fn check(&self) -> Result<(), ConnectError> {
        let Some(provider) = &self.user.auth_provider else { return Ok(()) };
        if provider.name == OIDC && provider.config.contains_key("id-token") {
            return Ok(());
        }
        let reason = "is not supported, but for oidc with an id-token: use an exec plugin";
        Err(ConnectError::key("auth-provider", reason))
    }
}

fn url_of(cluster: &Cluster) -> Result<Uri, ConnectError> {
    let server = cluster.server.as_deref().map(str::trim).filter(|server| !server.is_empty());
    let server = server.ok_or(ConnectError::key("server", "is not set"))?;
    let url: Uri = server.parse().map_err(|_| ConnectError::key("server", "is not a URL"))?;
    // It may hold a user's password: no more than the host is shown.
    match (url.scheme_str(), url.host()) {
        (Some("https"), Some(_)) => Ok(url),
        (_, host) => Err(ConnectError::NotHttps(clean(host.unwrap_or("(no host)")))),
    }
}

fn proxy_of(cluster: &Cluster) -> Result<Option<Uri>, ConnectError> {
    let Some(proxy) = cluster.proxy_url.as_deref().map(str::trim).filter(|proxy| !proxy.is_empty()) else {
        return Ok(None);
    };
    let url: Uri = proxy.parse().map_err(|_| ConnectError::key("proxy-url", "is not a URL"))?;
    match url.scheme_str() {
        Some("http" | "https") => Ok(Some(url)),
        _ => Err(ConnectError::key("proxy-url", "is not supported, but for http:// and https://")),
    }
}

async fn authority(
    reader: &mut Reader,
    cluster: &Cluster,
) -> Result<Option<Zeroizing<Vec<u8>>>, ConnectError> {
    let data = cluster.certificate_authority_data.as_deref().filter(|data| !data.is_empty());
    let file = cluster.certificate_authority.as_deref().filter(|path| !path.is_empty());
    match (data, file) {
        (Some(data), _) => {
            let decoded = STANDARD.decode(data.trim());
            let decoded =
                decoded.map_err(|_| ConnectError::key("certificate-authority-data", "is not base64"))?;
            Ok(Some(Zeroizing::new(decoded)))
        }
        (None, Some(file)) => Ok(Some(of_file(reader, "certificate-authority", file).await?)),
        (None, None) => Ok(None),
    }
}

/// Puts the contents in place of the files.
async fn inline(reader: &mut Reader, user: &mut AuthInfo) -> Result<(), ConnectError> {
    let path = |path: Option<String>| path.filter(|path| !path.is_empty());
    if let Some(file) = path(user.token_file.take()) {
        let read = reader.token(Path::new(&file)).await;
        match read {
            Ok(token) if !token.is_empty() => user.token = Some(token.to_string().into()),
            // As with kubectl: the token is what the file held first.
            Ok(_) | Err(_) if user.token.is_some() => {}
            Ok(_) => return Err(ConnectError::key("tokenFile", &format!("{file}: it is empty"))),
            Err(error) => return Err(ConnectError::key("tokenFile", &format!("{file}: {error}"))),
        }
    }
    if let Some(mut provider) = user.auth_provider.take() {
        user.token = provider.config.remove("id-token").map(Into::into);
    }
    if let Some(file) = path(user.client_certificate.take()) {
        let certificate = of_file(reader, "client-certificate", &file).await?;
        user.client_certificate_data.get_or_insert_with(|| STANDARD.encode(&*certificate));
    }
    if let Some(file) = path(user.client_key.take()) {
        let key = of_file(reader, "client-key", &file).await?;
        user.client_key_data.get_or_insert_with(|| STANDARD.encode(&*key).into());
    }
    Ok(())
}

async fn of_file(
    reader: &mut Reader,
    key: &'static str,
    path: &str,
) -> Result<Zeroizing<Vec<u8>>, ConnectError> {
    let content = reader.read(Path::new(path)).await;
    content.map_err(|error| ConnectError::key(key, &format!("{path}: {error}")))
}

/// The certificates of a PEM bundle; `None` when there is none, or one that does not parse.
fn certificates(pem: &[u8]) -> Option<Vec<Vec<u8>>> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates: Vec<_> = parsed.ok()?.into_iter().map(|it| it.to_vec()).collect();
    (!certificates.is_empty()).then_some(certificates)
}

#[cfg(test)]
mod tests;
