//! The policies that we ship, attached to the emulator's principal.

use ecr_emulator::{Attachment, Emulator};

const PULL: &str = include_str!("../../../patches/iam/pull-policy.json");
const PUBLIC: &str = include_str!("../../../patches/iam/public-policy.json");

/// From now on the principal of the emulator's keys, and whoever holds a token of its, may do what the policies in
/// `patches/iam` allow, and nothing else. The one for a registry is attached once a region.
pub fn allow_what_we_ship(aws: &Emulator) {
    attach(aws, PULL);
}

/// The same without `action`.
///
/// # Panics
/// When the policy doesn't have it.
#[track_caller]
pub fn allow_all_but(aws: &Emulator, action: &str) {
    let quoted = format!("\"{action}\"");
    assert!(PULL.contains(&quoted), "the policy doesn't allow {action}");
    attach(aws, &PULL.replace(&quoted, "\"ecr:DescribeRegistry\""));
}

fn attach(aws: &Emulator, pull: &str) {
    let user = Attachment::Identity("arn:aws:iam::123456789012:user/emulated".to_owned());
    aws.set_policies(user, &[pull, &pull.replace("eu-west-1", "us-east-1"), PUBLIC]);
}
