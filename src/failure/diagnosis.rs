//! The catalogue of diagnoses: each failure that this program can report, with its cause and its remedy.
//!
//! The one source of remedies: log lines, `/status`, `ecr-sidecar doctor` and `docs/failures.md` all take their
//! sentences from here. A failure carries its [`Remedy`]: the [`Diagnosis`], and what is known of this case.
//!
//! Invariants:
//! * Each has a name, a cause and a remedy of its own (`names_are_unique_and_sentences_are_whole`).
//! * Each is reproduced, and then reported by name (`tests/failures`, whose last test counts them).
//! * The page is what is compiled in (`the_page_is_current`, there too).

use std::fmt;

use serde::Serialize;

/// Declares them by the sections of the page: variant, id, cause, remedy.
macro_rules! diagnoses {
    ($($section:literal: $($variant:ident = $id:literal, $cause:literal, $remedy:literal;)+)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Diagnosis {
            $($(#[doc = $cause] $variant,)+)+
        }

        impl Diagnosis {
            /// All of them, by section of the page.
            pub const SECTIONS: &[(&str, &[Self])] = &[$(($section, &[$(Self::$variant,)+]),)+];

            /// Its name in logs, `/status` and reports, and its anchor in `docs/failures.md`.
            pub fn id(self) -> &'static str {
                match self { $($(Self::$variant => $id,)+)+ }
            }

            pub fn cause(self) -> &'static str {
                match self { $($(Self::$variant => $cause,)+)+ }
            }

            /// What to do about it, whatever the case.
            pub fn remedy(self) -> &'static str {
                match self { $($(Self::$variant => $remedy,)+)+ }
            }
        }
    };
}

