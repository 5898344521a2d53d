//! Pulls by the file, before and after a rotation.

use std::fs;

use test_support::{Dockerd, files::overwrite, harness::DEADLINE, program};

use crate::{
    CHART, HOSTS,
    commands::{helm_pull, image, skopeo_copy},
    setting::{Pull, Setting},
};

#[test]
fn crane_pulls_before_and_after_a_rotation() {
    let Some(crane) = program("crane") else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check(|pull| {
        let mut command = pull.command(&crane);
        command.args(["pull", &image(pull.host)]).arg(pull.folder.join("image.tar"));
        command
    });
}

#[test]
fn helm_3_pulls_before_and_after_a_rotation() {
    helm_pulls("helm3");
}

#[test]
fn helm_4_pulls_before_and_after_a_rotation() {
    helm_pulls("helm4");
}

#[test]
fn helm_3_builds_dependencies_before_and_after_a_rotation() {
    helm_builds_dependencies("helm3");
}

#[test]
fn helm_4_builds_dependencies_before_and_after_a_rotation() {
    helm_builds_dependencies("helm4");
}

#[test]
fn skopeo_finds_the_file_by_docker_config() {
    let Some(skopeo) = program("skopeo") else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check(|pull| skopeo_copy(&skopeo, pull));
}

#[test]
fn skopeo_finds_the_file_by_registry_auth_file() {
    let Some(skopeo) = program("skopeo") else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check(|pull| {
        let mut command = skopeo_copy(&skopeo, pull);
        command.env_remove("DOCKER_CONFIG").env("REGISTRY_AUTH_FILE", pull.config.join("config.json"));
        command
    });
}

#[test]
fn docker_pulls_before_and_after_a_rotation() {
    let Some(setting) = Setting::new() else { return };
    let Some(daemon) = Dockerd::start(setting.network()) else { return };
    let docker_pull = |pull: &Pull<'_>| {
        let mut command = daemon.docker(pull.config);
        command.args(["pull", &image(pull.host)]);
        command
    };
    setting.check_with(&setting.config(), docker_pull);
    // It has the layers by now, and asks for none of them again.
    setting.check_needs(&["ecr:BatchGetImage"], docker_pull);
}

#[test]
fn what_once_wrote_is_enough_for_a_pull() {
    let Some(crane) = program("crane") else { return };
    let Some(setting) = Setting::with_sidecar("once") else { return };
    assert!(setting.sidecar.wait_exit(DEADLINE).success());
    for host in HOSTS {
        setting.pull(host, &setting.config(), |pull| {
            let mut command = pull.command(&crane);
            command.args(["digest", &image(pull.host)]);
            command
        });
    }
}

fn helm_pulls(name: &str) {
    let Some(helm) = program(name) else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check(|pull| helm_pull(&helm, pull));
}

/// With a range of versions, so that tags are listed too: what Argo CD has helm do.
fn helm_builds_dependencies(name: &str) {
    let Some(helm) = program(name) else { return };
    let Some(setting) = Setting::new() else { return };
    let (prefix, chart, _) = CHART;
    let build = |pull: &Pull<'_>| {
        let umbrella = pull.folder.join("umbrella");
        fs::create_dir(&umbrella).unwrap();
        let repository = format!("oci://{}/{prefix}", pull.host);
        overwrite(
            &umbrella.join("Chart.yaml"),
            &format!(
                "apiVersion: v2\nname: umbrella\nversion: 1.0.0\n\
                 dependencies: [{{name: {chart}, version: 0.x, repository: '{repository}'}}]\n"
            ),
        );
        let mut command = pull.command(&helm);
        command.args(["dependency", "build"]).arg(umbrella);
        command
    };
    setting.check(build);
    setting.check_needs(&["ecr:ListImages"], build);
}
