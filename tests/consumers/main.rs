//! The programs that read a docker `config.json` pull through the one that the real binary wrote: by the
//! registries' true names, from a real registry behind a token check, before and after a rotation.
//!
//! Each test pulls from two regions and from ECR Public, under the policies in patches/iam, and shows that it can
//! fail: with no credentials, and with the revoked ones, the same pull is refused; and without an action of the
//! policy that it needs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail by panicking")]

mod checks;
mod commands;
mod credential_helper;
mod old_entries;
mod rotation;
mod setting;

const BINARY: &str = env!("CARGO_BIN_EXE_ecr-sidecar");
const HOSTS: [&str; 3] = [
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
    "123456789012.dkr.ecr.us-east-1.amazonaws.com",
    "public.ecr.aws",
];
const IMAGE: (&str, &str) = ("team/app", "v1");
const CHART: (&str, &str, &str) = ("charts", "web", "0.1.0");
