//! How AWS was reached: the calls of the doctor's walk are overheard, so that what is told is what was really asked.
//!
//! Only the calls to AWS's APIs, which are POSTs, are of interest: the agents on the node have their own errors.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
};

/// From here on AWS refuses.
const REFUSED_FROM: u64 = 240;
/// From here on it is worth a word.
const ODD_FROM: u64 = 30;

/// What became of the calls to a host.
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

    /// A client that is overheard.
    pub(super) fn client(&self, client: SharedHttpClient) -> SharedHttpClient {
        SharedHttpClient::new(Client { client, overheard: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn findings(&self, env: &Environment) -> Vec<Finding> {
        let notes = self.lock();
        let mut findings: Vec<_> =
            notes.hosts.iter().map(|(host, calls)| of_host(host, calls, &by_proxy(env))).collect();
        findings.push(of_clock(notes.skew));
        findings
    }
}

/// A web-identity token that is sent unencrypted.
pub(super) fn in_clear(config: &Config, context: &Context) -> Option<Finding> {
    let endpoint = config.web_identity_in_clear(context)?;
    let saw = "web-identity tokens are sent to STS unencrypted";
    Some(Finding::warn(Step::Network, endpoint.as_str(), saw, Remedy::from(Diagnosis::StsInClear)))
}

fn of_host(host: &str, calls: &Calls, by: &str) -> Finding {
    match calls {
        Calls { answered: Some(status), .. } => {
            Finding::ok(Step::Network, host, format!("answers (HTTP {status}){by}"))
        }
        Calls { failed: Some(why), .. } => {
            Finding::fail(Step::Network, host, format!("{why}{by}"), classify_transport(why))
        }
        Calls { .. } => {
            Finding::fail(Step::Network, host, format!("no answer in time{by}"), Diagnosis::Unreachable)
        }
    }
}

fn of_clock(behind: Option<i64>) -> Finding {
    let subject = "this machine";
    let Some(seconds) = behind else {
        return Finding::skip(Step::Clock, subject, "no answer of AWS's to compare it with");
    };
    match seconds.unsigned_abs() {
        off if off >= REFUSED_FROM => {
            let remedy = Remedy::with(Diagnosis::ClockOff, skew(seconds));
            Finding::fail(Step::Clock, subject, format!("{} by AWS's clock", skew(seconds)), remedy)
        }
        off if off >= ODD_FROM => {
            Finding::warn(Step::Clock, subject, skew(seconds), Remedy::from(Diagnosis::ClockOff))
        }
        _ => Finding::ok(Step::Clock, subject, "agrees with AWS's"),
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
    overheard: RecordingClient,
}

impl HttpClient for Client {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            connector: self.client.http_connector(settings, components),
            overheard: self.overheard.clone(),
        })
    }
}

#[derive(Debug, Clone)]
struct Connector {
    connector: SharedHttpConnector,
    overheard: RecordingClient,
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
        self.overheard.lock().hosts.entry(host.clone()).or_default();
        let overheard = self.overheard.clone();
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            let mut notes = overheard.lock();
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
    fn the_password_of_a_proxy_is_not_told() {
        let env = Environment::from_pairs([("HTTPS_PROXY", "http://me:secret@proxy.example:3128")]);
        assert_eq!(by_proxy(&env), "; HTTPS_PROXY is proxy.example:3128");
    }
}
