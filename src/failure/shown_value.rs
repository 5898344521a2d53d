//! How a value of the user's is shown in a message: one line, bounded, and not at all where it may be a credential.
//!
//! People put values into the wrong place: a key in the place of its file, a URL with a password in the place of a host.

use std::path::Path;

use super::foreign_text::clean;

/// The longest value that is shown, in characters.
const LONGEST: usize = 80;
/// AWS's secret keys have 40 characters, session tokens and web-identity tokens more; no name has so many in a row.
const LONGEST_RUN: usize = 32;

/// The text in backquotes, or its length.
pub(crate) fn quoted(text: &str) -> String {
    if may_be_secret(text) {
        return format!("a value of {} characters, not shown", text.chars().count());
    }
    let cleaned = clean(text);
    match cleaned.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}…`", &cleaned[..end]),
        None => format!("`{cleaned}`"),
    }
}

/// A key of the file, or its length.
pub(crate) fn key(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if name.len() <= 40 && name.chars().all(is_plain) && !may_be_secret(name) {
        name.to_owned()
    } else {
        format!("(a key of {} characters, not shown)", name.chars().count())
    }
}

/// A path, or its length.
pub(crate) fn clean_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    if is_key_like(&text) {
        format!("(a path of {} characters, not shown)", text.chars().count())
    } else {
        clean(&text)
    }
}

/// The name of a profile or section, which the user chose, or its length.
pub(crate) fn clean_name(name: &str) -> String {
    if is_key_like(name) {
        format!("(a name of {} characters, not shown)", name.chars().count())
    } else {
        clean(name)
    }
}

/// Whether the text holds userinfo, or looks like a key or token.
pub(crate) fn may_be_secret(text: &str) -> bool {
    has_userinfo(text) || is_marked(text) || has_random_run(text, "+/=_")
}

/// Whether a text that should be a path looks like a key or token. Directories are no part of a key, but a secret access
/// key may contain slashes.
pub(crate) fn is_key_like(text: &str) -> bool {
    let text = text.trim();
    let is_of_a_key = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    is_marked(text)
        || has_random_run(text, "+=_")
        || ((40..=44).contains(&text.len()) && text.chars().all(is_of_a_key) && has_random_run(text, "+/="))
}

/// Whether the text begins as access key ids, JSON web tokens and private keys do.
fn is_marked(text: &str) -> bool {
    text.contains("-----BEGIN")
        || ["AKIA", "ASIA", "eyJ"].iter().any(|prefix| text.trim_start().starts_with(prefix))
}

/// Whether letters of both cases, digits and `more` stand in a row as long as in no name.
fn has_random_run(text: &str, more: &str) -> bool {
    let in_a_row = text.split(|c: char| !(c.is_ascii_alphanumeric() || more.contains(c)));
    in_a_row.filter(|run| run.len() >= LONGEST_RUN).any(|run| {
        let bytes = run.as_bytes();
        bytes.iter().any(u8::is_ascii_digit)
            && bytes.iter().any(u8::is_ascii_uppercase)
            && bytes.iter().any(u8::is_ascii_lowercase)
    })
}

/// Whether a user or password may stand in front of the host of a URL, or in its place.
pub(crate) fn has_userinfo(text: &str) -> bool {
    let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
    let port =
        authority.split(['/', '?', '#']).next().and_then(|host| host.rsplit_once(':')).map(|(_, port)| port);
    text.contains('@')
        || (text.contains("://")
            && port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit() || b == b']')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_urls_and_paths_are_shown() {
        for text in [
            "https://vpce-0abc123-x1y2z3.api.ecr.eu-west-1.vpce.amazonaws.com:8443/path",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "arn:aws:iam::123456789012:role/team/ecr-pull-of-the-production-cluster",
            "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
            "http://[::1]:8080",
            "",
        ] {
            assert_eq!(quoted(text), format!("`{text}`"));
        }
        assert_eq!(quoted("a\n[+] ok\u{1b}[2J"), "`a [+] ok [2J`");
        assert_eq!(quoted(&"ab ".repeat(100)).chars().count(), LONGEST + 3);
    }

    #[test]
    fn what_may_be_a_credential_is_not_shown() {
        for text in [
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "AKIAIOSFODNN7EXAMPLE",
            "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
            "https://user:hunter2@host",
            "https://user:hunter2", // the host is forgotten
            "user:hunter2@host",
            "-----BEGIN RSA PRIVATE KEY-----\nMII",
        ] {
            assert!(quoted(text).ends_with("not shown"), "{text}: {}", quoted(text));
            assert!(key(text).contains("not shown"), "{text}: {}", key(text));
        }
    }

    #[test]
    fn a_key_in_the_place_of_a_path_is_not_shown() {
        let shown = |path: &str| clean_path(Path::new(path));
        for text in [
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "/JalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", // one key in 64 begins like this
            "AKIAIOSFODNN7EXAMPLE",
            "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
            "./IQoJb3JpZ2luX2VjEJr1337aCXVzLWVhc3QtMSJHMEUCIQ",
            "-----BEGIN RSA PRIVATE KEY-----\nMII",
        ] {
            assert!(shown(text).ends_with("not shown)"), "{text}: {}", shown(text));
        }
        for path in [
            "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
            "/home/JohnDoe1/Projects/clusters/Production2/credentials",
            "/home/me@corp.example.com/.aws/credentials",
            "/private/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T/tmp.Ab12",
            "config.json",
        ] {
            assert_eq!(shown(path), path);
        }
        assert_eq!(shown("a\n[+] b"), "a [+] b");
    }
}
