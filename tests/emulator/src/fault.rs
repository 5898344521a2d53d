//! What should go wrong, for which service, and how often?
//!
//! A fault either *replaces* the answer (a status, an error in the service's own format, silence, a reset …)
//! or *bends* a good one (no expiry, an empty list …). Faults pushed with a count are used up first, in order;
//! then the permanent one applies. A fault that means nothing to a service is rejected when it is set,
//! so that a test can't believe it is testing something.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::locked;

/// The services that the emulator plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// STS, Query protocol.
    Sts,
    /// ECR, JSON 1.1.
    Ecr,
    /// ECR Public, JSON 1.1.
    EcrPublic,
    /// The EKS Pod Identity agent.
    PodIdentity,
    /// The instance metadata service, version 2.
    Imds,
    /// The OCI registry, on all of its hosts.
    Registry,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// This HTTP status with an empty body, as a load balancer would answer.
    Status(u16),
    /// An error in the service's own format.
    Error {
        /// The HTTP status.
        status: u16,
        /// The error code, e.g. `ServerException`.
        code: String,
        /// The message.
        message: String,
    },
    /// STS, ECR: the signature does not match; the message repeats the request as AWS's does: the canonical string,
    /// the session token with it.
    SignatureMismatch,
    /// STS, ECR: the signature is incomplete; the message repeats the `Authorization` header as AWS's does.
    IncompleteSignature,
    /// An error whose message repeats every credential of the request: headers, web-identity token, external id.
    Echo,
    /// The service's own way to say "too many requests".
    Throttled,
    /// The service's own way to say "you may not".
    AccessDenied,
    /// The connection stays open and nothing ever comes.
    Hang,
    /// The connection is reset (RST) once the request has been read.
    Reset,
    /// The real answer, byte by byte, with this pause between two bytes (in JSON: milliseconds).
    #[serde(with = "millis")]
    SlowBody(Duration),
    /// Bytes that are no HTTP.
    Garbage,
    /// Status 302 to this URL.
    Redirect(String),
    /// Status 200 with an HTML page, as a captive portal would answer.
    Html,
    /// Status 200 with a JSON text of more than 10 MB.
    Huge,
    /// ECR: `authorizationData` without an entry.
    EmptyList,
    /// The answer has no expiry.
    NoExpiry,
    /// ECR: the token is no base64.
    NotBase64,
    /// ECR: the token is base64 of `foo:bar`.
    NotAws,
    /// ECR: the token is base64 of `AWS:`.
    EmptyPassword,
    /// ECR: the password, a good one, has colons in it.
    ColonPassword,
    /// The expiry is years ago.
    ExpiredOnArrival,
    /// The expiry is a hundred years ahead.
    FarFuture,
}

impl Fault {
    /// Whether the fault means anything for that service.
    pub fn applies_to(&self, service: Service) -> bool {
        let ecr = matches!(service, Service::Ecr | Service::EcrPublic);
        match self {
            Self::EmptyList | Self::NotBase64 | Self::NotAws | Self::EmptyPassword | Self::ColonPassword => {
                ecr
            }
            Self::SignatureMismatch | Self::IncompleteSignature => ecr || service == Service::Sts,
            Self::NoExpiry | Self::ExpiredOnArrival | Self::FarFuture => service != Service::Registry,
            _ => true,
        }
    }
}

/// The script of faults: a permanent one and a queue for each service.
#[derive(Default)]
pub(crate) struct Script {
    services: Mutex<HashMap<Service, Faults>>,
}

#[derive(Default)]
struct Faults {
    permanent: Option<Fault>,
    queue: VecDeque<(Fault, u32)>,
}

impl Script {
    /// Each call of `service` meets `fault`, until it is replaced or cleared.
    pub(crate) fn set(&self, service: Service, fault: Fault) -> Result<(), String> {
        check(service, &fault)?;
        locked(&self.services).entry(service).or_default().permanent = Some(fault);
        Ok(())
    }

    /// The next `times` calls meet `fault`, after whatever is queued already.
    pub(crate) fn push(&self, service: Service, fault: Fault, times: u32) -> Result<(), String> {
        check(service, &fault)?;
        if times > 0 {
            locked(&self.services).entry(service).or_default().queue.push_back((fault, times));
        }
        Ok(())
    }

    pub(crate) fn clear(&self) {
        locked(&self.services).clear();
    }

    /// The fault that the call which is being answered meets.
    pub(crate) fn next(&self, service: Service) -> Option<Fault> {
        let mut services = locked(&self.services);
        let faults = services.get_mut(&service)?;
        let Some((fault, times)) = faults.queue.front_mut() else { return faults.permanent.clone() };
        let fault = fault.clone();
        *times -= 1;
        if *times == 0 {
            faults.queue.pop_front();
        }
        Some(fault)
    }
}

fn check(service: Service, fault: &Fault) -> Result<(), String> {
    if fault.applies_to(service) { Ok(()) } else { Err(format!("{fault:?} means nothing for {service:?}")) }
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queued_faults_come_first_and_in_order_then_the_permanent_one() {
        let script = Script::default();
        script.set(Service::Ecr, Fault::Throttled).unwrap();
        script.push(Service::Ecr, Fault::Hang, 2).unwrap();
        script.push(Service::Ecr, Fault::Reset, 1).unwrap();
        let met: Vec<_> = (0..5).map(|_| script.next(Service::Ecr).unwrap()).collect();
        assert_eq!(met, [Fault::Hang, Fault::Hang, Fault::Reset, Fault::Throttled, Fault::Throttled]);
        assert_eq!(script.next(Service::Sts), None);
        script.clear();
        assert_eq!(script.next(Service::Ecr), None);
    }

    #[test]
    fn a_fault_that_means_nothing_for_a_service_is_refused() {
        let script = Script::default();
        assert!(script.set(Service::Sts, Fault::NotBase64).is_err());
        assert!(script.push(Service::Registry, Fault::NoExpiry, 1).is_err());
        assert!(script.set(Service::Imds, Fault::NoExpiry).is_ok());
    }

    #[test]
    fn faults_read_and_write_as_json() {
        let cases = [
            (Fault::Throttled, r#""throttled""#),
            (Fault::Status(503), r#"{"status":503}"#),
            (Fault::SlowBody(Duration::from_millis(20)), r#"{"slow-body":20}"#),
        ];
        for (fault, json) in cases {
            assert_eq!(serde_json::to_string(&fault).unwrap(), json);
            assert_eq!(serde_json::from_str::<Fault>(json).unwrap(), fault);
        }
    }
}
