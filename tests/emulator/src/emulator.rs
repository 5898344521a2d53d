//! How does a test hold an emulator?

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;

use crate::fault::{Fault, Service};
use crate::hosts::Place;
use crate::iam::Attachment;
use crate::journal::{Call, Pull, Refusal};
use crate::locked;
use crate::server::{self, Protocol};
use crate::settings::Settings;
use crate::shared::Shared;

/// A running emulator; it stops when this is dropped.
///
/// Each method may be called from any thread, and blocks for no longer than a lock is held. A panic inside the
/// emulator is raised by the next method that is called, or else by the drop.
pub struct Emulator {
    shared: Arc<Shared>,
    runtime: Handle,
    http: SocketAddr,
    https: SocketAddr,
    proxy: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Starts one, on a thread of its own. All listeners are open when this returns.
    ///
    /// Fails when an address is taken, the key set can't be read, or the upstream isn't on this machine.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(&settings)?);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let open = |address, protocol| {
            let (listener, address) = bind(address)?;
            server::listen(&handle, &shared, listener, protocol);
            io::Result::Ok(address)
        };
        let http = open(settings.http_listen, Protocol::Http)?;
        let https = open(settings.https_listen, Protocol::Https)?;
        let proxy = open(settings.proxy_listen, Protocol::Proxy)?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("ecr-emulator".to_owned()).spawn(move || {
            // Both a message and a dropped sender mean the same.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { shared, runtime: handle, http, https, proxy, stop: Some(stop), thread: Some(thread) })
    }

    /// `http://127.0.0.1:PORT`, the value of `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.http)
    }

    /// `https://127.0.0.1:PORT`, the same by TLS.
    pub fn https_endpoint(&self) -> String {
        format!("https://{}", self.https)
    }

    /// `http://127.0.0.1:PORT`, the value of `HTTPS_PROXY`.
    pub fn proxy(&self) -> String {
        format!("http://{}", self.proxy)
    }

    /// The PEM file of the certificate authority, for `AWS_CA_BUNDLE` and `SSL_CERT_FILE`. It is gone after the drop.
    pub fn ca_file(&self) -> &Path {
        self.state().authority.pem()
    }

    /// Opens one more plain-HTTP address, `127.0.0.1:PORT`, which is a registry of that region.
    ///
    /// # Panics
    /// When no port is available.
    pub fn add_registry(&self, region: &str) -> String {
        match self.add_registry_at(region, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))) {
            Ok(address) => address.to_string(),
            Err(error) => panic!("no port for a registry: {error}"),
        }
    }

    /// The same at an address of your choice.
    pub fn add_registry_at(&self, region: &str, address: SocketAddr) -> io::Result<SocketAddr> {
        let (listener, address) = bind(address)?;
        self.state().registry.name(&address.to_string(), Place::Region(region.to_owned()));
        server::listen(&self.runtime, &self.shared, listener, Protocol::Http);
        Ok(address)
    }

    /// Makes a host (with or without its port) a registry of that region, whichever way it is reached.
    pub fn name_registry(&self, host: &str, region: &str) {
        self.state().registry.name(host, Place::Region(region.to_owned()));
    }

    /// Hands admitted registry requests on to a real registry (`http://` on this machine); none: back to memory.
    ///
    /// # Panics
    /// When the URL isn't an `http://` address on this machine.
    pub fn set_registry_upstream(&self, url: Option<&str>) {
        or_panic(self.state().registry.set_upstream(url));
    }

    /// From now on each call of the service meets this fault.
    ///
    /// # Panics
    /// When the fault means nothing for the service ([`Fault::applies_to`]).
    pub fn set_fault(&self, service: Service, fault: Fault) {
        or_panic(self.state().script.set(service, fault));
    }

    /// The next `times` calls of the service meet this fault, after those that are queued already.
    ///
    /// # Panics
    /// When the fault means nothing for the service ([`Fault::applies_to`]).
    pub fn push_fault(&self, service: Service, fault: Fault, times: u32) {
        or_panic(self.state().script.push(service, fault, times));
    }

    /// No more faults, of any service.
    pub fn clear_faults(&self) {
        self.state().script.clear();
    }

    /// The calls so far, oldest first (at most the last 100,000).
    pub fn calls(&self) -> Vec<Call> {
        self.state().journal.calls()
    }

    /// How many calls a service has had.
    pub fn count(&self, service: Service) -> u64 {
        self.state().journal.count(service)
    }

    /// The registry requests that were admitted, oldest first.
    pub fn pulls(&self) -> Vec<Pull> {
        self.state().journal.pulls()
    }

    /// The registry requests that were refused, oldest first; the first of every client has no credentials.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.state().journal.refusals()
    }

    /// How often the proxy was asked to connect, by host.
    pub fn connects(&self) -> BTreeMap<String, u64> {
        locked(&self.state().proxy.connects).clone()
    }

    /// The proxy answers this status (403, 407) to new connections; none: it connects again.
    pub fn refuse_proxy(&self, status: Option<u16>) {
        *locked(&self.state().proxy.refuse) = status;
    }

    /// How long the ECR tokens live that are issued from now on.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.state().set_token_lifetime(lifetime);
    }

    /// Moves the emulator's clock against the machine's, in seconds: expiries, signature checks and `Date` follow.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.state().clock.set_offset(seconds);
    }

    /// Every registry token issued so far is refused from now on.
    pub fn revoke_tokens(&self) {
        self.state().tokens.revoke_all();
    }

    /// Every session issued so far (STS, Pod Identity, IMDS) is expired from now on.
    pub fn expire_credentials(&self) {
        self.state().iam.expire_sessions();
    }

    /// Replaces the policies that are attached there by these documents, JSON as IAM and ECR take it. From the first
    /// such call on, the attached policies alone decide what anyone may do; before it everything is allowed.
    ///
    /// # Panics
    /// When a document isn't a policy, or has something in it that the emulator doesn't understand.
    pub fn set_policies(&self, to: Attachment, documents: &[&str]) {
        or_panic(self.try_set_policies(to, documents));
    }

    /// [`set_policies`](Self::set_policies) with an error in place of the panic; what was attached stays then.
    pub fn try_set_policies(&self, to: Attachment, documents: &[&str]) -> Result<(), String> {
        self.state().iam.set_policies(to, documents)
    }

    /// No policy is attached any more, and everything is allowed again.
    pub fn clear_policies(&self) {
        self.state().iam.clear_policies();
    }

    /// Every private registry has a pull-through cache below that prefix; its upstream is what the registry holds
    /// without the prefix.
    pub fn add_pull_through_cache(&self, prefix: &str) {
        self.state().registry.pull_through.add(prefix);
    }

    /// Whether the upstream of each pull-through cache refuses what is to be imported; what a cache holds stays there.
    pub fn refuse_upstream(&self, refuses: bool) {
        self.state().registry.pull_through.refuse_upstream(refuses);
    }

    /// A web-identity token that the emulator's STS takes, for the content of `AWS_WEB_IDENTITY_TOKEN_FILE`.
    /// Its audience should be `sts.amazonaws.com`.
    pub fn web_identity_token(&self, subject: &str, audience: &str, lifetime: Duration) -> String {
        let shared = self.state();
        shared.issuers.issue(subject, audience, lifetime, shared.clock.unix())
    }

    /// The state, unless a task has panicked.
    fn state(&self) -> &Shared {
        if let Some(message) = self.shared.panic_message() {
            panic!("the emulator panicked: {message}");
        }
        &self.shared
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(payload)) = self.thread.take().map(JoinHandle::join) {
            self.shared.record_panic(&*payload);
        }
        if let Some(message) = self.shared.panic_message()
            && !std::thread::panicking()
        {
            panic!("the emulator panicked: {message}");
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn or_panic(result: Result<(), String>) {
    if let Err(message) = result {
        panic!("{message}");
    }
}
