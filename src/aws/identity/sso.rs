//! A role of IAM Identity Center, by the token that `aws sso login` has left in `~/.aws/sso/cache`.
//!
//! A token that is about to expire is renewed if the login allows it, and written back, since the renewal replaces the
//! refresh token that the AWS CLI finds there. Where the file cannot be written, the new token is kept in memory.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::{Identity, IdentityError, chain::Sso};
use crate::{
    aws::{
        error::AwsFailure,
        key_material::{FoundKeys, KeyMaterial, Origin},
    },
    failure::{
        Class, Diagnose,
        shown_value::{clean_name, clean_path},
    },
    fs::read::read,
    tasks::{self, locked},
};

/// Login tokens have a few kilobytes.
const SIZE_LIMIT: usize = 256 << 10;
const EXPIRY_MARGIN: Duration = Duration::from_secs(5 * 60);

/// The file of a login, as the AWS CLI writes it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Login {
    access_token: Wiped,
    expires_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<Wiped>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<Wiped>,
    /// What else stands there, which is written back as it was.
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

type Wiped = Zeroizing<String>;

impl Login {
    fn expires_at(&self) -> Option<SystemTime> {
        // Older versions of the AWS CLI wrote `UTC` for `Z`.
        let text = self.expires_at.trim().replace("UTC", "Z");
        text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
    }

    fn outlives(&self, time: SystemTime) -> bool {
        self.expires_at().is_some_and(|end| end > time)
    }
}

impl Identity {
    pub(super) async fn sso(&self, profile: &str, sso: Sso<'_>) -> Result<Credentials, IdentityError> {
        let sdk = self.sdk.to_builder().region(aws_config::Region::new(sso.region.to_owned())).build();
        let login = self.login(profile, sso, &sdk).await?;
        let malformed = || broken(profile, "the token of its login is malformed".into());
        let token = KeyMaterial::parse(&login.access_token).map_err(|_| malformed())?.into_secret();
        let answer = aws_sdk_sso::Client::new(&sdk)
            .get_role_credentials()
            .account_id(sso.account_id)
            .role_name(sso.role_name)
            .access_token(token.expose())
            .send()
            .await;
        let answer = answer.map_err(|error| {
            if error.as_service_error().is_some_and(|error| error.is_unauthorized_exception()) {
                // The login was revoked: the next attempt reads the file again, where a newer one may be.
                *locked(&self.login) = None;
            }
            self.of_sso(
                profile,
                AwsFailure::new("sso:GetRoleCredentials", &error, self.clock.now(), &[token.expose()]),
            )
        })?;
        let incomplete = || IdentityError::NoCredentialsInAnswer { operation: "sso:GetRoleCredentials" };
        let given = answer.role_credentials.ok_or_else(incomplete)?;
        let lifetime = u64::try_from(given.expiration).map_err(|_| incomplete())?;
        let expiry = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(lifetime));
        let keys = FoundKeys {
            access_key_id: given.access_key_id.as_deref().ok_or_else(incomplete)?,
            secret_access_key: given.secret_access_key.as_deref().ok_or_else(incomplete)?,
            session_token: given.session_token.as_deref(),
            expiry: Some(expiry.ok_or_else(incomplete)?),
        };
        Ok(keys.into_credentials(&Origin::of("sso", "the answer of sso:GetRoleCredentials"))?)
    }

    /// A login with some life left: that of the file, or one that it is renewed by.
    async fn login(&self, profile: &str, sso: Sso<'_>, sdk: &SdkConfig) -> Result<Login, IdentityError> {
        let now = self.clock.now();
        let kept = locked(&self.login).clone();
        if let Some(login) = kept.filter(|login| login.outlives(now + EXPIRY_MARGIN)) {
            return Ok(login);
        }
        let home = self.env.get("HOME").ok_or_else(|| broken(profile, "HOME is unset".into()))?;
        let path = path_of(home, sso.session.unwrap_or(sso.start_url));
        let place = clean_path(&path);
        let text = read(&path, SIZE_LIMIT).await.map_err(|error| {
            let detail = if error.is_not_found() {
                format!("there is no login of its SSO session: no file {place}")
            } else {
                format!("cannot read the login of its SSO session in {place}: {error}")
            };
            broken(profile, detail)
        })?;
        let not_a_login = || broken(profile, format!("{place} is not a login of an SSO session"));
        let login: Login = serde_json::from_slice(&text).map_err(|_| not_a_login())?;
        if login.outlives(now + EXPIRY_MARGIN) {
            return Ok(login);
        }
        match self.renewed(&login, sso, sdk).await {
            Ok(Some(renewed)) => {
                *locked(&self.login) = Some(renewed.clone());
                keep(path.clone(), renewed.clone()).await;
                Ok(renewed)
            }
            _ if login.outlives(now) => Ok(login),
            Ok(None) => Err(broken(profile, format!("the login of its SSO session in {place} has expired"))),
            Err(failure) => Err(self.of_sso(profile, failure)),
        }
    }

    /// `None` where the login cannot be renewed: it is of the older form, or registered without that.
    async fn renewed(
        &self,
        login: &Login,
        sso: Sso<'_>,
        sdk: &SdkConfig,
    ) -> Result<Option<Login>, AwsFailure> {
        let (Some(refresh), Some(id), Some(secret), Some(_)) =
            (&login.refresh_token, &login.client_id, &login.client_secret, sso.session)
        else {
            return Ok(None);
        };
        let answer = aws_sdk_ssooidc::Client::new(sdk)
            .create_token()
            .grant_type("refresh_token")
            .client_id(id)
            .client_secret(secret.as_str())
            .refresh_token(refresh.as_str())
            .send()
            .await
            .map_err(|error| {
                let secrets = [refresh.as_str(), secret.as_str()];
                AwsFailure::new("sso-oidc:CreateToken", &error, self.clock.now(), &secrets)
            })?;
        let lifetime = Duration::from_secs(u64::try_from(answer.expires_in).unwrap_or_default());
        let Some(access_token) = answer.access_token else { return Ok(None) };
        Ok(Some(Login {
            access_token: Zeroizing::new(access_token),
            expires_at: crate::clock::rfc3339(self.clock.now() + lifetime),
            refresh_token: answer.refresh_token.map(Zeroizing::new).or_else(|| login.refresh_token.clone()),
            ..login.clone()
        }))
    }

    fn of_sso(&self, profile: &str, failure: AwsFailure) -> IdentityError {
        match failure.class() {
            Class::Denied => broken(profile, failure.to_string()),
            _ => IdentityError::Sts { subject: format!("profile `{}`", clean_name(profile)), failure },
        }
    }
}

