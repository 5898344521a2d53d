//! What goes wrong, and when: the same in every run, one after the other, for ever.
//!
//! A fault is over when the sidecar has made good what it did. The next one begins a second later, after a
//! round of all of them ten seconds later; the outage sooner, since it is to begin with fresh tokens.
//!
//! All begin half a second before the next pull. Whoever reads a deleted or an edited file finds no credential, and
//! nothing that the sidecar does can change that: the next pull waits for the repair, and its time is shown.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use ecr_emulator::{Fault as AwsFault, Service};
use test_support::{files::overwrite, wait::within};

use crate::world::{LIFETIME, World};

/// Longer than half of a token's life: the time at which it is due to be renewed falls into it.
const OUTAGE: Duration = Duration::from_secs(18);
const _: () = assert!(OUTAGE.as_secs() * 2 > LIFETIME.as_secs());
/// How long a pull waits for a file that was deleted or edited. On a busy machine a repair can take a second.
const REPAIR_LIMIT: Duration = Duration::from_secs(10);
/// What another process puts into the file: another registry's credential and none of ours.
const EDITED: &str = r#"{"auths":{"ghcr.io":{"auth":"c29tZW9uZTplbHNl"}}}"#;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Throttle,
    Outage,
    Kill,
    Edit,
    Delete,
}

const ROUND: [Fault; 5] = [Fault::Throttle, Fault::Outage, Fault::Kill, Fault::Edit, Fault::Delete];

/// Where the script is.
pub(crate) struct Script {
    turn: usize,
    now: Now,
    ridden: [usize; ROUND.len()],
    broken: Vec<String>,
}

enum Now {
    /// Nothing is wrong until then.
    Quiet(Instant),
    /// Something is.
    Wrong(Wrong),
}

struct Wrong {
    fault: Fault,
    since: Instant,
    /// Each registry's refreshes when it began.
    refreshes: Vec<u64>,
    /// AWS answers again.
    has_passed: bool,
}

impl Script {
    /// Begins in a moment.
    pub(crate) fn new() -> Self {
        let now = Now::Quiet(Instant::now() + Duration::from_secs(1));
        Self { turn: 0, now, ridden: [0; ROUND.len()], broken: Vec::new() }
    }

    /// The faults that are over and left nothing behind, and how often.
    pub(crate) fn ridden(&self) -> impl Iterator<Item = (&'static str, usize)> {
        ROUND.map(Fault::name).into_iter().zip(self.ridden).filter(|(_, times)| *times > 0)
    }

    /// What the faults that are over left behind.
    pub(crate) fn broken(&self) -> &[String] {
        &self.broken
    }

    /// The fault that isn't over yet.
    pub(crate) fn under_way(&self) -> Option<&'static str> {
        match &self.now {
            Now::Quiet(_) => None,
            Now::Wrong(wrong) => Some(wrong.fault.name()),
        }
    }

    /// Does what is due, and says it. A fault begins only when it `may_begin`.
    pub(crate) fn step(&mut self, world: &mut World, may_begin: bool) -> io::Result<Vec<String>> {
        let mut said = Vec::new();
        if let Now::Quiet(until) = self.now
            && may_begin
            && Instant::now() >= until
        {
            self.begin(world, &mut said)?;
        }
        let Now::Wrong(wrong) = &mut self.now else { return Ok(said) };
        said.extend(wrong.pass(world));
        let Some(left_behind) = wrong.outcome(world) else { return Ok(said) };
        let Wrong { fault, since, .. } = *wrong;
        let seconds = since.elapsed().as_secs_f64();
        match left_behind {
            None => {
                said.push(format!("over after {seconds:.2} s: {}", fault.fixed()));
                self.ridden[self.turn] += 1;
            }
            Some(left_behind) => {
                said.push(format!("over after {seconds:.2} s, but {left_behind}"));
                self.broken.push(format!("{}: {left_behind}", fault.name()));
            }
        }
        self.turn = (self.turn + 1) % ROUND.len();
        self.now = Now::Quiet(Instant::now() + self.pause());
        Ok(said)
    }

    /// Before the next fault.
    fn pause(&self) -> Duration {
        match ROUND[self.turn] {
            Fault::Outage => Duration::ZERO,
            Fault::Throttle => Duration::from_secs(10),
            _ => Duration::from_millis(900),
        }
    }

    fn begin(&mut self, world: &mut World, said: &mut Vec<String>) -> io::Result<()> {
        let fault = ROUND[self.turn];
        let refreshes = world.sidecar.tokens().iter().map(|token| token.refreshes).collect();
        said.push(format!("FAULT {}", fault.announcement(world)));
        fault.strike(world)?;
        self.now = Now::Wrong(Wrong { fault, since: Instant::now(), refreshes, has_passed: false });
        Ok(())
    }
}

