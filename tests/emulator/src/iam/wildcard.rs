//! `*` and `?` as policies use them.

/// Whether the whole text is what the pattern describes.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    matches_bytes(pattern.as_bytes(), text.as_bytes())
}

fn matches_bytes(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((b'*', after)), rest) => {
            matches_bytes(after, text) || rest.is_some_and(|(_, rest)| matches_bytes(pattern, rest))
        }
        (Some((one, after)), Some((byte, rest))) => {
            (one == byte || *one == b'?') && matches_bytes(after, rest)
        }
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stand_for_any_text_and_question_marks_for_one_character() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "arn:aws:ecr", true),
            ("repository/*", "repository/team/app", true),
            ("repository/apps/*", "repository/apps/mainapp", true),
            ("repository/apps/*", "repository/apps", false),
            ("ecr:Batch*Image", "ecr:BatchGetImage", true),
            ("ecr:Batch*Image", "ecr:BatchGetImages", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("arn:*", "*", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
