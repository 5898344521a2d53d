//! Pulls by the credential helper, which reads the sidecar's file, or asks AWS where nothing runs.

use ecr_emulator::Service;
use test_support::{
    Dockerd,
    harness::{DEADLINE, KEYS},
    output, program,
};

use crate::{
    HOSTS,
    commands::{helm_pull, image, skopeo_copy},
    setting::Setting,
};

#[test]
fn crane_asks_the_credential_helper() {
    let Some(crane) = program("crane") else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check_helper(|pull| {
        let mut command = pull.command(&crane);
        command.args(["digest", &image(pull.host)]);
        command
    });
}

#[test]
fn helm_3_asks_the_credential_helper() {
    helm_asks("helm3");
}

#[test]
fn helm_4_asks_the_credential_helper() {
    helm_asks("helm4");
}

#[test]
fn skopeo_asks_the_credential_helper() {
    let Some(skopeo) = program("skopeo") else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check_helper(|pull| skopeo_copy(&skopeo, pull));
}

#[test]
fn docker_asks_the_credential_helper_and_its_logout_goes_on() {
    let Some(setting) = Setting::new() else { return };
    let Some(daemon) = Dockerd::start(setting.network()) else { return };
    setting.check_helper(|pull| {
        let mut command = daemon.docker(pull.config);
        command.args(["pull", &image(pull.host)]);
        command
    });
    let helped = setting.helped_config();
    let docker = |arguments: &[&str]| {
        let mut command = daemon.docker(&helped);
        setting.help(command.args(arguments));
        let output = output(&mut command, DEADLINE);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    for arguments in [vec!["logout", HOSTS[0]], vec!["pull", &image(HOSTS[0])]] {
        let (succeeded, said) = docker(&arguments);
        assert!(succeeded, "{arguments:?}: {said}");
    }
}

/// Nothing runs and no file is there: the helper asks AWS, once for all that it is asked.
#[test]
fn the_credential_helper_is_enough_for_a_pull() {
    let Some(crane) = program("crane") else { return };
    let Some(setting) = Setting::with_sidecar("--version") else { return };
    let before = setting.harness.emulator.count(Service::Ecr);
    for _ in 0..3 {
        setting.pull(HOSTS[0], &setting.helped_config(), |pull| {
            let mut command = pull.command(&crane);
            command.args(["digest", &image(pull.host)]);
            setting.help(&mut command);
            command.env("ECR_SIDECAR_DOCKER_CONFIG", setting.harness.at("none.json"));
            command.env("XDG_CACHE_HOME", setting.harness.folder());
            command.env("AWS_ENDPOINT_URL", setting.harness.emulator.endpoint()).envs(KEYS);
            command
        });
    }
    assert_eq!(setting.harness.emulator.count(Service::Ecr), before + 1);
}

fn helm_asks(name: &str) {
    let Some(helm) = program(name) else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check_helper(|pull| helm_pull(&helm, pull));
}
