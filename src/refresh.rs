//! The one refresh loop: wait until the plan says so, ask AWS, publish, record the outcome.
//!
//! Invariants:
//! * A refresher never touches an output, and an error never removes or blanks a credential.
//! * The wall clock decides when a token is due; it is read at least every minute, so that suspended machines and
//!   stepped clocks are noticed.

pub(crate) mod plan;

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use self::plan::{Failures, Lifetime, Policy, State, attempt_limit, plan};
use crate::{
    aws::token::{ClockFault, Fetched, TokenError, TokenSource},
    clock::{Clock, rfc3339},
    credentials::CredentialStore,
    failure::{Diagnose, Problem, log_problem, reminder::Reminder},
    status::{Served, StatusBoard},
};

const STRETCH: Duration = Duration::from_secs(60);
/// However often it is woken, a refresher pauses this long between two attempts.
const SPACING: Duration = Duration::from_secs(5);

pub(crate) struct Refresher {
    pub source: TokenSource,
    pub policy: watch::Receiver<Policy>,
    pub clock: Clock,
    pub credentials: CredentialStore,
    pub status: StatusBoard,
    pub wake: Arc<Notify>,
}

impl Refresher {
    pub(crate) async fn run(mut self) -> Infallible {
        let mut state = State { roll: fastrand::f64(), ..State::default() };
        let mut reminder = Reminder::default();
        let mut last_attempt = None;
        loop {
            self.wait_until_due(&state, last_attempt).await;
            let started = Instant::now();
            let outcome = self.attempt(&state).await;
            last_attempt = Some(Instant::now());
            self.status.update_token(self.source.key(), |token| token.durations.add(started.elapsed()));
            state.roll = fastrand::f64();
            match outcome {
                Ok(fetched) => {
                    let (obtained_at, expires_at) = (fetched.token.obtained_at, fetched.token.expires_at);
                    state.token = Some(Lifetime { obtained_at, expires_at });
                    let recovered = state.failures.take();
                    self.succeeded(fetched, &state, recovered);
                    reminder = Reminder::default();
                }
                Err(error) => {
                    state.token = state.token.or_else(|| self.found_in_outputs());
                    let count = state.failures.map_or(0, |failures| failures.count).saturating_add(1);
                    state.failures = Some(Failures { class: error.class(), count, at: self.clock.now() });
                    self.failed(error.problem(), &state, &mut reminder);
                }
            }
        }
    }

    async fn wait_until_due(&mut self, state: &State, last_attempt: Option<Instant>) {
        loop {
            let now = self.clock.now();
            let due = plan(now, state, &self.policy.borrow_and_update());
            self.status.update_token(self.source.key(), |token| {
                token.next_attempt = Some(due);
                token.last_heartbeat = Instant::now();
            });
            let left = due.duration_since(now).unwrap_or_default();
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(STRETCH)) => {}
                Ok(()) = self.policy.changed() => {}
                () = self.wake.notified() => {
                    if let Some(last) = last_attempt {
                        tokio::time::sleep_until(last + SPACING).await;
                    }
                    return;
                }
            }
        }
    }

    async fn attempt(&self, state: &State) -> Result<Fetched, TokenError> {
        let limit = attempt_limit(self.clock.now(), state);
        match tokio::time::timeout(limit, self.source.fetch()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(TokenError::TimedOut { operation: "asking for a token", seconds: limit.as_secs() }),
        }
    }

    /// What a process before this one left in the outputs, if it serves every registry: how urgent the first token is.
    fn found_in_outputs(&self) -> Option<Lifetime> {
        let expires_at = self.status.read(|status| {
            let served = &status.tokens.get(self.source.key())?.registries;
            let places = served.iter().flat_map(|served| {
                status.outputs.values().map(move |output| output.in_place.get(&served.host).copied())
            });
            places.min()? // a registry without a credential comes first
        })?;
        Some(Lifetime { obtained_at: self.clock.now(), expires_at })
    }

    fn succeeded(&self, fetched: Fetched, state: &State, recovered: Option<Failures>) {
        let Fetched { token, principal, own_registry } = fetched;
        let key = self.source.key();
        let fault = state.token.and_then(|token| token.fault());
        let next = plan(self.clock.now(), state, &self.policy.borrow());
        let (obtained_at, expires_at) = (token.obtained_at, token.expires_at);
        if let Some(fault) = fault {
            let remedy = ClockFault::remedy();
            tracing::warn!(
                token = %key, ?fault, expires_at = %rfc3339(expires_at),
                diagnosis = remedy.diagnosis.id(), %remedy,
                "implausible token expiry (clock skew?); refreshing at a reduced rate"
            );
        }
        tracing::info!(
            token = %key, expires_at = %rfc3339(expires_at), next_attempt = %rfc3339(next),
            failures_before = recovered.map_or(0, |failures| failures.count),
            principal = principal.arn.as_deref().unwrap_or(&principal.source),
            "token refreshed"
        );
        // The status goes first: who sees the credential in an output finds its token here.
        self.status.update_token(key, |status| {
            if let Some(host) = own_registry.filter(|_| status.serves_own_registry) {
                let own = vec![Served { host: host.clone(), required: true }];
                if status.registries != own {
                    tracing::info!(registry = %host, "the caller's own registry");
                    self.credentials.route_alone(host, key.clone());
                    status.registries = own;
                }
            }
            status.principal = Some(principal);
            status.obtained_at = Some(obtained_at);
            status.expires_at = Some(expires_at);
            status.clock_fault = fault;
            status.next_attempt = Some(next);
            status.refreshed += 1;
            status.failures_in_a_row = 0;
            status.last_error = None;
        });
        if !self.credentials.publish(key, token, self.clock.now()) {
            tracing::warn!(token = %key, "new token is already expired; keeping the current token");
        }
    }

    fn failed(&self, problem: Problem, state: &State, reminder: &mut Reminder) {
        let next = plan(self.clock.now(), state, &self.policy.borrow());
        let failures = state.failures.map_or(0, |failures| failures.count);
        if reminder.is_due(&problem) {
            let last_good_until = state.token.map(|token| rfc3339(token.expires_at));
            log_problem!(
                warn, problem, {
                    token = %self.source.key(), class = %problem.class, failures,
                    next_attempt = %rfc3339(next), last_good_until
                },
                "token refresh failed"
            );
        }
        self.status.update_token(self.source.key(), |status| {
            status.next_attempt = Some(next);
            status.failed.add(problem.class);
            status.failures_in_a_row = failures;
            status.last_error = Some(problem);
        });
    }
}
