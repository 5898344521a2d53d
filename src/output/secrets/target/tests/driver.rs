//! Drives one target through events and time.

use super::*;

/// A target, the time, and the credentials that it is to hold.
pub(super) struct Driver {
    pub(super) target: Target,
    pub(super) now: Instant,
    pub(super) desired: Arc<CredentialSet>,
}

impl Driver {
    pub(super) fn new() -> Self {
        Self { target: Target::new(content(), false), now: Instant::now(), desired: Arc::default() }
    }

    /// One that is in sync, in version 1.
    pub(super) fn in_sync() -> Self {
        let mut driver = Self::new();
        assert_eq!(driver.run(synced("1")), []);
        driver
    }

    pub(super) fn send(&mut self, event: Event) -> Vec<Effect> {
        self.target.on_event(event, self.now)
    }

    pub(super) fn wait(&mut self, duration: Duration) {
        self.now += duration;
    }

    pub(super) fn due_in(&self) -> Option<Duration> {
        self.target.due(self.now).map(|due| due.duration_since(self.now))
    }

    pub(super) fn is_due(&self) -> bool {
        self.due_in() == Some(Duration::ZERO)
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.target.pending == Pending::Urgent
    }

    pub(super) fn start(&mut self) -> Job {
        assert!(self.is_due(), "{:?}", self.due_in());
        let effects = self.send(Event::Picked(1));
        assert!(self.target.due(self.now).is_none(), "two at once");
        let [Effect::Reconcile(job)] = <[_; 1]>::try_from(effects).ok().unwrap() else {
            panic!("not started")
        };
        job
    }

    pub(super) fn finish(&mut self, outcome: Outcome) -> Vec<Incident> {
        let desired = Arc::clone(&self.desired);
        incidents(self.send(finished(Outcome { desired, ..outcome }))).0
    }

    pub(super) fn run(&mut self, outcome: Outcome) -> Vec<Incident> {
        let cleanup = self.start().cleanup;
        self.finish(Outcome { cleanup, ..outcome })
    }

    /// Another field manager edits it, and we restore it.
    pub(super) fn edit_and_restore(&mut self, version: &str) -> Vec<Incident> {
        self.send(Event::Observed(format!("{version}-edited")));
        let wait = self.due_in().unwrap();
        self.wait(wait);
        self.run(written(version, edited()))
    }
}

/// What is logged, and whether the target is to be forgotten.
pub(super) fn incidents(effects: Vec<Effect>) -> (Vec<Incident>, bool) {
    let (mut incidents, mut forget) = (Vec::new(), false);
    for effect in effects {
        match effect {
            Effect::Log(incident) => incidents.push(incident),
            Effect::Forget => forget = true,
            Effect::Reconcile(_) => panic!("not picked"),
        }
    }
    (incidents, forget)
}

pub(super) fn edited() -> Drift {
    Drift::Edited("hand".into())
}

pub(super) fn written(version: &str, drift: Drift) -> Outcome {
    Outcome { drift: Some(drift), result: Ok(true), ..synced(version) }
}
