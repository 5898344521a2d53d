//! `credential_process`: a command of a profile that prints keys
//! (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>).
//!
//! Run here rather than by the SDK, which waits for it without limit and leaves it behind when its caller is dropped.
//!
//! Invariants:
//! * A command that hangs is ended after [`TIME_LIMIT`], or as soon as its caller is dropped, with everything that it has
//!   started; an identity runs one at a time (`a_hung_credential_process_is_ended_and_runs_once`).
//! * Neither its output nor the command is shown; of its complaints the last line that mentions no key
//!   (`what_a_process_complains_is_shown_without_keys`).

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use serde_json::{Map, Value};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    time::timeout,
};
use zeroize::Zeroizing;

use crate::{
    aws::key_material::{FoundKeys, MalformedKey, Origin},
    failure::{foreign_text, shown_value::clean_name},
    process_group::ProcessGroup,
};

const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Keys have a few hundred bytes, a session token a few thousand.
const OUTPUT_LIMIT: usize = 64 << 10;
const COMPLAINT_LIMIT: usize = 8 << 10;
/// A line of its complaints with one of these may hold a key: `sh -x` repeats what is printed.
const KEY_WORDS: [&str; 6] = ["key", "secret", "token", "password", "credential", "{"];

/// Why a command returns no keys; completes "its credential_process …".
#[derive(Debug, thiserror::Error)]
pub(super) enum ProcessError {
    #[error("cannot be run, for which `sh` is needed: {0}")]
    Start(#[source] io::Error),
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("did not exit within {} s and was stopped", TIME_LIMIT.as_secs())]
    TimedOut,
    #[error("fails: {status}{detail}")]
    Failed { status: ExitStatus, detail: String },
    #[error("prints more than {OUTPUT_LIMIT} bytes")]
    TooMuch,
    #[error("does not print a JSON object")]
    NotJson,
    #[error("prints no Version, or another than 1")]
    Version,
    #[error("prints no {0}, or one that is not text")]
    Missing(&'static str),
    #[error("prints an Expiration that is not an RFC 3339 time")]
    Expiration,
    #[error(transparent)]
    Malformed(#[from] MalformedKey),
}

pub(super) async fn credentials(command: &str, profile: &str) -> Result<Credentials, ProcessError> {
    let output = timeout(TIME_LIMIT, output_of(command)).await.map_err(|_| ProcessError::TimedOut)??;
    parse(&output, profile)
}

async fn output_of(command: &str) -> Result<Zeroizing<Vec<u8>>, ProcessError> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = ProcessGroup::spawn(&mut shell).map_err(ProcessError::Start)?;
    let (stdout, mut stderr) = group.take_output();
    let mut complaint = Vec::new();
    let work = async {
        let mut output = Zeroizing::new(Vec::with_capacity(OUTPUT_LIMIT + 1));
        if let Some(stdout) = stdout {
            let mut limited = stdout.take(OUTPUT_LIMIT as u64 + 1);
            limited.read_to_end(&mut output).await.map_err(ProcessError::Read)?;
        }
        if output.len() > OUTPUT_LIMIT {
            return Err(ProcessError::TooMuch);
        }
        Ok((group.wait().await.map_err(ProcessError::Read)?, output))
    };
    let (status, output) = tokio::select! {
        done = work => done?,
        // Read meanwhile, lest it wait for a reader; what it has started may keep this open for ever.
        () = async { drain(&mut stderr, &mut complaint).await; std::future::pending().await } => unreachable!(),
    };
    if status.success() {
        return Ok(output);
    }
    let _ = timeout(Duration::from_millis(200), drain(&mut stderr, &mut complaint)).await;
    Err(ProcessError::Failed { status, detail: summary(&complaint) })
}

async fn drain(from: &mut Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(from) = from else { return };
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..count]);
        let excess = kept.len().saturating_sub(COMPLAINT_LIMIT);
        kept.drain(..excess); // the end says most
    }
}

/// The last line that mentions no key.
fn summary(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let is_harmless = |line: &&str| {
        let lower = line.to_ascii_lowercase();
        !line.trim().is_empty() && !KEY_WORDS.iter().any(|word| lower.contains(word))
    };
    let last = text.lines().rfind(is_harmless).map(foreign_text::clean);
    last.map_or_else(String::new, |line| format!(": {line}"))
}

