//! Where do keys, secrets, tokens and request ids come from?

use ring::rand::{SecureRandom, SystemRandom};

const UPPER: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const MIXED: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The tail of an access key id.
pub(crate) fn upper(length: usize) -> String {
    bytes(length).iter().map(|byte| char::from(UPPER[usize::from(byte % 32)])).collect()
}

/// Secrets and tokens.
pub(crate) fn mixed(length: usize) -> String {
    bytes(length).iter().map(|byte| char::from(MIXED[usize::from(byte % 64)])).collect()
}

/// `8-4-4-4-12` hexadecimal digits, as AWS writes request ids.
pub(crate) fn request_id() -> String {
    let hex = hex(&bytes(16));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    })
}

#[expect(clippy::expect_used, reason = "a machine without random numbers can't run TLS either")]
fn bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SystemRandom::new().fill(&mut bytes).expect("the operating system gives random numbers");
    bytes
}
