use proptest::prelude::*;

use super::*;

/// Text with what YAML and the keys of the file are made of.
fn text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("registries"),
        Just("outputs"),
        Just("identities"),
        Just("health"),
        Just("log"),
        Just("host"),
        Just("type"),
        Just("docker-config"),
        Just("path"),
        Just("selector"),
        Just("CANARY"),
        Just("&a"),
        Just("*a"),
        Just("!!int"),
        Just("0x1F"),
        Just("1e999"),
        Just("|"),
        Just("- "),
        Just(": "),
        Just("\n  "),
        Just("\n"),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(", "),
        Just("'"),
        Just("\""),
        Just("#"),
        Just("\t"),
        Just("\u{feff}"),
        Just("\u{202e}"),
        Just("---"),
        Just("~"),
        Just("<<"),
    ];
    prop_oneof![
        proptest::collection::vec(word, 0..40).prop_map(|words| words.concat()),
        "\\PC{0,60}",
        "(CANARY|[a-z]{1,8}): [^\\n]{0,20}\n.{0,20}",
    ]
}

proptest! {
    #[test]
    fn no_text_of_a_file_panics_or_breaks_out_of_its_line(text in text()) {
        if let Err(violations) = with_file(&text, &[]) {
            for violation in &violations.0 {
                let line = violation.to_string();
                prop_assert!(!line.contains(char::is_control), "{:?}", line);
                prop_assert!(line.len() < 6_000);
            }
        }
    }

    #[test]
    fn no_variable_of_ours_panics(
        name in "ECR_SIDECAR_(CONFIG|REGISTRIES|DOCKER_CONFIG|FILE_MODE|DOCKER_CONFIG_SECRET|ARGOCD_NAMESPACE|HEALTH_LISTEN|LOG_FORMAT|LOG|[A-Z0-9_]{0,20})",
        value in "\\PC{0,30}|[\\x00-\\x7f]{0,30}|(https?://)?[a-z]{0,5}:CANARY@[a-z.]{0,9}",
    ) {
        if let Err(violations) = with_env(&[("AWS_REGION", "eu-west-1"), (&name, &value)]) {
            let report = violations.to_string();
            prop_assert!(!report.contains("CANARY"), "{}", report);
            prop_assert!(report.lines().all(|line| !line.contains(char::is_control)), "{:?}", report);
        }
    }
}
