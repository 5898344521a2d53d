//! Keys and profiles that are there by half, or wrong.

use ecr_emulator::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use test_support::Harness;

use super::{imds, is_never_passed_over};
use crate::BINARY;

#[test]
fn half_of_the_environments_keys_is_an_error_that_names_the_other_half() {
    for (given, missing) in
        [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")]
    {
        let harness = is_never_passed_over(
            |_, command| {
                command.env(given, "x");
            },
            &[
                "`environment` is incomplete",
                &format!("{missing} is unset"),
                &format!("of this source ({missing})"),
            ],
        );
        assert_eq!(harness.counts(), [0; 5]);
    }
}

#[test]
fn a_profile_that_is_not_there_is_an_error_that_names_it() {
    let harness = is_never_passed_over(
        |_, command| {
            command.env("AWS_PROFILE", "mistyped");
        },
        &["profile `mistyped`", "AWS_PROFILE"],
    );
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_profile_that_is_half_there_is_an_error_that_names_it() {
    let harness = is_never_passed_over(
        |harness, command| {
            harness.write(".aws/credentials", "[half]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\n");
            command.env("AWS_PROFILE", "half");
        },
        &["profile `half`"],
    );
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_profile_default_that_is_half_there_is_an_error_too() {
    let harness = Harness::new(BINARY).without_keys();
    harness.write(".aws/credentials", "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\n");
    harness.once(|command| imds(&harness, command)).failed_with(&["profile `default`"]);
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn a_wrong_key_is_an_error_with_the_remedy() {
    let cases = [
        ("AKIAI44QH8DHBEXAMPLE", SECRET_ACCESS_KEY, ["UnrecognizedClientException", "an active access key"]),
        (ACCESS_KEY_ID, "another-secret", ["InvalidSignatureException", "are from the same pair"]),
    ];
    for (id, secret, parts) in cases {
        let harness = Harness::new(BINARY).without_keys();
        let once = harness.once(|command| {
            command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
        });
        once.failed_with(&parts);
        assert_eq!(harness.counts(), [0, 1, 0, 0, 0], "once is enough for what only a person can fix");
        assert!(!once.stderr.contains(secret), "{}", once.stderr);
    }
}
