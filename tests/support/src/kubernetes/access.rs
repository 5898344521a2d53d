//! Who asks the API server: `kubectl` as its admin, and service accounts with tokens that rotate.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::{
    files::overwrite,
    kubernetes::ApiServer,
    process::{clean_command, output, printed_by},
    requirement::{program, root},
};

/// How long one `kubectl` may take, with some thousand objects on a busy machine.
const KUBECTL: Duration = Duration::from_secs(300);

/// Where a pod finds its service account: fixed in every client.
const IN_POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A service account of the cluster, with a token. Its files go when the API server goes.
///
/// Delete and make it again, and its tokens are worth nothing: [`ApiServer::revoke_tokens`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    namespace: String,
    name: String,
    folder: PathBuf,
    api_server: (String, String),
}

impl ServiceAccount {
    /// The user that RBAC and the audit log know: `system:serviceaccount:NAMESPACE:NAME`.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A kubeconfig that says `tokenFile: …`, so that a client has to read the token again.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// The file with its token, replaced atomically by [`ApiServer::renew_token`].
    pub fn token_file(&self) -> PathBuf {
        self.folder.join("token")
    }

    /// A folder with `token`, `ca.crt` and `namespace`, as a pod has it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes `command`, which is to run [`ServiceAccount::ENTER`], run `program` where a client in a pod finds
    /// all that it looks for: the two variables, and this account's files at their fixed path, in a mount
    /// namespace of its own. Arguments of the program follow. `false` when that can't be had here: it takes
    /// root.
    ///
    /// # Panics
    /// When something is missing and `CI=true`.
    pub fn enter_pod(&self, command: &mut Command, inside: &Path) -> bool {
        if !root() || program(Self::ENTER).is_none() {
            return false;
        }
        let script = format!(
            "mount -t tmpfs none /run; mkdir -p {IN_POD}; mount --rbind \"$1\" {IN_POD}; shift; exec \"$@\""
        );
        command.args(["--mount", "--propagation=private", "sh", "-ec", &script, "sh"]);
        command.arg(&self.folder).arg(inside);
        let (host, port) = &self.api_server;
        command.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
        true
    }

    /// The program that [`ServiceAccount::enter_pod`] needs; it replaces itself, so its process id stays.
    pub const ENTER: &str = "unshare";
}

impl ApiServer {
    /// The admin's kubeconfig: everything is allowed to it, whatever RBAC says.
    pub fn kubeconfig(&self) -> PathBuf {
        self.at("kubeconfig")
    }

