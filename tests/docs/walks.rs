//! The walks of the main README: how few steps each has, and that tests run every step.

use std::{collections::BTreeSet, fs};

use test_support::markdown::{Block, blocks, section};

use crate::{pages::ROOT, security::are_held_by_tests};

/// A walk: its heading, the page that has the same `sh` and `yaml` blocks, and the tests that run them.
const WALKS: [(&str, &str, &str); 5] = [
    (
        "Flux",
        "patches/flux/README.md",
        "what_the_readmes_show_is_what_is_printed image_reflector_controller_always_has_a_credential",
    ),
    (
        "Argo CD",
        "patches/argocd-helm/README.md",
        "what_the_readmes_show_is_what_is_printed what_the_readmes_tell_to_apply_is_taken_and_undone \
         repo_server_starts_without_aws_and_pulls_when_it_is_back",
    ),
    (
        "Helm",
        "charts/ecr-sidecar/README.md",
        "the_values_of_its_readme_are_those_that_are_tested \
         helm_4_installs_upgrades_and_uninstalls_and_a_consumer_pulls_throughout",
    ),
    (
        "Nodes outside of EKS",
        "patches/kubelet/README.md",
        "the_program_comes_out_of_the_image the_readme_s_commands_install_a_provider_that_answers",
    ),
    ("A laptop or a CI job", "README.md", "the_laptops_commands_work"),
];

#[test]
fn each_has_at_most_five_steps_all_of_which_tests_run() {
    let read = |page: &str| fs::read_to_string(format!("{ROOT}/{page}")).unwrap();
    let readme = read("README.md");
    for (heading, page, tests) in WALKS {
        let walk = section(&readme, heading);
        let steps: Vec<_> =
            walk.lines().filter_map(|line| line.split_once(". ")?.0.parse::<usize>().ok()).collect();
        assert!(
            steps.iter().copied().eq(1..=steps.len()) && (1..=5).contains(&steps.len()),
            "{heading}: {steps:?}"
        );
        let elsewhere: BTreeSet<_> = blocks(&read(page)).into_iter().map(content).collect();
        for block in blocks(walk) {
            match block.info.as_str() {
                "" | "console" | "console on a node" | "diff" => {}
                "sh" | "yaml" => assert!(
                    elsewhere.contains(&content(block.clone())),
                    "{heading}: not in {page}: {block:?}"
                ),
                other => panic!("{heading}: a block in {other:?}"),
            }
        }
        are_held_by_tests(&[&format!("{heading} <!-- {tests} -->")]);
    }
}

fn content(block: Block) -> (String, String) {
    (block.info, block.text)
}