diagnoses! {
    "Configuration":
    Configuration = "configuration",
        "The configuration is invalid.",
        "correct each key that is named; `ecr-sidecar config --schema` prints all keys; a running sidecar keeps its current configuration";
    EndpointConflict = "endpoint-conflict",
        "Variables contradict each other: a custom endpoint has no FIPS or dual-stack variant.",
        "unset AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT, or the endpoint in AWS_ENDPOINT_URL or the profile";
    HealthAddress = "health-address",
        "The health endpoint cannot listen on its address: another process does, or this machine does not have it.",
        "choose another address by `health.listen` or ECR_SIDECAR_HEALTH_LISTEN";

    "AWS credentials":
    IrsaInactive = "irsa-inactive",
        "Running in a cluster without AWS credentials: the webhook of IRSA or EKS Pod Identity did not change this pod.",
        "IRSA is not active: `AWS_WEB_IDENTITY_TOKEN_FILE` is unset; annotate the service account with `eks.amazonaws.com/role-arn` and restart the pod. For EKS Pod Identity: create the association and restart the pod. Otherwise: set static keys by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
    NoCredentials = "no-credentials",
        "Running outside a cluster without AWS credentials.",
        "set AWS_PROFILE to one of your profiles, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
    SourceIncomplete = "source-incomplete",
        "A credential source is only partly configured.",
        "set what is missing, or unset the rest of this source";
    InputUnreadable = "input-unreadable",
        "The file of a key or token exists, and this process may not read it.",
        "let the sidecar's uid or group read it (fsGroup, defaultMode)";
    InputMissing = "input-missing",
        "The file of a key or token is missing, empty, or on a volume that fails.",
        "check the volume mount and that the Secret or projected token has this key";
    InputMalformed = "input-malformed",
        "A key or token contains white space, quotes, JSON or other invalid characters, or its file is not a regular file \
         or is too large.",
        "put only the value into the file, variable or profile that is named";
    ProfileMissing = "profile-missing",
        "The profile does not exist, or has no credentials.",
        "check AWS_PROFILE, AWS_CONFIG_FILE and `aws configure list-profiles`";
    ProfileBroken = "profile-broken",
        "The profile exists but does not provide credentials.",
        "check the profile with `aws sts get-caller-identity --profile …`; for SSO, `aws sso login`";
    ProfileFile = "profile-file",
        "An AWS profile file cannot be used: it is not readable, missing at the path in a variable, or in another format.",
        "correct the file that is named (UTF-8 text, readable by the sidecar's uid or group), or the path in AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE";
    LoginSession = "login-session",
        "The profile uses a login by `aws login`, which only the AWS CLI can use.",
        "add a profile with `credential_process = aws configure export-credentials --profile NAME --format process`, which takes the login from the AWS CLI, or use another source";
    AgentUrl = "agent-url",
        "The URL of the credentials agent is not one that a token may be sent to.",
        "leave this variable to the EKS Pod Identity webhook or to ECS";
    AgentUnreachable = "agent-unreachable",
        "The EKS Pod Identity agent of the node does not respond.",
        "check that the eks-pod-identity-agent DaemonSet runs on this node and that no policy blocks it";
    AgentBusy = "agent-busy",
        "The EKS Pod Identity agent of the node reports an error of its own.",
        "it is retried automatically; if it persists, see the log of the eks-pod-identity-agent on this node";
    NoAssociation = "no-association",
        "The EKS Pod Identity agent rejects the request: this pod's service account has no association, or its role does not trust it.",
        "create the pod identity association for this namespace and service account, with a role that trusts pods.eks.amazonaws.com";
    NoImds = "no-imds",
        "The instance metadata service is the configured source and returns no credentials: usually its hop limit is 1, and a pod is one hop further away.",
        "run on EC2 with an instance profile and a metadata hop limit of 2, or name another source";
    WrongAccount = "wrong-account",
        "The principal is not of the account in `expectAccount`: usually the node's role instead of IRSA, or another profile.",
        "configure the intended source (the credentials are those of a node's role or another profile), or correct expectAccount";
    OtherAccount = "other-account",
        "The registry belongs to another account than the principal. That works if the repository policies admit the principal.",
        "let the repository policies of that account admit this principal, and set expectAccount to detect any other principal";

    "STS":
    WrongAudience = "wrong-audience",
        "The web-identity token has another audience than the role's trust policy and the OIDC provider expect.",
        "project the service account token with audience sts.amazonaws.com (annotation eks.amazonaws.com/audience), and list it as a client id of the IAM OIDC provider";
    OidcProviderMissing = "oidc-provider-missing",
        "IAM has no OIDC provider for the issuer of the token, or cannot verify the token.",
        "create the IAM OIDC provider of this cluster's issuer in the role's account (patches/iam), and check that AWS can reach the issuer";
    WebIdentityExpired = "web-identity-expired",
        "The web-identity token has expired: the kubelet does not renew the file, or the file is a copy.",
        "mount the service account token as a projected volume, not by subPath and not as a copy, so that the kubelet renews it";
    TrustWebIdentity = "trust-web-identity",
        "The role's trust policy does not admit this service account.",
        "let the role's trust policy admit this service account: its OIDC provider, `aud` = sts.amazonaws.com and `sub` = system:serviceaccount:NAMESPACE:NAME";
    TrustAssumeRole = "trust-assume-role",
        "The trust policy of a role in the chain does not admit the caller, or the caller may not assume the role.",
        "let the role's trust policy admit the calling principal (with externalId, if it requires one), and allow the caller sts:AssumeRole on the role";

    "Keys and permissions":
    UnknownKey = "unknown-key",
        "The access key is unknown to AWS: it was deleted or deactivated, belongs to another partition (aws-cn and aws-us-gov have their own users), or its account has not opted in to this region.",
        "configure an active access key of a user in the partition of the registry, and check that its account has enabled this region";
    WrongSecretKey = "wrong-secret-key",
        "The secret access key does not match the access key id.",
        "check that access key id and secret access key are from the same pair, in both files or variables";
    Unsigned = "unsigned",
        "The request arrived at AWS without a signature.",
        "check whether a proxy strips the Authorization header";
    SessionExpired = "session-expired",
        "The session that was configured as static keys has expired.",
        "renew the AWS credentials at their source";
    EcrDenied = "ecr-denied",
        "The principal may not get a token from ECR.",
        "allow the principal ecr:GetAuthorizationToken on resource *";
    EcrPublicDenied = "ecr-public-denied",
        "The principal may not get a token from ECR Public, which takes two permissions.",
        "allow the principal ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken on resource *";
    RegionDisabled = "region-disabled",
        "The account has not opted in to the region.",
        "enable the region for this account, or set stsRegion to a region that is enabled";
    Denied = "denied",
        "AWS denies the request for another reason.",
        "check the principal's policies and the configuration";

    "Network path to AWS":
    ClockOff = "clock-off",
        "The clock of this machine and that of AWS differ.",
        "set the clock of this machine: AWS rejects requests whose time is off by 5 minutes";
    Throttled = "throttled",
        "Too many calls for this account and region.",
        "no action needed: it is retried after a pause; if it persists, too many callers share this account and region";
    NotAws = "not-aws",
        "Another server responds in place of AWS: a captive portal, a proxy, a wrong endpoint.",
        "check the endpoint, the proxy, and captive portals: another server responds in place of AWS";
    StsInClear = "sts-in-clear",
        "A web-identity token is sent to STS over plain http: anyone on the network path can read and use it.",
        "set AWS_ENDPOINT_URL_STS (or AWS_ENDPOINT_URL) to an https URL; ignore this for a test cloud without real roles";
    UnknownCa = "unknown-ca",
        "The certificate of the endpoint, or of a proxy that intercepts TLS, is signed by an authority that is not trusted here.",
        "set AWS_CA_BUNDLE to a bundle with the certificate authority that signed the endpoint's certificate";
    NoCaBundle = "no-ca-bundle",
        "No bundle of certificate authorities can be read.",
        "mount a bundle of certificate authorities, or set AWS_CA_BUNDLE or SSL_CERT_FILE to one";
    CaBundleIncomplete = "ca-bundle-incomplete",
        "Certificates of the CA bundle do not parse and are left out.",
        "remove these certificates from the bundle, or replace them; no action needed as long as AWS is reachable";
    NameUnresolved = "name-unresolved",
        "The name of the endpoint does not resolve here.",
        "check the endpoint's name and this pod's DNS; a VPC endpoint resolves only inside its VPC";
    ProxyRefuses = "proxy-refuses",
        "The proxy rejects the connection.",
        "check HTTPS_PROXY and NO_PROXY, and that the proxy allows this host";
    Unreachable = "unreachable",
        "AWS is unreachable, responds too late, or has an outage.",
        "it is retried automatically; if it persists, check that this pod can reach the endpoint (egress, proxy, VPC endpoint)";

    "Registry":
    OtherRegion = "other-region",
        "The registry rejects the token as one of another region: a token is valid only in the region that issued it.",
        "set `region` of this registry to the region of the host; for a custom name, check what it resolves to";
    TokenRefused = "token-refused",
        "The registry rejects the token as invalid or expired.",
        "check that the host is an ECR registry of this partition, and that nothing on the network path rewrites the Authorization header";
    RegistryForbidden = "registry-forbidden",
        "The registry accepts the token and denies access: a repository policy, a VPC endpoint policy, or a service control policy.",
        "let the repository policy, and the policy of the VPC endpoint if there is one, admit this principal (patches/iam/pull-policy.json)";
    PullDenied = "pull-denied",
        "No policy allows an action that the pull needs, or a policy denies it.",
        "add the statement to the policy that is named";
    RepositoryMissing = "repository-missing",
        "The registry has no repository of that name.",
        "check the name of the repository, and the account and region of the host; of a pull-through cache, check its prefix";
    ImageMissing = "image-missing",
        "The repository exists and has no such image: the tag or digest is missing, or its layer is.",
        "check the tag; a lifecycle policy may have expired the image";
    UpstreamRefused = "upstream-refused",
        "The upstream of the pull-through cache does not provide the image.",
        "check the credential of the cache's rule in Secrets Manager (`aws ecr validate-pull-through-cache-rule`), and that the upstream has the image";
    NothingPublished = "nothing-published",
        "No output holds a credential for the registry, so a consumer finds none.",
        "check that the registry is configured, and that the sidecar is running and writes its outputs (`ecr-sidecar status`); run `ecr-sidecar doctor` where these are";
    PublishedExpired = "published-expired",
        "The credential that a consumer finds has expired, whatever AWS would issue now.",
        "check that the sidecar is running and why it does not write this output (`ecr-sidecar status`)";
    RegistryUnreachable = "registry-unreachable",
        "The registry is unreachable, although the AWS API is reachable.",
        "let this pod and the consumer reach the registry's host (egress, proxy, the VPC endpoint `ecr.dkr`)";

    "Docker config.json":
    MountedBySubPath = "mounted-by-subpath",
        "The file itself is a mount point, as with `subPath`: it could only be written in place, and its readers would keep the old file.",
        "mount the directory instead of the single file: remove `subPath`, or bind-mount the directory";
    NotAFile = "not-a-file",
        "The path is not that of a regular file, and cannot become one.",
        "choose the path of a regular file, such as `config.json` in that directory";
    UntrustedLink = "untrusted-link",
        "A directory in the path is a symbolic link that another user created or can replace: following it would let that user choose which files are overwritten.",
        "configure the real directory, or make root or the sidecar's user the owner of the link, in a directory that only they may write to";
    ReadOnlyVolume = "read-only-volume",
        "The volume is mounted read-only.",
        "mount the volume of the directory without `readOnly: true`, or use an `emptyDir`: ConfigMap, Secret and projected volumes are always read-only";
    VolumeFull = "volume-full",
        "The volume is full, or a quota is exceeded.",
        "free space or inodes on the volume, or raise its size limit (`emptyDir.sizeLimit`)";
    NotPermitted = "not-permitted",
        "This process may not write into the directory.",
        "run as the owner of the directory (`runAsUser`), or make it writable for the sidecar's group (`fsGroup` of the pod)";
    GroupNotPermitted = "group-not-permitted",
        "This process may not change the group of the file to that group.",
        "add this process to the group (`fsGroup` or `supplementalGroups` of the pod), or configure a group that it is in";
    DirectoryMissing = "directory-missing",
        "The directory of the file does not exist.",
        "mount a volume at the directory, or create it";
    VolumeBroken = "volume-broken",
        "The operating system failed the write for another reason.",
        "see the error of the operating system and the kernel log of the node; a failed write is retried automatically";
    VolumeHangs = "volume-hangs",
        "The volume does not respond.",
        "check the volume; a memory-backed emptyDir cannot hang";
    Contended = "contended",
        "Ownership conflict: another process keeps changing the file.",
        "let only the sidecar write this file: configure another file for the other process, and set that file as `base`";
    FileSetAside = "file-set-aside",
        "The file cannot be read as a docker config: it is set aside, and a new one takes its place.",
        "copy what is still needed from the file that is set aside (`config.json.invalid`) into the new one, whose entries for other registries stay, or into `base`";
    PathReplaced = "path-replaced",
        "The path is a symbolic link that is not followed, a FIFO, a socket or an empty directory: a file replaces it.",
        "no action needed, unless a symbolic link is meant: then configure the path that it leads to";
    ModeNotKept = "mode-not-kept",
        "The file system does not keep the mode and the group that are set: they decide who reads the file.",
        "set owner, group and mode by the mount options of the volume, such as `uid`, `gid` and `file_mode` for CIFS";
    ExpiriesNotStored = "expiries-not-stored",
        "The expiry of each credential cannot be stored next to the file: after a restart during an outage of AWS the credentials count as missing.",
        "let the sidecar replace `.config.json.ecr-sidecar` next to the file; the message names what prevents it, such as a directory of that name";
    BaseUnusable = "base-unusable",
        "The `base` of an output cannot be read as a docker config: its last usable entries are kept.",
        "mount a docker config.json at the path of `base`, readable for the sidecar, or correct it; it is read again when it changes";
    CredsStore = "creds-store",
        "The file or Secret names a credential store (`credsStore`): docker asks it and does not read `auths`, where the credentials are.",
        "remove `credsStore` from the file or Secret, and from its `base`";
    EntryInvalid = "entry-invalid",
        "An entry makes docker and go-containerregistry reject the whole file, and the sidecar's credentials with it.",
        "correct or remove the entry in the file or Secret, and in its `base`";
    RepositoryEntry = "repository-entry",
        "An entry of another user is for single repositories of the registry: podman, skopeo and go-containerregistry prefer it.",
        "remove the entry, unless that user is meant to pull these repositories";
    InotifyExhausted = "inotify-exhausted",
        "The node has no inotify instances or watches left: files are polled every second instead.",
        "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches on the node";
    TooManyOpenFiles = "too-many-open-files",
        "This process, or the node, has reached its limit of open files and connections.",
        "raise the limit of open files (`ulimit -n`, LimitNOFILE): 256 suffice for a few registries; if it is high already, the node has reached fs.file-max";
    ConsumerCannotRead = "consumer-cannot-read",
        "The consumer's user may not read the file: helm then pulls without credentials and does not report it.",
        "give both containers one group (`fsGroup` of the pod) with mode 0640, or set ECR_SIDECAR_FILE_MODE to 0644";
    ConsumerReadsElsewhere = "consumer-reads-elsewhere",
        "DOCKER_CONFIG is not the directory of the file.",
        "set DOCKER_CONFIG of the consumer to the directory of the file";

    "Kubernetes":
    ServiceAccountToken = "service-account-token",
        "The pod has no token for the API server.",
        "set automountServiceAccountToken: true in the pod (Argo CD's plain manifests disable it), or mount a projected token at /var/run/secrets/kubernetes.io/serviceaccount";
    Kubeconfig = "kubeconfig",
        "No usable kubeconfig was found.",
        "set KUBECONFIG to a kubeconfig, which is needed outside a cluster, or remove the Secret outputs";
    ApiServerCredentials = "api-server-credentials",
        "The certificates, the token or the exec plugin of the kubeconfig cannot be used.",
        "check the token, the certificates and the exec plugin in the kubeconfig";
    ApiServerLogin = "api-server-login",
        "The API server rejects the token: it was revoked or has expired.",
        "check whether the service account was deleted, or log in again for the kubeconfig: the API server rejects its token";
    ApiServerUnreachable = "api-server-unreachable",
        "The API server is unreachable, or has an outage.",
        "it is retried automatically; if it persists, check that this pod can reach the API server";
    ApiServerThrottled = "api-server-throttled",
        "The API server throttles requests.",
        "no action needed: it is retried after a pause";
    ApiServerCertificate = "api-server-certificate",
        "The API server's certificate is not trusted: another authority signed it, it has another name, or it has expired.",
        "check the certificate authority (`certificate-authority` of the kubeconfig; in a pod, ca.crt of the service account), `tls-server-name` and this machine's clock, and that no proxy intercepts TLS";
    ApiServerUnverified = "api-server-unverified",
        "The API server's certificate is not checked, so whoever intercepts the connection can read the credentials and the Secrets.",
        "in the kubeconfig, replace `insecure-skip-tls-verify: true` with `certificate-authority` or `certificate-authority-data`";
    RequestRejected = "request-rejected",
        "The API server, or a proxy in its place, rejects the request for another reason.",
        "see the message; check the API server's address (`server` of the kubeconfig) and any proxy in front of it";
    SelectorRejected = "selector-rejected",
        "The API server rejects the label selector of the output.",
        "correct `selector` of this output; `kubectl get namespaces -l SELECTOR` shows whether it is valid";
    AdmissionDenied = "admission-denied",
        "An admission policy or webhook of the cluster denies the write.",
        "see the policy's message; exempt this service account or this Secret from the policy, or make the output comply with it";
    QuotaExceeded = "quota-exceeded",
        "A ResourceQuota of the namespace does not allow the Secret.",
        "raise the ResourceQuota of the namespace, or delete Secrets that nothing needs";
    WebhookFailing = "webhook-failing",
        "An admission webhook of the cluster fails or does not respond, so the API server rejects the write.",
        "fix the webhook, or exclude this Secret from it; the write is retried automatically";
    RightMissing = "right-missing",
        "The service account lacks a right on a Secret or on namespaces.",
        "apply what `ecr-sidecar manifests` prints, or add the rule to this service account";
    NamespaceMissing = "namespace-missing",
        "The namespace does not exist, or is being deleted.",
        "create the namespace, or remove it from the configuration";
    SecretType = "secret-type",
        "The Secret has a type that its consumer does not read.",
        "delete the Secret, since its type is immutable, and apply what `ecr-sidecar manifests` prints";
    SecretImmutable = "secret-immutable",
        "The Secret is immutable, or differs in an immutable field.",
        "delete the Secret if nothing else needs it, and apply what `ecr-sidecar manifests` prints";
    SecretInvalid = "secret-invalid",
        "The API server rejects the Secret as invalid.",
        "see the API server's message, and correct the field that it names, or the process that sets that field";
    SecretMissing = "secret-missing",
        "The Secret of an Argo CD repository does not exist; only its owner can create it.",
        "create the repository in Argo CD, or remove the name from this output";
    SecretUnmanaged = "secret-unmanaged",
        "The Secret has credentials that are not managed by the sidecar.",
        "choose another name, or set `adopt: true` on this output to keep it from now on";
    RegistryNotConfigured = "registry-not-configured",
        "The `url` of an Argo CD repository is in none of the configured registries, so its Secret gets no credentials.",
        "correct the `url`, add its registry to `registries`, or remove the Secret from this output (its `names`, or the label of its `selector`)";
    ArgocdSecretIgnored = "argocd-secret-ignored",
        "Argo CD does not use the Secret as meant: it lacks the label, or a field differs.",
        "apply what `ecr-sidecar manifests` prints for the template; a repository's Secret needs the label `argocd.argoproj.io/secret-type: repository`";
    CredentialWithheld = "credential-withheld",
        "With the fields of this Argo CD Secret, the registry's password would be sent to another server, or would replace another user's.",
        "apply what `ecr-sidecar manifests` prints for it, and remove `insecure…` keys and another user's `username` and `password`";
    SecretConflict = "secret-conflict",
        "Ownership conflict: another field manager keeps changing the managed content of the Secret.",
        "configure the other field manager to ignore the data of this Secret (kustomize.toolkit.fluxcd.io/ssa: IfNotPresent, Argo CD ignoreDifferences), or give this output another name";
    SecretTooLarge = "secret-too-large",
        "The Secret would exceed the limit of 1 MiB.",
        "remove entries of other registries from the Secret and from its `base`, or distribute the registries over several outputs with a Secret each";

    "Internal":
    Fault = "fault",
        "An internal fault of the sidecar.",
        "report it, with the preceding log lines";
}

