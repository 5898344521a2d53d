//! STS, ECR, ECR Public, the EKS Pod Identity agent, IMDSv2 and an OCI registry, at the wire level, on loopback.
//!
//! For tests of programs that fetch ECR credentials and of those that use them. It is strict: signatures are verified,
//! clocks compared, tokens admitted only in their region and lifetime. And it is scripted: each [`Fault`] is available from
//! each [`Service`] it means anything for.
//!
//! ```
//! use ecr_emulator::{Emulator, Fault, Service, Settings};
//!
//! let emulator = Emulator::start(Settings::default())?;
//! emulator.push_fault(Service::Ecr, Fault::Throttled, 2);
//! // AWS_ENDPOINT_URL=… of the program under test:
//! assert!(emulator.endpoint().starts_with("http://127.0.0.1:"));
//! assert_eq!(emulator.count(Service::Ecr), 0);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Ways in
//!
//! | | |
//! |---|---|
//! | [`Emulator::endpoint`] | every API on one URL: distinguished by `X-Amz-Target`, `Action` or path (`/v1/credentials`, `/latest/…`, `/v2/…`) |
//! | [`Emulator::https_endpoint`] | the same by TLS, for any name, under [`Emulator::ca_file`] |
//! | [`Emulator::proxy`] | an HTTP proxy where `CONNECT` to any host ends at the emulator: AWS and registries by their true names |
//! | [`Emulator::add_registry`] | one more address, which is a registry of the region that you say |
//!
//! Whatever the way, a registry is known by its `Host`: `ACCOUNT.dkr.ecr.REGION.amazonaws.com` and its kin,
//! `public.ecr.aws`, and the names that were given a region. It holds [`IMAGE`] and [`CHART`], or is backed by a real one.
//!
//! # Policies
//!
//! Without policies every principal may do everything. [`Emulator::set_policies`] attaches documents to users, roles,
//! repositories, registries, the VPC endpoints of ECR or an account, and from then on IAM decides as AWS does. The
//! journal's [`Call`]s show which actions were asked for and which one was denied.
//!
//! # From another process
//!
//! The binary `ecr-emulator` runs one standalone. Its control API is JSON under `/_emulator/` of the endpoint:
//!
//! | request | body or answer |
//! |---|---|
//! | `PUT faults` | `{"service": "ecr", "fault": "throttled", "times": 2}`; without `times` it stays. Services: `sts`, `ecr`, `ecr-public`, `pod-identity`, `imds`, `registry`. Faults: `"signature-mismatch"`, `"incomplete-signature"`, `"echo"`, `"throttled"`, `"access-denied"`, `"hang"`, `"reset"`, `"garbage"`, `"html"`, `"huge"`, `"empty-list"`, `"no-expiry"`, `"not-base64"`, `"not-aws"`, `"empty-password"`, `"colon-password"`, `"expired-on-arrival"`, `"far-future"`, `{"status": 503}`, `{"slow-body": MILLISECONDS}`, `{"error": {"status": 400, "code": "…", "message": "…"}}` |
//! | `DELETE faults` | clears them all |
//! | `PUT settings` | any of `{"tokenLifetimeSeconds": 60, "clockOffsetSeconds": -600, "registryUpstream": "http://127.0.0.1:5000", "proxyRefuses": 407, "pullThroughCache": "docker-hub"}`; `""` and `0` undo the third and the fourth |
//! | `PUT policies` | `{"attachTo": {"identity": ARN}, "documents": [{"Version": "2012-10-17", …}]}`, as [`Emulator::set_policies`]. Others to attach to: `{"trust": ARN}`, `{"repository": ARN}`, `{"registry": ACCOUNT}`, `{"account": ACCOUNT}`, `"vpc-endpoint"` |
//! | `DELETE policies` | no policy is attached any more: everything is allowed |
//! | `POST revoke-tokens`, `POST expire-credentials` | as the methods of the same name |
//! | `GET calls`, `GET pulls`, `GET refusals`, `GET connects`, `GET panic` | the journal, as JSON |
//! | `POST panic` | panics inside the emulator, to see that a panic does surface |

mod clock;
mod control;
mod dispatch;
mod ecr;
mod emulator;
mod fault;
mod hosts;
mod iam;
mod journal;
mod metadata;
mod proxy;
mod random;
mod registry;
mod reply;
mod request;
mod server;
mod settings;
mod shared;
mod sigv4;
mod sts;
mod tls;
mod tokens;
mod web_identity;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use emulator::Emulator;
pub use fault::{Fault, Service};
pub use iam::Attachment;
pub use journal::{Call, Pull, Reason, Refusal};
pub use registry::content::{CHART, IMAGE};
pub use settings::{
    ACCESS_KEY_ID, ACCOUNT, Denial, POD_IDENTITY_TOKEN, Role, SECRET_ACCESS_KEY, Settings, Trust, User,
};

/// A lock that a panic elsewhere doesn't poison: that panic is raised on its own, with its message.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
