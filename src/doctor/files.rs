//! The files that an identity rests on: whether we may read them, and whether the token in one is meant for AWS.
//!
//! Of a token only its claims are looked at, and only told are audience, subject and end.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use tokio::task::JoinSet;

use super::report::{Finding, Step};
use crate::{
    aws::{
        identity::{Identity, IdentityError, Source, read_line},
        profile_file,
    },
    clock::rfc3339,
    env::Environment,
    failure::{
        Diagnose,
        diagnosis::{Diagnosis, Remedy},
        shown_value::clean_path,
    },
    tasks,
};

/// The audience that IRSA's trust policies and providers name unless somebody chose another.
const AUDIENCE: &str = "sts.amazonaws.com";
/// How long a volume may take.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// What a file should hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Key,
    WebIdentityToken,
    /// The AWS configuration: it may be missing.
    Profiles,
}

/// Looks at the files of the identities, all at a time.
pub(super) async fn examine<'a>(
    identities: impl Iterator<Item = &'a Arc<Identity>>,
    env: &Environment,
    now: SystemTime,
) -> Vec<Finding> {
    // Two identities may rest on one file.
    let files: BTreeMap<PathBuf, Holds> = identities.flat_map(|identity| files(identity)).collect();
    let mut looking = JoinSet::new();
    for (path, holds) in files {
        let env = env.clone();
        looking.spawn(async move {
            let found = tokio::time::timeout(LIMIT, examine_one(&path, holds, &env, now)).await;
            found.unwrap_or_else(|_| {
                let saw = format!("the volume gives no answer within {} s", LIMIT.as_secs());
                Some(Finding::fail(Step::Files, clean_path(&path), saw, Diagnosis::VolumeHangs))
            })
        });
    }
    let mut findings: Vec<_> = looking.join_all().await.into_iter().flatten().collect();
    findings.sort_by(|one, other| one.subject.cmp(&other.subject));
    findings
}

async fn examine_one(path: &Path, holds: Holds, env: &Environment, now: SystemTime) -> Option<Finding> {
    let subject = clean_path(path);
    if holds == Holds::Profiles {
        return of_profiles(path, env).await;
    }
    let looks = looks(path).await;
    let looks = looks.unwrap_or_else(|| "not to be seen".into());
    Some(match read_line("value", path).await {
        Ok(text) if holds == Holds::WebIdentityToken => {
            of_token(subject, &looks, Claims::of(text.expose()), now)
        }
        Ok(_) => Finding::ok(Step::Files, subject, looks),
        Err(error) => {
            let saw = format!("{error} ({looks}; we are {})", ourselves());
            Finding::fail(Step::Files, subject, saw, error.remedy())
        }
    })
}

/// Nothing where there is no file and none has to be.
async fn of_profiles(path: &Path, env: &Environment) -> Option<Finding> {
    let subject = clean_path(path);
    let read = profile_file::check(path, env).await;
    let looks = looks(path).await;
    let error = match read {
        Ok(()) => return looks.map(|looks| Finding::ok(Step::Files, subject, looks)),
        Err(error) => error,
    };
    let may_be_absent = error.may_be_absent();
    let looks = looks.unwrap_or_else(|| "not to be seen".into());
    let saw = format!("{error} ({looks}; we are {})", ourselves());
    let remedy = IdentityError::from(error).remedy();
    Some(match may_be_absent {
        true => Finding::warn(Step::Files, subject, saw, remedy),
        false => Finding::fail(Step::Files, subject, saw, remedy),
    })
}

/// Owner and mode, if the file can be seen.
async fn looks(path: &Path) -> Option<String> {
    let path = path.to_owned();
    let metadata = tasks::blocking(move || fs::metadata(path)).await.ok()?;
    let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
    Some(format!("owner {uid}:{gid}, mode {mode:04o}"))
}

fn files(identity: &Identity) -> Vec<(PathBuf, Holds)> {
    let holds = match identity.source() {
        Some(Source::WebIdentity { .. }) => Holds::WebIdentityToken,
        Some(Source::Profile { .. }) | None => Holds::Profiles,
        Some(_) => Holds::Key,
    };
    identity.files().into_iter().map(|path| (path, holds)).collect()
}

fn ourselves() -> String {
    let groups = rustix::process::getgroups().unwrap_or_default();
    let groups: Vec<_> = groups.iter().map(|group| group.as_raw().to_string()).collect();
    format!(
        "uid {}, gid {}, groups [{}]",
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
        groups.join(", ")
    )
}

/// What a token says of itself (RFC 7519); nobody has verified it here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Claims {
    #[serde(default)]
    aud: Audience,
    #[serde(default)]
    sub: String,
    exp: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Claims {
    fn of(token: &str) -> Option<Self> {
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        serde_json::from_slice(&claims).ok()
    }

    fn audiences(&self) -> &[String] {
        match &self.aud {
            Audience::One(one) => std::slice::from_ref(one),
            Audience::Many(many) => many,
        }
    }

    fn end(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.exp?))
    }
}

fn of_token(subject: String, looks: &str, claims: Option<Claims>, now: SystemTime) -> Finding {
    let Some(claims) = claims else {
        return Finding::warn(
            Step::Files,
            subject,
            format!("{looks}; it is no JSON web token"),
            Remedy::from(Diagnosis::InputMalformed),
        );
    };
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    let audiences: Vec<_> = claims.audiences().iter().map(|audience| plain(audience)).collect();
    let said = format!("{looks}; for {} as {}", audiences.join(", "), plain(&claims.sub));
    match claims.end() {
        Some(end) if end <= now => {
            let saw = format!("{said}; it ended at {}", rfc3339(end));
            Finding::fail(Step::Files, subject, saw, Diagnosis::WebIdentityExpired)
        }
        _ if !audiences.iter().any(|audience| audience == AUDIENCE) => {
            let saw = format!("{said}; STS is usually asked for {AUDIENCE}");
            Finding::warn(Step::Files, subject, saw, Remedy::from(Diagnosis::WrongAudience))
        }
        end => {
            let until = end.map_or_else(String::new, |end| format!(", until {}", rfc3339(end)));
            Finding::ok(Step::Files, subject, format!("{said}{until}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Outcome;

    fn token(claims: &str) -> Finding {
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        of_token("/t".into(), "mode 0440", Claims::of(&token), now)
    }

    #[test]
    fn a_token_is_for_sts_and_alive_or_that_is_said() {
        let good = token(r#"{"aud":["sts.amazonaws.com"],"sub":"system:serviceaccount:a:b","exp":2000}"#);
        assert_eq!(good.outcome, Outcome::Ok);
        assert!(good.saw.contains("as system:serviceaccount:a:b, until 1970"), "{}", good.saw);
        let ended = token(r#"{"aud":"sts.amazonaws.com","sub":"x","exp":1000}"#);
        assert_eq!(ended.remedy.map(|it| it.diagnosis), Some(Diagnosis::WebIdentityExpired));
        let other = token(r#"{"aud":["vault"],"sub":"x","exp":2000}"#);
        assert_eq!(
            (other.outcome, other.remedy.map(|it| it.diagnosis)),
            (Outcome::Warn, Some(Diagnosis::WrongAudience))
        );
    }

    #[test]
    fn what_is_no_token_is_told_without_its_text() {
        let now = SystemTime::UNIX_EPOCH;
        let finding = of_token("/t".into(), "mode 0440", Claims::of("hunter2"), now);
        assert_eq!(finding.outcome, Outcome::Warn);
        assert!(!format!("{finding:?}").contains("hunter2"));
    }
}
