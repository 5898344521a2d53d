//! One redrawn line a registry on a terminal, plain lines elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant, SystemTime},
};

use ecr_sidecar::clock::Clock;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{consumer::Consumer, sidecar::Token, world::World};

/// Off a terminal, each registry has a line this often.
const EVERY: Duration = Duration::from_secs(5);
const BAR: &str = "{prefix} [{wide_bar:.green}] {msg}";
const BAR_LENGTH: u64 = 1000;

/// Shows what happens.
pub(crate) struct Display {
    begin: Instant,
    how: How,
}

enum How {
    Bars { all: MultiProgress, bars: Vec<ProgressBar> },
    Lines { due: Instant },
}

impl Display {
    /// Finds out whether it is on a terminal.
    pub(crate) fn new() -> Self {
        let begin = Instant::now();
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let how = if io::stdout().is_terminal() && !all.is_hidden() {
            How::Bars { all, bars: Vec::new() }
        } else {
            How::Lines { due: begin }
        };
        Self { begin, how }
    }

    /// Text that has no time.
    pub(crate) fn say(&self, text: &str) {
        match &self.how {
            How::Bars { all, .. } => all.suspend(|| print(text)),
            How::Lines { .. } => print(text),
        }
    }

    /// Something happened.
    pub(crate) fn event(&self, text: &str) {
        self.say(&format!("{:>6.1} s  {text}", self.begin.elapsed().as_secs_f64()));
    }

    /// How things are.
    pub(crate) fn show(&mut self, world: &World) {
        let rows = world.consumers.iter().zip(world.sidecar.tokens());
        match &mut self.how {
            How::Bars { all, bars } => {
                for consumer in world.consumers.iter().skip(bars.len()) {
                    bars.push(all.add(bar().with_prefix(consumer.region)));
                }
                for ((consumer, token), bar) in rows.zip(bars) {
                    bar.set_position(part_left(token));
                    bar.set_message(state(consumer, token));
                }
            }
            How::Lines { due } if *due <= Instant::now() => {
                *due += EVERY;
                for (consumer, token) in rows {
                    let Consumer { registry, region, .. } = consumer;
                    self.event(&format!("{registry} {region}  {}", state(consumer, token)));
                }
            }
            How::Lines { .. } => {}
        }
    }

    /// Leaves the lines as they are.
    pub(crate) fn end(&mut self) {
        if let How::Bars { bars, .. } = &mut self.how {
            bars.drain(..).for_each(|bar| bar.abandon());
        }
        self.how = How::Lines { due: Instant::now() };
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(BAR_LENGTH).with_style(style.progress_chars("=> "))
}

fn state(consumer: &Consumer, token: &Token) -> String {
    let left = token.life.map_or("no token yet".to_owned(), |(_, end)| format!("{:>2} s left", until(end)));
    let attempt = if token.failures == 0 { "refresh" } else { "attempt" };
    let next =
        token.next_attempt.map_or(String::new(), |next| format!(", {attempt} in {:>2} s", until(next)));
    let failures = if token.failures == 0 { String::new() } else { format!(" ({} failed)", token.failures) };
    format!("{left}{next}{failures}, pulls {} good {} refused", consumer.good, consumer.refused)
}

fn part_left(token: &Token) -> u64 {
    let Some((begin, end)) = token.life else { return 0 };
    let life = end.duration_since(begin).unwrap_or_default().as_secs_f64();
    let left = end.duration_since(Clock::System.now()).unwrap_or_default().as_secs_f64();
    (left / life.max(1.0) * BAR_LENGTH as f64) as u64
}

fn until(time: SystemTime) -> u64 {
    time.duration_since(Clock::System.now()).unwrap_or_default().as_secs()
}

fn print(text: &str) {
    // The reader may go (`| head`): the pulls go on, and the exit status shows the result.
    let _ = writeln!(io::stdout(), "{text}");
}
