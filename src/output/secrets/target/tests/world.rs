//! A target against a model of the API server, in which watch events lag and other field managers write at any time.

use std::collections::VecDeque;

use proptest::{collection::vec, sample::select};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Another field manager writes.
    Edit,
    Delete,
    /// There is a new token.
    Refresh,
    /// The watch reports what happened next.
    Deliver,
    /// The watch begins again with a list.
    Relist,
    Start,
    Resync,
    /// The reconciliation under way reads the Secret.
    Read,
    /// It writes, if it has to.
    Write,
    /// Its end is noted.
    Finish,
    /// It gets no answer.
    Fail,
    Want,
    Unwant,
    Wait(Duration),
}

/// Each as often as it is likely.
fn steps() -> Vec<Step> {
    let likely = [Step::Deliver, Step::Resync, Step::Start, Step::Finish].map(|step| vec![step; 4]);
    let rare = [
        Step::Edit,
        Step::Edit,
        Step::Delete,
        Step::Refresh,
        Step::Relist,
        Step::Read,
        Step::Read,
        Step::Write,
        Step::Write,
        Step::Fail,
        Step::Want,
        Step::Unwant,
        Step::Wait(Duration::from_secs(20)),
    ];
    likely.into_iter().flatten().chain(rare).collect()
}

/// A Secret as the API server has it: its version, and the credentials that it holds, if they are ours.
#[derive(Clone, Default)]
struct Secret {
    version: u64,
    holds: Option<Arc<CredentialSet>>,
}

struct World {
    /// `None` when it was forgotten.
    driver: Option<Driver>,
    now: Instant,
    desired: Arc<CredentialSet>,
    is_wanted: bool,
    secret: Option<Secret>,
    latest: u64,
    undelivered: VecDeque<Option<u64>>,
    job: Option<Job>,
    /// What the reconciliation under way has read.
    read: Option<(Option<Secret>, Arc<CredentialSet>)>,
    /// What it will report.
    outcome: Option<Outcome>,
    writes: usize,
}

impl World {
    fn new() -> Self {
        Self {
            driver: Some(Driver::new()),
            now: Instant::now(),
            desired: Arc::default(),
            is_wanted: true,
            secret: None,
            latest: 0,
            undelivered: VecDeque::new(),
            job: None,
            read: None,
            outcome: None,
            writes: 0,
        }
    }

    fn send(&mut self, event: Event) {
        let Some(driver) = &mut self.driver else { return };
        driver.now = self.now;
        for effect in driver.send(event) {
            match effect {
                Effect::Reconcile(job) => assert!(self.job.replace(job).is_none(), "two at once"),
                Effect::Forget => {
                    assert!(!self.is_wanted && self.job.is_none(), "forgotten although it is wanted");
                    self.driver = None;
                    return;
                }
                Effect::Log(_) => {}
            }
        }
    }

    fn put(&mut self, secret: Option<Option<Arc<CredentialSet>>>) {
        self.latest += 1;
        self.secret = secret.map(|holds| Secret { version: self.latest, holds });
        self.undelivered.push_back(self.secret.as_ref().map(|secret| secret.version));
    }

    fn deliver(&mut self, version: Option<u64>, gone: Event) {
        self.send(version.map_or(gone, |version| Event::Observed(version.to_string())));
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Edit => self.put(Some(None)),
            Step::Delete if self.secret.is_some() => self.put(None),
            Step::Refresh => {
                self.desired = Arc::new(CredentialSet::default());
                self.send(Event::Resync);
            }
            Step::Deliver => {
                if let Some(version) = self.undelivered.pop_front() {
                    self.deliver(version, Event::Deleted);
                }
            }
            Step::Relist => {
                self.undelivered.clear();
                self.deliver(self.secret.as_ref().map(|secret| secret.version), Event::NotListed);
            }
            Step::Start => {
                if let Some(due) = self.due() {
                    self.now = due;
                    self.send(Event::Picked(1));
                }
            }
            Step::Resync => self.send(Event::Resync),
            Step::Read if self.job.is_some() && self.read.is_none() => {
                self.read = Some((self.secret.clone(), Arc::clone(&self.desired)));
            }
            Step::Write if self.outcome.is_none() => self.write(),
            Step::Finish => self.finish(),
            Step::Fail => {
                if let Some(job) = self.job.take() {
                    (self.read, self.outcome) = (None, None);
                    self.send(finished(Outcome { cleanup: job.cleanup, ..failure() }));
                }
            }
            Step::Want => {
                self.is_wanted = true;
                match self.driver {
                    Some(_) => self.send(Event::Wanted(content())),
                    None => self.driver = Some(Driver::new()),
                }
            }
            Step::Unwant => {
                self.is_wanted = false;
                self.send(Event::Unwanted);
            }
            Step::Wait(duration) => self.now += *duration,
            Step::Delete | Step::Read | Step::Write => {}
        }
    }

    /// When a reconciliation is due; not in the past.
    fn due(&self) -> Option<Instant> {
        let due = self.driver.as_ref()?.target.due(self.now)?;
        Some(due.max(self.now))
    }

    fn finish(&mut self) {
        self.take(&Step::Write);
        if let Some(outcome) = self.outcome.take() {
            (self.job, self.read) = (None, None);
            self.send(finished(outcome));
        }
    }

    fn write(&mut self) {
        self.take(&Step::Read);
        let (Some(job), Some((read, desired))) = (&self.job, self.read.clone()) else { return };
        let cleanup = job.cleanup;
        let version = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.version);
        let holds = read.as_ref().and_then(|secret| secret.holds.as_ref());
        let is_right = match cleanup {
            true => holds.is_none(),
            false => holds.is_some_and(|holds| Arc::ptr_eq(holds, &desired)),
        };
        let found = |version: Option<u64>| {
            let version = version.map(|version| version.to_string()).unwrap_or_default();
            Outcome { cleanup, desired: Arc::clone(&desired), ..synced(&version) }
        };
        let outcome = if is_right {
            found(version(&read))
        } else if version(&read) != version(&self.secret) {
            let result = Err(problem("conflict", Class::Transient));
            Outcome { result, ..found(version(&read)) }
        } else {
            self.writes += 1;
            self.put(Some((!cleanup).then(|| Arc::clone(&desired))));
            Outcome { drift: Some(Drift::Gone), result: Ok(true), ..found(version(&self.secret)) }
        };
        self.outcome = Some(outcome);
    }

    /// Nothing happens any more but what is under way, reported, or due.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.finish();
            while !self.undelivered.is_empty() {
                self.take(&Step::Deliver);
            }
            if self.due().is_none() {
                return;
            }
            self.take(&Step::Start);
        }
        panic!("it does not come to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn whatever_happens_it_ends_in_sync(
        rows in vec(vec(select(steps()), 0..12), 1..40),
    ) {
        let mut world = World::new();
        for steps in rows {
            steps.iter().for_each(|step| world.take(step));
            world.settle();
            let holds = world.secret.as_ref().and_then(|secret| secret.holds.clone());
            if world.is_wanted {
                prop_assert!(holds.is_some_and(|holds| Arc::ptr_eq(&holds, &world.desired)));
            } else {
                prop_assert!(holds.is_none() && world.driver.is_none());
            }
        }
        // From then on nothing is written.
        let writes = world.writes;
        world.send(Event::Resync);
        world.take(&Step::Relist);
        world.settle();
        prop_assert_eq!(world.writes, writes);
    }
}
