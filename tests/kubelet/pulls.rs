//! What becomes of pods whose images are in private registries, with no pull Secret anywhere.

use std::time::Duration;

use ecr_emulator::{Fault, Service};
use test_support::markdown::blocks_of;

use crate::scene::{Scene, read};

const ROLE_A: &str = "arn:aws:iam::123456789012:role/team-a";
const ROLE_B: &str = "arn:aws:iam::123456789012:role/team-b";
const ROLES: [(&str, &str); 2] = [(ROLE_A, "team-a:puller"), (ROLE_B, "team-b:puller")];
const NODE: &str = "arn:aws:iam::123456789012:user/emulated";

/// An image of the account with this number: the kubelet keeps credentials by registry, and so asks for each.
fn image(account: usize) -> String {
    format!("{account:012}.dkr.ecr.eu-west-1.amazonaws.com/app:1.0")
}

#[test]
fn fifty_pods_pull_at_once_from_fifty_registries_by_one_call() {
    let Some(scene) = Scene::new("credential-provider.yaml", &[]) else { return };
    scene.namespace("fifty");
    // Long enough that the others ask meanwhile.
    scene.aws.push_fault(Service::Ecr, Fault::SlowBody(Duration::from_millis(2)), 1);
    scene.pull_at_once("fifty", (0..50).map(|number| (format!("pod-{number}"), image(number))));
    scene.wait_all_ran("fifty");
    assert_eq!(scene.calls(), [0, 1]);
    assert_eq!(scene.principals(0), [NODE]);
    assert_eq!(scene.node.logs("fifty", "pod-49", "app"), "Hello from the emulator's registry.\n");
    scene.node.kubectl(["delete", "namespace", "fifty", "--wait=false"]);
}

#[test]
fn while_aws_is_away_pulls_go_on_in_the_second_half_of_a_token_s_life() {
    let Some(scene) = Scene::new("credential-provider.yaml", &[]) else { return };
    scene.namespace("outage");
    scene.pull("outage", "default", [("before", image(1))]);
    scene.wait_all_ran("outage");
    scene.age(7);
    for (number, fault) in [(2, Fault::Status(503)), (3, Fault::Hang)] {
        let asked = scene.calls()[1];
        scene.aws.set_fault(Service::Ecr, fault);
        scene.pull("outage", "default", [(&*format!("during-{number}"), image(number))]);
        scene.wait_all_ran("outage");
        assert!(scene.calls()[1] > asked, "a newer token is asked for");
    }
    // It has expired: now there is none.
    scene.age(6);
    scene.pull("outage", "default", [("after", image(4))]);
    scene.wait_refused("outage", "after");
    let log = scene.node.kubelet_log();
    let reason = log.lines().any(|line| line.contains("no credential for") && line.contains("to fix it:"));
    assert!(reason, "{log}");
    scene.aws.clear_faults();
    scene.wait_all_ran("outage");
}

#[test]
fn two_service_accounts_get_two_roles_and_none_gets_another_one_s() {
    let Some(scene) = Scene::new("credential-provider-with-roles.yaml", &ROLES) else { return };
    let readme = blocks_of("sh", &read("README.md")).into_iter().find(|block| block.contains("rbac.yaml"));
    let [grant, annotate] = readme.iter().flat_map(|block| block.lines()).collect::<Vec<_>>()[..] else {
        panic!("{readme:?}")
    };
    for (namespace, role) in
        [("team-a", None), ("team-b", Some(ROLE_B)), ("team-c", Some(ROLE_A)), ("plain", None)]
    {
        scene.namespace(namespace);
        scene.account(namespace, "puller", role);
    }
    scene.run(&annotate.replace(" default ", " puller "));
    // Kubelets may not have tokens for STS by themselves.
    scene.pull("team-a", "puller", [("early", image(1))]);
    scene.wait_refused("team-a", "early");
    assert_eq!((scene.calls(), scene.principals(0).len()), ([0, 0], 0));
    scene.run(grant);
    scene.wait_all_ran("team-a");
    let by = |role: &str| format!(":assumed-role/{role}/");
    let pulled = scene.principals(0);
    assert!(pulled.len() == 1 && pulled[0].contains(&by("team-a")), "{pulled:?}");

    let before = scene.aws.pulls().len();
    scene.pull("team-b", "puller", [("pod", image(1))]);
    scene.wait_all_ran("team-b");
    let pulled = scene.principals(before);
    assert!(pulled.len() == 1 && pulled[0].contains(&by("team-b")), "{pulled:?}");
    assert_eq!(scene.calls(), [2, 2]);

    // The next pod of an account has another token, and asks another registry of the region.
    scene.pull("team-a", "puller", [("next", image(2))]);
    scene.wait_all_ran("team-a");
    assert_eq!(scene.calls(), [2, 2]);

    let before = scene.aws.pulls().len();
    scene.pull("plain", "puller", [("pod", image(1))]);
    scene.wait_all_ran("plain");
    assert_eq!(scene.principals(before), [NODE]);

    // Team C annotates its account with A's role, which does not trust it; tokens of A's and of the node's are at hand.
    let before = scene.aws.pulls().len();
    scene.pull("team-c", "puller", [("pod", image(1))]);
    scene.wait_refused("team-c", "pod");
    assert_eq!(scene.principals(before), [] as [&str; 0]);
    let log = scene.node.kubelet_log();
    assert!(
        log.lines().any(|it| it.contains("sts:AssumeRoleWithWebIdentity") && it.contains(ROLE_A)),
        "{log}"
    );
}
