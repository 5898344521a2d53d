//! How a status reads: a pure function of what was seen, the time, and where it is shown.
//!
//! One row a registry, one an output, and under them what is wrong, each with its mend. In a pipe the columns are the
//! same, two or more spaces apart, nothing is cut, and everything is ASCII that was so (`a_pipe_gets_plain_columns`). A
//! terminal gets a bar, colours, and lines that fit (`nothing_is_wider_than_the_terminal`).

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use super::seen::{Output, Problem, Seen, Targets, Text, Token};

/// Where it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A pipe or a file.
    Plain,
    /// A terminal.
    Terminal {
        /// How many characters a line has.
        width: usize,
        /// Whether colours are wanted.
        colour: bool,
    },
}

/// The status as text, with a line break at its end.
pub fn text(seen: &Seen, now: SystemTime, medium: Medium) -> String {
    let mut page = Page { text: String::new(), medium };
    page.line(&headline(seen, now));
    page.section();
    page.table(&REGISTRIES, registries(seen, now, medium));
    page.section();
    page.table(&OUTPUTS, seen.outputs.iter().map(|output| output_row(output, seen, now)).collect());
    let notes = notes(seen);
    if !notes.is_empty() {
        page.section();
        page.notes(&notes);
    }
    page.text
}

/// A column: its head, and how narrow it may get.
struct Column {
    head: &'static str,
    least: usize,
}

const fn column(head: &'static str, least: usize) -> Column {
    Column { head, least }
}

const REGISTRIES: [Column; 5] = [
    column("REGISTRY", 16),
    column("IDENTITY", 10),
    column("STATE", 5),
    column("TOKEN LEFT", 10),
    column("NEXT ATTEMPT", 12),
];
const OUTPUTS: [Column; 2] = [column("OUTPUT", 20), column("STATE", 12)];

/// How many glyphs the bar of a token has.
const BAR: usize = 10;
/// What stands where there is nothing to say.
const NOTHING: &str = "-";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Usual,
    Good,
    Warning,
    Bad,
}

struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    fn new(text: impl Into<String>, tone: Tone) -> Self {
        // A cell is of one line, whatever the answer holds.
        Self { text: text.into().replace('\n', " "), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Usual)
    }
}

fn headline(seen: &Seen, now: SystemTime) -> String {
    let mut line = format!("ecr-sidecar {}", seen.version);
    if let Some(up) = seen.started_at.before(now) {
        let _ = write!(line, ", running for {}", short(up));
    }
    if !seen.has_been_ready {
        line.push_str(", not ready since its start");
    }
    line
}

fn registries(seen: &Seen, now: SystemTime, medium: Medium) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for token in &seen.tokens {
        let hosts = token.registries.iter().map(|served| {
            if served.required { served.host.to_string() } else { format!("{} (optional)", served.host) }
        });
        let own = token.registries.is_empty().then(|| format!("your own in {}", token.region));
        for host in hosts.chain(own) {
            rows.push(vec![
                host.into(),
                who(token).into(),
                state(token),
                left(token, now, medium),
                next(token, now).into(),
            ]);
        }
    }
    rows
}

/// The ARN once AWS has said it; until then the identity's name and what it was taken from.
fn who(token: &Token) -> String {
    match &token.principal {
        None => token.identity.to_string(),
        Some(principal) => match &principal.arn {
            Some(arn) => arn.to_string(),
            None => format!("{} ({})", token.identity, principal.source),
        },
    }
}

fn state(token: &Token) -> Cell {
    match &token.last_error {
        Some(error) if token.failures_in_a_row > 1 => {
            Cell::new(format!("{} x{}", error.class, token.failures_in_a_row), Tone::Bad)
        }
        Some(error) => Cell::new(error.class.as_str(), Tone::Bad),
        None if token.clock_fault.is_some() => Cell::new("clock", Tone::Warning),
        None if token.expires_at.0.is_some() => Cell::new("ok", Tone::Good),
        None => Cell::new("waiting", Tone::Warning),
    }
}

