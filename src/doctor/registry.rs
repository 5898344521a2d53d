//! Each registry, asked for `/v2/` with its token, as a consumer begins a pull.
//!
//! The token goes to the registry's host and nowhere else ([`Session`]).

use std::{sync::Arc, time::Duration};

use aws_config::SdkConfig;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use super::{
    finished::finished,
    report::{Finding, Step},
};
use crate::{
    aws::{
        http::Answer,
        token::{Fetched, Token},
    },
    failure::{diagnosis::Diagnosis, foreign_text::clean_of},
    pull::{NoAnswer, Session, login_refused, unreachable},
    registry::RegistryHost,
};

pub(super) const LIMIT: Duration = Duration::from_secs(4);
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
    let mut session = Session::new(sdk, host, &token.auth);
    match session.ask("GET", "/v2/", &[]).await {
        Ok(answer) => of_answer(host, &answer, &session.secrets()),
        Err(NoAnswer::Transport(why)) => {
            Step::Registry.fail(host.as_str(), format!("cannot be reached: {why}"), unreachable(&why))
        }
        Err(NoAnswer::OtherHost(other)) => {
            let saw = format!("it asks for the credential at {other}, which is another host");
            Step::Registry.fail(host.as_str(), saw, Diagnosis::TokenRefused)
        }
    }
}

fn of_answer(host: &RegistryHost, answer: &Answer, secrets: &[&str]) -> Finding {
    let status = answer.status;
    if (200..300).contains(&status) {
        return Step::Registry.ok(host.as_str(), format!("accepts the token (HTTP {status})"));
    }
    let diagnosis = login_refused(answer);
    let text = clean_of(&String::from_utf8_lossy(&answer.body), secrets);
    let separator = if text.is_empty() { "" } else { ": " };
    Step::Registry.fail(host.as_str(), format!("/v2/ answers HTTP {status}{separator}{text}"), diagnosis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Outcome;

    fn answer(status: u16) -> Answer {
        Answer { status, challenge: None, body: b"no\x1b[31m QVdTOnBhc3M= pass".to_vec() }
    }

    #[test]
    fn each_status_has_its_diagnosis() {
        let host: RegistryHost = "public.ecr.aws".parse().unwrap();
        let of = |status| of_answer(&host, &answer(status), &["QVdTOnBhc3M=", "pass"]);
        assert_eq!(of(200).outcome, Outcome::Ok);
        for (status, diagnosis) in [
            (400, Diagnosis::OtherRegion),
            (401, Diagnosis::TokenRefused),
            (403, Diagnosis::NotAws), // without a code it is no registry's
            (503, Diagnosis::RegistryUnreachable),
        ] {
            let finding = of(status);
            assert_eq!(finding.remedy.map(|it| it.diagnosis), Some(diagnosis), "{status}");
            assert!(finding.saw.ends_with(": no [31m [redacted] [redacted]"), "{}", finding.saw);
        }
        let denied = Answer { body: br#"{"errors": [{"code": "DENIED"}]}"#.to_vec(), ..answer(403) };
        let diagnosis = of_answer(&host, &denied, &[]).remedy.map(|it| it.diagnosis);
        assert_eq!(diagnosis, Some(Diagnosis::RegistryForbidden));
    }
}
