use super::*;

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn shown(status: &str, now: u64, medium: Medium) -> String {
    text(&serde_json::from_str(status).unwrap(), at(now), medium)
}

/// A healthy registry, a denied one; a file that lacks the latter, and Secrets of which one fails.
fn mixed() -> String {
    format!(
        r#"{{"version": "0.1.0", "started_at": "1970-01-01T00:00:00Z", "has_been_ready": false,
        "configuration": {{"reloads": 0, "rejected": 1, "last_error": "two problems:\n  a: found 1\n  b: found 2"}},
        "tokens": [
          {{"identity": "default", "service": "ecr", "region": "eu-west-1",
            "registries": [{{"host": "{HOST}", "required": true}}],
            "principal": {{"source": "environment", "arn": null}},
            "obtained_at": "1970-01-01T00:00:00Z", "expires_at": "1970-01-01T12:00:00Z",
            "next_attempt": "1970-01-01T06:10:00Z", "failures_in_a_row": 0, "last_error": null}},
          {{"identity": "billing", "service": "ecr-public", "region": "us-east-1",
            "registries": [{{"host": "public.ecr.aws", "required": false}}],
            "principal": {{"source": "web identity", "arn": "arn:aws:sts::1:assumed-role/r/s"}},
            "obtained_at": null, "expires_at": null, "next_attempt": "1970-01-01T05:59:00Z", "failures_in_a_row": 3,
            "last_error": {{"message": "ecr-public:GetAuthorizationToken: AccessDenied", "remedy": "allow it", "class": "denied"}}}}],
        "outputs": [
          {{"type": "docker-config", "target": "/run/config.json",
            "in_place": {{"{HOST}": "1970-01-01T12:00:00Z"}}, "warnings": ["`credsStore` names `x`"], "last_error": null,
            "warning_details": [{{"message": "`credsStore` names `x`", "diagnosis": "creds-store", "remedy": "remove it"}}]}},
          {{"type": "docker-config-secret", "target": "apps/ecr", "warnings": [], "last_error": null,
            "in_place": {{"{HOST}": "1970-01-01T11:00:00Z", "public.ecr.aws": "1970-01-01T01:00:00Z"}},
            "targets": {{"total": 3, "in_sync": 1, "more_failing": 1, "failing": [
              {{"name": "apps/ecr", "last_error": {{"message": "forbidden", "remedy": "add the rule", "class": "denied"}}}}]}}}}],
        "probes": [
          {{"registry": "{HOST}", "image": "{HOST}/team/app", "checked_at": "1970-01-01T05:50:00Z",
            "next_attempt": "1970-01-01T06:05:00Z", "found": "manifest: latest"}},
          {{"registry": "public.ecr.aws", "image": "public.ecr.aws/a/b:1", "checked_at": "1970-01-01T05:59:00Z",
            "next_attempt": "1970-01-01T06:59:00Z", "failures_in_a_row": 2,
            "last_error": {{"message": "manifest: HTTP 403", "remedy": "add the statement", "class": "denied"}}}}]}}"#
    )
}

const SIX_HOURS: u64 = 21_600;

#[test]
fn a_pipe_gets_plain_columns() {
    assert_eq!(
        shown(&mixed(), SIX_HOURS, Medium::Plain),
        "\
ecr-sidecar 0.1.0, running for 6h00m, not ready since its start
REGISTRY                                      IDENTITY                         STATE      TOKEN LEFT  NEXT ATTEMPT
123456789012.dkr.ecr.eu-west-1.amazonaws.com  default (environment)            ok         6h00m       in 10m00s
public.ecr.aws (optional)                     arn:aws:sts::1:assumed-role/r/s  denied x3  -           now
OUTPUT                          STATE
docker-config /run/config.json  missing: public.ecr.aws; 1 warning
docker-config-secret apps/ecr   1 of 3 Secrets in sync; expired: public.ecr.aws; not yet renewed: 123456789012.dkr.ecr.eu-west-1.amazonaws.com
PULL PROBE                                             STATE      CHECKED     NEXT ATTEMPT
123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app  ok         10m00s ago  in 5m00s
public.ecr.aws/a/b:1                                   denied x2  1m00s ago   in 59m00s
token ecr-public us-east-1 as billing:
  ecr-public:GetAuthorizationToken: AccessDenied
  remedy: allow it
docker-config /run/config.json:
  `credsStore` names `x`
  remedy: remove it
Secret apps/ecr:
  forbidden
  remedy: add the rule
1 more Secrets:
  not in sync either
pull probe public.ecr.aws/a/b:1:
  manifest: HTTP 403
  remedy: add the statement
configuration reload rejected:
  two problems:
    a: found 1
    b: found 2
"
    );
}

