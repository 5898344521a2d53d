//! Credentials of a profile of the AWS profile files, which are read again each time.

use aws_config::{
    imds::{Client as MetadataClient, credentials::ImdsCredentialsProvider},
    provider_config::ProviderConfig,
};
use aws_credential_types::{Credentials, provider::ProvideCredentials};

use super::{
    Identity, IdentityError, Principal, Resolved,
    chain::{Base, Chain},
    process::{self, ProcessError},
    static_keys,
};
use crate::{
    aws::{
        key_material::{FoundKeys, Origin},
        profile_file::Profiles,
        sdk::{METADATA, endpoint_of},
    },
    failure::{Class, causes, shown_value::clean_name},
};

impl Identity {
    pub(super) async fn profile(&self, name: &str) -> Result<Resolved, IdentityError> {
        let (profiles, error) = Profiles::read_usable(&self.env).await;
        match (error, self.profile_of(&profiles, name)) {
            (None, resolving) => resolving.await,
            // As the AWS CLI has it: one file is enough, if it has the profile.
            (Some(error), resolving) if error.is_missing() => match resolving.await {
                Err(IdentityError::ProfileNotFound { .. }) => Err(error.into()),
                resolved => resolved,
            },
            (Some(error), _) => Err(error.into()),
        }
    }

    /// The profile `default` is a source only when it is there and holds credentials.
    pub(super) async fn default_profile(&self) -> Result<Option<Resolved>, IdentityError> {
        let profiles = match Profiles::read(&self.env).await {
            Ok(profiles) => profiles,
            Err(error) if error.may_be_absent() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match self.profile_of(&profiles, "default").await {
            Ok(resolved) => Ok(Some(resolved)),
            Err(IdentityError::ProfileNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn profile_of(&self, profiles: &Profiles, name: &str) -> Result<Resolved, IdentityError> {
        let Chain { profile, base, roles } = Chain::of(profiles, name)?;
        let mut arn = None;
        let credentials = match base {
            Base::Keys(keys) => {
                let place = format!("profile `{}`", clean_name(profile));
                keys.into_credentials(&Origin::of("profile", place))?
            }
            Base::Process(command) => process::credentials(command, profile).await.map_err(|error| {
                let class = match error {
                    ProcessError::TimedOut => Class::Transient,
                    _ => Class::Denied,
                };
                let detail = format!("its credential_process {error}");
                IdentityError::Profile { profile: clean_name(profile), detail, class }
            })?,
            Base::WebIdentity { role_arn, token_file, session_name } => {
                let (credentials, role) =
                    self.web_identity(Some(role_arn), Some(token_file.as_ref()), session_name).await?;
                arn = Some(role);
                credentials
            }
            Base::Sso(sso) => self.sso(profile, sso).await?,
            Base::Environment => static_keys::from_environment(&self.env)?,
            Base::Container => self.container().await?,
            Base::Metadata => self.imds().await?,
            Base::LoginSession => {
                return Err(IdentityError::LoginSession { profile: clean_name(profile) });
            }
        };
        let mut resolved = Resolved { credentials, principal: Principal { source: "profile".into(), arn } };
        for role in &roles {
            resolved = self.assume_role(role, resolved).await?;
        }
        Ok(resolved)
    }

    pub(super) async fn imds(&self) -> Result<Credentials, IdentityError> {
        let unavailable = |detail: String| IdentityError::Imds { detail };
        if self.env.get("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return Err(unavailable("AWS_EC2_METADATA_DISABLED is true".into()));
        }
        let config = self.provider_config();
        // Without an endpoint the SDK would look for one in the environment and in the profile files.
        let endpoint = endpoint_of(&self.sdk, METADATA).unwrap_or_else(|| "http://169.254.169.254".into());
        let client = MetadataClient::builder().configure(&config).endpoint(endpoint);
        let client = client.map_err(|error| unavailable(error.to_string()))?.build();
        let provider = ImdsCredentialsProvider::builder().configure(&config).imds_client(client).build();
        let found = provider.provide_credentials().await.map_err(|source| unavailable(causes(&source)))?;
        let keys = FoundKeys {
            access_key_id: found.access_key_id(),
            secret_access_key: found.secret_access_key(),
            session_token: found.session_token(),
            expiry: found.expiry(),
        };
        Ok(keys.into_credentials(&Origin::of("imds", "the answer of the instance metadata service"))?)
    }

    /// For the SDK's own provider. It is asked once: the refresher retries.
    fn provider_config(&self) -> ProviderConfig {
        let config =
            ProviderConfig::without_region().with_retry_config(aws_config::retry::RetryConfig::disabled());
        match self.sdk.http_client() {
            Some(client) => config.with_http_client(client),
            None => config,
        }
    }
}
