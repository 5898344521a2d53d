//! Old entries for repositories, which some consumers prefer to those of the host.

use test_support::program;

use crate::{
    IMAGE,
    commands::{image, skopeo_copy},
    setting::Setting,
};

#[test]
fn skopeo_is_freed_of_an_old_entry_for_its_repository() {
    let Some(skopeo) = program("skopeo") else { return };
    let Some(setting) = Setting::new() else { return };
    for scope in [IMAGE.0, "team"] {
        setting.check_old_entries(scope, |pull| skopeo_copy(&skopeo, pull));
    }
}

/// Its library, go-containerregistry, prefers an entry of exactly the repository.
#[test]
fn crane_is_freed_of_an_old_entry_for_its_repository() {
    let Some(crane) = program("crane") else { return };
    let Some(setting) = Setting::new() else { return };
    setting.check_old_entries(IMAGE.0, |pull| {
        let mut command = pull.command(&crane);
        command.args(["pull", &image(pull.host)]).arg(pull.folder.join("image.tar"));
        command
    });
}
