//! Text that comes from outside, made fit to be shown: messages of AWS and of the API server, object names and types,
//! excerpts of files in errors.
//!
//! Every such text passes [`clean`] where it enters the program. What is logged, served or printed then holds:
//! * no credential that an answer or an error repeats: `what_echoes_a_request_is_cut`, `long_words_are_redacted`
//! * one line without control and bidirectional characters: `a_terminal_sees_plain_text`
//! * at most [`LIMIT`] characters: `a_long_text_is_cut`

use std::collections::HashSet;

/// The longest text that is kept, in characters.
pub const LIMIT: usize = 500;

const REDACTED: &str = "[redacted]";

/// No more of a text is read, in bytes: what is kept stands at its beginning.
const READ: usize = 16 << 10;

/// A secret of at least this many bytes is a random one: a piece of it is redacted too.
const LONG: usize = 40;

/// So long a piece of one is not there by chance.
const PIECE: usize = 16;

/// No name in a message is this long; a session token, a web-identity token and a signed request are longer.
const LONGEST_NAME: usize = 150;

/// What follows repeats a request: the debug form of the SDK's, the header, the string that AWS signed itself.
const ECHOES: [&str; 5] =
    ["to request `", "authorization header", "authorization=", "the canonical string", "the string-to-sign"];

/// What stands before this, in quotes, is a piece of the `Authorization` header.
const ECHOED_PIECE: &str = "not a valid key=value pair";

/// One line of at most [`LIMIT`] characters that repeats no request and cannot steer a terminal.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::new();
    for word in before_echo(beginning(text)).split(is_separator).filter(|word| !word.is_empty()) {
        if !cleaned.is_empty() {
            cleaned.push(' ');
        }
        cleaned.push_str(redact(word).as_deref().unwrap_or(word));
        if let Some((end, _)) = cleaned.char_indices().nth(LIMIT) {
            cleaned.truncate(end);
            cleaned.pop();
            cleaned.push('…');
            break;
        }
    }
    cleaned
}

/// The same, with each of `secrets` replaced, however short it is, and each piece of a long one.
pub fn clean_of(text: &str, secrets: &[&str]) -> String {
    let mut text = beginning(text).to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, REDACTED);
        if secret.len() >= LONG {
            text = without_pieces(&text, secret);
        }
    }
    clean(&text)
}

fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(READ)]
}

/// `text` without what it has in common with `secret`: an answer may repeat it cut off, broken up or percent-encoded.
fn without_pieces(text: &str, secret: &str) -> String {
    let pieces: HashSet<_> = secret.as_bytes().windows(PIECE).collect();
    let mut kept = Vec::with_capacity(text.len());
    let mut hidden_until = 0;
    for (at, byte) in text.bytes().enumerate() {
        let is_piece = text.as_bytes().get(at..at + PIECE).is_some_and(|window| pieces.contains(window));
        if is_piece && at >= hidden_until {
            kept.extend_from_slice(REDACTED.as_bytes());
        }
        if is_piece {
            hidden_until = at + PIECE;
        }
        if at >= hidden_until {
            kept.push(byte);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn before_echo(text: &str) -> &str {
    let lower = text.to_ascii_lowercase(); // keeps the positions
    let piece = lower.find(ECHOED_PIECE).map(|end| lower[..end].find('\'').unwrap_or(end));
    let end = ECHOES.iter().filter_map(|echo| lower.find(echo)).chain(piece).min();
    &text[..end.unwrap_or(text.len())]
}

fn is_separator(character: char) -> bool {
    character.is_whitespace() || steers(character)
}

/// Control and format characters: the latter would reorder or hide what follows (bidirectional controls, zero-width
/// characters, tags).
pub fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// `word` with its long runs of a token's characters replaced; `None` where it has none.
fn redact(word: &str) -> Option<String> {
    if word.len() <= LONGEST_NAME {
        return None;
    }
    let mut redacted = String::new();
    for run in word.split_inclusive(|character| !is_of_a_token(character)) {
        let token = run.trim_end_matches(|character| !is_of_a_token(character));
        if token.len() > LONGEST_NAME {
            redacted.push_str(&format!("[{} characters redacted]{}", token.len(), &run[token.len()..]));
        } else {
            redacted.push_str(run);
        }
    }
    Some(redacted)
}

fn is_of_a_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "+/=_-.%".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_echoes_a_request_is_cut() {
        for (text, expected) in [
            (
                "failed to apply endpoint `x` to request `Request { body: SECRET",
                "failed to apply endpoint `x`",
            ),
            (
                "the signature is wrong.\n\nThe Canonical String for this was\n'POST SECRET",
                "the signature is wrong.",
            ),
            ("Authorization header requires 'Signature'. Authorization=SECRET", ""),
            (
                "bad: 'SECRET/20181128' not a valid key=value pair (missing equal-sign) in Authorization",
                "bad:",
            ),
            ("Credential must have 5 elements. AUTHORIZATION=SECRET", "Credential must have 5 elements."),
        ] {
            assert_eq!(clean(text), expected);
        }
    }

    #[test]
    fn long_words_are_redacted() {
        let token = format!("eyJ{}.{}", "a".repeat(300), "b".repeat(300));
        let shown = clean(&format!("token \"{token}\" is not valid"));
        assert_eq!(shown, "token \"[604 characters redacted]\" is not valid");
        let arn = format!(
            "arn:aws:sts::123456789012:assumed-role/{}/{}@example.com",
            "r".repeat(64),
            "u".repeat(40)
        );
        assert_eq!(clean(&arn), arn);
        assert_eq!(clean_of("key hunter2 is wrong", &["hunter2", ""]), "key [redacted] is wrong");
    }

    #[test]
    fn a_piece_of_a_long_secret_is_redacted() {
        let secret = "IQoJb3JpZ2luX2VjEDUaCWV1LXdlc3QtMSJHMEUCIQD/ab+cd";
        for (text, expected) in [
            (format!("token {secret} bad"), "token [redacted] bad"),
            (format!("token {} bad", &secret[..30]), "token [redacted] bad"),
            (format!("{}\n{}", &secret[..25], &secret[25..]), "[redacted] [redacted]"),
            (format!("x{}%2Fab%2Bcd", &secret[..44]), "x[redacted]%2Fab%2Bcd"),
            (format!("ends {}", &secret[..PIECE]), "ends [redacted]"),
            (format!("by chance {}", &secret[..PIECE - 1]), "by chance IQoJb3JpZ2luX2V"),
        ] {
            assert_eq!(clean_of(&text, &[secret]), expected, "{text}");
        }
    }

    #[test]
    fn a_terminal_sees_plain_text() {
        assert_eq!(clean("a\u{1b}[2Kb\r\n[+] ok\t\u{202e}x\u{200b}y\u{9b}z"), "a [2Kb [+] ok x y z");
    }

    #[test]
    fn a_long_text_is_cut() {
        let shown = clean(&"ä b ".repeat(100_000));
        assert_eq!(shown.chars().count(), LIMIT);
        assert!(shown.ends_with('…'));
    }

    proptest::proptest! {
        #[test]
        fn cleaning_is_idempotent_and_bounded(text in "\\PC{0,40}[\\x00-\\u{ff}\u{202e}\u{200b}]{0,700}") {
            let once = clean(&text);
            proptest::prop_assert!(once.chars().count() <= LIMIT);
            proptest::prop_assert!(!once.contains(|c: char| c.is_control()));
            proptest::prop_assert_eq!(clean(&once), once.clone());
        }
    }
}
