//! How a status reads: a pure function of what was status, the time, and where it is shown.
//!
//! One row a registry, one an output, one a pull probe, and under them what is wrong, each with its remedy. In a pipe the columns are the
//! same, two or more spaces apart, nothing is cut, and everything is ASCII that was so (`a_pipe_gets_plain_columns`). A
//! terminal gets a bar, colours, and lines that fit (`nothing_is_wider_than_the_terminal`).

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

pub use crate::cli::status::table::Medium;
use crate::{
    aws::token::ClockFault,
    cli::status::table::{Cell, Column, Note, Page, Tone},
    status::wire::{Moment, Output, Probe, Problem, Status, Targets, Token, Warning},
};

pub fn text(status: &Status, now: SystemTime, medium: Medium) -> String {
    let mut page = Page::new(medium);
    page.line(&headline(status, now));
    page.section();
    page.table(&REGISTRIES, registries(status, now, medium));
    page.section();
    page.table(&OUTPUTS, status.outputs.iter().map(|output| output_row(output, status, now)).collect());
    if !status.probes.is_empty() {
        page.section();
        page.table(&PROBES, status.probes.iter().map(|probe| probe_row(probe, now)).collect());
    }
    let notes = notes(status);
    if !notes.is_empty() {
        page.section();
        page.notes(&notes);
    }
    page.into_text()
}

const REGISTRIES: [Column; 5] =
    [("REGISTRY", 16), ("IDENTITY", 16), ("STATE", 5), ("TOKEN LEFT", 10), ("NEXT ATTEMPT", 12)];
const PROBES: [Column; 4] = [("PULL PROBE", 16), ("STATE", 5), ("CHECKED", 8), ("NEXT ATTEMPT", 12)];
const OUTPUTS: [Column; 2] = [("OUTPUT", 20), ("STATE", 12)];

const BAR: usize = 10;
const NOTHING: &str = "-";

fn headline(status: &Status, now: SystemTime) -> String {
    let mut line = format!("ecr-sidecar {}", status.version);
    if let Some(up) = status.started_at.before(now) {
        let _ = write!(line, ", running for {}", short(up));
    }
    if !status.has_been_ready {
        line.push_str(", not ready since its start");
    }
    line
}

fn registries(status: &Status, now: SystemTime, medium: Medium) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for token in &status.tokens {
        let hosts = token.registries.iter().map(|served| {
            if served.required { served.host.to_string() } else { format!("{} (optional)", served.host) }
        });
        let own = token.registries.is_empty().then(|| format!("your own in {}", token.region));
        for host in hosts.chain(own) {
            rows.push(vec![
                host.into(),
                Cell::keeping_its_end(who(token)),
                state(token),
                left(token, now, medium),
                next(token.next_attempt, now).into(),
            ]);
        }
    }
    rows
}

/// The ARN once it is known; until then the identity's name and what it was taken from.
fn who(token: &Token) -> String {
    match &token.principal {
        None => token.identity.clone(),
        Some(principal) => match &principal.arn {
            Some(arn) => arn.clone(),
            None => format!("{} ({})", token.identity, principal.source),
        },
    }
}

fn state(token: &Token) -> Cell {
    match &token.last_error {
        Some(error) => failed(error, token.failures_in_a_row),
        None if token.clock_fault.is_some() => Cell::new("clock", Tone::Warning),
        None if token.expires_at.0.is_some() => Cell::new("ok", Tone::Good),
        None => Cell::new("waiting", Tone::Warning),
    }
}

fn failed(error: &Problem, times: u64) -> Cell {
    let text = if times > 1 { format!("{} x{times}", error.class) } else { error.class.clone() };
    Cell::new(text, Tone::Bad)
}

fn left(token: &Token, now: SystemTime, medium: Medium) -> Cell {
    let Some(left) = token.expires_at.after(now) else {
        return match token.expires_at.before(now) {
            Some(since) => Cell::new(format!("expired {} ago", short(since)), Tone::Bad),
            None => NOTHING.into(),
        };
    };
    let life = token.obtained_at.0.and_then(|from| token.expires_at.0?.duration_since(from).ok());
    let share = life.map(|life| left.as_secs_f64() / life.as_secs_f64().max(1.0));
    let tone = match share {
        Some(share) if share < 0.1 => Tone::Bad,
        Some(share) if share < 0.25 => Tone::Warning,
        _ => Tone::Good,
    };
    match (medium, share) {
        (Medium::Terminal { .. }, Some(share)) => Cell::new(format!("{} {}", bar(share), short(left)), tone),
        _ => Cell::new(short(left), tone),
    }
}

fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * BAR as f64).ceil() as usize;
    "█".repeat(full) + &"░".repeat(BAR.saturating_sub(full))
}

fn next(attempt: Moment, now: SystemTime) -> String {
    match (attempt.after(now), attempt.0) {
        (Some(left), _) => format!("in {}", short(left)),
        (None, Some(_)) => "now".into(),
        (None, None) => NOTHING.into(),
    }
}

