//! What has gone wrong, by a name of its own, and what mends it: every failure that this program can tell.
//!
//! The one source of the mends: log lines, `/status`, `ecr-sidecar doctor` and `docs/failures.md` all have their
//! sentences from here. A failure carries its [`Remedy`]: the [`Diagnosis`], and what is known of the case at hand.
//!
//! Invariants:
//! * Each has a name, a cause and a mend of its own (`names_are_unique_and_sentences_are_whole`).
//! * Each is reproduced, and then said by name (`tests/failures`, whose last test counts them).
//! * The page is what is compiled in (`the_page_is_current`, there too).

use std::fmt;

use serde::Serialize;

/// Declares them, by the sections of the page: name in the code, name for people, what is the matter, what mends it.
macro_rules! diagnoses {
    ($($section:literal: $($variant:ident = $id:literal, $cause:literal, $mend:literal;)+)+) => {
        /// What has gone wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Diagnosis {
            $($(#[doc = $cause] $variant,)+)+
        }

        impl Diagnosis {
            /// All of them, by what they concern.
            pub const SECTIONS: &[(&str, &[Self])] = &[$(($section, &[$(Self::$variant,)+]),)+];

            /// Its name in logs, `/status` and reports, and its anchor in `docs/failures.md`.
            pub fn id(self) -> &'static str {
                match self { $($(Self::$variant => $id,)+)+ }
            }

            /// What is the matter.
            pub fn cause(self) -> &'static str {
                match self { $($(Self::$variant => $cause,)+)+ }
            }

            /// What to do about it, whatever the case.
            pub fn mend(self) -> &'static str {
                match self { $($(Self::$variant => $mend,)+)+ }
            }
        }
    };
}