fn broken(profile: &str, detail: String) -> IdentityError {
    IdentityError::Profile { profile: clean_name(profile), detail, class: Class::Denied }
}

/// The file of a login, which is named by a digest of the session's name, or of the start URL.
fn path_of(home: &str, identifier: &str) -> PathBuf {
    let digest = Sha1::digest(identifier.as_bytes());
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Path::new(home).join(".aws/sso/cache").join(name).with_extension("json")
}

async fn keep(path: PathBuf, login: Login) {
    let write = move || -> io::Result<()> {
        let text = Zeroizing::new(serde_json::to_vec(&login)?);
        let new = path.with_extension(format!("json.{}", std::process::id()));
        let _ = fs::remove_file(&new); // left by a process of the same number
        let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
        let outcome =
            written.and_then(|mut file| file.write_all(&text)).and_then(|()| fs::rename(&new, &path));
        if outcome.is_err() {
            let _ = fs::remove_file(&new);
        }
        outcome
    };
    // A volume that hangs keeps the thread, not us.
    let written = tasks::blocking_within(Duration::from_secs(2), write).await;
    if !matches!(written, Some(Ok(()))) {
        tracing::debug!("the renewed SSO login cannot be written back and is kept in memory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_login_is_the_one_of_the_aws_cli() {
        let path = path_of("/home/me", "corp");
        assert!(path.ends_with(".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json"), "{path:?}");
    }

    #[test]
    fn a_login_is_read_and_written_back_whole() {
        let text = r#"{"startUrl":"u","accessToken":"a","expiresAt":"2030-01-01T00:00:00UTC","registrationExpiresAt":"r"}"#;
        let login: Login = serde_json::from_str(text).unwrap();
        assert!(login.outlives(SystemTime::UNIX_EPOCH) && login.expires_at().is_some());
        let again: serde_json::Value = serde_json::to_value(&login).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert!(serde_json::from_str::<Login>(r#"{"accessToken":5,"expiresAt":"x"}"#).is_err());
    }
}
