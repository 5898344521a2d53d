//! Lines, tables and paragraphs that fit the place where they are shown.
//!
//! No text that passes here controls the terminal (`control_characters_are_removed`).

use std::{borrow::Cow, fmt::Write};

use crate::failure::foreign_text::steers;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    Plain,
    Terminal { width: usize, colour: bool },
}

/// A column: its head, and how narrow it may get.
pub(super) type Column = (&'static str, usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Usual,
    Good,
    Warning,
    Bad,
}

pub(super) struct Cell {
    text: String,
    tone: Tone,
    /// Where it is too long the beginning goes: the end of an ARN is more telling.
    keeps_end: bool,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: plain(&text.into()).replace('\n', " "), tone, keeps_end: false }
    }

    fn fitted(&self, width: usize) -> Cow<'_, str> {
        let over = self.text.chars().count().saturating_sub(width);
        if over == 0 || !self.keeps_end {
            return self.text.as_str().into();
        }
        std::iter::once('…').chain(self.text.chars().skip(over + 1)).collect::<String>().into()
    }

    pub(super) fn keeping_its_end(text: impl Into<String>) -> Self {
        Self { keeps_end: true, ..Self::new(text, Tone::Usual) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Usual)
    }
}

pub(super) struct Note {
    pub(super) tone: Tone,
    pub(super) place: String,
    pub(super) message: String,
    pub(super) remedy: Option<String>,
}

pub(super) struct Page {
    text: String,
    medium: Medium,
}

impl Page {
    pub(super) fn new(medium: Medium) -> Self {
        Self { text: String::new(), medium }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    pub(super) fn line(&mut self, line: &str) {
        self.put(&plain(line), Tone::Usual, self.width());
        self.text.push('\n');
    }

    /// Room before a section, where room costs nothing: in a pipe an empty line separates blocks.
    pub(super) fn section(&mut self) {
        if self.medium != Medium::Plain {
            self.text.push('\n');
        }
    }

    pub(super) fn table(&mut self, columns: &[Column], rows: Vec<Vec<Cell>>) {
        let heads = columns.iter().map(|(head, _)| Cell::from(*head)).collect();
        let rows: Vec<Vec<Cell>> = std::iter::once(heads).chain(rows).collect();
        let widths = self.widths(columns, &rows);
        for row in rows {
            let last = row.len().saturating_sub(1);
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let fitted = cell.fitted(*width);
                let shown = self.put(&fitted, cell.tone, Some(*width));
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
        let order = [1, 0, 2, 3, 4]; // the identity is the longest and matters least
        for least in [true, false] {
            for index in order.into_iter().filter(|index| *index < columns.len()) {
                let over = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
                let floor = if least { columns[index].1 } else { 1 };
                widths[index] = widths[index].saturating_sub(over).max(floor.min(widths[index]));
            }
        }
        widths
    }

    pub(super) fn notes(&mut self, notes: &[Note]) {
        for note in notes {
            self.paragraph("", &format!("{}:", note.place), note.tone);
            self.paragraph("  ", &note.message, Tone::Usual);
            if let Some(remedy) = &note.remedy {
                self.paragraph("  ", &format!("remedy: {remedy}"), Tone::Usual);
            }
        }
    }

    fn paragraph(&mut self, indent: &str, text: &str, tone: Tone) {
        for line in plain(text).lines().filter(|line| !line.trim().is_empty()) {
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

    /// Appends `text`, cut to `width`, and returns the number of characters.
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

const GAP: usize = 2;

/// Without characters that steer the terminal; line breaks stay.
fn plain(text: &str) -> String {
    text.replace(|character| character != '\n' && steers(character), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_removed() {
        let text = plain("a\u{1b}[2J\u{7}b\r\n\tc\u{9b}31m\u{202e}d\u{7f}ü\u{61c}\u{e0041}");
        assert_eq!(text, "a[2Jb\nc31mdü");
    }
}