#[test]
fn a_terminal_gets_a_bar_and_colours_if_wanted() {
    let wide = |colour| shown(&mixed(), SIX_HOURS, Medium::Terminal { width: 200, colour });
    let plain = wide(false);
    assert!(plain.contains("█████░░░░░ 6h00m  in 10m00s"), "{plain}");
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let coloured = wide(true);
    assert!(coloured.contains("\u{1b}[32m█████░░░░░ 6h00m\u{1b}[0m  in 10m00s"), "{coloured}");
    assert!(coloured.contains("\u{1b}[31mdenied x3\u{1b}[0m"), "{coloured}");
    let mut bare = coloured;
    for code in ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[0m"] {
        bare = bare.replace(code, "");
    }
    assert_eq!(bare, plain);
}

#[test]
fn nothing_is_wider_than_the_terminal() {
    for width in [20, 40, 60, 80, 100, 132] {
        for line in shown(&mixed(), SIX_HOURS, Medium::Terminal { width, colour: false }).lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
    let narrow = shown(&mixed(), SIX_HOURS, Medium::Terminal { width: 80, colour: false });
    for part in ["in 10m00s", "…ssumed-role/r/s"] {
        assert!(narrow.contains(part), "what matters stays: {narrow}");
    }
}

#[test]
fn a_token_shows_what_is_left_of_it() {
    let token = |fields: &str| format!(r#"{{"version":"1","tokens":[{{{fields}}}],"outputs":[]}}"#);
    let life = r#""obtained_at": "1970-01-01T00:00:00Z", "expires_at": "1970-01-01T00:16:40Z""#;
    let cases = [
        (token(""), 0, "waiting  -           -"),
        (token(life), 10, "ok     16m30s      -"),
        (token(life), 1000, "ok     expired 0s ago  -"),
        (token(life), 1100, "ok     expired 1m40s ago  -"),
        (token(&format!(r#"{life}, "clock_fault": "far-future""#)), 0, "clock  16m40s      -"),
    ];
    for (status, now, row) in cases {
        let text = shown(&status, now, Medium::Plain);
        assert!(text.contains(row), "{row:?} is not in {text}");
    }
    let faulty = token(&format!(r#"{life}, "clock_fault": "too-long""#));
    assert!(shown(&faulty, 0, Medium::Plain).contains(&format!("  remedy: {}\n", ClockFault::remedy())));
    let bars = [(0, "██████████"), (500, "█████░░░░░"), (999, "█░░░░░░░░░")];
    for (now, bar) in bars {
        let text = shown(&token(life), now, Medium::Terminal { width: 100, colour: false });
        assert!(text.contains(bar), "{bar} is not in {text}");
    }
}

#[test]
fn an_output_shows_its_state() {
    let output = |fields: &str| {
        format!(
            r#"{{"version":"1","outputs":[{{"type":"t","target":"p",{fields}}}],"tokens":[{{"registries":[{{"host":"h"}}],
            "expires_at":"1970-01-01T00:16:40Z"}}]}}"#
        )
    };
    let cases = [
        (r#""in_place": {"h": "1970-01-01T00:16:40Z"}"#, "t p     in sync\n"),
        (r#""in_place": {"h": "1970-01-01T00:20:00Z"}"#, "t p     in sync\n"), // another sidecar's
        (r#""in_place": {"h": "1970-01-01T00:16:00Z"}"#, "t p     not yet renewed: h\n"),
        (r#""in_place": {"h": "1970-01-01T00:00:00Z"}"#, "t p     expired: h\n"),
        (r#""in_place": {}"#, "t p     missing: h\n"),
        (r#""last_error": {"message": "m"}"#, "t p     error; missing: h\n"),
        (r#""targets": {"total": 0}"#, "t p     0 of 0 Secrets in sync\n"),
        (
            r#""in_place": {"h": "1970-01-01T00:16:40Z"}, "targets": {"total": 2, "in_sync": 2}"#,
            "t p     2 of 2 Secrets in sync\n",
        ),
    ];
    for (fields, row) in cases {
        let text = shown(&output(fields), 10, Medium::Plain);
        assert!(text.contains(row), "{row:?} is not in {text}");
    }
    let none = r#"{"version":"1","tokens":[{"region":"eu-west-1"}],"outputs":[{"type":"t"}]}"#;
    let text = shown(none, 0, Medium::Plain);
    assert!(
        text.contains("your own in eu-west-1  ") && text.contains("t       waiting for a credential\n"),
        "{text}"
    );
}

#[test]
fn hostile_text_stays_in_its_cell() {
    let status = r#"{"version":"1\u001b[31m","tokens":[{"registries":[{"host":"a\nb"}],"last_error":{"message":"\u001b]0;x\u0007","class":"c\nd"}}],"outputs":[]}"#;
    let text = shown(status, 0, Medium::Plain);
    assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
    assert!(text.contains("a b (optional)") && text.contains("c d"), "{text}");
}

#[test]
fn durations_are_short() {
    let cases =
        [(0, "0s"), (59, "59s"), (60, "1m00s"), (3599, "59m59s"), (43_200, "12h00m"), (180_000, "2d02h")];
    for (seconds, text) in cases {
        assert_eq!(short(Duration::from_secs(seconds)), text);
    }
}
