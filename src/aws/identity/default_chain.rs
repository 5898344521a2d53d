//! `source: auto`: which source is configured, and the error when none is.

use super::{IdentityError, IdentitySpec, Looked, Source};
use crate::{
    aws::profile_file::{self, ProfileFiles, Profiles},
    env::Environment,
    failure::{diagnosis::Diagnosis, shown_value::clean_path},
};

/// The first source that the environment configures, broken or not: a broken one must be fixed, not passed
/// over. The profile `default`, which no variable announces, comes last (`Identity::default_profile`).
pub(super) fn pick(env: &Environment) -> Option<Source> {
    let set = |name| env.get(name).is_some();
    if set("AWS_ACCESS_KEY_ID") || set("AWS_SECRET_ACCESS_KEY") {
        Some(Source::Environment)
    } else if set("AWS_PROFILE") {
        Some(Source::Profile { name: None })
    } else if set("AWS_WEB_IDENTITY_TOKEN_FILE") {
        Some(Source::WebIdentity { role_arn: None, token_file: None })
    } else if set("AWS_CONTAINER_CREDENTIALS_FULL_URI") || set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        Some(Source::PodIdentity)
    } else {
        None
    }
}

/// Where `auto` would look, when it is known beforehand that there is nothing: no variable announces a source, and
/// there is no file of profiles.
pub fn no_source_configured(env: &Environment, files: &ProfileFiles) -> Option<Vec<Looked>> {
    let nothing = pick(env).is_none() && files.may_be_absent();
    nothing.then(|| looked(env, files))
}

pub(super) async fn nothing_found(spec: &IdentitySpec, env: &Environment) -> IdentityError {
    let mut looked = looked(env, &ProfileFiles::of(&Profiles::read_usable(env).await));
    looked.push(Looked {
        source: "imds",
        looked_for: "nothing".into(),
        saw: "only used when named by `source: imds`".into(),
    });
    let diagnosis = if env.is_in_a_cluster() { Diagnosis::IrsaInactive } else { Diagnosis::NoCredentials };
    IdentityError::NothingFound { identity: spec.name.clone(), looked, diagnosis }
}

fn looked(env: &Environment, files: &ProfileFiles) -> Vec<Looked> {
    vec![
        Looked {
            source: "environment",
            looked_for: "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".into(),
            saw: "neither is set".into(),
        },
        Looked { source: "profile", looked_for: profile_files(env), saw: profile_seen(env, files) },
        Looked {
            source: "web identity",
            looked_for: "AWS_WEB_IDENTITY_TOKEN_FILE".into(),
            saw: match env.get("AWS_ROLE_ARN") {
                Some(_) => "unset, though AWS_ROLE_ARN is set".into(),
                None => "unset".into(),
            },
        },
        Looked {
            source: "container",
            looked_for: "AWS_CONTAINER_CREDENTIALS_FULL_URI".into(),
            saw: "unset".into(),
        },
    ]
}

fn profile_files(env: &Environment) -> String {
    let files = profile_file::paths(env);
    let names: Vec<_> = files.iter().map(|file| clean_path(file)).collect();
    if names.is_empty() {
        "~/.aws/config".into()
    } else {
        format!("profile default in {}", names.join(" and "))
    }
}

fn profile_seen(env: &Environment, files: &ProfileFiles) -> String {
    match files {
        _ if profile_file::paths(env).is_empty() => "HOME is unset".into(),
        ProfileFiles::Absent => "neither file exists".into(),
        ProfileFiles::Read => "no credentials in it, and AWS_PROFILE is unset".into(),
        ProfileFiles::Unusable { why, .. } => why.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(variables: &[(&str, &str)]) -> Option<Source> {
        pick(&Environment::from_pairs(variables.iter().copied()))
    }

    #[test]
    fn the_order_is_environment_profile_web_identity_container() {
        let all = [
            ("AWS_ACCESS_KEY_ID", "AKIA"),
            ("AWS_PROFILE", "p"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
        ];
        assert_eq!(picked(&all), Some(Source::Environment));
        assert_eq!(picked(&all[1..]), Some(Source::Profile { name: None }));
        assert_eq!(picked(&all[2..]), Some(Source::WebIdentity { role_arn: None, token_file: None }));
        assert_eq!(picked(&all[3..]), Some(Source::PodIdentity));
        assert_eq!(picked(&[]), None);
    }

    #[test]
    fn auto_never_asks_imds() {
        assert_eq!(picked(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")]), None);
    }

    #[test]
    fn a_broken_source_is_never_passed_over() {
        let half = [("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")];
        assert_eq!(picked(&half), Some(Source::Environment));
    }
}