diagnoses! {
    "Configuration":
    Configuration = "configuration",
        "The configuration cannot be used.",
        "correct each key that is named; `ecr-sidecar config --schema` prints what there is, and a running sidecar keeps the configuration that it has";
    EndpointConflict = "endpoint-conflict",
        "Variables contradict each other: an endpoint of your own has no FIPS or dual-stack variant.",
        "unset AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT, or the endpoint that AWS_ENDPOINT_URL or the profile names";

    "Who asks AWS":
    IrsaInactive = "irsa-inactive",
        "In a cluster, and no AWS credentials are there: the webhook of IRSA or EKS Pod Identity has not touched this pod.",
        "IRSA is not active: `AWS_WEB_IDENTITY_TOKEN_FILE` is unset; annotate the service account with `eks.amazonaws.com/role-arn` and restart the pod. For EKS Pod Identity: create the association and restart the pod. Elsewhere: give static keys by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
    NoCredentials = "no-credentials",
        "Outside of a cluster, and no AWS credentials are there.",
        "set AWS_PROFILE to one of your profiles, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
    SourceIncomplete = "source-incomplete",
        "A credential source is configured by half.",
        "set what is missing, or unset the rest of this source";
    InputUnreadable = "input-unreadable",
        "The file of a key or token is there, and this process may not read it.",
        "let the sidecar's uid or group read it (fsGroup, defaultMode)";
    InputMissing = "input-missing",
        "The file of a key or token is missing, empty, or on a volume that fails.",
        "check the volume mount and that the Secret or projected token has this key";
    InputMalformed = "input-malformed",
        "A key or token is malformed (white space, quotes, JSON or other characters in it that none has), or its file is no \
         regular file or too large.",
        "put nothing but the value into the file, variable or profile that is named";
    ProfileMissing = "profile-missing",
        "There is no such profile, or it holds no credentials.",
        "check AWS_PROFILE, AWS_CONFIG_FILE and `aws configure list-profiles`";
    ProfileBroken = "profile-broken",
        "The profile is there and gives no credentials.",
        "check the profile with `aws sts get-caller-identity --profile …`; for SSO, `aws sso login`";
    ProfileFile = "profile-file",
        "A file of AWS profiles is there and cannot be used: no right to read it, no file at the path that a variable names, or another format.",
        "correct the file that is named (UTF-8 text, readable by the sidecar's uid or group), or the path in AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE";
    LoginSession = "login-session",
        "The profile rests on a login by `aws login`, which only the AWS CLI can use.",
        "let the AWS CLI hand the login over, by a second profile with `credential_process = aws configure export-credentials --profile NAME --format process`, or use another source";
    AgentUrl = "agent-url",
        "The address of the credentials agent is none that a token may be sent to.",
        "leave this variable to the EKS Pod Identity webhook or to ECS";
    AgentUnreachable = "agent-unreachable",
        "The EKS Pod Identity agent of the node does not answer.",
        "check that the eks-pod-identity-agent DaemonSet runs on this node and that no policy blocks it";
    AgentBusy = "agent-busy",
        "The EKS Pod Identity agent of the node answers that it is in trouble itself.",
        "it is tried again by itself; if it lasts, see the log of the eks-pod-identity-agent on this node";
    NoAssociation = "no-association",
        "The EKS Pod Identity agent refuses: this pod's service account has no association, or its role does not trust it.",
        "create the pod identity association for this namespace and service account, with a role that trusts pods.eks.amazonaws.com";
    NoImds = "no-imds",
        "The instance metadata service was named as the source and gives no credentials: most often its hop limit is 1, and a pod is one hop further.",
        "run on EC2 with an instance profile and a metadata hop limit of 2, or name another source";
    WrongAccount = "wrong-account",
        "Somebody else answers than `expectAccount` says: most often the node's role instead of IRSA, or another profile.",
        "name the source you mean (a node's role or another profile answered), or correct expectAccount";
    OtherAccount = "other-account",
        "The registry belongs to another account than the principal. That works when the repositories' policies admit it.",
        "let the repository policies of that account admit this principal, and set expectAccount, so that no other principal is taken for it";

    "STS":
    WrongAudience = "wrong-audience",
        "The web-identity token is meant for another audience than the role's trust policy and the OIDC provider name.",
        "project the service account token with audience sts.amazonaws.com (annotation eks.amazonaws.com/audience), and list it as a client id of the IAM OIDC provider";
    OidcProviderMissing = "oidc-provider-missing",
        "IAM knows no OIDC provider for the issuer of the token, or cannot verify it.",
        "create the IAM OIDC provider of this cluster's issuer in the role's account (patches/iam), and check that the issuer is reachable by AWS";
    WebIdentityExpired = "web-identity-expired",
        "The web-identity token has expired: kubelet does not renew the file, or it is a copy.",
        "check that kubelet renews the service account token: mount it as a projected volume, never by subPath, and never as a copy";
    TrustWebIdentity = "trust-web-identity",
        "The role's trust policy does not admit this service account.",
        "let the role's trust policy admit this service account: its OIDC provider, `aud` = sts.amazonaws.com and `sub` = system:serviceaccount:NAMESPACE:NAME";
    TrustAssumeRole = "trust-assume-role",
        "A role of the chain does not admit the caller, or the caller may not assume it.",
        "let the role's trust policy admit the calling principal (and externalId, if it asks for one), and allow the caller sts:AssumeRole on it";

    "Keys and permissions":
    UnknownKey = "unknown-key",
        "AWS does not know the access key: it was deleted or deactivated, belongs to another partition (aws-cn and aws-us-gov have users of their own), or its account has not opted in to this region.",
        "the access key is unknown to AWS: it was deleted, or belongs to another partition (aws-cn, aws-us-gov), or the account has not enabled this region; give the keys of a user that lives where the registry is";
    WrongSecretKey = "wrong-secret-key",
        "The secret access key is not the one of the access key id.",
        "the secret access key does not belong to the access key id: check both files or variables";
    Unsigned = "unsigned",
        "The request arrived without a signature.",
        "the request arrived unsigned: a proxy may strip headers";
    SessionExpired = "session-expired",
        "A session that was given as static keys has ended.",
        "the AWS credentials have expired: renew them at their source";
    EcrDenied = "ecr-denied",
        "The principal may not ask ECR for a token.",
        "allow the principal ecr:GetAuthorizationToken on resource *";
    EcrPublicDenied = "ecr-public-denied",
        "The principal may not ask ECR Public for a token: that takes two permissions.",
        "allow the principal ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken on resource *";
    RegionDisabled = "region-disabled",
        "The account has not opted in to the region.",
        "the region is not enabled for this account: enable it, or set stsRegion to one that is";
    Denied = "denied",
        "AWS refuses for another reason.",
        "check the principal's policies and the configuration";

    "The way to AWS":
    ClockOff = "clock-off",
        "This machine's clock and AWS's differ.",
        "set this machine's clock: AWS refuses requests whose time is off by 5 minutes";
    Throttled = "throttled",
        "Too many calls for this account and region.",
        "nothing to do: it is tried again after a pause; if it lasts, too many callers share this account and region";
    NotAws = "not-aws",
        "Something else answers in AWS's place: a captive portal, a proxy, a wrong endpoint.",
        "something between here and AWS answers in its place: check the endpoint, the proxy, and captive portals";
    StsInClear = "sts-in-clear",
        "A web-identity token is sent to STS over plain http, where whoever can listen may use it.",
        "give AWS_ENDPOINT_URL_STS (or AWS_ENDPOINT_URL) an https URL; leave it where this is a test cloud without real roles";
    UnknownCa = "unknown-ca",
        "The certificate of the endpoint, or of a proxy that looks into TLS, is signed by an authority that is not trusted here.",
        "name the certificate authority that signed the endpoint's certificate by AWS_CA_BUNDLE";
    NoCaBundle = "no-ca-bundle",
        "No bundle of certificate authorities can be read.",
        "mount a bundle of certificate authorities, or name one by AWS_CA_BUNDLE or SSL_CERT_FILE";
    NameUnresolved = "name-unresolved",
        "The endpoint's name resolves to nothing here.",
        "check the endpoint's name and this pod's DNS; a VPC endpoint resolves only inside its VPC";
    ProxyRefuses = "proxy-refuses",
        "The proxy does not let the connection through.",
        "check HTTPS_PROXY and NO_PROXY, and that the proxy lets this host through";
    Unreachable = "unreachable",
        "AWS cannot be reached, answers too late, or has an outage.",
        "it is tried again by itself; if it lasts, check that this pod can reach the endpoint (egress, proxy, VPC endpoint)";

    "The registry":
    OtherRegion = "other-region",
        "The registry answers that the token is another region's: a token is good only in the region that gave it.",
        "set `region` of this registry to the one that the host really is in; behind a name of your own, check where it leads";
    TokenRefused = "token-refused",
        "The registry takes the token for invalid or expired.",
        "check that the host is an ECR registry of this partition and that nothing between here and it rewrites the Authorization header";
    RegistryForbidden = "registry-forbidden",
        "The registry knows the token and refuses: a repository policy, a VPC endpoint policy, or a service control policy.",
        "let the repository policy, and the policy of the VPC endpoint if there is one, admit this principal (patches/iam/pull-policy.json)";
    RegistryUnreachable = "registry-unreachable",
        "The registry itself cannot be reached, although AWS's API can.",
        "let this pod and the consumer reach the registry's host (egress, proxy, the VPC endpoint `ecr.dkr`)";

    "The docker config.json":
    MountedBySubPath = "mounted-by-subpath",
        "The file itself is a mount point, as `subPath` makes it: it could only be written in place, and its readers would keep the old file.",
        "mount the directory instead of the single file: leave `subPath` away, or bind-mount the directory";
    NotAFile = "not-a-file",
        "The path names something that is no regular file, or nothing that could become one.",
        "choose the path of a regular file, such as `config.json` in that directory";
    UntrustedLink = "untrusted-link",
        "A directory in the path is a symbolic link that another user has made or can replace: following it would let that user choose which files are overwritten.",
        "name the real directory, or let the link belong to root or to the sidecar's user, in a directory that only they may write to";
    ReadOnlyVolume = "read-only-volume",
        "The volume is mounted read-only.",
        "mount the volume of the directory without `readOnly: true`, or use an `emptyDir`: ConfigMap, Secret and projected volumes are always read-only";
    VolumeFull = "volume-full",
        "The volume is full, or a quota is used up.",
        "free space or inodes on the volume, or raise its size limit (`emptyDir.sizeLimit`)";
    NotPermitted = "not-permitted",
        "This process may not write into the directory.",
        "run as the user who owns the directory (`runAsUser`), or have it writable for our group (`fsGroup` of the pod)";
    GroupNotPermitted = "group-not-permitted",
        "This process may not give the file to that group.",
        "put this process into the group (`fsGroup` or `supplementalGroups` of the pod), or choose a group it is in";
    DirectoryMissing = "directory-missing",
        "The directory of the file is not there.",
        "mount a volume at the directory, or create it";
    VolumeBroken = "volume-broken",
        "The operating system fails the write for a reason of its own.",
        "see the error of the operating system and the node's kernel log; the write is tried again";
    VolumeHangs = "volume-hangs",
        "The volume gives no answer.",
        "check the volume; a memory-backed emptyDir cannot hang";
    Contended = "contended",
        "Another program changes the file all the time.",
        "let this program alone write the file: give the other one a file of its own, or name it as `base`";
    InotifyExhausted = "inotify-exhausted",
        "The node has no inotify instances or watches left: files are looked at every second instead.",
        "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches on the node";
    TooManyOpenFiles = "too-many-open-files",
        "This process, or the node, has as many files and connections open as it may.",
        "raise the limit of open files (`ulimit -n`, LimitNOFILE): 256 suffice for a few registries; if that is high, the node's fs.file-max is used up";
    ConsumerCannotRead = "consumer-cannot-read",
        "The consumer's user may not read the file: helm then asks without credentials and says nothing.",
        "give both containers one group (`fsGroup` of the pod) with mode 0640, or set ECR_SIDECAR_FILE_MODE to 0644";
    ConsumerLooksElsewhere = "consumer-looks-elsewhere",
        "DOCKER_CONFIG names another directory than the one of the file.",
        "set DOCKER_CONFIG to the directory of the file where the consumer runs";

    "Kubernetes":
    ServiceAccountToken = "service-account-token",
        "The pod has no token for the API server.",
        "let the pod have its token: automountServiceAccountToken: true in the pod (Argo CD's plain manifests switch it off), or mount a projected token at /var/run/secrets/kubernetes.io/serviceaccount";
    Kubeconfig = "kubeconfig",
        "There is no kubeconfig that can be used.",
        "outside a cluster a kubeconfig is needed: name it by KUBECONFIG, or leave the Secret outputs out";
    ApiServerCredentials = "api-server-credentials",
        "The certificates, the token or the plugin of the kubeconfig cannot be used.",
        "check the token, the certificates and the plugin that the kubeconfig names";
    ApiServerLogin = "api-server-login",
        "The API server refuses the token: it has been revoked, or has ended.",
        "the API server does not know this token: was the service account deleted, or is the kubeconfig's login over?";
    ApiServerUnreachable = "api-server-unreachable",
        "The API server cannot be reached, or has an outage.",
        "it is tried again by itself; if it lasts, check that this pod can reach the API server";
    ApiServerThrottled = "api-server-throttled",
        "The API server asks us to slow down.",
        "nothing to do: it is tried again after a pause";
    ApiServerCertificate = "api-server-certificate",
        "The API server's certificate is not trusted: another authority signed it, it has another name, or it has expired.",
        "check the certificate authority (`certificate-authority` of the kubeconfig; in a pod, ca.crt of the service account), `tls-server-name` and this machine's clock, and that no proxy intercepts TLS";
    RequestRejected = "request-rejected",
        "The API server, or a proxy in its place, rejects the request for a reason of its own.",
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
        "The namespace is not there, or is being deleted.",
        "create the namespace, or take it out of the configuration";
    SecretType = "secret-type",
        "The Secret is of a type that its consumer does not read.",
        "a Secret's type can't be changed: delete it and apply what `ecr-sidecar manifests` prints";
    SecretImmutable = "secret-immutable",
        "The Secret is immutable, or differs in a field that cannot change.",
        "delete the Secret if nothing needs it as it is, since an immutable field cannot change, and apply what `ecr-sidecar manifests` prints";
    SecretInvalid = "secret-invalid",
        "The API server rejects the Secret as invalid.",
        "see the API server's message, and correct the field that it names, or whatever sets that field";
    SecretMissing = "secret-missing",
        "The Secret of an Argo CD repository, which only its owner can make, is not there.",
        "create the repository in Argo CD, or take the name out of this output";
    SecretForeign = "secret-foreign",
        "The Secret holds credentials that no sidecar put there.",
        "choose another name, or set `adopt: true` on this output to keep it from now on";
    CredentialWithheld = "credential-withheld",
        "By the fields of an Argo CD Secret the registry's password would be sent elsewhere, or replace another user's.",
        "apply what `ecr-sidecar manifests` prints for it, and take `insecure…` keys and another user's `username` and `password` out";
    SecretFight = "secret-fight",
        "Another field manager changes our content of the Secret again and again.",
        "let the other one leave this Secret's data alone (kustomize.toolkit.fluxcd.io/ssa: IfNotPresent, Argo CD ignoreDifferences), or give this output another name";
    SecretTooLarge = "secret-too-large",
        "The Secret would be larger than the 1 MiB that is possible.",
        "spread the registries over several sidecars with a Secret each";

    "The program itself":
    Fault = "fault",
        "A fault of this program.",
        "please report it, with the lines of the log before it";
}