fn output_row(output: &Output, status: &Status, now: SystemTime) -> Vec<Cell> {
    let name = name_of(output).into();
    let mut parts = Vec::new();
    let mut tone = Tone::Good;
    if output.last_error.is_some() {
        parts.push("error".to_owned());
        tone = Tone::Bad;
    }
    if let Some(targets) = &output.targets {
        parts.push(format!("{} of {} Secrets in sync", targets.in_sync, targets.total));
        if targets.in_sync < targets.total {
            tone = Tone::Bad;
        }
    }
    for (what, hosts) in lacks(output, status, now) {
        parts.push(format!("{what}: {}", hosts.join(", ")));
        tone = Tone::Bad;
    }
    let nothing_yet = output.in_place.is_empty() && tone == Tone::Good;
    if nothing_yet && output.targets.is_none() {
        return vec![name, Cell::new("waiting for a credential", Tone::Warning)];
    }
    if tone == Tone::Good && output.targets.is_none() {
        parts.push("in sync".to_owned());
    }
    if !output.warnings.is_empty() {
        let count = output.warnings.len();
        parts.push(format!("{count} warning{}", if count == 1 { "" } else { "s" }));
        tone = if tone == Tone::Good { Tone::Warning } else { tone };
    }
    vec![name, Cell::new(parts.join("; "), tone)]
}

fn probe_row(probe: &Probe, now: SystemTime) -> Vec<Cell> {
    let state = match (&probe.last_error, probe.checked_at.0) {
        (Some(error), _) => failed(error, probe.failures_in_a_row),
        (None, Some(_)) => Cell::new("ok", Tone::Good),
        (None, None) => Cell::new("waiting", Tone::Warning),
    };
    let checked = probe.checked_at.before(now).map(|since| format!("{} ago", short(since)));
    vec![
        probe.image.clone().into(),
        state,
        checked.unwrap_or_else(|| NOTHING.to_owned()).into(),
        next(probe.next_attempt, now).into(),
    ]
}

fn name_of(output: &Output) -> String {
    format!("{} {}", output.kind, output.target).trim_end().to_owned()
}

/// What is wrong with the credentials in an output, and of which registries.
fn lacks<'a>(output: &Output, status: &'a Status, now: SystemTime) -> Vec<(&'static str, Vec<&'a str>)> {
    // Of registries without a Secret that could hold theirs nothing is missing.
    if output.targets.as_ref().is_some_and(|targets| targets.total == 0) {
        return Vec::new();
    }
    let (mut missing, mut expired, mut older) = (Vec::new(), Vec::new(), Vec::new());
    for token in &status.tokens {
        for served in &token.registries {
            let host = served.host.as_str();
            match output.in_place.get(&served.host) {
                None => missing.push(host),
                Some(expiry) if expiry.after(now).is_none() => expired.push(host),
                Some(expiry) if *expiry < token.expires_at => older.push(host),
                Some(_) => {}
            }
        }
    }
    let lacks = [("missing", missing), ("expired", expired), ("not yet renewed", older)];
    lacks.into_iter().filter(|(_, hosts)| !hosts.is_empty()).collect()
}

impl Note {
    fn of(place: String, problem: &Problem) -> Self {
        let remedy = Some(problem.remedy.to_string()).filter(|remedy| !remedy.is_empty());
        Self { tone: Tone::Bad, place, message: problem.message.clone(), remedy }
    }

    fn plain(tone: Tone, place: String, message: &str) -> Self {
        Self { tone, place, message: message.to_owned(), remedy: None }
    }
}

fn notes(status: &Status) -> Vec<Note> {
    let mut notes = Vec::new();
    for token in &status.tokens {
        let mut place = format!("token {} {} as {}", token.service, token.region, token.identity);
        if let Some(endpoint) = &token.endpoint {
            let _ = write!(place, " at {endpoint}");
        }
        if token.clock_fault.is_some() {
            notes.push(Note {
                tone: Tone::Warning,
                place: place.clone(),
                message: "implausible token expiry (clock skew?)".into(),
                remedy: Some(ClockFault::remedy().to_string()),
            });
        }
        notes.extend(token.last_error.as_ref().map(|error| Note::of(place, error)));
    }
    for output in &status.outputs {
        let place = name_of(output);
        notes.extend(output.last_error.as_ref().map(|error| Note::of(place.clone(), error)));
        if let Some(targets) = &output.targets {
            notes.extend(failing(targets));
        }
        notes.extend(output.warning_details.iter().map(|Warning { message, remedy, .. }| Note {
            remedy: remedy.clone(),
            ..Note::plain(Tone::Warning, place.clone(), message)
        }));
    }
    for probe in &status.probes {
        let place = format!("pull probe {}", probe.image);
        notes.extend(probe.last_error.as_ref().map(|error| Note::of(place, error)));
    }
    if let Some(error) = &status.configuration.last_error {
        notes.push(Note::plain(Tone::Bad, "configuration reload rejected".into(), error));
    }
    notes
}

fn failing(targets: &Targets) -> impl Iterator<Item = Note> {
    let listed =
        targets.failing.iter().map(|target| Note::of(format!("Secret {}", target.name), &target.last_error));
    let more = format!("{} more Secrets", targets.more_failing);
    let more = (targets.more_failing > 0).then(|| Note::plain(Tone::Bad, more, "not in sync either"));
    listed.chain(more)
}

/// The two largest units of a duration.
fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests;
