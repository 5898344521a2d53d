//! What does a Markdown file show: which blocks of code, which commands, and what do these print?

use std::{process::Command, time::Duration};

use crate::process::output;

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the opening fence: a language, perhaps with more behind it.
    pub info: String,
    /// The line of the opening fence, from 1.
    pub line: usize,
    /// What stands between the fences, without their indentation.
    pub text: String,
}

/// A command of a `console` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The command.
    pub command: String,
    /// What is shown of its output. `…` stands for any text.
    pub output: String,
}

/// The fenced blocks, in order.
///
/// # Panics
/// When one has no end.
pub fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines().enumerate();
    while let Some((number, opening)) = lines.next() {
        let indent = opening.len() - opening.trim_start().len();
        let Some(info) = opening.trim_start().strip_prefix("```") else { continue };
        let mut text = String::new();
        loop {
            let (_, line) = lines.next().unwrap_or_else(|| panic!("line {}: no end", number + 1));
            if line.trim() == "```" {
                break;
            }
            text += line.get(indent..).unwrap_or_default();
            text.push('\n');
        }
        blocks.push(Block { info: info.trim().to_owned(), line: number + 1, text });
    }
    blocks
}

/// The same text with its fenced blocks blanked out, line by line.
pub fn prose(markdown: &str) -> String {
    let mut is_code = false;
    let mut prose = String::new();
    for line in markdown.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if !is_code && !is_fence {
            prose += line;
        }
        prose.push('\n');
    }
    prose
}

/// The texts of the blocks in this language and with nothing behind it.
pub fn blocks_of(language: &str, markdown: &str) -> Vec<String> {
    let blocks = blocks(markdown).into_iter();
    blocks.filter(|block| block.info == language).map(|block| block.text).collect()
}

/// The `sh` blocks, each with what the block without a language behind it shows of its output.
pub fn scripts(markdown: &str) -> Vec<Shown> {
    let blocks = blocks(markdown);
    let scripts = blocks.iter().enumerate().filter(|(_, block)| block.info == "sh");
    scripts
        .map(|(index, block)| {
            let output = blocks.get(index + 1).filter(|next| next.info.is_empty());
            Shown {
                command: block.text.clone(),
                output: output.map(|block| block.text.clone()).unwrap_or_default(),
            }
        })
        .collect()
}

/// What stands below a heading of the second level.
///
/// # Panics
/// When there is no such heading.
#[track_caller]
pub fn section<'a>(markdown: &'a str, heading: &str) -> &'a str {
    let (_, text) = markdown
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("there is no heading {heading}"));
    text.split_once("\n## ").map_or(text, |(section, _)| section)
}

/// The commands of a `console` block: each begins with `$ `, its further lines with `> `.
///
/// # Panics
/// When it does not begin with a command.
pub fn commands(console: &str) -> Vec<Shown> {
    let mut commands: Vec<Shown> = Vec::new();
    for line in console.lines() {
        match (line.strip_prefix("$ "), line.strip_prefix("> "), commands.last_mut()) {
            (Some(command), ..) => {
                commands.push(Shown { command: command.to_owned(), output: String::new() });
            }
            (None, Some(more), Some(last)) => last.command += &format!("\n{more}"),
            (None, None, Some(last)) => last.output += &format!("{line}\n"),
            (None, _, None) => panic!("a block begins with a command: {line}"),
        }
    }
    commands
}

impl Shown {
    /// Whether that is what is shown.
    pub fn is(&self, printed: &str) -> bool {
        let mut parts = self.output.split('…');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = printed.strip_prefix(first) else { return false };
        let mut last = None;
        for part in parts {
            if let Some(part) = last.replace(part) {
                match rest.split_once(part) {
                    Some((_, behind)) => rest = behind,
                    None => return false,
                }
            }
        }
        match last {
            Some(last) => rest.ends_with(last),
            None => rest.is_empty(),
        }
    }
}

/// What each command prints, all in one shell that ends with the first one that fails: `bash` with what it needs.
///
/// # Panics
/// When one fails, or they take longer than two minutes.
#[track_caller]
pub fn run_shown(bash: &mut Command, commands: &[Shown]) -> Vec<String> {
    const END: &str = "--- end of command";
    let script: String =
        commands.iter().map(|shown| format!("{}\nprintf '%s\\n' '{END}'\n", shown.command)).collect();
    let done = output(bash.args(["-euc", &script]), Duration::from_secs(120));
    let printed = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{printed}\n{}", String::from_utf8_lossy(&done.stderr));
    printed.split(&format!("{END}\n")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_distinguished_from_prose() {
        let text = "a\n\n```sh\nb\n```\n* c\n\n  ```console not run: why\n  $ d\n    e\n  ```\nf\n";
        let blocks = blocks(text);
        assert_eq!(blocks[0], Block { info: "sh".into(), line: 3, text: "b\n".into() });
        assert_eq!(blocks[1].info, "console not run: why");
        assert_eq!(blocks[1].text, "$ d\n  e\n");
        assert_eq!(prose(text), "a\n\n\n\n\n* c\n\n\n\n\n\nf\n");
        assert_eq!(blocks_of("sh", text), ["b\n"]);
    }

    #[test]
    fn a_command_may_have_several_lines() {
        let shown = commands("$ a \\\n> b\nc\n$ d\n");
        assert_eq!(shown[0], Shown { command: "a \\\nb".into(), output: "c\n".into() });
        assert_eq!(shown[1], Shown { command: "d".into(), output: String::new() });
    }

    #[test]
    fn an_ellipsis_stands_for_any_text() {
        let is = |shown: &str, printed| Shown { command: String::new(), output: shown.into() }.is(printed);
        assert!(is("a\n", "a\n") && !is("a\n", "a\nb\n") && !is("", "a") && is("", ""));
        assert!(is("a … c\n", "a b c\n") && is("a\n…\nd\n", "a\nb\nc\nd\n") && is("…", "x"));
        assert!(!is("a … c\n", "a b\n") && !is("…b…d", "a b c") && !is("a…a", "a"));
    }

    #[test]
    fn what_is_printed_is_matched_command_by_command() {
        let shown = commands("$ x=1\n$ echo $x; echo 2\n1\n2\n");
        let printed = run_shown(&mut Command::new("bash"), &shown);
        assert_eq!(printed[..2], ["", "1\n2\n"]);
    }
}
