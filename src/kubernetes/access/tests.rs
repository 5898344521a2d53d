use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

/// A certificate authority in form only, in PEM.
const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const CANARY: &str = "c4n4ry-t0ken";

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.put("ca.crt", AUTHORITY);
        place.put("token", CANARY);
        place.put("empty", "\n");
        place
    }

    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A kubeconfig with one context, and these keys of its cluster and user.
    fn kubeconfig(&self, name: &str, cluster: &str, user: &str) -> PathBuf {
        self.put(
            name,
            &format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{{name: a, cluster: {{{cluster}}}}}]\n\
                 contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\nusers: [{{name: a, user: {{{user}}}}}]\n"
            ),
        )
    }
}

async fn config(paths: &[PathBuf]) -> Result<Config, String> {
    let access = Source::Kubeconfig(paths.to_vec()).read().await.map_err(|error| error.to_string())?;
    Ok(access.config(None))
}

#[tokio::test]
async fn what_kubectl_takes_is_taken_or_named() {
    let place = Place::new();
    let server = "server: 'https://10.0.0.1:6443'";
    let certificate = "client-certificate: ca.crt, client-key: ca.crt"; // relative to the file
    for (cluster, user) in [
        (format!("{server}, certificate-authority: ca.crt"), "tokenFile: token"),
        (format!("{server}, certificate-authority-data: {}", STANDARD.encode(AUTHORITY)), "token: t"),
        (format!("{server}, tls-server-name: kubernetes.default"), certificate),
        (
            format!("{server}, insecure-skip-tls-verify: true"),
            "client-certificate-data: eA==, client-key-data: eA==",
        ),
        (format!("{server}, proxy-url: 'http://127.0.0.1:3128'"), "username: u, password: p"),
        (server.to_owned(), "token: t, as: someone, as-groups: [g]"),
        (server.to_owned(), "auth-provider: {name: oidc, config: {id-token: t}}"),
        (server.to_owned(), "exec: {command: aws, apiVersion: client.authentication.k8s.io/v1}"),
        (server.to_owned(), "token: t, tokenFile: missing"),
    ] {
        let path = place.kubeconfig("config", &cluster, user);
        let config = config(&[path]).await.unwrap();
        assert_eq!(config.cluster_url.host(), Some("10.0.0.1"));
        // Nothing is left to be read by the client.
        let auth = &config.auth_info;
        assert!(auth.token_file.is_none() && auth.client_certificate.is_none() && auth.client_key.is_none());
        assert!(auth.exec.is_none() && auth.auth_provider.is_none() && config.root_cert_file.is_none());
        assert_eq!(config.accept_invalid_certs, cluster.contains("insecure"));
        assert_eq!(config.proxy_url.is_some(), cluster.contains("proxy-url"));
        assert_eq!(config.tls_server_name.is_some(), cluster.contains("tls-server-name"));
        assert_eq!(config.root_cert.is_some(), cluster.contains("authority"));
    }
    for (cluster, user, named) in [
        ("server: 'http://10.0.0.1'", "token: t", "10.0.0.1 does not begin with https://"),
        ("server: 'http://u:c4n4ry-t0ken@10.0.0.1'", "token: t", "10.0.0.1 does not begin with https://"),
        ("server: ':::'", "token: t", "`server`"),
        ("", "token: t", "`server` is not set"),
        (server, "auth-provider: {name: gcp}", "`auth-provider`"),
        (server, "tokenFile: missing", "`tokenFile`"),
        (server, "tokenFile: empty", "`tokenFile`"),
        (server, "client-certificate: missing", "`client-certificate`"),
        (&format!("{server}, proxy-url: 'socks5://c4n4ry-t0ken@127.0.0.1:1080'"), "token: t", "`proxy-url`"),
        (&format!("{server}, certificate-authority: token"), "token: t", "`certificate-authority`"),
        (&format!("{server}, certificate-authority-data: '%'"), "token: t", "`certificate-authority-data`"),
    ] {
        let path = place.kubeconfig("config", cluster, user);
        let error = config(&[path]).await.unwrap_err();
        assert!(error.contains(named) && !error.contains(CANARY), "{named}: {error}");
    }
}

#[tokio::test]
async fn several_files_are_merged_and_the_first_wins() {
    let place = Place::new();
    let first = place
        .put("first", "current-context: b\ncontexts: [{name: b, context: {cluster: b, namespace: n}}]\n");
    let second = place.kubeconfig("second", "server: 'https://second'", "token: t");
    let third = place.put("third", "clusters: [{name: b, cluster: {server: 'https://third'}}]\n");
    let missing = place.0.path().join("missing");
    let config = config(&[missing.clone(), first, second, third]).await.unwrap();
    assert_eq!((config.cluster_url.host(), config.default_namespace.as_str()), (Some("third"), "n"));
    let error = self::config(&[missing]).await.unwrap_err();
    assert!(error.contains("there is no file") && error.contains("missing"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_none_is_named() {
    let place = Place::new();
    let fifo = place.0.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let large = place.put("large", &"#".repeat(FILE_LIMIT + 1));
    let secret = place.put("secret", &format!("{CANARY}: [\n{CANARY}"));
    for (path, named) in [
        (fifo.clone(), "a FIFO"),
        ("/dev/zero".into(), "a device"),
        (place.0.path().to_owned(), "a directory"),
        (large, "larger than the limit"),
        (secret, "not the YAML of a kubeconfig"),
        (
            place.kubeconfig("config", "server: 'https://a'", &format!("tokenFile: '{}'", fifo.display())),
            "a FIFO",
        ),
    ] {
        let error = config(&[path]).await.unwrap_err();
        assert!(error.contains(named) && !error.contains(CANARY), "{error}");
    }
    // In a pod as well.
    let folder = place.0.path().to_owned();
    let source = Source::ServiceAccount { folder, host: "::1".into(), port: "443".into() };
    let error = source.read().await.err().unwrap().to_string();
    assert!(error.contains("namespace"), "{error}");
    place.put("namespace", " flux-system\n");
    place.put("token", " \n");
    let error = source.read().await.err().unwrap().to_string();
    assert!(error.contains("token is empty"), "{error}");
    place.put("token", CANARY);
    let config = source.read().await.ok().unwrap().config(None);
    assert_eq!(config.cluster_url.to_string(), "https://[::1]:443/");
    assert_eq!(config.default_namespace, "flux-system");
}

#[tokio::test]
async fn each_file_counts_for_the_digest() {
    let place = Place::new();
    let path =
        place.kubeconfig("config", "server: 'https://a', certificate-authority: ca.crt", "tokenFile: token");
    let digest = || async {
        Source::Kubeconfig(vec![path.clone()]).read().await.map(|access| access.digest).ok().unwrap()
    };
    let before = digest().await;
    assert_eq!(digest().await, before);
    place.put("token", "another");
    assert_ne!(digest().await, before);
    let before = digest().await;
    place.put("ca.crt", &AUTHORITY.repeat(2));
    assert_ne!(digest().await, before);
}

proptest::proptest! {
    #[test]
    fn no_kubeconfig_panics(text in "(?s).{0,200}|(\\PC{0,9}: [\\[\\]{}&*!|>'\"%@`,a-z0-9-]{0,20}\n){0,9}") {
        if let Ok(kubeconfig) = Kubeconfig::from_yaml(&text) {
            let _ = Selected::of(kubeconfig);
        }
    }
}
