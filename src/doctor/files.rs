//! The files that an identity rests on: whether we may read them, and whether the token in one is meant for AWS.
//!
//! Of a token only the claims are read, and only audience, subject and expiry are shown.

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
    failure::{Diagnose, diagnosis::Diagnosis, foreign_text::clean, shown_value::clean_path},
    tasks,
};

/// The audience that IRSA's trust policies and providers name unless another was chosen.
const AUDIENCE: &str = "sts.amazonaws.com";
/// How long a volume may take.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Key,
    WebIdentityToken,
    /// The AWS configuration: it may be missing.
    Profiles,
}

pub(super) async fn check<'a>(
    identities: impl Iterator<Item = &'a Arc<Identity>>,
    env: &Environment,
    now: SystemTime,
) -> Vec<Finding> {
    // Two identities may rest on one file.
    let files: BTreeMap<PathBuf, Holds> = identities.flat_map(|identity| files(identity)).collect();
    let mut checks = JoinSet::new();
    for (path, holds) in files {
        let env = env.clone();
        checks.spawn(async move {
            let found = tokio::time::timeout(LIMIT, check_one(&path, holds, &env, now)).await;
            found.unwrap_or_else(|_| {
                let what = "the volume does not respond";
                Some(Step::Files.timed_out(clean_path(&path), what, LIMIT, Diagnosis::VolumeHangs))
            })
        });
    }
    let mut findings: Vec<_> = checks.join_all().await.into_iter().flatten().collect();
    findings.sort_by(|one, other| one.subject.cmp(&other.subject));
    findings
}

/// Nothing where there are no profiles and none have to be.
async fn check_one(path: &Path, holds: Holds, env: &Environment, now: SystemTime) -> Option<Finding> {
    let subject = clean_path(path);
    let (read, may_be_absent) = if holds == Holds::Profiles {
        let read = profile_file::check(path, env).await;
        let may_be_absent = read.as_ref().is_err_and(|error| error.may_be_absent());
        (read.map(|()| None).map_err(IdentityError::from), may_be_absent)
    } else {
        (read_line("value", path).await.map(Some), false)
    };
    let attributes = attributes(path).await;
    let shown = attributes.as_deref().unwrap_or("not visible");
    let unreadable = |error: &IdentityError| format!("{error} ({shown}; we are {})", ourselves());
    Some(match read {
        Ok(None) => Step::Files.ok(subject, attributes?),
        Ok(Some(text)) if holds == Holds::WebIdentityToken => {
            of_token(subject, shown, Claims::of(text.expose()), now)
        }
        Ok(Some(_)) => Step::Files.ok(subject, shown),
        Err(error) if may_be_absent => Step::Files.warn(subject, unreadable(&error), error.remedy()),
        Err(error) => Step::Files.fail(subject, unreadable(&error), error.remedy()),
    })
}

async fn attributes(path: &Path) -> Option<String> {
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

/// The claims of a token (RFC 7519), not verified.
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

    fn expiry(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.exp?))
    }
}

fn of_token(subject: String, attributes: &str, claims: Option<Claims>, now: SystemTime) -> Finding {
    let Some(claims) = claims else {
        let saw = format!("{attributes}; it is not a JSON web token");
        return Step::Files.warn(subject, saw, Diagnosis::InputMalformed);
    };
    let audiences: Vec<_> = claims.audiences().iter().map(|audience| clean(audience)).collect();
    let saw = format!("{attributes}; for {} as {}", audiences.join(", "), clean(&claims.sub));
    match claims.expiry() {
        Some(expiry) if expiry <= now => {
            let saw = format!("{saw}; it expired at {}", rfc3339(expiry));
            Step::Files.fail(subject, saw, Diagnosis::WebIdentityExpired)
        }
        _ if !audiences.iter().any(|audience| audience == AUDIENCE) => {
            let saw = format!("{saw}; STS usually requires {AUDIENCE}");
            Step::Files.warn(subject, saw, Diagnosis::WrongAudience)
        }
        expiry => {
            let until = expiry.map_or_else(String::new, |expiry| format!(", until {}", rfc3339(expiry)));
            Step::Files.ok(subject, format!("{saw}{until}"))
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
    fn a_token_that_is_expired_or_not_for_sts_is_reported() {
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
    fn claims_are_foreign_text() {
        let finding = token(r#"{"aud":"sts.amazonaws.com","sub":"a\u202eb\u200bc","exp":2000}"#);
        assert!(finding.saw.contains(" as a b c, until"), "{}", finding.saw);
    }

    #[test]
    fn what_is_no_token_is_reported_without_its_text() {
        let now = SystemTime::UNIX_EPOCH;
        let finding = of_token("/t".into(), "mode 0440", Claims::of("hunter2"), now);
        assert_eq!(finding.outcome, Outcome::Warn);
        assert!(!format!("{finding:?}").contains("hunter2"));
    }
}
