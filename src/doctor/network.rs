//! How AWS was reached: the calls of the other checks are recorded, so that what is reported is what was sent.
//!
//! Only the calls to AWS's APIs, which are POSTs, are of interest: the agents on the node have their own errors.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::HttpRequest,
    runtime_components::RuntimeComponents,
};

use super::report::{Finding, Step};
use crate::{
    aws::error::{skew, skew_seconds},
    clock::Clock,
    config::{Config, Context},
    env::Environment,
    failure::{
        causes, classify_transport,
        diagnosis::{Diagnosis, Remedy},
    },
    tasks::locked,
};

/// From so many seconds on AWS rejects requests.
const REJECTED_FROM: u64 = 240;
/// From so many seconds on it is a warning.
const ODD_FROM: u64 = 30;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Calls {
    /// The status of the last answer.
    answered: Option<u16>,
    /// Why the last one that was not answered was not.
    failed: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct RecordingClient(Arc<Mutex<Notes>>);

#[derive(Debug)]
struct Notes {
    clock: Clock,
    hosts: BTreeMap<String, Calls>,
    /// Seconds that this machine's clock is behind AWS's, by the last answer.
    skew: Option<i64>,
}

impl RecordingClient {
    pub(super) fn new(clock: Clock) -> Self {
        Self(Arc::new(Mutex::new(Notes { clock, hosts: BTreeMap::new(), skew: None })))
    }

    pub(super) fn client(&self, client: SharedHttpClient) -> SharedHttpClient {
        SharedHttpClient::new(Client { client, recording: self.clone() })
    }

    pub(super) fn findings(&self, env: &Environment) -> Vec<Finding> {
        let notes = locked(&self.0);
        let mut findings: Vec<_> =
            notes.hosts.iter().map(|(host, calls)| of_host(host, calls, &by_proxy(env))).collect();
        findings.push(of_clock(notes.skew));
        findings
    }
}

pub(super) fn in_clear(config: &Config, context: &Context) -> Option<Finding> {
    let endpoint = config.web_identity_in_clear(context)?;
    let saw = "web-identity tokens are sent to STS unencrypted";
    Some(Step::Network.warn(endpoint.as_str(), saw, Diagnosis::StsInClear))
}

fn of_host(host: &str, calls: &Calls, by: &str) -> Finding {
    match calls {
        Calls { answered: Some(status), .. } => {
            Step::Network.ok(host, format!("answers (HTTP {status}){by}"))
        }
        Calls { failed: Some(why), .. } => {
            Step::Network.fail(host, format!("{why}{by}"), classify_transport(why))
        }
        Calls { .. } => Step::Network.fail(host, format!("no answer in time{by}"), Diagnosis::Unreachable),
    }
}

fn of_clock(behind: Option<i64>) -> Finding {
    let subject = "this machine";
    let Some(seconds) = behind else {
        return Step::Clock.skip(subject, "no answer from AWS to compare it with");
    };
    match seconds.unsigned_abs() {
        off if off >= REJECTED_FROM => {
            let remedy = Remedy::with(Diagnosis::ClockOff, skew(seconds));
            Step::Clock.fail(subject, format!("{} by AWS's clock", skew(seconds)), remedy)
        }
        off if off >= ODD_FROM => Step::Clock.warn(subject, skew(seconds), Diagnosis::ClockOff),
        _ => Step::Clock.ok(subject, "agrees with AWS's"),
    }
}

/// Which proxy the environment names; without what stands before an `@`.
fn by_proxy(env: &Environment) -> String {
    let named = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        .into_iter()
        .find_map(|name| Some((name, env.get(name)?)));
    named.map_or_else(String::new, |(name, value)| {
        let shown = value.rsplit_once('@').map_or(value, |(_, host)| host);
        format!("; {name} is {shown}")
    })
}

#[derive(Debug, Clone)]
struct Client {
    client: SharedHttpClient,
    recording: RecordingClient,
}

impl HttpClient for Client {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            connector: self.client.http_connector(settings, components),
            recording: self.recording.clone(),
        })
    }
}

#[derive(Debug, Clone)]
struct Connector {
    connector: SharedHttpConnector,
    recording: RecordingClient,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let uri: http::Uri = request.uri().parse().unwrap_or_default();
        let is_api = request.method() == "POST";
        let answer = self.connector.call(request);
        let Some(host) = uri.authority().map(|it| it.as_str().to_owned()).filter(|_| is_api) else {
            return answer;
        };
        // Noted before it is waited for: an answer that never comes leaves no other trace.
        locked(&self.recording.0).hosts.entry(host.clone()).or_default();
        let recording = self.recording.clone();
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            let mut notes = locked(&recording.0);
            let now = notes.clock.now();
            match &answer {
                Ok(response) => {
                    notes.skew = skew_seconds(response.headers(), now).or(notes.skew);
                    notes.hosts.entry(host).or_default().answered = Some(response.status().as_u16());
                }
                Err(error) => notes.hosts.entry(host).or_default().failed = Some(causes(error)),
            }
            drop(notes);
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Outcome;

    #[test]
    fn a_clock_is_well_odd_or_wrong() {
        let outcome = |behind| of_clock(behind).outcome;
        assert_eq!(outcome(None), Outcome::Skip);
        assert_eq!([0, 29, -29].map(|s| outcome(Some(s))), [Outcome::Ok; 3]);
        assert_eq!([30, -239].map(|s| outcome(Some(s))), [Outcome::Warn; 2]);
        assert_eq!([240, -1200].map(|s| outcome(Some(s))), [Outcome::Fail; 2]);
        assert!(of_clock(Some(-1200)).saw.contains("1200 s ahead"));
    }

    #[test]
    fn the_password_of_a_proxy_is_not_shown() {
        let env = Environment::from_pairs([("HTTPS_PROXY", "http://me:secret@proxy.example:3128")]);
        assert_eq!(by_proxy(&env), "; HTTPS_PROXY is proxy.example:3128");
    }
}
