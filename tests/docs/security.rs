//! The threat tables of `docs/security.md` and the comparison: each row is held by tests that exist. And what has to be
//! said wherever a selector is shown.

use std::{fs, path::Path};

use crate::pages::ROOT;

/// The text of all Rust files of a folder.
fn rust(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &rust(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs::read_to_string(&path).unwrap();
        }
    }
    text
}

/// The names of tests in a line's comments.
fn tests_of(line: &str) -> Vec<&str> {
    let comments = line.split("<!--").skip(1).filter_map(|rest| Some(rest.split_once("-->")?.0));
    let is_name = |word: &&str| word.matches('_').count() >= 2 && !word.contains(['/', '.']);
    comments
        .flat_map(|comment| comment.split(|c: char| c.is_whitespace() || ",:;`()".contains(c)))
        .filter(is_name)
        .collect()
}

#[test]
fn each_line_of_the_threat_table_is_held_by_tests_that_exist() {
    let page = fs::read_to_string(format!("{ROOT}/docs/security.md")).unwrap();
    let rows = rows_of(&page, "Threats", "| an attacker who | result |");
    assert!(rows.len() > 35, "{rows:?}");
    are_held_by_tests(&rows);
}

#[test]
fn each_situation_of_the_comparison_is_held_by_tests_that_exist() {
    let page = fs::read_to_string(format!("{ROOT}/docs/compare.md")).unwrap();
    let rows = rows_of(&page, "ecr-sidecar", "| situation | ecr-sidecar |");
    assert_eq!(rows.len(), 6, "{rows:?}");
    are_held_by_tests(&rows);
}

/// The rows of the tables of a section, all of which have this head.
fn rows_of<'a>(page: &'a str, section: &str, head: &str) -> Vec<&'a str> {
    let (_, section) = page.split_once(&format!("\n## {section}\n")).unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    section.lines().filter(|line| line.starts_with("| ") && *line != head).collect()
}

pub(crate) fn are_held_by_tests(rows: &[&str]) {
    let source = rust(&Path::new(ROOT).join("src")) + &rust(&Path::new(ROOT).join("tests"));
    for row in rows {
        let tests = tests_of(row);
        assert!(!tests.is_empty(), "no test holds this: {row}");
        for test in tests {
            let item = format!("fn {test}("); // a property test has arguments
            let (before, _) = source.split_once(&item).unwrap_or_else(|| panic!("no test {test}: {row}"));
            let attributes: Vec<_> = before.lines().rev().take(4).collect();
            let is_test = attributes.iter().any(|line| line.contains("test]") || line.contains("test("));
            assert!(is_test, "{test} is no test");
        }
    }
}

/// A page or manifest that shows how namespaces are found says what a label then is.
#[test]
fn a_label_is_said_to_be_a_grant_wherever_a_selector_is_shown() {
    let mut shown = 0;
    for file in files(Path::new(ROOT)) {
        let text = fs::read_to_string(&file).unwrap();
        let shows = ["{selector:", "{all: true", " selector: ecr", "all: true`"]
            .iter()
            .any(|part| text.contains(part));
        if shows {
            shown += 1;
            let text = text.replace("\n# ", " ").split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains("gets the pull token of every registry"), "{file}");
        }
    }
    assert!(shown >= 4, "{shown}");
}

/// What people read: pages, `patches/`, examples.
fn files(root: &Path) -> Vec<String> {
    let mut files = vec![root.join("README.md").display().to_string()];
    let mut folders = vec![root.join("docs"), root.join("patches"), root.join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_none_or(|extension| extension != "png") {
                files.push(path.display().to_string());
            }
        }
    }
    files
}
