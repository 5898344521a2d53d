//! Each registry, asked for `/v2/` with its token, as a consumer begins a pull.
//!
//! The token goes to the registry's host and nowhere else: redirects are not followed, and a challenge that sends us
//! to another host for a bearer token is reported, not followed.

use std::{sync::Arc, time::Duration};

use aws_config::SdkConfig;
use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use zeroize::Zeroizing;

use super::{
    finished::finished,
    report::{Finding, Step},
};
use crate::{
    aws::{
        http::{self, Answer},
        token::{Fetched, Token},
    },
    failure::{
        causes, classify_transport,
        diagnosis::Diagnosis,
        foreign_text::{clean, clean_of},
    },
    registry::RegistryHost,
    secret::Secret,
};

/// How long all of them may take.
pub(super) const LIMIT: Duration = Duration::from_secs(4);
/// How many are asked at a time.
const AT_A_TIME: usize = 16;

pub(super) async fn ask(tokens: Vec<(Fetched, Vec<RegistryHost>)>, sdk: &SdkConfig) -> Vec<Finding> {
    let until = Instant::now() + LIMIT;
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut asking = JoinSet::new();
    for (fetched, hosts) in tokens {
        let token = Arc::new(fetched.token);
        for host in hosts {
            let (token, places, sdk) = (Arc::clone(&token), Arc::clone(&places), sdk.clone());
            asking.spawn(Box::pin(async move {
                let asked = async {
                    let _place = places.acquire().await;
                    finished(Step::Registry, host.as_str(), ask_one(&host, &token, &sdk)).await
                };
                match tokio::time::timeout_at(until, asked).await {
                    Ok(Ok(finding) | Err(finding)) => finding,
                    Err(_) => Step::Registry.timed_out(
                        host.as_str(),
                        "no answer",
                        LIMIT,
                        Diagnosis::RegistryUnreachable,
                    ),
                }
            }));
        }
    }
    let mut findings = asking.join_all().await;
    findings.sort_by(|one, other| one.subject.cmp(&other.subject));
    findings
}

async fn ask_one(host: &RegistryHost, token: &Token, sdk: &SdkConfig) -> Finding {
    let basic = || Some(Secret::new(format!("Basic {}", token.auth.expose())));
    let url = format!("https://{host}/v2/");
    let first = match http::get(sdk, &url, basic()).await {
        Ok(answer) => answer,
        Err(error) => return unreached(host, &causes(&error)),
    };
    let Some(realm) = bearer_realm(&first) else { return of_answer(host, &first, token) };
    if realm.host() != Some(host.as_str()) {
        let other = clean(realm.host().unwrap_or_default());
        let saw = format!("it asks for a token of {other}, which is another host");
        return Step::Registry.fail(host.as_str(), saw, Diagnosis::TokenRefused);
    }
    match http::get(sdk, &realm.to_string(), basic()).await {
        Ok(answer) => of_answer(host, &answer, token),
        Err(error) => unreached(host, &causes(&error)),
    }
}

fn unreached(host: &RegistryHost, why: &str) -> Finding {
    let diagnosis = match classify_transport(why) {
        Diagnosis::Unreachable => Diagnosis::RegistryUnreachable,
        known => known,
    };
    Step::Registry.fail(host.as_str(), format!("cannot be reached: {why}"), diagnosis)
}

/// Where a registry with bearer tokens wants the credential, such as `public.ecr.aws`; only over TLS.
fn bearer_realm(answer: &Answer) -> Option<::http::Uri> {
    let challenge = answer.challenge.as_deref().filter(|_| answer.status == 401)?;
    let parameters = challenge.strip_prefix("Bearer ")?;
    let parameter = |name: &str| {
        parameters
            .split(',')
            .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
    };
    let realm = parameter("realm")?;
    let query: String = ["service", "scope"]
        .into_iter()
        .filter_map(|name| {
            Some(form_urlencoded::Serializer::new(String::new()).append_pair(name, parameter(name)?).finish())
        })
        .collect::<Vec<_>>()
        .join("&");
    let uri: ::http::Uri = format!("{realm}?{query}").parse().ok()?;
    (uri.scheme_str() == Some("https")).then_some(uri)
}

fn of_answer(host: &RegistryHost, answer: &Answer, token: &Token) -> Finding {
    let status = answer.status;
    let diagnosis = match status {
        200..=299 => {
            return Step::Registry.ok(host.as_str(), format!("lets the token in (HTTP {status})"));
        }
        400 => Diagnosis::OtherRegion,
        401 => Diagnosis::TokenRefused,
        403 => Diagnosis::RegistryForbidden,
        _ => Diagnosis::RegistryUnreachable,
    };
    let auth = token.auth.expose();
    let decoded = Zeroizing::new(STANDARD.decode(auth).unwrap_or_default());
    let password = decoded.strip_prefix(b"AWS:").and_then(|password| std::str::from_utf8(password).ok());
    let text = clean_of(&String::from_utf8_lossy(&answer.body), &[auth, password.unwrap_or_default()]);
    let separator = if text.is_empty() { "" } else { ": " };
    Step::Registry.fail(host.as_str(), format!("/v2/ answers HTTP {status}{separator}{text}"), diagnosis)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::doctor::report::Outcome;

    fn answer(status: u16, challenge: Option<&str>) -> Answer {
        Answer {
            status,
            challenge: challenge.map(str::to_owned),
            body: b"no\x1b[31m QVdTOnBhc3M= pass".to_vec(),
        }
    }

    #[test]
    fn each_status_has_its_diagnosis() {
        let host: RegistryHost = "public.ecr.aws".parse().unwrap();
        let auth = Secret::new(STANDARD.encode("AWS:pass"));
        let token = Token { auth, obtained_at: SystemTime::UNIX_EPOCH, expires_at: SystemTime::UNIX_EPOCH };
        let of = |status| of_answer(&host, &answer(status, None), &token);
        assert_eq!(of(200).outcome, Outcome::Ok);
        for (status, diagnosis) in [
            (400, Diagnosis::OtherRegion),
            (401, Diagnosis::TokenRefused),
            (403, Diagnosis::RegistryForbidden),
            (503, Diagnosis::RegistryUnreachable),
        ] {
            let finding = of(status);
            assert_eq!(finding.remedy.map(|it| it.diagnosis), Some(diagnosis), "{status}");
            assert!(finding.saw.ends_with(": no [31m [redacted] [redacted]"), "{}", finding.saw);
        }
    }

    #[test]
    fn a_challenge_is_read_and_only_over_tls() {
        let challenge =
            r#"Bearer realm="https://public.ecr.aws/token/",service="public.ecr.aws",scope="aws""#;
        let realm = bearer_realm(&answer(401, Some(challenge))).unwrap();
        assert_eq!(realm.to_string(), "https://public.ecr.aws/token/?service=public.ecr.aws&scope=aws");
        assert!(bearer_realm(&answer(401, Some("Bearer realm=\"http://public.ecr.aws/token/\""))).is_none());
        assert!(bearer_realm(&answer(401, Some("Basic realm=\"https://x/\""))).is_none());
        assert!(bearer_realm(&answer(200, Some(challenge))).is_none());
    }
}
