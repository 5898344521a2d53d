//! What the refreshers publish and the outputs read.
//!
//! A [`Token`] is one answer of AWS; a [`CredentialSet`] binds tokens to registry hosts. One token serves
//! many hosts and is shared, never copied, so that 1,000 registries cost one password in memory.
//!
//! Invariants: a token goes only when a newer one comes or its key leaves the configuration, and a live one
//! is never replaced by one that has already expired (`a_live_token_is_not_replaced_by_an_expired_one`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::SystemTime,
};

use tokio::sync::watch;

use crate::{
    aws::token::{Token, TokenKey},
    registry::RegistryHost,
    tasks::locked,
};

/// The newest token of every registry that has had one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CredentialSet {
    /// Registries that have a token. It stays here after its expiry, until a newer one exists.
    pub current: BTreeMap<RegistryHost, Arc<Token>>,
    /// Registries that are configured and have had no token yet: what an output finds of them stays.
    pub awaited: BTreeSet<RegistryHost>,
    /// Registries that a configuration of this process once named and the running one does not: their
    /// entries leave the outputs.
    pub retired: BTreeSet<RegistryHost>,
}

impl CredentialSet {
    /// Whether a registry is configured; before the first token of the caller's own nothing is known, and each may be.
    pub(crate) fn may_be_configured(&self, host: &RegistryHost) -> bool {
        let Self { current, awaited, .. } = self;
        current.contains_key(host) || awaited.contains(host) || (current.is_empty() && awaited.is_empty())
    }
}

/// Where refreshers put tokens and outputs take credential sets.
#[derive(Debug, Clone, Default)]
pub(crate) struct CredentialStore {
    state: Arc<Mutex<State>>,
    set: watch::Sender<Arc<CredentialSet>>,
}

#[derive(Debug, Default)]
struct State {
    tokens: BTreeMap<TokenKey, Arc<Token>>,
    routes: BTreeMap<RegistryHost, TokenKey>,
    retired: BTreeSet<RegistryHost>,
}

impl CredentialStore {
    /// Reports each change; a set that is another one differs.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<CredentialSet>> {
        self.set.subscribe()
    }

    /// Sets which token serves which host from now on. Hosts that are left out are retired, tokens that serve
    /// no key of `routes` or `kept` are dropped.
    pub(crate) fn route(&self, routes: BTreeMap<RegistryHost, TokenKey>, kept: &BTreeSet<TokenKey>) {
        let mut state = locked(&self.state);
        let left_out = state.routes.keys().filter(|host| !routes.contains_key(*host)).cloned();
        let left_out: Vec<_> = left_out.collect();
        state.retired.extend(left_out);
        state.retired.retain(|host| !routes.contains_key(host));
        state.tokens.retain(|key, _| kept.contains(key));
        state.routes = routes;
        self.send(&state);
    }

    /// Lets `key` serve `host` and no other: the caller's own registry, known with its token. It is another one when the
    /// caller is of another account than before.
    pub(crate) fn route_alone(&self, host: RegistryHost, key: TokenKey) {
        let State { routes, retired, .. } = &mut *locked(&self.state);
        let others = routes.extract_if(.., |_, served_by| *served_by == key);
        retired.extend(others.map(|(other, _)| other));
        retired.remove(&host);
        routes.insert(host, key);
    }

    /// Publishes a token, unless it has expired and the current one has not. Returns whether it was published.
    pub(crate) fn publish(&self, key: &TokenKey, token: Token, now: SystemTime) -> bool {
        let mut state = locked(&self.state);
        let live = state.tokens.get(key).is_some_and(|current| current.expires_at > now);
        if live && token.expires_at <= now {
            return false;
        }
        state.tokens.insert(key.clone(), Arc::new(token));
        self.send(&state);
        true
    }

    fn send(&self, state: &State) {
        let mut set = CredentialSet { retired: state.retired.clone(), ..CredentialSet::default() };
        for (host, key) in &state.routes {
            match state.tokens.get(key) {
                Some(token) => {
                    set.current.insert(host.clone(), Arc::clone(token));
                }
                None => {
                    set.awaited.insert(host.clone());
                }
            }
        }
        self.set.send_if_modified(|last| {
            let differs = **last != set;
            if differs {
                *last = Arc::new(set);
            }
            differs
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{aws::token::Service, secret::Secret};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn token(auth: &str, expires: u64) -> Token {
        Token { auth: Secret::new(auth.into()), obtained_at: at(0), expires_at: at(expires) }
    }

    fn key() -> TokenKey {
        let region = "eu-west-1".parse().unwrap();
        TokenKey {
            identity: "default".into(),
            service: Service::Ecr,
            region,
            endpoint: None,
            fips: None,
            dual_stack: None,
        }
    }

    fn host(account: u64) -> RegistryHost {
        format!("{account}.dkr.ecr.eu-west-1.amazonaws.com").parse().unwrap()
    }

    fn store(accounts: std::ops::Range<u64>) -> CredentialStore {
        let store = CredentialStore::default();
        reroute(&store, accounts);
        store
    }

    fn reroute(store: &CredentialStore, accounts: std::ops::Range<u64>) {
        store.route(accounts.map(|account| (host(account), key())).collect(), &[key()].into());
    }

    #[test]
    fn one_token_serves_every_host_of_its_key_and_is_shared() {
        let store = store(100_000_000_000..100_000_001_000);
        let receiver = store.subscribe();
        assert!(store.publish(&key(), token("a", 10), at(0)));
        let set = receiver.borrow();
        assert_eq!(set.current.len(), 1000);
        let first = set.current.values().next().unwrap();
        assert!(set.current.values().all(|token| Arc::ptr_eq(token, first)));
    }

    #[test]
    fn a_live_token_is_not_replaced_by_an_expired_one() {
        let store = store(100_000_000_000..100_000_000_001);
        let auth =
            || store.subscribe().borrow().current.values().next().map(|token| token.auth.expose().clone());
        assert!(store.publish(&key(), token("expired", 5), at(10))); // better than nothing
        assert!(store.publish(&key(), token("live", 100), at(10)));
        assert!(!store.publish(&key(), token("expired", 5), at(10)));
        assert_eq!(auth().as_deref(), Some("live"));
        assert!(store.publish(&key(), token("expired later", 150), at(200))); // both have expired: the newer one
        assert_eq!(auth().as_deref(), Some("expired later"));
    }

    #[test]
    fn a_host_that_is_left_out_is_retired_and_a_new_one_has_the_token_at_once() {
        let store = store(100_000_000_000..100_000_000_002);
        store.publish(&key(), token("a", 10), at(0));
        reroute(&store, 100_000_000_001..100_000_000_003);
        let set = store.subscribe().borrow().clone();
        assert_eq!(
            set.current.keys().cloned().collect::<Vec<_>>(),
            [host(100_000_000_001), host(100_000_000_002)]
        );
        assert_eq!(set.retired, [host(100_000_000_000)].into());
        reroute(&store, 100_000_000_000..100_000_000_003);
        assert!(store.subscribe().borrow().retired.is_empty());
    }
}
