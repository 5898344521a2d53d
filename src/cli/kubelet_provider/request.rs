//! What the kubelet asks: for which image, and for whom. Pure.
//!
//! Who writes what: the kubelet writes the request. The image and the ServiceAccount's annotations in it are chosen by
//! whoever may create pods and ServiceAccounts in a namespace; the token is the API server's. So an annotation may name
//! any role, and AWS decides by the role's trust policy whether this account may have it. Whatever cannot be read as a role
//! is an error: a pod whose account asked for a role never gets the node's identity instead
//! (`what_an_account_asks_for_is_its_role_or_an_error`).

use std::collections::BTreeMap;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::API_VERSION;
use crate::{
    aws::identity::{InvalidServiceAccount, ServiceAccount},
    failure::shown_value::{key, quoted},
    registry::RegistryHost,
    secret::Secret,
};

/// The annotations that name a role, unless others are given: that of AWS's own provider, and that of IRSA.
const ANNOTATIONS: [&str; 2] = ["eks.amazonaws.com/ecr-role-arn", "eks.amazonaws.com/role-arn"];
const KIND: &str = "CredentialProviderRequest";

#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error(
        "standard input is not a CredentialProviderRequest: unexpected JSON at line {line}, column {column}; the kubelet \
         writes one, and `--help` shows one to try"
    )]
    Form { line: usize, column: usize },
    #[error(
        "the request is a {kind} of {api_version}, expected a {KIND} of `{API_VERSION}`: set `apiVersion: {API_VERSION}` \
         for this provider in the kubelet's CredentialProviderConfig"
    )]
    Version { kind: String, api_version: String },
    #[error(
        "the kubelet passes the annotation {0}, which names no role here: add `--role-annotation` with its name to `args` \
         in the CredentialProviderConfig, or remove it from `tokenAttributes`"
    )]
    UnknownAnnotation(String),
    #[error("the request has annotations of a ServiceAccount and no token of it")]
    NoToken,
    #[error("the ServiceAccount's annotation {annotation} cannot be used: {source}")]
    Annotation { annotation: String, source: InvalidServiceAccount },
    #[error("`--role-arn` cannot be used: {0}")]
    DefaultRole(InvalidServiceAccount),
}

/// How a ServiceAccount comes to its role.
#[derive(Debug, Default, clap::Args)]
pub(in crate::cli) struct RoleRules {
    /// A ServiceAccount's annotation that names a role, instead of eks.amazonaws.com/ecr-role-arn and
    /// eks.amazonaws.com/role-arn; may be repeated, the first one found counts
    #[arg(long, value_name = "KEY")]
    role_annotation: Vec<String>,
    /// The role for ServiceAccounts that name none, assumed with their token [default: the node's identity asks for them]
    #[arg(long, value_name = "ARN")]
    role_arn: Option<String>,
}

impl RoleRules {
    fn annotations(&self) -> Vec<&str> {
        match self.role_annotation.as_slice() {
            [] => ANNOTATIONS.to_vec(),
            given => given.iter().map(String::as_str).collect(),
        }
    }
}

/// A `CredentialProviderRequest`. Fields that a later kubelet adds are not read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    api_version: String,
    kind: String,
    image: String,
    #[serde(default)]
    service_account_token: Zeroizing<String>,
    #[serde(default)]
    service_account_annotations: BTreeMap<String, String>,
}

impl Request {
    pub(super) fn parse(text: &str) -> Result<Self, RequestError> {
        // The error's text may quote the request.
        let request: Self = serde_json::from_str(text)
            .map_err(|error| RequestError::Form { line: error.line(), column: error.column() })?;
        if request.api_version == API_VERSION && request.kind == KIND {
            Ok(request)
        } else {
            let (kind, api_version) = (quoted(&request.kind), quoted(&request.api_version));
            Err(RequestError::Version { kind, api_version })
        }
    }

    /// The registry of the image, as the image names it and as a host. The kubelet passes images with their registry.
    pub(super) fn registry(&self) -> Option<(&str, RegistryHost)> {
        let (named, _) = self.image.split_once('/')?;
        Some((named, named.parse().ok()?))
    }

    /// The pod's ServiceAccount and its role; none where the node's identity is to ask.
    pub(super) fn account(&self, rules: &RoleRules) -> Result<Option<ServiceAccount>, RequestError> {
        let (given, known) = (&self.service_account_annotations, rules.annotations());
        if let Some(unknown) = given.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(RequestError::UnknownAnnotation(key(unknown)));
        }
        if self.service_account_token.is_empty() {
            return if given.is_empty() { Ok(None) } else { Err(RequestError::NoToken) };
        }
        let account =
            |role: &str| ServiceAccount::new(role, Secret::new(self.service_account_token.to_string()));
        let named = known.iter().find_map(|name| Some((*name, given.get(*name)?)));
        match (named, &rules.role_arn) {
            (Some((name, role)), _) => account(role)
                .map(Some)
                .map_err(|source| RequestError::Annotation { annotation: key(name), source }),
            (None, Some(role)) => account(role).map(Some).map_err(RequestError::DefaultRole),
            (None, None) => Ok(None),
        }
    }
}
