//! Where links point to: a file of this repository, a heading, or something that has the form of a web address.

use std::{collections::BTreeMap, fs, path::Path};

use test_support::markdown;

use crate::pages::{self, ROOT};

#[test]
fn every_link_leads_somewhere() {
    let (mut inside, mut outside, mut broken) = (0, 0, Vec::new());
    for page in pages::all() {
        for link in links(&page.text) {
            if link.contains("://") {
                outside += 1;
                if !is_web_address(&link) {
                    broken.push(format!("{}: {link} is no web address", page.name));
                }
            } else {
                inside += 1;
                broken.extend(
                    broken_link(&page.name, &link).map(|why| format!("{}: {link}: {why}", page.name)),
                );
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(inside > 100 && outside >= 3, "{inside} links inside, {outside} outside");
}

#[test]
fn every_page_of_docs_is_in_the_index() {
    let index = links(&fs::read_to_string(format!("{ROOT}/docs/README.md")).unwrap());
    for page in pages::docs() {
        let name = page.name.strip_prefix("docs/").unwrap();
        assert!(
            name == "README.md" || index.iter().any(|link| link == name),
            "{name} is not in docs/README.md"
        );
    }
}

fn broken_link(page: &str, link: &str) -> Option<String> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() {
        Path::new(ROOT).join(page)
    } else {
        Path::new(ROOT).join(page).parent().unwrap().join(file)
    };
    if !target.exists() {
        return Some("no such file".into());
    }
    if anchor.is_empty() {
        return None;
    }
    let text = if target.extension().is_some_and(|name| name == "md") {
        fs::read_to_string(&target).unwrap()
    } else {
        return Some("an anchor of a file that has no headings".into());
    };
    (!anchors(&text).contains(&anchor.to_owned())).then(|| "no such heading".into())
}

/// The targets of `[text](target)`, in prose.
fn links(text: &str) -> Vec<String> {
    let prose = markdown::prose(text);
    prose.split("](").skip(1).map(|link| link.split_once(')').unwrap().0.to_owned()).collect()
}

/// The anchors of headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let prose = markdown::prose(text);
    let headings = prose
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    let mut anchors = Vec::new();
    for heading in headings {
        let kept = heading.trim().to_lowercase();
        let kept: String = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect();
        let anchor = kept.replace(' ', "-");
        let count = seen.entry(anchor.clone()).and_modify(|count| *count += 1).or_default();
        anchors.push(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
    }
    anchors
}

fn is_web_address(link: &str) -> bool {
    let Ok(uri) = link.parse::<http::Uri>() else { return false };
    uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| host.contains('.'))
}

#[test]
fn anchors_are_those_of_github() {
    let text = "# A b\n## `run`, and what it costs\n```sh\n# no heading\n```\n### A b\n## §5: x_y–z\n";
    assert_eq!(anchors(text), ["a-b", "run-and-what-it-costs", "a-b-1", "5-x_yz"]);
    assert!(is_web_address("https://example.com/a#b") && !is_web_address("http://example.com"));
    assert!(!is_web_address("https://ex ample.com") && !is_web_address("https://x"));
}