    /// Runs `kubectl` as admin and hands over what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn kubectl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        printed_by(self.kubectl_command(&self.kubeconfig()).args(arguments), KUBECTL)
    }

    /// Runs `kubectl` as `account`, whatever comes of it.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn kubectl_as<S: AsRef<OsStr>>(
        &self,
        account: &ServiceAccount,
        arguments: impl IntoIterator<Item = S>,
    ) -> Output {
        output(self.kubectl_command(&account.kubeconfig()).args(arguments), KUBECTL)
    }

    /// `kubectl` with `kubeconfig`, to be given arguments. It prints as for a program.
    pub fn kubectl_command(&self, kubeconfig: &Path) -> Command {
        let mut command = clean_command(self.kubectl_program(), &self.at(""));
        command.env("KUBECONFIG", kubeconfig);
        command
    }

    /// `kubectl apply -f` of `yaml`, as admin: client-side, as a user does it.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn apply(&self, yaml: &str) {
        let file = self.scratch(yaml);
        self.kubectl([OsStr::new("apply"), OsStr::new("-f"), file.path().as_os_str()]);
    }

    /// `kubectl apply -f` of `yaml` with further `arguments`, as admin, whatever comes of it: for another field
    /// manager `["--server-side", "--field-manager=NAME"]`, and `"--force-conflicts"` as GitOps does it.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn apply_with<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>, yaml: &str) -> Output {
        self.apply_by(&self.kubeconfig(), arguments, yaml)
    }

    /// The same as `account`. With `"--server-side"` that takes the right to patch, and no other.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn apply_as<S: AsRef<OsStr>>(
        &self,
        account: &ServiceAccount,
        arguments: impl IntoIterator<Item = S>,
        yaml: &str,
    ) -> Output {
        self.apply_by(&account.kubeconfig(), arguments, yaml)
    }

    /// The object, with its managed fields; `None` when there is none.
    ///
    /// # Panics
    /// When the API server does not answer.
    #[track_caller]
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let object = self.kubectl([
            "get",
            kind,
            name,
            "--namespace",
            namespace,
            "--ignore-not-found",
            "--show-managed-fields",
            "--output=json",
        ]);
        (!object.is_empty()).then(|| serde_json::from_str(&object).expect("JSON"))
    }

    /// The keys that tokens of its service accounts are signed with, as a JSON Web Key Set: what an identity
    /// provider fetches from the issuer.
    ///
    /// # Panics
    /// When the API server does not answer.
    #[track_caller]
    pub fn jwks(&self) -> Value {
        let jwks = self.kubectl(["get", "--raw=/openid/v1/jwks"]);
        serde_json::from_str(&jwks).expect("JSON")
    }

    /// Deletes a namespace and all Secrets in it, as the namespace controller would, which is not here.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn delete_namespace(&self, name: &str) {
        self.kubectl(["delete", "namespace", name, "--wait=false"]);
        self.kubectl(["delete", "secrets", "--all", "--namespace", name]);
        let finalized = format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{{\"name\":\"{name}\"}},\"spec\":{{}}}}"
        );
        let file = self.scratch(&finalized);
        let path = format!("/api/v1/namespaces/{name}/finalize");
        self.kubectl(
            ["replace", "--raw", &path, "-f"].map(OsStr::new).iter().chain([&file.path().as_os_str()]),
        );
    }

    /// The service account `name` in `namespace`, both made when they aren't there, with a token by the
    /// TokenRequest API. It may do nothing yet.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn service_account(&self, namespace: &str, name: &str) -> ServiceAccount {
        let folder = self.at("accounts").join(format!("{namespace}-{name}"));
        let address = self.addr();
        let account = ServiceAccount {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            folder,
            api_server: (address.ip().to_string(), address.port().to_string()),
        };
        self.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}\n---\n{}",
            account.manifest()
        ));
        fs::create_dir_all(account.folder()).expect("a new folder");
        fs::copy(self.ca_file(), account.folder().join("ca.crt")).expect("a copy of the authority");
        overwrite(&account.folder().join("namespace"), namespace);
        let user = format!("tokenFile: '{}'", account.token_file().display());
        let kubeconfig = Kubeconfig { namespace, user: &user };
        overwrite(&account.kubeconfig(), &kubeconfig.text(&self.url(), &self.ca_file()));
        self.renew_token(&account);
        account
    }

    /// Gives `account` a new token of an hour in its [`ServiceAccount::token_file`], as a kubelet does. The old
    /// one stays good as long as it lasts.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn renew_token(&self, account: &ServiceAccount) {
        let namespace = account.namespace();
        let token = self.kubectl(["create", "token", account.name(), "-n", namespace, "--duration=1h"]);
        let new = account.folder().join(".token.new");
        overwrite(&new, token.trim());
        fs::rename(&new, account.token_file()).expect("a rename in one folder");
    }

    /// Makes all tokens that `account` has been given worthless, and gives it no new one; its rights stay.
    ///
    /// The API server remembers for up to 10 s that a token was good.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn revoke_tokens(&self, account: &ServiceAccount) {
        // A token names the account's uid, and the next account has another.
        self.kubectl(["delete", "serviceaccount", account.name(), "-n", account.namespace()]);
        self.apply(&account.manifest());
    }

    #[track_caller]
    fn apply_by<S: AsRef<OsStr>>(
        &self,
        kubeconfig: &Path,
        arguments: impl IntoIterator<Item = S>,
        yaml: &str,
    ) -> Output {
        let file = self.scratch(yaml);
        let mut kubectl = self.kubectl_command(kubeconfig);
        output(kubectl.args(["apply", "-f"]).arg(file.path()).args(arguments), KUBECTL)
    }

    /// A file with `text` in it, for as long as it is held.
    fn scratch(&self, text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new_in(self.at("")).expect("a temporary file");
        overwrite(file.path(), text);
        file
    }
}

impl ServiceAccount {
    fn manifest(&self) -> String {
        format!(
            "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {}, namespace: {}}}}}\n",
            self.name, self.namespace
        )
    }
}

/// A kubeconfig of one context.
pub(super) struct Kubeconfig<'a> {
    pub(super) namespace: &'a str,
    /// `token: …` or `tokenFile: …`.
    pub(super) user: &'a str,
}

impl Kubeconfig<'_> {
    pub(super) fn text(&self, url: &str, ca_file: &Path) -> String {
        let Self { namespace, user } = self;
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: '{url}', certificate-authority: '{}'}}}}]\n\
             users: [{{name: test, user: {{{user}}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test, namespace: '{namespace}'}}}}]\n",
            ca_file.display()
        )
    }
}
