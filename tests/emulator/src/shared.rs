//! What do all connections of one emulator share?

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use crate::clock::Clock;
use crate::fault::Script;
use crate::hosts::Place;
use crate::iam::Iam;
use crate::journal::Journal;
use crate::locked;
use crate::registry::Registry;
use crate::settings::Settings;
use crate::tls::Authority;
use crate::tokens::Tokens;
use crate::web_identity::Issuers;

/// The state of one emulator.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) iam: Iam,
    pub(crate) issuers: Issuers,
    pub(crate) tokens: Tokens,
    pub(crate) script: Script,
    pub(crate) journal: Journal,
    pub(crate) registry: Registry,
    pub(crate) authority: Authority,
    pub(crate) proxy: ProxyState,
    pub(crate) metadata: Metadata,
    token_lifetime: Mutex<Duration>,
    panic: Mutex<Option<String>>,
}

/// What the credential endpoints of a pod and of an instance give out.
pub(crate) struct Metadata {
    pub(crate) pod_identity_token: String,
    pub(crate) pod_identity_subject: Option<String>,
    pub(crate) pod_identity_role: String,
    pub(crate) instance_role: String,
    pub(crate) instance_region: String,
    /// The session tokens of IMDSv2 and when each expires.
    pub(crate) tokens: Mutex<BTreeMap<String, i64>>,
}

/// What the proxy is scripted to do, and what it did.
#[derive(Default)]
pub(crate) struct ProxyState {
    pub(crate) refuse: Mutex<Option<u16>>,
    pub(crate) connects: Mutex<BTreeMap<String, u64>>,
}

impl Shared {
    pub(crate) fn new(settings: &Settings) -> io::Result<Self> {
        let shared = Self {
            clock: Clock::default(),
            iam: Iam::new(settings),
            issuers: Issuers::new(settings.jwks_file.as_deref(), settings.issuer.clone())?,
            tokens: Tokens::default(),
            script: Script::default(),
            journal: Journal::default(),
            registry: Registry::default(),
            authority: Authority::new()?,
            proxy: ProxyState::default(),
            metadata: Metadata {
                pod_identity_token: settings.pod_identity_token.clone(),
                pod_identity_subject: settings.pod_identity_subject.clone(),
                pod_identity_role: settings.pod_identity_role.clone(),
                instance_role: settings.instance_role.clone(),
                instance_region: settings.instance_region.clone(),
                tokens: Mutex::default(),
            },
            token_lifetime: Mutex::new(settings.token_lifetime),
            panic: Mutex::default(),
        };
        for (host, region) in &settings.registry_hosts {
            shared.registry.name(host, Place::Region(region.clone()));
        }
        shared.registry.set_upstream(settings.registry_upstream.as_deref()).map_err(io::Error::other)?;
        Ok(shared)
    }

    pub(crate) fn token_lifetime(&self) -> Duration {
        *locked(&self.token_lifetime)
    }

    pub(crate) fn set_token_lifetime(&self, lifetime: Duration) {
        *locked(&self.token_lifetime) = lifetime;
    }

    /// Keeps the first panic of a task, for the test's own thread to fail with.
    pub(crate) fn record_panic(&self, payload: &(dyn std::any::Any + Send)) {
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".to_owned());
        locked(&self.panic).get_or_insert(message);
    }

    pub(crate) fn panic_message(&self) -> Option<String> {
        locked(&self.panic).clone()
    }
}
