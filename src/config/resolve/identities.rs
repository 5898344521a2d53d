//! From the file's identities to [`IdentitySpec`].

use std::path::PathBuf;

use super::{
    super::{Origin, Registries, file},
    Resolver, or_default,
};
use crate::{
    aws::{
        identity::{AssumeRole, IdentitySpec, Source, StaticFiles},
        variables::{Form, InvalidSetting},
    },
    registry::{Partition, Region},
};

impl Resolver<'_> {
    pub(super) fn identity(
        &mut self,
        name: &str,
        identity: &mut file::Identity,
        fallback: Option<&Region>,
    ) -> IdentitySpec {
        let path = format!("identities.{name}");
        self.reject_foreign_keys(&path, identity);
        let source = self.source(&path, identity);
        let assume_roles = identity.assume_roles.iter_mut().enumerate();
        let assume_roles = assume_roles
            .map(|(index, role)| self.assume_role(&format!("{path}.assumeRoles[{index}]"), role))
            .collect();
        let sts_region = self.sts_region(&path, identity.sts_region.as_deref(), fallback);
        identity.sts_region = Some(sts_region.to_string());
        let expect_account = identity.expect_account.as_deref();
        let expect_account =
            expect_account.and_then(|account| self.parse(&format!("{path}.expectAccount"), account));
        IdentitySpec { name: name.to_owned(), source, assume_roles, sts_region, expect_account }
    }

    fn sts_region(&mut self, path: &str, configured: Option<&str>, fallback: Option<&Region>) -> Region {
        let place = format!("{path}.stsRegion");
        if let Some(region) = configured.and_then(|region| self.parse(&place, region)) {
            return region;
        }
        let (region, from) = match &self.context.sdk.region {
            Some(region) => (region.clone(), "AWS_REGION"),
            None => (default_sts_region(fallback), "the registries' partition"),
        };
        self.origins.set(place, Origin::Derived(from));
        region
    }

    fn reject_foreign_keys(&mut self, path: &str, identity: &file::Identity) {
        use file::SourceKind::{Profile, Static, WebIdentity};
        let owned = [
            ("profile", identity.profile.is_some(), Profile, "profile"),
            ("roleArn", identity.role_arn.is_some(), WebIdentity, "web-identity"),
            ("tokenFile", identity.token_file.is_some(), WebIdentity, "web-identity"),
            ("accessKeyIdFile", identity.access_key_id_file.is_some(), Static, "static"),
            ("secretAccessKeyFile", identity.secret_access_key_file.is_some(), Static, "static"),
            ("sessionTokenFile", identity.session_token_file.is_some(), Static, "static"),
        ];
        for (key, is_set, owner, name) in owned {
            if is_set && identity.source != owner {
                self.reject_unless_reported(
                    &format!("{path}.{key}"),
                    "a value",
                    format!("this key only with `source: {name}`"),
                );
            }
        }
    }

    fn check(&mut self, path: &str, value: Option<&str>, form: Form) {
        if let Some(Err(InvalidSetting { found, expected, .. })) = value.map(|value| form.check(path, value))
        {
            self.reject(path, found, expected);
        }
    }

    fn source(&mut self, path: &str, identity: &file::Identity) -> Source {
        use file::SourceKind;
        self.check(&format!("{path}.roleArn"), identity.role_arn.as_deref(), Form::RoleArn);
        self.check(&format!("{path}.profile"), identity.profile.as_deref(), Form::Name);
        match identity.source {
            SourceKind::Auto => Source::Auto,
            SourceKind::Environment => Source::Environment,
            SourceKind::Profile => Source::Profile { name: identity.profile.clone() },
            SourceKind::WebIdentity => Source::WebIdentity {
                role_arn: identity.role_arn.clone(),
                token_file: identity.token_file.as_ref().map(|file| file.0.clone()),
            },
            SourceKind::PodIdentity => Source::PodIdentity,
            SourceKind::Imds => Source::Imds,
            SourceKind::Static => {
                let mut required = |key: &str, file: &Option<file::FilePath>| {
                    self.required_path(&format!("{path}.{key}"), file.as_ref())
                };
                Source::Static(StaticFiles {
                    access_key_id: required("accessKeyIdFile", &identity.access_key_id_file),
                    secret_access_key: required("secretAccessKeyFile", &identity.secret_access_key_file),
                    session_token: identity.session_token_file.as_ref().map(|file| file.0.clone()),
                })
            }
        }
    }

    fn required_path(&mut self, place: &str, file: Option<&file::FilePath>) -> PathBuf {
        let path = file.map(|file| file.0.clone()).unwrap_or_default();
        if path.as_os_str().is_empty() {
            self.reject_unless_reported(place, "nothing", "a file's path: `source: static` needs it");
        }
        path
    }

    fn assume_role(&mut self, path: &str, role: &mut file::AssumeRole) -> AssumeRole {
        let session_name = or_default(&mut role.session_name, "ecr-sidecar");
        self.check(&format!("{path}.roleArn"), Some(&role.role_arn), Form::RoleArn);
        self.check(&format!("{path}.externalId"), role.external_id.as_deref(), Form::ExternalId);
        self.check(&format!("{path}.sessionName"), Some(session_name), Form::SessionName);
        AssumeRole {
            role_arn: role.role_arn.clone(),
            external_id: role.external_id.clone(),
            session_name: session_name.to_owned(),
        }
    }
}

pub(super) fn registries_region(registries: &Registries) -> Option<Region> {
    match registries {
        Registries::Own(key) => Some(key.region.clone()),
        Registries::Listed(registries) => registries.first().map(|registry| registry.key.region.clone()),
    }
}

/// Where a partition's STS is called when no region is configured: not in the registry's region, which may
/// be closed to STS, but in the partition's first one.
fn default_sts_region(registry: Option<&Region>) -> Region {
    registry.and_then(Region::partition).map_or_else(Region::us_east_1, Partition::first_region)
}
