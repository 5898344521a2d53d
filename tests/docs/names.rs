//! What the pages name exists: commands and their flags, variables, keys, metrics.

use std::{collections::BTreeSet, fs, path::Path};
use test_support::Harness;

use crate::{
    BINARY,
    pages::{self, ROOT, printed_by},
};

/// Variables that are read by the AWS SDK and not by us.
const OF_THE_SDK: [&str; 4] =
    ["AWS_ENDPOINT_URL_ECR", "AWS_ENDPOINT_URL_STS", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"];

#[test]
fn every_command_and_flag_exists() {
    let help = printed_by(&["--help"]);
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let (commands, _) = commands.split_once("\n\n").unwrap();
    let commands: BTreeSet<_> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let mut named = BTreeSet::new();
    for page in pages::all() {
        for code in page.code() {
            for call in calls(&code) {
                let mut words = call.split_whitespace().peekable();
                let command = words.next_if(|word| !word.starts_with('-')).unwrap_or("run");
                assert!(commands.contains(command), "{}: no command `{command}`: {code}", page.name);
                named.insert(command.to_owned());
                let help = printed_by(&[command, "--help"]);
                for flag in words.filter(|word| word.starts_with("--")) {
                    let flag = flag.split_once('=').map_or(flag, |(flag, _)| flag);
                    assert!(has_word(&help, flag), "{}: `{command}` has no {flag}: {code}", page.name);
                }
            }
        }
    }
    assert!(named.len() >= 6, "{named:?}");
}

/// What stands behind `ecr-sidecar` where that is the program: at the beginning, or behind what ends a command.
fn calls(code: &str) -> Vec<&str> {
    let mut calls = Vec::new();
    for (at, name) in code.match_indices("ecr-sidecar ") {
        let before = code[..at].trim_end();
        let begins =
            before.is_empty() || before.ends_with(['|', ';', '&', '(', '!']) || before.ends_with(" --");
        if begins {
            let call = code[at + name.len()..]
                .split(['|', ';', '&', '>', '#', '[', '(', '`'])
                .next()
                .unwrap_or_default();
            calls.push(call);
        }
    }
    calls
}

#[test]
fn every_variable_exists() {
    let help = printed_by(&["--help"]);
    let source = source_text(Path::new(&format!("{ROOT}/src")));
    let mut named = BTreeSet::new();
    for page in pages::all() {
        for word in words(&page.text, "ECR_SIDECAR_") {
            assert!(has_word(&help, word), "{}: no variable {word}", page.name);
            named.insert(word.to_owned());
        }
        for word in words(&page.text, "AWS_") {
            let is_known = OF_THE_SDK.contains(&word) || has_word(&source, word);
            assert!(is_known, "{}: {word} is not read", page.name);
        }
    }
    assert!(named.len() >= 9, "{named:?}");
}

#[test]
fn every_metric_exists() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    // A family without a sample is not there: names are in the source, their endings on the page.
    let metrics = sidecar.get("/metrics").1 + &source_text(Path::new(&format!("{ROOT}/src/admin")));
    let mut named = BTreeSet::new();
    for page in pages::all() {
        for word in words(&page.text, "ecr_sidecar_") {
            assert!(has_word(&metrics, word), "{}: no metric {word}", page.name);
            named.insert(word.to_owned());
        }
    }
    assert!(named.len() >= 5, "{named:?}");
}

/// `health.listen`, `refresh.at`: what is written like a key of the file is one.
#[test]
fn every_key_exists() {
    let table = fs::read_to_string(format!("{ROOT}/docs/configuration.md")).unwrap();
    let sections = ["identities.", "registries", "outputs", "refresh.", "health.", "log."];
    let mut named = 0;
    for page in pages::all() {
        for code in page.code() {
            let is_key = sections.iter().any(|section| code.starts_with(section))
                && code.contains('.')
                && !code.ends_with(".rs")
                && code.chars().all(|c| c.is_ascii_alphanumeric() || ".[]".contains(c));
            if is_key {
                assert!(table.contains(&format!("`{code}`")), "{}: no key `{code}`", page.name);
                named += 1;
            }
        }
    }
    assert!(named > 20, "{named}");
}

/// The words with that beginning, and more than it.
fn words<'a>(text: &'a str, begin: &'a str) -> impl Iterator<Item = &'a str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(move |c| !is_part(c)).filter(move |word| {
        word.strip_prefix(begin).is_some_and(|rest| !rest.is_empty()) && !word.ends_with('_')
    })
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.split(|c| !is_part(c)).any(|found| found == word)
}

fn source_text(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        text += &if path.is_dir() { source_text(&path) } else { fs::read_to_string(&path).unwrap() };
    }
    text
}