fn parse(output: &[u8], profile: &str) -> Result<Credentials, ProcessError> {
    let printed: Map<String, Value> = serde_json::from_slice(output).map_err(|_| ProcessError::NotJson)?;
    let get = |name: &str| {
        printed
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .filter(|it| !it.is_null())
    };
    if get("Version").and_then(Value::as_u64) != Some(1) {
        return Err(ProcessError::Version);
    }
    let text = |name: &'static str| match get(name) {
        Some(Value::String(text)) => Ok(text.as_str()),
        _ => Err(ProcessError::Missing(name)),
    };
    let optional = |name| if get(name).is_some() { text(name).map(Some) } else { Ok(None) };
    let expiry = optional("Expiration")?.map(str::trim).filter(|text| !text.is_empty());
    let expiry = expiry.map(str::parse::<jiff::Timestamp>).transpose();
    let expiry = expiry.map_err(|_| ProcessError::Expiration)?.map(SystemTime::from);
    let keys = FoundKeys {
        access_key_id: text("AccessKeyId")?,
        secret_access_key: text("SecretAccessKey")?,
        session_token: optional("SessionToken")?,
        expiry,
    };
    let place = format!("the output of the credential_process of profile `{}`", clean_name(profile));
    Ok(keys.into_credentials(&Origin::of("credential process", place))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_as_the_aws_documentation_has_them() {
        let output = r#"{"version": 1, "AccessKeyId": " AKIA\n", "SecretAccessKey": "s", "SessionToken": "",
            "Expiration": "2030-01-02T03:04:05+01:00", "AccountId": "1"}"#;
        let found = parse(output.as_bytes(), "p").unwrap();
        assert_eq!((found.access_key_id(), found.session_token()), ("AKIA", None));
        assert_eq!(crate::clock::rfc3339(found.expiry().unwrap()), "2030-01-02T02:04:05Z");
    }

    #[test]
    fn anything_else_is_an_error_that_shows_none_of_it() {
        let with = |part: &str| {
            format!(r#"{{"Version": 1, "AccessKeyId": "CANARY", "SecretAccessKey": "s", {part}}}"#)
        };
        for output in [
            String::new(),
            "CANARY".into(),
            r#"["CANARY"]"#.into(),
            r#"{"AccessKeyId": "CANARY", "SecretAccessKey": "CANARY"}"#.into(),
            r#"{"Version": 2, "AccessKeyId": "CANARY", "SecretAccessKey": "CANARY"}"#.into(),
            r#"{"Version": 1, "AccessKeyId": "CANARY"}"#.into(),
            with(r#""SessionToken": {"a": "CANARY"}"#),
            with(r#""SessionToken": "CANARY CANARY""#),
            with(r#""Expiration": "CANARY""#),
            with(r#""Expiration": 5"#),
        ] {
            let error = parse(output.as_bytes(), "p").expect_err(&output);
            assert!(!error.to_string().contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn what_a_process_complains_is_shown_without_keys() {
        let complaint =
            b"+ echo SecretAccessKey=CANARY\nvault: \x1b[31mnot logged in\n{\"a\": \"CANARY\"}\n\n";
        assert_eq!(summary(complaint), ": vault: [31mnot logged in");
        assert_eq!(summary(b"token CANARY is invalid"), "");
    }

    #[tokio::test]
    async fn each_way_to_fail_is_told_apart() {
        let failed = async |command: &str| credentials(command, "p").await.unwrap_err().to_string();
        assert!(failed("echo no >&2; exit 3").await.contains("exit status: 3: no"));
        assert!(failed("kill -9 $$").await.contains("signal: 9"));
        assert!(failed("head -c 100000 /dev/zero").await.contains("more than"));
        assert!(failed("head -c 1000000 /dev/zero >&2; exit 1").await.contains("exit status: 1"));
        let good = r#"echo '{"Version":1,"AccessKeyId":"A","SecretAccessKey":"s"}'; (sleep 60 >/dev/null &)"#;
        assert_eq!(credentials(good, "p").await.unwrap().access_key_id(), "A");
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_ended_with_all_that_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let command = format!("sleep 1000 & echo $! > '{0}.new'; mv '{0}.new' '{0}'; wait", file.display());
        let run = tokio::spawn(async move { credentials(&command, "p").await.map(drop) });
        let pid = loop {
            match std::fs::read_to_string(&file) {
                Ok(text) => break text.trim().to_owned(),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        run.abort();
        let _ = run.await;
        // A zombie whose parent has not waited for it yet is one that has ended.
        let is_running = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        while is_running() {
            tokio::task::yield_now().await;
        }
    }
}
