//! Roles: web identity, chains, and the account guard.

use std::{path::Path, time::SystemTime};

use aws_credential_types::Credentials;
use aws_sdk_sts::{config::Builder as StsConfig, types::Credentials as StsCredentials};

use super::{
    AssumeRole, Caller, Identity, IdentityError, Principal, Resolved, SESSION_NAME, secrets_of, static_keys,
};
use crate::{
    aws::{
        error::AwsFailure,
        key_material::{FoundKeys, Origin},
    },
    failure::foreign_text::clean,
    registry::AccountId,
    secret::Secret,
};

impl Identity {
    /// The credentials of a web-identity token's role, and its session's ARN. The token is read again each
    /// time: kubelet replaces it about hourly.
    pub(super) async fn web_identity(
        &self,
        role_arn: Option<&str>,
        token_file: Option<&Path>,
        session_name: Option<&str>,
    ) -> Result<(Credentials, String), IdentityError> {
        let missing = |missing| IdentityError::Incomplete { source_name: "web identity", missing };
        let role_arn = role_arn.or_else(|| self.env.get("AWS_ROLE_ARN")).ok_or(missing("AWS_ROLE_ARN"))?;
        let token_file = token_file
            .or_else(|| self.env.get("AWS_WEB_IDENTITY_TOKEN_FILE").map(Path::new))
            .ok_or(missing("AWS_WEB_IDENTITY_TOKEN_FILE"))?;
        let token = static_keys::read_line("web-identity token", token_file).await?;
        self.exchange(role_arn, &token, session_name).await
    }

    /// The credentials of the role that `token` is exchanged for, and its session's ARN.
    pub(super) async fn exchange(
        &self,
        role_arn: &str,
        token: &Secret<String>,
        session_name: Option<&str>,
    ) -> Result<(Credentials, String), IdentityError> {
        let session_name = session_name.or_else(|| self.env.get("AWS_ROLE_SESSION_NAME"));
        let session_name = session_name.unwrap_or(SESSION_NAME);
        let answer = self
            .sts()
            .assume_role_with_web_identity()
            .role_arn(role_arn)
            .role_session_name(session_name)
            .web_identity_token(token.expose())
            .send()
            .await
            .map_err(|error| {
                self.sts_error("sts:AssumeRoleWithWebIdentity", role_arn, &error, &[token.expose()])
            })?;
        let arn = answer.assumed_role_user.map_or_else(|| role_arn.to_owned(), |user| clean(&user.arn));
        Ok((self.temporary(answer.credentials, "sts:AssumeRoleWithWebIdentity")?, arn))
    }

    pub(super) async fn assume_role(
        &self,
        role: &AssumeRole,
        from: Resolved,
    ) -> Result<Resolved, IdentityError> {
        let Resolved { credentials, principal } = from;
        let provider = credentials.clone();
        let answer = self
            .sts()
            .assume_role()
            .role_arn(&role.role_arn)
            .role_session_name(&role.session_name)
            .set_external_id(role.external_id.clone())
            .customize()
            .config_override(StsConfig::new().credentials_provider(provider))
            .send()
            .await
            .map_err(|error| {
                let [key, session] = secrets_of(&credentials);
                let secrets = [key, session, role.external_id.as_deref().unwrap_or_default()];
                self.sts_error("sts:AssumeRole", &role.role_arn, &error, &secrets)
            })?;
        let arn = answer.assumed_role_user.map_or_else(|| role.role_arn.clone(), |user| clean(&user.arn));
        let credentials = self.temporary(answer.credentials, "sts:AssumeRole")?;
        Ok(Resolved { credentials, principal: Principal { arn: Some(arn), ..principal } })
    }

    /// Fails unless the credentials belong to the `expected` account; learns the ARN by the way.
    pub(super) async fn check_account(
        &self,
        expected: &AccountId,
        resolved: &mut Resolved,
    ) -> Result<(), IdentityError> {
        let Caller { account, arn } = self.caller(resolved).await?;
        if account != expected.as_str() {
            let (identity, expected) = (self.spec.name.clone(), expected.clone());
            return Err(IdentityError::WrongAccount { identity, expected, account, arn });
        }
        resolved.principal.arn = Some(arn);
        Ok(())
    }

    /// Asks STS who the credentials are: it answers everybody whose keys it knows.
    pub async fn caller(&self, resolved: &Resolved) -> Result<Caller, IdentityError> {
        let caller = self
            .sts()
            .get_caller_identity()
            .customize()
            .config_override(StsConfig::new().credentials_provider(resolved.credentials.clone()))
            .send()
            .await
            .map_err(|error| {
                let secrets = secrets_of(&resolved.credentials);
                self.sts_error("sts:GetCallerIdentity", &resolved.principal.source, &error, &secrets)
            })?;
        let [account, arn] = [caller.account, caller.arn].map(|text| clean(&text.unwrap_or_default()));
        Ok(Caller { account, arn })
    }

    fn sts(&self) -> &aws_sdk_sts::Client {
        self.sts.get_or_init(|| {
            let region = aws_config::Region::new(self.spec.sts_region.to_string());
            aws_sdk_sts::Client::from_conf(StsConfig::from(&self.sdk).region(region).build())
        })
    }

    fn temporary(
        &self,
        credentials: Option<StsCredentials>,
        operation: &'static str,
    ) -> Result<Credentials, IdentityError> {
        let incomplete = || IdentityError::NoCredentialsInAnswer { operation };
        let given = credentials.ok_or_else(incomplete)?;
        if given.access_key_id.is_empty() || given.secret_access_key.is_empty() {
            return Err(incomplete());
        }
        let keys = FoundKeys {
            access_key_id: &given.access_key_id,
            secret_access_key: &given.secret_access_key,
            session_token: Some(&given.session_token),
            expiry: Some(SystemTime::try_from(given.expiration).map_err(|_| incomplete())?),
        };
        Ok(keys.into_credentials(&Origin::of(operation, format_args!("the answer of {operation}")))?)
    }

    fn sts_error<E>(
        &self,
        operation: &'static str,
        subject: &str,
        error: &aws_sdk_sts::error::SdkError<E>,
        secrets: &[&str],
    ) -> IdentityError
    where
        E: aws_smithy_types::error::metadata::ProvideErrorMetadata + std::error::Error + 'static,
    {
        let failure = AwsFailure::new(operation, error, self.clock.now(), secrets);
        IdentityError::Sts { subject: clean(subject), failure }
    }
}