fn left(token: &Token, now: SystemTime, medium: Medium) -> Cell {
    let Some(left) = token.expires_at.after(now) else {
        return match token.expires_at.before(now) {
            Some(since) => Cell::new(format!("ended {} ago", short(since)), Tone::Bad),
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

fn next(token: &Token, now: SystemTime) -> String {
    match (token.next_attempt.after(now), token.next_attempt.0) {
        (Some(left), _) => format!("in {}", short(left)),
        (None, Some(_)) => "now".into(),
        (None, None) => NOTHING.into(),
    }
}

fn output_row(output: &Output, seen: &Seen, now: SystemTime) -> Vec<Cell> {
    let name = name_of(output).into();
    let mut said = Vec::new();
    let mut tone = Tone::Good;
    if output.last_error.is_some() {
        said.push("error".to_owned());
        tone = Tone::Bad;
    }
    if let Some(targets) = &output.targets {
        said.push(format!("{} of {} Secrets in sync", targets.in_sync, targets.total));
        if targets.in_sync < targets.total {
            tone = Tone::Bad;
        }
    }
    for (what, hosts) in lacks(output, seen, now) {
        said.push(format!("{what}: {}", hosts.join(", ")));
        tone = Tone::Bad;
    }
    let nothing_yet = output.in_place.is_empty() && tone == Tone::Good;
    if nothing_yet && output.targets.is_none() {
        return vec![name, Cell::new("waiting for a credential", Tone::Warning)];
    }
    if tone == Tone::Good && output.targets.is_none() {
        said.push("in sync".to_owned());
    }
    if !output.warnings.is_empty() {
        let count = output.warnings.len();
        said.push(format!("{count} warning{}", if count == 1 { "" } else { "s" }));
        tone = if tone == Tone::Good { Tone::Warning } else { tone };
    }
    vec![name, Cell::new(said.join("; "), tone)]
}

fn name_of(output: &Output) -> String {
    format!("{} {}", output.kind, output.target).trim_end().to_owned()
}

/// What is wrong with the credentials in an output, and of which registries.
fn lacks<'a>(output: &Output, seen: &'a Seen, now: SystemTime) -> Vec<(&'static str, Vec<&'a str>)> {
    // Of registries without a Secret that could hold theirs nothing is missing.
    if output.targets.as_ref().is_some_and(|targets| targets.total == 0) {
        return Vec::new();
    }
    let (mut missing, mut ended, mut older) = (Vec::new(), Vec::new(), Vec::new());
    for token in &seen.tokens {
        for served in &token.registries {
            let host = served.host.as_str();
            match output.in_place.get(&served.host) {
                None => missing.push(host),
                Some(end) if end.after(now).is_none() => ended.push(host),
                Some(end) if *end < token.expires_at => older.push(host),
                Some(_) => {}
            }
        }
    }
    let lacks = [("missing", missing), ("ended", ended), ("not yet renewed", older)];
    lacks.into_iter().filter(|(_, hosts)| !hosts.is_empty()).collect()
}

/// Something that is wrong: where, what, and the mend.
struct Note {
    tone: Tone,
    place: String,
    message: String,
    remedy: Option<String>,
}

impl Note {
    fn of(place: String, problem: &Problem) -> Self {
        let remedy = Some(problem.remedy.to_string()).filter(|remedy| !remedy.is_empty());
        Self { tone: Tone::Bad, place, message: problem.message.to_string(), remedy }
    }

    fn plain(tone: Tone, place: String, message: &Text) -> Self {
        Self { tone, place, message: message.to_string(), remedy: None }
    }
}

fn notes(seen: &Seen) -> Vec<Note> {
    let mut notes = Vec::new();
    for token in &seen.tokens {
        let mut place = format!("token {} {} as {}", token.service, token.region, token.identity);
        if let Some(endpoint) = &token.endpoint {
            let _ = write!(place, " at {endpoint}");
        }
        if token.clock_fault.is_some() {
            notes.push(Note {
                tone: Tone::Warning,
                place: place.clone(),
                message: "the dates of the token cannot be right".into(),
                remedy: Some("set this machine's clock; an emulator's dates may also be wrong".into()),
            });
        }
        notes.extend(token.last_error.as_ref().map(|error| Note::of(place, error)));
    }
    for output in &seen.outputs {
        let place = name_of(output);
        notes.extend(output.last_error.as_ref().map(|error| Note::of(place.clone(), error)));
        if let Some(targets) = &output.targets {
            notes.extend(troubles(targets));
        }
        notes
            .extend(output.warnings.iter().map(|warning| Note::plain(Tone::Warning, place.clone(), warning)));
    }
    if let Some(error) = &seen.configuration.last_error {
        notes.push(Note::plain(Tone::Bad, "the changed configuration is refused".into(), error));
    }
    notes
}

fn troubles(targets: &Targets) -> impl Iterator<Item = Note> {
    let troubled = targets.troubled.iter();
    let told = troubled.map(|target| Note::of(format!("Secret {}", target.name), &target.last_error));
    let more = (targets.more_troubled > 0).then(|| Note {
        tone: Tone::Bad,
        place: format!("{} more Secrets", targets.more_troubled),
        message: "not in sync either".into(),
        remedy: None,
    });
    told.chain(more)
}

/// The text as it grows.
struct Page {
    text: String,
    medium: Medium,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.put(line, Tone::Usual, self.width());
        self.text.push('\n');
    }

    /// Room before a section, where room costs nothing: in a pipe an empty line ends a block.
    fn section(&mut self) {
        if self.medium != Medium::Plain {
            self.text.push('\n');
        }
    }

    fn table(&mut self, columns: &[Column], rows: Vec<Vec<Cell>>) {
        let heads = columns.iter().map(|column| Cell::from(column.head)).collect();
        let rows: Vec<Vec<Cell>> = std::iter::once(heads).chain(rows).collect();
        let widths = self.widths(columns, &rows);
        for row in rows {
            let last = row.len().saturating_sub(1);
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let shown = self.put(&cell.text, cell.tone, Some(*width));
                if index < last {
                    self.text.push_str(&" ".repeat(width.saturating_sub(shown) + GAP));
                }
            }
            self.text.push('\n');
        }
    }

    /// As wide as the widest cell; on a terminal the first columns give way first.
    fn widths(&self, columns: &[Column], rows: &[Vec<Cell>]) -> Vec<usize> {
        let widest = |index: usize| rows.iter().map(|row| row[index].text.chars().count()).max();
        let mut widths: Vec<_> = (0..columns.len()).map(|index| widest(index).unwrap_or_default()).collect();
        let Some(width) = self.width() else { return widths };
        let gaps = GAP * columns.len().saturating_sub(1);
        let order = [1, 0, 2, 3, 4]; // the identity is the longest and says the least
        for least in [true, false] {
            for index in order.into_iter().filter(|index| *index < columns.len()) {
                let over = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
                let floor = if least { columns[index].least } else { 1 };
                widths[index] = widths[index].saturating_sub(over).max(floor.min(widths[index]));
            }
        }
        widths
    }

    fn notes(&mut self, notes: &[Note]) {
        for note in notes {
            self.paragraph("", &format!("{}:", note.place), note.tone);
            self.paragraph("  ", &note.message, Tone::Usual);
            if let Some(remedy) = &note.remedy {
                self.paragraph("  ", &format!("mend: {remedy}"), Tone::Usual);
            }
        }
    }

    /// Lines of text, broken between words where the terminal ends.
    fn paragraph(&mut self, indent: &str, text: &str, tone: Tone) {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            for piece in self.broken(line, indent.len()) {
                self.text.push_str(indent);
                self.put(&piece, tone, None);
                self.text.push('\n');
            }
        }
    }

    fn broken(&self, line: &str, indent: usize) -> Vec<String> {
        let Some(width) = self.width() else { return vec![line.to_owned()] };
        let width = width.saturating_sub(indent).max(1);
        let mut pieces = vec![String::new()];
        let mut used = 0;
        for word in line.split_whitespace() {
            let mut letters = word.chars().count();
            if used > 0 && used + 1 + letters > width {
                pieces.push(String::new());
                used = 0;
            }
            for (index, letter) in word.chars().enumerate() {
                let Some(piece) = pieces.last_mut() else { break };
                if index == 0 && used > 0 {
                    piece.push(' ');
                    used += 1;
                }
                piece.push(letter);
                used += 1;
                letters -= 1;
                if used == width && letters > 0 {
                    pieces.push(String::new());
                    used = 0;
                }
            }
        }
        pieces
    }

    /// Appends `text`, cut to `width`; says how many characters that were.
    fn put(&mut self, text: &str, tone: Tone, width: Option<usize>) -> usize {
        let length = text.chars().count();
        let cut = width.filter(|width| length > *width);
        let shown = match cut {
            Some(width) => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
            None => text.to_owned(),
        };
        match self.colour(tone) {
            Some(code) => {
                let _ = write!(self.text, "\u{1b}[{code}m{shown}\u{1b}[0m");
            }
            None => self.text.push_str(&shown),
        }
        cut.unwrap_or(length)
    }

    fn colour(&self, tone: Tone) -> Option<u8> {
        if !matches!(self.medium, Medium::Terminal { colour: true, .. }) {
            return None;
        }
        match tone {
            Tone::Usual => None,
            Tone::Good => Some(32),
            Tone::Warning => Some(33),
            Tone::Bad => Some(31),
        }
    }

    fn width(&self) -> Option<usize> {
        match self.medium {
            Medium::Plain => None,
            Medium::Terminal { width, .. } => Some(width.max(1)),
        }
    }
}

/// Spaces between two columns.
const GAP: usize = 2;

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
