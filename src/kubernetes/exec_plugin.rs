//! Exec plugins of a kubeconfig: programs that issue credentials (client.authentication.k8s.io).
//!
//! A plugin has [`TIME_LIMIT`], after which it and what it started are killed
//! (`a_plugin_that_hangs_is_killed`). Nothing that it writes is shown, since it may hold a token
//! (`a_plugin_that_fails_shows_nothing_that_it_wrote`). It is never interactive.

use std::{
    collections::HashMap,
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime},
};

use kube::config::{ExecAuthCluster, ExecConfig, ExecInteractiveMode};
use serde::Deserialize;
use serde_json::json;
use tokio::{io::AsyncReadExt, process::Command, time::timeout};
use zeroize::Zeroizing;

use super::ConnectError;
use crate::{failure::foreign_text::clean, fs::read::as_text, process_group::ProcessGroup};

/// How long a plugin may take: it may start an interpreter, and ask a cloud.
const TIME_LIMIT: Duration = Duration::from_secs(30);
const OUTPUT_LIMIT: u64 = 1 << 20;

pub(super) struct Issued {
    pub(super) token: Option<Zeroizing<String>>,
    /// A client certificate and its key, in PEM.
    pub(super) certificate: Option<(Zeroizing<String>, Zeroizing<String>)>,
    pub(super) expires_at: Option<SystemTime>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential {
    api_version: Option<String>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<String>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

pub(super) async fn run(
    plugin: &ExecConfig,
    cluster: Option<&ExecAuthCluster>,
) -> Result<Issued, ConnectError> {
    run_within(TIME_LIMIT, plugin, cluster).await
}

async fn run_within(
    limit: Duration,
    plugin: &ExecConfig,
    cluster: Option<&ExecAuthCluster>,
) -> Result<Issued, ConnectError> {
    let path = plugin.command.as_deref().filter(|command| !command.is_empty());
    let path = path.ok_or(ConnectError::key("exec", "names no command"))?;
    if plugin.interactive_mode == Some(ExecInteractiveMode::Always) {
        return Err(ConnectError::key(
            "exec.interactiveMode",
            "Always is not supported: there is no terminal",
        ));
    }
    let failed = |reason: String| {
        let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
        ConnectError::Plugin { name: clean(&name), reason }
    };
    let output = match timeout(limit, output(path, plugin, cluster)).await {
        Ok(output) => output.map_err(failed)?,
        Err(_) => return Err(failed(format!("it did not end within {} s", limit.as_secs()))),
    };
    parse(&output, plugin.api_version.as_deref()).map_err(|reason| failed(reason.into()))
}

async fn output(
    path: &str,
    plugin: &ExecConfig,
    cluster: Option<&ExecAuthCluster>,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let request = json!({
        "apiVersion": plugin.api_version, "kind": "ExecCredential",
        "spec": {"interactive": false, "cluster": cluster},
    });
    let variable =
        |pair: &HashMap<String, String>| Some((pair.get("name")?.clone(), pair.get("value")?.clone()));
    let mut command = Command::new(path);
    command
        .args(plugin.args.iter().flatten())
        .envs(plugin.env.iter().flatten().filter_map(variable))
        .env("KUBERNETES_EXEC_INFO", request.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut group =
        ProcessGroup::spawn(&mut command).map_err(|error| format!("it does not start: {error}"))?;
    let mut output = Zeroizing::new(Vec::with_capacity(64 << 10));
    if let (Some(stdout), _) = group.take_output() {
        let read = stdout.take(OUTPUT_LIMIT + 1).read_to_end(&mut output).await;
        read.map_err(|error| format!("its output cannot be read: {error}"))?;
    }
    if output.len() as u64 > OUTPUT_LIMIT {
        return Err(format!("it writes more than {OUTPUT_LIMIT} bytes"));
    }
    let status = group.wait().await.map_err(|error| format!("its end is not known: {error}"))?;
    if status.success() {
        Ok(output)
    } else {
        Err(format!("{status}; what it wrote is not shown, since it may hold a token: run it by hand"))
    }
}

/// The credentials in what a plugin wrote: JSON, or YAML as some write it.
fn parse(output: &[u8], version: Option<&str>) -> Result<Issued, &'static str> {
    const GARBLED: &str = "it writes something else than an ExecCredential";
    let text = as_text(output).map_err(|_| GARBLED)?;
    // Without the parser's text, which may quote a token.
    let ExecCredential { api_version, status } = serde_saphyr::from_str(&text).map_err(|_| GARBLED)?;
    if version.is_some() && api_version.as_deref() != version {
        return Err("its apiVersion is not the one that the kubeconfig names");
    }
    let status = status.ok_or("its ExecCredential has no status")?;
    let expires_at = match status.expiration_timestamp.map(|text| text.parse::<jiff::Timestamp>()) {
        None => None,
        Some(Ok(expiry)) => Some(expiry.into()),
        Some(Err(_)) => return Err("its expirationTimestamp is not a time"),
    };
    let secret = |text: Option<String>| text.filter(|text| !text.is_empty()).map(Zeroizing::new);
    let token = secret(status.token);
    if token.as_ref().is_some_and(|token| token.chars().any(|c| !c.is_ascii_graphic())) {
        return Err("its token holds white space or control characters");
    }
    let certificate = secret(status.client_certificate_data).zip(secret(status.client_key_data));
    if token.is_none() && certificate.is_none() {
        return Err("its ExecCredential has neither a token nor a client certificate with its key");
    }
    Ok(Issued { token, certificate, expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "c4n4ry-t0ken";

    fn shell(script: &str) -> ExecConfig {
        ExecConfig {
            api_version: Some("client.authentication.k8s.io/v1".into()),
            command: Some("/bin/sh".into()),
            args: Some(vec!["-c".into(), script.into()]),
            ..ExecConfig::default()
        }
    }

    fn credential(status: &str) -> String {
        format!(
            r#"{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{status}}}"#
        )
    }

    #[tokio::test]
    async fn a_plugin_issues_a_token_or_a_certificate() {
        let json = credential(r#"{"token":"t","expirationTimestamp":"2026-01-01T00:00:00Z"}"#);
        let issued = run(&shell(&format!("printf '%s' '{json}'")), None).await.ok().unwrap();
        assert_eq!(issued.token.unwrap().as_str(), "t");
        assert!(issued.expires_at.is_some());
        let yaml = "apiVersion: client.authentication.k8s.io/v1\nstatus: {token: t}\n";
        assert!(parse(yaml.as_bytes(), Some("client.authentication.k8s.io/v1")).is_ok());
        let pair = credential(r#"{"clientCertificateData":"c","clientKeyData":"k"}"#);
        assert!(parse(pair.as_bytes(), None).ok().unwrap().certificate.is_some());
        // It is asked as the protocol has it, without a terminal.
        let script = r#"case "$KUBERNETES_EXEC_INFO" in *'"interactive":false'*) ;; *) exit 3;; esac; read -r _ && exit 4; printf '%s' '"#;
        let asked = run(&shell(&format!("{script}{json}'")), None).await;
        assert!(asked.is_ok(), "{:?}", asked.err());
    }

    #[tokio::test]
    async fn a_plugin_that_fails_shows_nothing_that_it_wrote() {
        for script in [
            format!("echo {CANARY} >&2; echo {CANARY}; exit 1"),
            format!("echo '{{\"status\": {CANARY}'"),
            format!("printf '%s' '{}'", credential(&format!(r#"{{"token":"{CANARY}\nx"}}"#))),
            format!("printf '%s' '{}'", credential(&format!(r#"{{"clientKeyData":"{CANARY}"}}"#))),
            format!("echo '{{\"apiVersion\":\"{CANARY}\",\"status\":{{\"token\":\"t\"}}}}'"),
            format!("echo {CANARY}; exec tr '\\0' x < /dev/zero"),
        ] {
            let error = run(&shell(&script), None).await.err().unwrap().to_string();
            assert!(error.contains("plugin sh") && !error.contains(CANARY), "{error}");
        }
        let missing = ExecConfig { command: Some("/nowhere/aws".into()), ..ExecConfig::default() };
        let error = run(&missing, None).await.err().unwrap().to_string();
        assert!(error.contains("plugin aws") && error.contains("does not start"), "{error}");
        let asks = ExecConfig { interactive_mode: Some(ExecInteractiveMode::Always), ..shell("") };
        assert!(run(&asks, None).await.err().unwrap().to_string().contains("exec.interactiveMode"));
    }

    /// Also what it has started, and which holds its output open.
    #[tokio::test]
    async fn a_plugin_that_hangs_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > '{}'; wait", file.display());
        let error = run_within(Duration::from_secs(2), &shell(&script), None).await.err().unwrap();
        assert!(error.to_string().contains("did not end within 2 s"), "{error}");
        let pid = std::fs::read_to_string(&file).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let is_gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z"));
        test_support::wait_for("the grandchild to end", Duration::from_secs(20), || is_gone().then_some(()));
    }
}
