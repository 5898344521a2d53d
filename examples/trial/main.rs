//! The whole thing on one machine, with no AWS account:
//!
//! ```text
//! cargo run --example trial                  until ctrl-c
//! cargo run --example trial -- --for 40s
//! ```
//!
//! An AWS with two registries (the emulator of the tests), whose tokens live 30 seconds; next to them the real
//! sidecar in a process of its own; and a consumer that pulls from each registry every second, through the
//! `config.json` that the sidecar keeps and that it reads again each time. Things go [wrong](script) on the way.
//!
//! The exit status is 1 when a pull was refused, when nothing was pulled, when a fault left something behind,
//! and when the sidecar ended too early, or not at SIGTERM.

mod consumer;
mod display;
mod script;
mod sidecar;
mod world;

use std::{
    io,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use ecr_emulator::Service;
use ecr_sidecar::{
    shutdown::{Signal, Signals},
    units::parse_duration,
};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    display::Display,
    script::Script,
    world::{LIFETIME, World},
};

/// Pulls happen at whole seconds; things go wrong at the halves between them.
const HALF_SECOND: Duration = Duration::from_millis(500);
/// From the sidecar's start to its first credentials.
const START_LIMIT: Duration = Duration::from_secs(20);
/// From SIGTERM to the sidecar's end.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// Shows ecr-sidecar at work on this machine, with no AWS account.
#[derive(Parser)]
#[command(name = "trial")]
struct Arguments {
    /// End after this time, for example 40s; without it: on ctrl-c
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    time: Option<Duration>,
}

fn main() -> ExitCode {
    if sidecar::is_this_process() {
        return sidecar::main();
    }
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(trial(arguments.time))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("trial: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well.
async fn trial(time: Option<Duration>) -> io::Result<bool> {
    let mut signals = Signals::install()?;
    let stopped = async { while signals.next().await != Signal::Stop {} };
    let mut trial = Trial::start()?;
    let well = trial.run(time, stopped).await;
    if !well.as_ref().is_ok_and(|well| *well) {
        trial.world.harness.keep_folder();
        eprintln!("trial: the sidecar's log is kept: {}", trial.world.log().display());
    }
    well
}

struct Trial {
    world: World,
    display: Display,
    script: Script,
}

impl Trial {
    fn start() -> io::Result<Self> {
        let world = World::start()?;
        let display = Display::new();
        let registries = world.consumers.iter().map(|c| format!("{} in {}", c.registry, c.region));
        let registries = registries.collect::<Vec<_>>().join(", ");
        let life = LIFETIME.as_secs();
        display
            .say(&format!("Registries: {registries}. A token lives {life} s, a pull happens every second."));
        display.say(&format!("The sidecar's log: {}", world.log().display()));
        display.say("While this runs, try it from another shell:\n");
        world.shell_lines().iter().for_each(|line| display.say(&format!("  {line}")));
        display.say("");
        Ok(Self { world, display, script: Script::new() })
    }

    /// Everything from the first credentials to the summary. Whether all went well.
    async fn run(&mut self, time: Option<Duration>, stopped: impl Future<Output = ()>) -> io::Result<bool> {
        let ended = async {
            match time {
                Some(time) => sleep(time).await,
                None => std::future::pending().await,
            }
        };
        self.be_ready().await?;
        let begin = Instant::now();
        let end = tokio::select! {
            () = ended => None,
            () = stopped => None,
            gone = self.go_on() => Some(gone?),
        };
        self.display.end();
        let end = match end {
            Some(gone) => Err(gone),
            None => self.stop()?,
        };
        Ok(self.sum_up(begin.elapsed(), &end))
    }

    /// Waits for the first credentials, as kubelet waits for a native sidecar's startup probe.
    async fn be_ready(&mut self) -> io::Result<()> {
        let begin = Instant::now();
        while !self.world.sidecar.is_ready() {
            if self.world.sidecar.has_ended()?.is_some() || begin.elapsed() > START_LIMIT {
                return Err(io::Error::other("the sidecar doesn't become ready"));
            }
            sleep(Duration::from_millis(2)).await;
        }
        self.display.event(&format!("the sidecar is ready after {} ms", begin.elapsed().as_millis()));
        Ok(())
    }

    /// Pulls, lets things go wrong, and shows it, until the sidecar ends.
    async fn go_on(&mut self) -> io::Result<String> {
        let mut turns = interval(HALF_SECOND);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut at_whole_second = false;
        loop {
            turns.tick().await;
            if let Some(status) = self.world.sidecar.has_ended()? {
                return Ok(format!("the sidecar ended too early: {status}"));
            }
            // A process that was started a moment ago doesn't answer yet: what is known stays.
            let _ = self.world.sidecar.update();
            at_whole_second = !at_whole_second;
            if at_whole_second {
                self.pull();
            }
            let events = self.script.step(&mut self.world, !at_whole_second)?;
            events.iter().for_each(|event| self.display.event(event));
            self.display.show(&self.world);
        }
    }

    fn pull(&mut self) {
        for consumer in &mut self.world.consumers {
            if let Err(why) = consumer.pull() {
                self.display.event(&format!("REFUSED {}: {why}", consumer.registry));
            }
        }
    }

    /// How the sidecar ends on SIGTERM; the error when it does so badly.
    fn stop(&mut self) -> io::Result<Result<String, String>> {
        Ok(match self.world.sidecar.stop(STOP_LIMIT)? {
            Some((status, time)) if status.success() => {
                Ok(format!("the sidecar stopped {} ms after SIGTERM", time.as_millis()))
            }
            Some((status, _)) => Err(format!("the sidecar stopped badly on SIGTERM: {status}")),
            None => Err(format!("the sidecar didn't stop within {} s of SIGTERM", STOP_LIMIT.as_secs())),
        })
    }

    fn sum_up(&self, time: Duration, end: &Result<String, String>) -> bool {
        let Self { world, display, script } = self;
        let good: u64 = world.consumers.iter().map(|consumer| consumer.good).sum();
        let refused: u64 = world.consumers.iter().map(|consumer| consumer.refused).sum();
        let refreshes: u64 = world.sidecar.tokens().iter().map(|token| token.refreshes).sum();
        let calls = world.harness.emulator.count(Service::Ecr);
        display.say(&format!("\nAfter {} s:", time.as_secs()));
        display.say(&format!("  pulls      {good} good, {refused} refused"));
        display.say(&format!("  refreshes  {refreshes}, by {calls} calls to AWS"));
        let ridden: usize = script.ridden().map(|(_, times)| times).sum();
        display.say(&format!("  faults     {ridden} ridden through"));
        script.ridden().for_each(|(name, times)| display.say(&format!("             {times} x {name}")));
        if let Some(fault) = script.under_way() {
            display.say(&format!("             not over yet: {fault}"));
        }
        script.broken().iter().for_each(|fault| display.say(&format!("             BROKEN: {fault}")));
        let (Ok(text) | Err(text)) = end;
        display.say(&format!("  the end    {text}"));
        good > 0 && refused == 0 && script.broken().is_empty() && end.is_ok()
    }
}