/// What to do about a failure: the [`Diagnosis`], and what is known of the case at hand. `Display` is the sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// What has gone wrong.
    pub diagnosis: Diagnosis,
    /// What the mend means here: a name, a number, a command. Empty where nothing more is known.
    detail: String,
}

impl Remedy {
    /// The mend of `diagnosis`, and `detail`, which says what it means here.
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
        f.write_str(self.diagnosis.mend())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

impl Serialize for Remedy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Told<'a> {
            diagnosis: &'a str,
            remedy: String,
        }
        Told { diagnosis: self.diagnosis.id(), remedy: self.to_string() }.serialize(serializer)
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
            let (id, cause, mend) = (diagnosis.id(), diagnosis.cause(), diagnosis.mend());
            for text in [id, cause, mend] {
                assert!(seen.insert(text), "{id}: {text:?} is there twice");
            }
            assert!(id.bytes().all(|c| c.is_ascii_lowercase() || c == b'-'), "{id}");
            assert!(cause.ends_with('.') && cause.starts_with(char::is_uppercase), "{id}: {cause}");
            assert!(mend.len() > 20 && !mend.ends_with('.'), "{id}: {mend}");
        }
    }

    #[test]
    fn a_remedy_says_the_mend_and_what_it_means_here() {
        let plain = Remedy::from(Diagnosis::VolumeHangs);
        assert_eq!(plain.to_string(), "check the volume; a memory-backed emptyDir cannot hang");
        let known = Remedy::with(Diagnosis::SourceIncomplete, "AWS_ROLE_ARN");
        assert_eq!(known.to_string(), "set what is missing, or unset the rest of this source (AWS_ROLE_ARN)");
    }
}
