//! How does another process script the emulator?
//!
//! JSON over HTTP under `/_emulator/`; the paths and bodies are listed in the documentation of the crate.

use std::time::Duration;

use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::fault::{Fault, Service};
use crate::iam::Attachment;
use crate::locked;
use crate::reply::{self, Reply};
use crate::request::Inbound;
use crate::shared::Shared;

pub(crate) const PREFIX: &str = "/_emulator/";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultOrder {
    service: Service,
    fault: Fault,
    /// Without it the fault stays.
    times: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SettingsOrder {
    token_lifetime_seconds: Option<f64>,
    clock_offset_seconds: Option<i64>,
    registry_upstream: Option<String>,
    proxy_refuses: Option<u16>,
    pull_through_cache: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PolicyOrder {
    attach_to: Attachment,
    documents: Vec<serde_json::Value>,
}

/// Answers one request of the control API.
pub(crate) fn answer(shared: &Shared, request: &Inbound) -> Reply {
    let result = match (&request.method, request.path.trim_start_matches(PREFIX)) {
        (&Method::GET, "calls") => list(&shared.journal.calls()),
        (&Method::GET, "pulls") => list(&shared.journal.pulls()),
        (&Method::GET, "refusals") => list(&shared.journal.refusals()),
        (&Method::GET, "connects") => list(&*locked(&shared.proxy.connects)),
        (&Method::PUT, "faults") => set_fault(shared, request),
        (&Method::DELETE, "faults") => after(|| shared.script.clear()),
        (&Method::PUT, "policies") => set_policies(shared, request),
        (&Method::DELETE, "policies") => after(|| shared.iam.clear_policies()),
        (&Method::PUT, "settings") => change_settings(shared, request),
        (&Method::POST, "revoke-tokens") => after(|| shared.tokens.revoke_all()),
        (&Method::POST, "expire-credentials") => after(|| shared.iam.expire_sessions()),
        (&Method::GET, "panic") => list(&shared.panic_message()),
        (&Method::POST, "panic") => panic!("asked for by the control API"),
        _ => return problem(404, "the control API has no such path or method"),
    };
    result.unwrap_or_else(|message| problem(400, &message))
}

fn list<T: Serialize + ?Sized>(entries: &T) -> Result<Reply, String> {
    let body = serde_json::to_string(entries).map_err(|error| error.to_string())?;
    Ok(reply::with_type(200, "application/json", body))
}

fn after(deed: impl FnOnce()) -> Result<Reply, String> {
    deed();
    done()
}

fn done() -> Result<Reply, String> {
    Ok(reply::with_type(200, "application/json", "{}"))
}

fn set_fault(shared: &Shared, request: &Inbound) -> Result<Reply, String> {
    let order: FaultOrder = read(request)?;
    match order.times {
        Some(times) => shared.script.push(order.service, order.fault, times)?,
        None => shared.script.set(order.service, order.fault)?,
    }
    done()
}

fn set_policies(shared: &Shared, request: &Inbound) -> Result<Reply, String> {
    let order: PolicyOrder = read(request)?;
    let documents: Vec<_> = order.documents.iter().map(ToString::to_string).collect();
    let documents: Vec<_> = documents.iter().map(String::as_str).collect();
    shared.iam.set_policies(order.attach_to, &documents)?;
    done()
}

fn change_settings(shared: &Shared, request: &Inbound) -> Result<Reply, String> {
    let order: SettingsOrder = read(request)?;
    if let Some(seconds) = order.token_lifetime_seconds {
        let lifetime = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
        shared.set_token_lifetime(lifetime);
    }
    if let Some(seconds) = order.clock_offset_seconds {
        shared.clock.set_offset(seconds);
    }
    if let Some(url) = order.registry_upstream {
        shared.registry.set_upstream(Some(url.as_str()).filter(|url| !url.is_empty()))?;
    }
    if let Some(status) = order.proxy_refuses {
        *locked(&shared.proxy.refuse) = Some(status).filter(|status| *status != 0);
    }
    if let Some(prefix) = order.pull_through_cache {
        shared.registry.pull_through.add(&prefix);
    }
    done()
}

fn read<'a, T: Deserialize<'a>>(request: &'a Inbound) -> Result<T, String> {
    serde_json::from_slice(&request.body).map_err(|error| error.to_string())
}

fn problem(status: u16, message: &str) -> Reply {
    reply::with_type(status, "application/json", json!({"error": message}).to_string())
}
