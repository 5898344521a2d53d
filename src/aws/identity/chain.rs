//! What a profile of the AWS profile files amounts to: where its first keys come from, and the roles that are assumed
//! from there. Pure; the files have been read.
//!
//! The rules are those of the SDKs (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html>):
//! `role_arn` with `source_profile` goes on in that profile, whose keys, if it has any, come before its own role.

use super::{AssumeRole, IdentityError};
use crate::{
    aws::{
        key_material::FoundKeys,
        profile_file::{Profiles, Section},
        variables::{Form, InvalidSetting},
    },
    failure::{Class, foreign_text::clean, shown_value::clean_name},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base<'a> {
    Keys(FoundKeys<'a>),
    Process(&'a str),
    WebIdentity { role_arn: &'a str, token_file: &'a str, session_name: Option<&'a str> },
    Sso(Sso<'a>),
    Environment,
    Container,
    Metadata,
    LoginSession,
}

/// A role of IAM Identity Center.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sso<'a> {
    pub(super) account_id: &'a str,
    pub(super) role_name: &'a str,
    pub(super) region: &'a str,
    pub(super) start_url: &'a str,
    /// `None` for the older form, whose login cannot be renewed.
    pub(super) session: Option<&'a str>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chain<'a> {
    /// The profile that the first keys come from.
    pub(super) profile: &'a str,
    pub(super) base: Base<'a>,
    /// In the order in which they are assumed.
    pub(super) roles: Vec<AssumeRole>,
}

impl<'a> Chain<'a> {
    pub(super) fn of(profiles: &'a Profiles, name: &'a str) -> Result<Self, IdentityError> {
        let mut roles = Vec::new();
        let mut visited: Vec<&str> = Vec::new();
        let mut name = name;
        loop {
            let profile = Named { name, section: find(profiles, name, visited.last().copied())? };
            if visited.contains(&name) {
                return Err(profile.broken("it is its own source_profile, by way of others"));
            }
            visited.push(name);
            let has_keys = visited.len() > 1 && profile.has_keys();
            let source = match profile.role()? {
                Some((role, source)) if !has_keys => {
                    roles.push(role);
                    source
                }
                _ => name,
            };
            if source == name {
                roles.reverse();
                return Ok(Self { profile: name, base: profile.base(profiles, has_keys)?, roles });
            }
            name = source;
        }
    }
}

fn find<'a>(profiles: &'a Profiles, name: &str, from: Option<&str>) -> Result<&'a Section, IdentityError> {
    profiles.profile(name).ok_or_else(|| {
        let nowhere = "there is none of that name";
        let detail = match from.map(clean_name) {
            Some(from) => format!("the profile `{from}` names it as its source_profile, and {nowhere}"),
            None => format!("{nowhere} in the AWS profile files"),
        };
        IdentityError::ProfileNotFound { profile: clean_name(name), detail }
    })
}

#[derive(Clone, Copy)]
struct Named<'a> {
    name: &'a str,
    section: &'a Section,
}

impl<'a> Named<'a> {
    fn get(&self, property: &str) -> Option<&'a str> {
        self.section.get(property)
    }

    fn require(&self, property: &str) -> Result<&'a str, IdentityError> {
        self.get(property).ok_or_else(|| self.broken(&format!("`{property}` is missing")))
    }

    fn checked(&self, property: &str, form: Form) -> Result<Option<&'a str>, IdentityError> {
        let value = self.get(property);
        if let Some(Err(InvalidSetting { found, expected, .. })) = value.map(|it| form.check(property, it)) {
            return Err(self.broken(&format!("`{property}` is {found}, expected {expected}")));
        }
        Ok(value)
    }

    fn required(&self, property: &str, form: Form) -> Result<&'a str, IdentityError> {
        self.checked(property, form)?.ok_or_else(|| self.broken(&format!("`{property}` is missing")))
    }

    fn broken(&self, detail: &str) -> IdentityError {
        IdentityError::Profile { profile: clean_name(self.name), detail: clean(detail), class: Class::Denied }
    }

    fn has_keys(&self) -> bool {
        self.get("aws_access_key_id").is_some() && self.get("aws_secret_access_key").is_some()
    }

    /// The role that is assumed with the keys of another profile, and that profile; this one where the keys are its own.
    fn role(&self) -> Result<Option<(AssumeRole, &'a str)>, IdentityError> {
        if self.get("web_identity_token_file").is_some() {
            return Ok(None);
        }
        let Some(role_arn) = self.checked("role_arn", Form::RoleArn)? else { return Ok(None) };
        let source = match (self.get("source_profile"), self.get("credential_source")) {
            (Some(source), None) => source,
            (None, Some(_)) => self.name,
            (Some(_), Some(_)) => return Err(self.broken("it has both source_profile and credential_source")),
            (None, None) => {
                return Err(self.broken("it has role_arn, but neither source_profile nor credential_source"));
            }
        };
        let role = AssumeRole {
            role_arn: role_arn.to_owned(),
            external_id: self.checked("external_id", Form::ExternalId)?.map(str::to_owned),
            session_name: self.session_name()?.unwrap_or(super::SESSION_NAME).to_owned(),
        };
        Ok(Some((role, source)))
    }

    fn session_name(&self) -> Result<Option<&'a str>, IdentityError> {
        self.checked("role_session_name", Form::SessionName)
    }

    fn base(&self, profiles: &'a Profiles, has_keys: bool) -> Result<Base<'a>, IdentityError> {
        if has_keys {
            return self.keys();
        }
        if let Some(source) = self.get("credential_source") {
            return match source.to_ascii_lowercase().as_str() {
                "environment" => Ok(Base::Environment),
                "ecscontainer" => Ok(Base::Container),
                "ec2instancemetadata" => Ok(Base::Metadata),
                _ => Err(self.broken(
                    "its credential_source is none of Environment, EcsContainer and Ec2InstanceMetadata",
                )),
            };
        }
        if let Some(token_file) = self.get("web_identity_token_file") {
            let (role_arn, session_name) = (self.required("role_arn", Form::RoleArn)?, self.session_name()?);
            return Ok(Base::WebIdentity { role_arn, token_file, session_name });
        }
        if ["sso_session", "sso_start_url", "sso_account_id", "sso_role_name"]
            .iter()
            .any(|property| self.get(property).is_some())
        {
            return self.sso(profiles).map(Base::Sso);
        }
        if self.get("login_session").is_some() {
            return Ok(Base::LoginSession);
        }
        match self.get("credential_process") {
            Some(command) => Ok(Base::Process(command)),
            None => self.keys(),
        }
    }

    fn sso(&self, profiles: &'a Profiles) -> Result<Sso<'a>, IdentityError> {
        let session = self.get("sso_session");
        let mut login = *self;
        if let Some(name) = session {
            let missing = || self.broken(&format!("there is no section [sso-session {}]", clean_name(name)));
            login.section = profiles.section("sso-session", name).ok_or_else(missing)?;
        }
        Ok(Sso {
            account_id: self.required("sso_account_id", Form::Account)?,
            role_name: self.required("sso_role_name", Form::Name)?,
            region: login.required("sso_region", Form::Region)?,
            start_url: login.required("sso_start_url", Form::Header)?,
            session,
        })
    }

    fn keys(&self) -> Result<Base<'a>, IdentityError> {
        let keys = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
        if keys.iter().all(|key| self.get(key).is_none()) {
            let detail = "it holds none, and no other source of them".to_owned();
            return Err(IdentityError::ProfileNotFound { profile: clean_name(self.name), detail });
        }
        Ok(Base::Keys(FoundKeys {
            access_key_id: self.require(keys[0])?,
            secret_access_key: self.require(keys[1])?,
            session_token: self.get(keys[2]),
            expiry: None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base_of(config: &str, check: impl FnOnce(Result<Chain<'_>, IdentityError>)) {
        let profiles =
            Profiles::of_texts(config, "[keys]\naws_access_key_id = K\naws_secret_access_key = S\n");
        check(Chain::of(&profiles.unwrap(), "me"));
    }

    #[test]
    fn each_kind_of_profile_is_understood() {
        let sso = "sso_account_id = 123456789012\nsso_role_name = r\n";
        let sso_session = format!(
            "[profile me]\nsso_session = s\n{sso}[sso-session s]\nsso_region = eu-west-1\nsso_start_url = u\n"
        );
        let sso_legacy = format!("[profile me]\nsso_region = eu-west-1\nsso_start_url = u\n{sso}");
        let of_sso = |session| {
            Base::Sso(Sso {
                account_id: "123456789012",
                role_name: "r",
                region: "eu-west-1",
                start_url: "u",
                session,
            })
        };
        let keys =
            FoundKeys { access_key_id: "K", secret_access_key: "S", session_token: None, expiry: None };
        let keys = Base::Keys(keys);
        let role = "[profile me]\nrole_arn = arn:aws:iam::123456789012:role/R\n";
        for (config, profile, base, roles) in [
            (&*format!("{role}source_profile = keys\n"), "keys", keys, 1),
            (
                &*format!(
                    "{role}source_profile = a\n[profile a]\nrole_arn = arn:aws:iam::123456789012:role/A\nsource_profile = keys\n"
                ),
                "keys",
                keys,
                2,
            ),
            // Its own keys, if it is named as its own source.
            (
                &*format!("{role}source_profile = me\naws_access_key_id = K\naws_secret_access_key = S\n"),
                "me",
                keys,
                1,
            ),
            (&*format!("{role}credential_source = ecscontainer\n"), "me", Base::Container, 1),
            ("[profile me]\ncredential_process = p --x\n", "me", Base::Process("p --x"), 0),
            (&*sso_session, "me", of_sso(Some("s")), 0),
            (&*sso_legacy, "me", of_sso(None), 0),
            ("[profile me]\nlogin_session = arn:aws:iam::1:user/x\n", "me", Base::LoginSession, 0),
            (
                &*format!("{role}web_identity_token_file = /t\n"),
                "me",
                Base::WebIdentity {
                    role_arn: "arn:aws:iam::123456789012:role/R",
                    token_file: "/t",
                    session_name: None,
                },
                0,
            ),
        ] {
            base_of(config, |chain| {
                let chain = chain.unwrap();
                assert_eq!(
                    (chain.profile, chain.base, chain.roles.len()),
                    (profile, base, roles),
                    "{config}"
                );
            });
        }
    }

    #[test]
    fn a_profile_that_is_broken_says_how() {
        for (config, reason) in [
            ("[profile me]\naws_access_key_id = K\n", "`aws_secret_access_key` is missing"),
            (
                "[profile me]\naws_access_key_id = K\naws_secret_access_key =\n",
                "`aws_secret_access_key` is missing",
            ),
            (
                "[profile me]\nrole_arn = arn:aws:iam::123456789012:role/R\n",
                "neither source_profile nor credential_source",
            ),
            (
                "[profile me]\nrole_arn = arn:aws:iam::123456789012:role/R\nsource_profile = a\n[profile a]\nrole_arn = arn:aws:iam::123456789012:role/A\nsource_profile = me\n",
                "its own",
            ),
            (
                "[profile me]\nrole_arn = arn:aws:iam::123456789012:role/R\nsource_profile = keys\ncredential_source = Environment\n",
                "both",
            ),
            ("[profile me]\ncredential_source = Nowhere\n", "none of Environment"),
            ("[profile me]\nsso_session = s\n", "[sso-session s]"),
            (
                "[profile me]\nrole_arn = ${ROLE}\nsource_profile = keys\n",
                "`role_arn` is `${ROLE}`, expected a role's ARN",
            ),
            (
                "[profile me]\nrole_arn = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\nsource_profile = keys\n",
                "`role_arn` is a value of 40 characters, not shown",
            ),
            (
                "[profile me]\nrole_arn = arn:aws:iam::123456789012:role/R\nrole_session_name = a b\nsource_profile = keys\n",
                "`role_session_name` is `a b`",
            ),
            (
                "[profile me]\nrole_arn = arn:aws:iam::123456789012:role/R\nexternal_id = \"x\"\nsource_profile = keys\n",
                "`external_id` is a value of 3 characters, not shown",
            ),
            (
                "[profile me]\nsso_session = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
                "[sso-session (a name of 40 characters, not shown)]",
            ),
            (
                "[profile me]\nsso_account_id = 1\nsso_role_name = r\nsso_region = eu-west-1\nsso_start_url = u\n",
                "`sso_account_id` is `1`",
            ),
            (
                "[profile me]\nsso_account_id = 123456789012\nsso_role_name = r\nsso_region = eu-west-1b\nsso_start_url = u\n",
                "`sso_region` is `eu-west-1b`",
            ),
            ("[profile me]\nweb_identity_token_file = /t\n", "`role_arn` is missing"),
        ] {
            base_of(config, |chain| {
                let error = chain.unwrap_err();
                assert!(matches!(error, IdentityError::Profile { .. }), "{error}");
                assert!(error.to_string().contains(reason), "{error}");
            });
        }
        for config in [
            "",
            "[profile me]\nregion = r\n",
            "[profile me]\nrole_arn = arn:aws:iam::123456789012:role/R\nsource_profile = no\n",
        ] {
            base_of(config, |chain| {
                assert!(matches!(chain.unwrap_err(), IdentityError::ProfileNotFound { .. }), "{config}");
            });
        }
    }

    proptest::proptest! {
        /// Whatever the files hold: a chain or an error, which repeats no key.
        #[test]
        fn no_profile_panics_or_shows_a_key(
            lines in proptest::collection::vec(
                "(aws_access_key_id|aws_secret_access_key|aws_session_token|credential_process) = ?(CANARY)?\
                 |(role_arn|source_profile|credential_source|sso_session|sso_region|login_session|external_id) = ?(me|a|Environment)?\
                 |\\[profile a\\]|\\[sso-session a\\]|web_identity_token_file = /t",
                0..12,
            )
        ) {
            let config = format!("[profile me]\n{}\n", lines.join("\n"));
            let profiles = Profiles::of_texts(&config, "").unwrap();
            let shown = match Chain::of(&profiles, "me") {
                Ok(Chain { base: Base::Process(_), .. }) => String::new(), // the command, which is run
                Ok(chain) => format!("{chain:?}"),
                Err(error) => error.to_string(),
            };
            proptest::prop_assert!(!shown.contains("CANARY"), "{}", shown);
        }
    }
}
