//! What is printed about the command line for a shell and for `man`, by clap's own companions.

use std::{collections::BTreeMap, io};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::arguments::Cli;

pub(super) fn completions(shell: Shell) -> String {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    let script = String::from_utf8_lossy(&script);
    // A program with a hyphen in its name has two names for each command in bash's script, and so completes nothing
    // behind it: <https://github.com/clap-rs/clap/issues/6421>.
    script.replace("ecr__subcmd__sidecar__subcmd__", "ecr__sidecar__subcmd__")
}

/// The manual page: one for all commands, since a page for each is rarely installed.
pub(super) fn page() -> String {
    let command = Cli::command().disable_help_subcommand(true);
    let commands: String = command.get_subcommands().map(of_command).collect();
    let (title, sections) = rendered(command);
    let section = |name| section(&sections, name);
    [
        title,
        format!("\n.SH NAME\n{}", section("NAME")),
        format!("\n.SH SYNOPSIS\n{}", section("SYNOPSIS")),
        format!("\n.SH COMMANDS{commands}"),
        format!("\n.SH OPTIONS\n{}", section("OPTIONS")),
        format!("\n.SH EXAMPLES\n{}", with_examples(section("EXTRA"))),
        format!("\n.SH SEE ALSO\n{}\n", env!("CARGO_PKG_REPOSITORY")),
    ]
    .concat()
}

/// The section of one command. The flags that every command takes are not repeated.
fn of_command(command: &Command) -> String {
    let name = format!("ecr-sidecar {}", command.get_name());
    let (_, sections) = rendered(command.clone().bin_name(&name).disable_help_flag(true));
    let section = |name| section(&sections, name);
    let parts = [section("SYNOPSIS"), section("DESCRIPTION"), section("OPTIONS")];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    let examples = with_examples(section("EXTRA"));
    format!("\n.SS {}\n{}\n.PP\n{examples}", command.get_name(), parts.collect::<Vec<_>>().join("\n.PP\n"))
}

/// Clap's own page of a command, as it is before its first section, and its sections by their headings.
fn rendered(command: Command) -> (String, BTreeMap<String, String>) {
    let mut page = Vec::new();
    let written: io::Result<()> = Man::new(command).render(&mut page);
    debug_assert!(written.is_ok(), "memory takes everything");
    let page = String::from_utf8_lossy(&page);
    let mut sections = page.trim_end().split("\n.SH ");
    let title = sections.next().unwrap_or_default().to_owned();
    let sections = sections.filter_map(|section| section.split_once('\n'));
    (title, sections.map(|(heading, body)| (heading.to_owned(), body.to_owned())).collect())
}

fn section<'a>(sections: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    sections.get(name).map(String::as_str).unwrap_or_default()
}

fn with_examples(text: &str) -> String {
    let Some((before, rest)) = text.split_once("Examples:\n") else { return text.to_owned() };
    let (examples, after) = rest.split_once("\n\n").unwrap_or((rest, ""));
    format!("{before}.nf\n{examples}\n.fi\n{after}")
}
