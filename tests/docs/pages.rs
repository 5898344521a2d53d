//! Which pages are there, and what do they say in code?

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use test_support::{clean_command, markdown, output};

use crate::BINARY;

const DEADLINE: Duration = Duration::from_secs(60);

/// This repository.
pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A Markdown file.
pub(crate) struct Page {
    /// Its path in the repository.
    pub(crate) name: String,
    /// What is in it.
    pub(crate) text: String,
}

/// Every Markdown file of the repository, those of `docs/` first.
pub(crate) fn all() -> Vec<Page> {
    let mut names = Vec::new();
    find(Path::new(ROOT), &mut names);
    let mut pages: Vec<_> = names.into_iter().map(|path| page(&path)).collect();
    pages.sort_by_key(|page| (!page.name.starts_with("docs/"), page.name.clone()));
    assert!(pages.len() > 15, "{} pages", pages.len());
    pages
}

/// Those of `docs/`.
pub(crate) fn docs() -> Vec<Page> {
    all().into_iter().filter(|page| page.name.starts_with("docs/")).collect()
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                find(&path, found);
            }
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

fn page(path: &Path) -> Page {
    let name = path.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned();
    Page { name, text: fs::read_to_string(path).unwrap() }
}

impl Page {
    /// Every piece of code: what stands between backticks, and each line of a block but what a command prints.
    pub(crate) fn code(&self) -> Vec<String> {
        let prose = markdown::prose(&self.text);
        let mut code: Vec<_> =
            prose.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " ")).collect();
        for block in markdown::blocks(&self.text) {
            let is_console = block.info.starts_with("console");
            let lines = block.text.lines().filter(|line| !is_console || line.starts_with(['$', '>']));
            code.extend(lines.map(|line| line.trim_start_matches(['$', '>', ' ']).to_owned()));
        }
        code
    }
}

/// What the program prints, without an environment.
#[track_caller]
pub(crate) fn printed_by(arguments: &[&str]) -> String {
    test_support::printed_by(&mut command(arguments), DEADLINE)
}

/// The program, run to its end without an environment.
pub(crate) fn run(arguments: &[&str]) -> std::process::Output {
    output(&mut command(arguments), DEADLINE)
}

fn command(arguments: &[&str]) -> Command {
    let mut command = clean_command(BINARY, Path::new("/nonexistent"));
    command.args(arguments);
    command
}
