//! Who exists, who may do what, and on which addresses does the emulator listen?

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The key of the default user. Made up by AWS for its documentation; it never was a real one.
pub const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
/// The secret of the default user. Made up by AWS for its documentation; it never was a real one.
pub const SECRET_ACCESS_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// The account of the default user.
pub const ACCOUNT: &str = "123456789012";
/// The value of the `Authorization` header that the Pod Identity agent takes by default.
pub const POD_IDENTITY_TOKEN: &str = "pod-identity-token-of-the-emulator";

/// What the emulator is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long an ECR token lives.
    pub token_lifetime: Duration,
    /// Who holds a long-lived key.
    pub users: Vec<User>,
    /// The roles that exist. Empty: every role exists and anyone may assume it, with or without an external id.
    /// Once policies are attached, those decide instead.
    pub roles: Vec<Role>,
    /// What is forbidden, whatever policies allow.
    pub deny: Vec<Denial>,
    /// The token that the Pod Identity agent knows; any other one has no association (404).
    pub pod_identity_token: String,
    /// The service account (`system:serviceaccount:NAMESPACE:NAME`) with an association. It is then not that one token,
    /// but any that is this account's, checked as a web-identity token is, for the audience `pods.eks.amazonaws.com`.
    pub pod_identity_subject: Option<String>,
    /// The role whose credentials the Pod Identity agent gives out.
    pub pod_identity_role: String,
    /// The role of the instance, given out by the metadata service.
    pub instance_role: String,
    /// The region of the instance.
    pub instance_region: String,
    /// A JSON Web Key Set, as an OIDC issuer publishes it: web-identity tokens must then carry a signature
    /// (RS256 or ES256) by one of its keys. Without it only tokens by the emulator itself have theirs checked.
    pub jwks_file: Option<PathBuf>,
    /// The one issuer, besides the emulator itself, that the account has an OIDC provider for. Without it: any.
    pub issuer: Option<String>,
    /// A registry (`http://` on this machine) that admitted requests are handed on to, instead of the image and the
    /// chart in memory.
    pub registry_upstream: Option<String>,
    /// Further registry hosts, next to those of kind `ACCOUNT.dkr.ecr.REGION.amazonaws.com`: (host, region).
    pub registry_hosts: Vec<(String, String)>,
    /// Where HTTP listens.
    pub http_listen: SocketAddr,
    /// Where TLS listens.
    pub https_listen: SocketAddr,
    /// Where the proxy listens.
    pub proxy_listen: SocketAddr,
}

impl Default for Settings {
    fn default() -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            token_lifetime: Duration::from_secs(12 * 3600),
            users: vec![User::default()],
            roles: Vec::new(),
            deny: Vec::new(),
            pod_identity_token: POD_IDENTITY_TOKEN.to_owned(),
            pod_identity_subject: None,
            pod_identity_role: format!("arn:aws:iam::{ACCOUNT}:role/pod-role"),
            instance_role: format!("arn:aws:iam::{ACCOUNT}:role/node-role"),
            instance_region: "eu-west-1".to_owned(),
            jwks_file: None,
            issuer: None,
            registry_upstream: None,
            registry_hosts: Vec::new(),
            http_listen: any_port,
            https_listen: any_port,
            proxy_listen: any_port,
        }
    }
}

/// A user with a long-lived key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// `AKIA…`
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: String,
    /// Twelve digits.
    pub account: String,
    /// Who it is.
    pub arn: String,
}

impl Default for User {
    fn default() -> Self {
        Self {
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret_access_key: SECRET_ACCESS_KEY.to_owned(),
            account: ACCOUNT.to_owned(),
            arn: format!("arn:aws:iam::{ACCOUNT}:user/emulated"),
        }
    }
}

/// A role and who may assume it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// `arn:aws:iam::ACCOUNT:role/NAME`
    pub arn: String,
    /// Any one of these suffices.
    pub trusts: Vec<Trust>,
    /// The external id that `AssumeRole` must carry.
    pub external_id: Option<String>,
    /// The audience of web-identity tokens.
    pub audience: String,
}

impl Role {
    /// A role that trusts these, with no external id, for the audience `sts.amazonaws.com`.
    pub fn new(arn: impl Into<String>, trusts: impl IntoIterator<Item = Trust>) -> Self {
        Self {
            arn: arn.into(),
            trusts: trusts.into_iter().collect(),
            external_id: None,
            audience: crate::web_identity::AUDIENCE.to_owned(),
        }
    }
}

/// Whom a role trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Every principal and every web identity.
    Any,
    /// A user's or a role's ARN (a role stands for all of its sessions), or `arn:aws:iam::ACCOUNT:root` for an account.
    Principal(String),
    /// The `sub` of a web-identity token, e.g. `system:serviceaccount:flux-system:image-reflector-controller`.
    Subject(String),
}

/// An action that a principal may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What the principal's ARN begins with.
    pub arn_prefix: String,
    /// e.g. `ecr:GetAuthorizationToken`.
    pub action: String,
}