/// What to do about a failure: the [`Diagnosis`], and what is known of this case. `Display` is the sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    pub diagnosis: Diagnosis,
    /// What the remedy means here: a name, a number, a command. Empty when nothing more is known.
    detail: String,
}

impl Remedy {
    /// The remedy of `diagnosis`; `detail` is what it means here.
    pub fn with(diagnosis: Diagnosis, detail: impl Into<String>) -> Self {
        Self { diagnosis, detail: detail.into() }
    }
}

impl From<Diagnosis> for Remedy {
    fn from(diagnosis: Diagnosis) -> Self {
        Self::with(diagnosis, "")
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.diagnosis.remedy())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

impl Serialize for Remedy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            diagnosis: &'a str,
            remedy: String,
        }
        Fields { diagnosis: self.diagnosis.id(), remedy: self.to_string() }.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_sentences_are_whole() {
        let mut seen = BTreeSet::new();
        for diagnosis in Diagnosis::SECTIONS.iter().flat_map(|(_, diagnoses)| diagnoses.iter()) {
            let (id, cause, remedy) = (diagnosis.id(), diagnosis.cause(), diagnosis.remedy());
            for text in [id, cause, remedy] {
                assert!(seen.insert(text), "{id}: {text:?} is there twice");
            }
            assert!(id.bytes().all(|c| c.is_ascii_lowercase() || c == b'-'), "{id}");
            assert!(cause.ends_with('.') && cause.starts_with(char::is_uppercase), "{id}: {cause}");
            assert!(remedy.len() > 20 && !remedy.ends_with('.'), "{id}: {remedy}");
        }
    }

    #[test]
    fn a_remedy_includes_what_it_means_here() {
        let plain = Remedy::from(Diagnosis::VolumeHangs);
        assert_eq!(plain.to_string(), "check the volume; a memory-backed emptyDir cannot hang");
        let known = Remedy::with(Diagnosis::SourceIncomplete, "AWS_ROLE_ARN");
        assert_eq!(known.to_string(), "set what is missing, or unset the rest of this source (AWS_ROLE_ARN)");
    }
}