impl Wrong {
    /// Ends what has its time.
    fn pass(&mut self, world: &World) -> Option<String> {
        if self.fault != Fault::Outage || self.has_passed || self.since.elapsed() < OUTAGE {
            return None;
        }
        world.harness.emulator.clear_faults();
        self.has_passed = true;
        Some(format!("AWS answers again after {} s", OUTAGE.as_secs()))
    }

    /// Whether it is over, and what it left behind.
    fn outcome(&self, world: &World) -> Option<Option<String>> {
        let tokens = world.sidecar.tokens();
        let all_refreshed =
            || tokens.iter().zip(&self.refreshes).all(|(token, before)| token.refreshes > *before);
        let over = match self.fault {
            Fault::Throttle => all_refreshed(),
            Fault::Outage => self.has_passed && all_refreshed(),
            Fault::Kill => all_refreshed() && world.sidecar.is_ready(),
            Fault::Edit | Fault::Delete => is_file_repaired(world),
        };
        over.then(|| {
            let text = fs::read_to_string(world.config_json()).unwrap_or_default();
            let lost = self.fault == Fault::Edit && !text.contains("ghcr.io");
            lost.then(|| "the other registry's entry is gone".to_owned())
        })
    }
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::Outage => "outage",
            Self::Kill => "killed writer",
            Self::Edit => "edited config.json",
            Self::Delete => "deleted config.json",
        }
    }

    fn announcement(self, world: &World) -> String {
        let calls = world.consumers.len();
        match self {
            Self::Throttle => {
                format!("a throttle: of the next {calls} calls to AWS; SIGHUP has them made now")
            }
            Self::Outage => format!(
                "an outage: AWS resets every connection for {} s of a token's {}",
                OUTAGE.as_secs(),
                LIFETIME.as_secs()
            ),
            Self::Kill => "a killed writer: SIGKILL, and started again at once".to_owned(),
            Self::Edit => "an edited config.json: only an entry for ghcr.io is left".to_owned(),
            Self::Delete => "a deleted config.json".to_owned(),
        }
    }

    fn fixed(self) -> &'static str {
        match self {
            Self::Throttle | Self::Outage => "each token is renewed",
            Self::Kill => "the new process has tokens of its own and is ready",
            Self::Edit => "the credentials are back, and ghcr.io is still there",
            Self::Delete => "the file is back",
        }
    }

    fn strike(self, world: &mut World) -> io::Result<()> {
        match self {
            Self::Throttle => {
                let calls = u32::try_from(world.consumers.len()).map_err(io::Error::other)?;
                world.harness.emulator.push_fault(Service::Ecr, AwsFault::Throttled, calls);
                world.sidecar.refresh_now()
            }
            Self::Outage => {
                for service in [Service::Sts, Service::Ecr] {
                    world.harness.emulator.set_fault(service, AwsFault::Reset);
                }
                Ok(())
            }
            Self::Kill => world.sidecar.kill_and_restart(&world.harness),
            Self::Edit => {
                overwrite(&world.config_json(), EDITED);
                Ok(())
            }
            Self::Delete => fs::remove_file(world.config_json()),
        }
    }
}

fn is_file_repaired(world: &World) -> bool {
    within(REPAIR_LIMIT, || world.is_file_complete().then_some(())).is_some()
}
