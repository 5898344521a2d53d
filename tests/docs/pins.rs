//! What others publish is pinned by its content: a tag can be moved.

use std::{fs, path::Path};

use crate::pages::ROOT;

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
}

#[test]
fn every_action_is_pinned_by_commit_with_its_version_next_to_it() {
    let mut pinned = 0;
    for entry in fs::read_dir(Path::new(ROOT).join(".github/workflows")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines() {
            let line = line.trim().trim_start_matches("- ");
            let Some(action) = line.strip_prefix("uses: ") else { continue };
            if action.starts_with("./") {
                continue; // of this commit
            }
            let (action, version) = action.split_once(" # v").unwrap_or_else(|| panic!("no version: {line}"));
            let (_, commit) = action.split_once('@').unwrap();
            assert!(is_hex(commit, 40) && version.split('.').count() == 3, "{}: {line}", path.display());
            pinned += 1;
        }
    }
    assert!(pinned >= 10, "{pinned}");
}

#[test]
fn every_image_that_is_built_from_or_run_is_pinned_by_digest() {
    let read = |name: &str| fs::read_to_string(format!("{ROOT}/{name}")).unwrap();
    let is_pinned = |image: &str| image.split_once("@sha256:").is_some_and(|(_, digest)| is_hex(digest, 64));
    let dockerfile = read("Dockerfile");
    let mut images: Vec<_> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("ARG "))
        .filter_map(|argument| argument.split_once("_IMAGE=").map(|(_, image)| image))
        .collect();
    let stages: Vec<_> =
        dockerfile.lines().filter_map(|line| line.split_once(" AS ")).map(|(_, name)| name).collect();
    let bases = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM "));
    images.extend(bases.map(|base| base.split(' ').next().unwrap()).filter(|base| !base.starts_with('$')));
    for image in images {
        assert!(image == "scratch" || stages.contains(&image) || is_pinned(image), "{image}");
    }
    let compose = read("compose.yaml");
    let consumer =
        compose.lines().find_map(|line| line.trim().strip_prefix("image: ${CONSUMER_IMAGE:-")).unwrap();
    assert!(is_pinned(consumer.trim_end_matches('}')), "{consumer}");
}
